/* SPDX-License-Identifier: Apache-2.0 */
/* Answers as JSON, for programs. */
#ifndef HAUL_CMD_HAULCTL_RENDER_JSON_H
#define HAUL_CMD_HAULCTL_RENDER_JSON_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>

#include "haul/v1/migrations.pb-c.h"
#include "haul/v1/node.pb-c.h"
#include "proto/status.h"

/* {code, message, details: [{label, text}]}, or null for OK. */
cJSON *json_of_status(const status *st);

/* What `haulctl migrate --json` promises. With `is_full`, also what list and show add. */
cJSON *json_of_migration(const Haul__V1__Migration *migration, bool is_full);

cJSON *json_of_list(const Haul__V1__ListResponse *list);
cJSON *json_of_check(const Haul__V1__CheckResponse *check);
cJSON *json_of_node(const Haul__V1__NodeInfo *node);

/* Writes it on one line (or, for people who look, on several), and frees it. */
void json_print(FILE *out, cJSON *json, bool is_one_line);

#endif
