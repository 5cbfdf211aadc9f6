/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl cancel: rolls a migration back. */
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
		st = ctl_failed(ctl, haul_cancel(ctl->client, id, &view));
	if (st == NULL)
		st = ctl_migration(view, &migration);
	if (st != NULL)
		return st;
	scoped(message) ProtobufCMessage *owner = &migration->base;
	if (ctl->is_json)
		json_print(stdout, json_of_migration(migration, true), false);
	else
		(void)printf("migration %s: %s\n", id,
			     migration->state == HAUL__V1__MIGRATION_STATE__RUNNING
				 ? "is being rolled back"
				 : state_name(migration->state));
	return NULL;
}

const struct command command_cancel = {
    .name = "cancel",
    .arguments = "ID",
    .summary = "roll a running migration back",
    .text = "Asks the source's engine to roll a migration back: the workload goes on where it was. "
	    "Once the\n"
	    "commit has left for the destination it is too late, which is an error (73).\n\n"
	    "example:\n"
	    "  haulctl cancel 7f3a2c\n",
    .word_count = 1,
    .run = run,
};
