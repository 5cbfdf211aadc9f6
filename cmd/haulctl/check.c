/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl check: could it be migrated? */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	Haul__V1__CheckRequest request = HAUL__V1__CHECK_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(str) char *workload = text_copy(ctl->words.words[0]);
	scoped(str) char *to = text_copy(ctl->to);

	request.workload = workload;
	request.to = to;
	status *st = ctl_call(ctl, &haul__v1__node__descriptor, "Check", &request.base, &response);
	if (st != NULL)
		return st;
	const Haul__V1__CheckResponse *check = (const Haul__V1__CheckResponse *)response;
	if (ctl->is_json)
		json_print(stdout, json_of_check(check), false);
	else
		print_check(stdout, check);
	*ret_exit = check->migratable ? 0 : EXIT_BASE + STATUS_FAILED_PRECONDITION;
	return NULL;
}

static const struct flag flags[] = {
    {"--to", "URL", FLAG_TEXT, CTL_FLAG(to),
     "check this destination too: tls+tcp://HOST:PORT (default: this side only)"},
};

const struct command command_check = {
    .name = "check",
    .arguments = "pid:N [--to URL]",
    .summary = "tell whether a process tree could be migrated",
    .text = "Looks at everything that can be checked before a migration, without touching the "
	    "workload. The\n"
	    "exit status is 0 when it can be migrated and 73 when it cannot.\n\n"
	    "example:\n"
	    "  haulctl check pid:4711 --to tls+tcp://b.example.org:7777\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .word_count = 1,
    .run = run,
};
