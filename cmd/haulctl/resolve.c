/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl resolve: an operator's word on a migration in doubt. */
#include <string.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"
#include "proto/reason.h"

static const char resume_risk[] = "--resume lets the tree on this node run. If the destination "
				  "committed the migration, a second copy "
				  "already runs there: both would write the same files and answer "
				  "the same clients. Make sure first "
				  "that no copy runs at the destination and that none can start "
				  "(haulctl list there, or the machine is off "
				  "for good).";
static const char kill_risk[] = "--kill ends the tree on this node for good. If the destination "
				"never committed the migration, this "
				"is the only copy, and its memory is lost. Make sure first that "
				"the workload runs at the destination "
				"(haulctl list there shows it as COMPLETED).";

static status *ask_the_user(const char *risk)
{
	char answer[16] = "";

	(void)fprintf(stderr, "%s\n\nType yes to accept this risk: ", risk);
	if (fgets(answer, sizeof(answer), stdin) != NULL && strcmp(answer, "yes\n") == 0)
		return NULL;
	return status_errorf(STATUS_CANCELLED, "nothing was done");
}

static status *accept_risk(const struct ctl *ctl)
{
	const char *risk = ctl->resume ? resume_risk : kill_risk;

	if (ctl->accept_risk)
		return NULL;
	if (!ctl->is_json && isatty(STDIN_FILENO) == 1)
		return ask_the_user(risk);
	return status_because(status_detailf(status_errorf(STATUS_FAILED_PRECONDITION, "%s", risk),
					     "next", "add --accept-risk when that is made sure"),
			      REASON_RISK_NOT_ACCEPTED);
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	Haul__V1__ResolveRequest request = HAUL__V1__RESOLVE_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(str) char *reason = text_copy(ctl->reason);
	scoped(str) char *id = NULL;
	status *st = ctl_id(ctl, &id);

	(void)ret_exit;
	if (st == NULL && ctl->resume == ctl->kill)
		st =
		    status_errorf(STATUS_INVALID_ARGUMENT,
				  "say either --resume (let the tree here run) or --kill (end it)");
	if (st == NULL)
		st = accept_risk(ctl);
	if (st != NULL)
		return st;
	request.id = id;
	request.act = ctl->resume ? HAUL__V1__RESOLVE_REQUEST__ACT__RESUME
				  : HAUL__V1__RESOLVE_REQUEST__ACT__KILL;
	request.accept_risk = true;
	request.reason = reason;
	st = ctl_call(ctl, &haul__v1__migrations__descriptor, "Resolve", &request.base, &response);
	if (st != NULL)
		return st;
	const Haul__V1__Migration *migration = (const Haul__V1__Migration *)response;
	if (ctl->is_json)
		json_print(stdout, json_of_migration(migration, true), false);
	else
		print_report(stdout, migration);
	return NULL;
}

static const struct flag flags[] = {
    {"--resume", NULL, FLAG_SWITCH, CTL_FLAG(resume), "let the tree on this node run"},
    {"--kill", NULL, FLAG_SWITCH, CTL_FLAG(kill), "end the tree on this node for good"},
    {"--accept-risk", NULL, FLAG_SWITCH, CTL_FLAG(accept_risk),
     "do it without asking: you made sure that exactly one copy will be left"},
    {"--reason", "TEXT", FLAG_TEXT, CTL_FLAG(reason), "why; kept in the journal"},
};

const struct command command_resolve = {
    .name = "resolve",
    .arguments = "ID --resume|--kill --accept-risk",
    .summary = "decide a migration in doubt by hand",
    .text = "A migration is in doubt when its commit has left and the destination does not answer: "
	    "the tree\n"
	    "stays frozen here, because only the destination knows whether it runs there. hauld "
	    "goes on\n"
	    "asking, and mostly the doubt ends by itself. When the destination is gone for good, "
	    "you must\n"
	    "find out what became of it, and decide:\n\n"
	    "  --resume  if it never committed. Wrong: two copies run.\n"
	    "  --kill    if it committed. Wrong: no copy is left.\n\n"
	    "example: the destination's disk burnt before the workload answered anyone from there\n"
	    "  haulctl resolve 7f3a2c --resume --accept-risk --reason 'b burnt, ticket 17'\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .word_count = 1,
    .run = run,
};
