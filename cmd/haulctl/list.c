/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl list: the migrations that an engine knows of. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	(void)ret_exit;
	if (ctl->all && ctl->active)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--all and --active exclude each other");
	request.active_only = ctl->active;
	status *st =
	    ctl_call(ctl, &haul__v1__migrations__descriptor, "List", &request.base, &response);
	if (st != NULL)
		return st;
	if (ctl->is_json)
		json_print(stdout, json_of_list((const Haul__V1__ListResponse *)response), false);
	else
		print_list(stdout, (const Haul__V1__ListResponse *)response);
	return NULL;
}

static const struct flag flags[] = {
    {"--all", NULL, FLAG_SWITCH, CTL_FLAG(all), "also those that are over (the default)"},
    {"--active", NULL, FLAG_SWITCH, CTL_FLAG(active), "only those that run or are in doubt"},
};

const struct command command_list = {
    .name = "list",
    .arguments = "[--all|--active]",
    .summary = "list migrations, newest first",
    .text =
	"Lists the migrations from and to this node that its engine remembers, newest first. SINCE "
	"is\n"
	"when it began; DOUBT says why a migration is in doubt.\n\n"
	"example: what is in doubt?\n"
	"  haulctl list --active --json | jq '.migrations[] | select(.state == \"IN_DOUBT\")'\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .run = run,
};
