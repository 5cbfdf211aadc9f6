/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl delete: takes a finished migration out of the list. */
#include "cmd/haulctl/ctl.h"
#include "proto/pack.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	scoped(str) char *id = NULL;
	status *st = ctl_id_and_connect(ctl, &id);

	(void)ret_exit;
	if (st == NULL)
		st = ctl_failed(ctl, haul_delete(ctl->client, id));
	if (st == NULL)
		(void)printf(ctl->is_json ? "{}\n" : "deleted\n");
	return st;
}

const struct command command_delete = {
    .name = "delete",
    .arguments = "ID",
    .summary = "take a finished migration out of the list",
    .text = "Forgets the report of a migration that is over. The workload is not touched, and what "
	    "was decided\n"
	    "stays in the journal. One that is not over is an error (73).\n\n"
	    "example: forget what was cancelled\n"
	    "  haulctl list --state CANCELLED --json | jq -r '.migrations[].id' |\n"
	    "      xargs -n1 haulctl delete\n",
    .word_count = 1,
    .run = run,
};
