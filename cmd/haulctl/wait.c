/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl wait: waits for a migration's end. */
#include <time.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/envelope.h"

enum {
	POLL_MS = 5000,	      /* an engine is asked again after this */
	POLL_CALL_MS = 20000, /* so long may one question take */
	SHORT_MS = 200, /* an answer that comes sooner was not waited for: many wait already */
	PAUSE_MS = 500,
};

static status *wait_once(struct ctl *ctl, char *id, int64_t left_ms, ProtobufCMessage **ret_view)
{
	Haul__V1__WaitRequest request = HAUL__V1__WAIT_REQUEST__INIT;
	int64_t begun_ms = ctl_now_ms();

	request.id = id;
	request.timeout_ms = (uint32_t)(left_ms < POLL_MS ? left_ms : POLL_MS);
	if (ctl->timeout_ms < POLL_CALL_MS)
		ctl->timeout_ms = POLL_CALL_MS;
	status *st =
	    ctl_call(ctl, &haul__v1__migrations__descriptor, "Wait", &request.base, ret_view);
	if (st == NULL && !state_is_over(((Haul__V1__Migration *)*ret_view)->state) &&
	    ctl_now_ms() - begun_ms < SHORT_MS)
		(void)nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
	return st;
}

static void report(const struct ctl *ctl, const Haul__V1__Migration *migration)
{
	if (ctl->is_json) {
		json_print(stdout, json_of_migration(migration, true), false);
		return;
	}
	print_report(stdout, migration);
	(void)fflush(stdout);
	scoped(status) status *error = status_from_wire(migration->error);
	if (error != NULL)
		print_status(error, false);
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	scoped(str) char *id = NULL;
	int64_t until_ms = ctl->wait_ms > 0 ? ctl_now_ms() + ctl->wait_ms : INT64_MAX;
	status *st = ctl_id(ctl, &id);

	while (st == NULL) {
		scoped(message) ProtobufCMessage *view = NULL;
		int64_t left_ms = until_ms - ctl_now_ms();
		st = wait_once(ctl, id, left_ms > 1 ? left_ms : 1, &view);
		if (st != NULL)
			return st;
		const Haul__V1__Migration *migration = (const Haul__V1__Migration *)view;
		if (state_is_over(migration->state)) {
			report(ctl, migration);
			*ret_exit = migration_exit(migration);
			return NULL;
		}
		if (ctl_now_ms() >= until_ms)
			st = status_detailf(status_errorf(STATUS_DEADLINE_EXCEEDED,
							  "migration %s is %s still, in stage %s",
							  id, state_name(migration->state),
							  migration->stage),
					    "state", "it goes on by itself");
	}
	return st;
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
