/* SPDX-License-Identifier: Apache-2.0 */
/* Answers as text, for people. What came from elsewhere is printed without its control characters.
 */
#ifndef HAUL_CMD_HAULCTL_RENDER_H
#define HAUL_CMD_HAULCTL_RENDER_H

#include <stdbool.h>
#include <stdio.h>

#include "haul/v1/migrations.pb-c.h"
#include "haul/v1/node.pb-c.h"
#include "proto/status.h"

enum { RENDER_NUMBER = 32 };

/* "COMPLETED"; "STATE_9" for one that this haulctl does not know. Valid until the next unknown one
 * of this thread. */
const char *state_name(Haul__V1__MigrationState state);
bool state_is_over(Haul__V1__MigrationState state); /* not RUNNING, not IN_DOUBT */

/* What the shell is told of a migration: 0 when it completed or still runs, 64 + code otherwise. */
int migration_exit(const Haul__V1__Migration *migration);

void format_bytes(char text[RENDER_NUMBER], double bytes);     /* "48.2 MiB" */
void format_duration(char text[RENDER_NUMBER], double ms);     /* "41.3 ms", "1.20 s" */
void format_moment(char text[RENDER_NUMBER], int64_t unix_ms); /* local time; "-" for 0 */

void print_clean(FILE *out, const char *text);

/* "haulctl: CODE: message" and its details, on stderr; with is_json {"error": …} on stdout too */
void print_status(const status *st, bool is_json);

void print_report(FILE *out, const Haul__V1__Migration *migration);

/* After the report, on stderr: its error, if it has one. Why it is in doubt is in the report. */
void print_migration_error(const Haul__V1__Migration *migration);

void print_list(FILE *out, const Haul__V1__ListResponse *list);
void print_check(FILE *out, const Haul__V1__CheckResponse *check);
void print_node(FILE *out, const Haul__V1__NodeInfo *node);

#endif
