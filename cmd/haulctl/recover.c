/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl recover: asks the destination at once. */
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
		st = ctl_failed(ctl, haul_recover(ctl->client, id, &view));
	if (st == NULL)
		st = ctl_migration(view, &migration);
	if (st != NULL)
		return st;
	scoped(message) ProtobufCMessage *owner = &migration->base;
	if (ctl->is_json)
		json_print(stdout, json_of_migration(migration, true), false);
	else
		(void)printf("migration %s: %s, asks its destination\n", id,
			     state_name(migration->state));
	return NULL;
}

const struct command command_recover = {
    .name = "recover",
    .arguments = "ID",
    .summary = "ask the destination at once, after a lost link",
    .text = "A migration whose commit has left and whose destination is not reached, or that lacks "
	    "memory that\n"
	    "is still here (--mode post-copy, hybrid), goes on by itself when the link is back: it "
	    "tries every\n"
	    "few seconds. This makes it try now. At the source's engine.\n\n"
	    "example:\n"
	    "  haulctl recover 7f3a2c\n",
    .word_count = 1,
    .run = run,
};
