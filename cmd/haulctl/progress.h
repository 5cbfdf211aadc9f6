/* SPDX-License-Identifier: Apache-2.0 */
/* A migration under way: one rewritten line on a terminal, a line for each step otherwise. */
#ifndef HAUL_CMD_HAULCTL_PROGRESS_H
#define HAUL_CMD_HAULCTL_PROGRESS_H

#include <stdbool.h>
#include <stdio.h>

#include "haul/v1/migrations.pb-c.h"
#include "proto/limits.h"

struct progress {
	FILE *out;
	bool is_terminal;
	bool is_line_open; /* the rewritten line is on the screen */
	char stage[LIMIT_NAME + 1];
	size_t rounds;
	Haul__V1__MigrationState state;
};

void progress_start(struct progress *progress, FILE *out);
void progress_show(struct progress *progress, const Haul__V1__Migration *migration);

/* Takes the rewritten line away, before anything else is printed. */
void progress_clear(struct progress *progress);

#endif
