/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl show: all about one migration. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	struct haul_migration *view = NULL;
	Haul__V1__Migration *migration = NULL;
	scoped(str) char *id = NULL;
	status *st = ctl_id_and_connect(ctl, &id);

	(void)ret_exit;
	if (st == NULL)
		st = ctl_failed(ctl, haul_get(ctl->client, id, &view));
	if (st == NULL)
		st = ctl_migration(view, &migration);
	if (st != NULL)
		return st;
	scoped(message) ProtobufCMessage *owner = &migration->base;
	if (ctl->is_json) {
		json_print(stdout, json_of_migration(migration, true), false);
		return NULL;
	}
	print_report(stdout, migration);
	print_migration_error(migration);
	return NULL;
}

const struct command command_show = {
    .name = "show",
    .arguments = "ID",
    .summary = "show one migration: state, times, rounds, error",
    .text = "Shows all that the engine knows of one migration. The exit status is 0 when it could "
	    "be shown,\n"
	    "whatever became of it.\n\n"
	    "example:\n"
	    "  haulctl show 7f3a2c --json | jq .downtimeMs\n",
    .word_count = 1,
    .run = run,
};
