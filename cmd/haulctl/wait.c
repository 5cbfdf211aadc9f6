/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl wait: waits for a migration's end. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

static void report(const struct ctl *ctl, const Haul__V1__Migration *migration)
{
	if (ctl->is_json) {
		json_print(stdout, json_of_migration(migration, true), false);
		return;
	}
	print_report(stdout, migration);
	print_migration_error(migration);
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	struct haul_migration *view = NULL;
	Haul__V1__Migration *migration = NULL;
	scoped(str) char *id = NULL;
	status *st = ctl_id_and_connect(ctl, &id);

	if (st == NULL)
		st = ctl_failed(ctl, haul_wait(ctl->client, id, ctl->wait_ms, &view));
	if (st == NULL)
		st = ctl_migration(view, &migration);
	if (st != NULL)
		return st;
	scoped(message) ProtobufCMessage *owner = &migration->base;
	report(ctl, migration);
	*ret_exit = migration_exit(migration);
	return NULL;
}

static const struct flag flags[] = {
    {"--timeout", "D", FLAG_DURATION, CTL_FLAG(wait_ms),
     "give up waiting after this time (default: never)"},
};

const struct command command_wait = {
    .name = "wait",
    .arguments = "ID",
    .summary = "wait until a migration is over",
    .text = "Waits for a migration's end, without showing how it goes (that is haulctl watch), and "
	    "reports it.\n"
	    "The exit status is 0 when it completed and 64 plus the status code otherwise; 68 "
	    "when --timeout\n"
	    "passed.\n\n"
	    "example: start, do something else, then wait\n"
	    "  id=$(haulctl migrate pid:4711 --to tls+tcp://b:7777 --detach)\n"
	    "  haulctl wait $id --timeout 5m\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .word_count = 1,
    .run = run,
};
