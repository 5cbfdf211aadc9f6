/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl adjust: changes limits of a migration that runs. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"
#include "cmd/shared/rate.h"
#include "proto/pack.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	Haul__V1__AdjustRequest request = HAUL__V1__ADJUST_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(str) char *id = NULL;
	status *st = ctl_id(ctl, &id);

	(void)ret_exit;
	if (st != NULL)
		return st;
	if (ctl->bandwidth == NULL && ctl->max_downtime_ms == 0)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "adjust what? --bandwidth or --max-downtime");
	if (ctl->bandwidth != NULL) {
		st = rate_parse(ctl->bandwidth, &request.bandwidth_bytes_per_s);
		if (st != NULL)
			return status_wrapf(st, "--bandwidth");
		request.no_bandwidth_limit = request.bandwidth_bytes_per_s == 0;
	}
	request.id = id;
	request.max_downtime_ms = (uint32_t)ctl->max_downtime_ms;
	st = ctl_call(ctl, &haul__v1__migrations__descriptor, "Adjust", &request.base, &response);
	if (st != NULL)
		return st;
	if (ctl->is_json)
		json_print(stdout, json_of_migration((const Haul__V1__Migration *)response, true),
			   false);
	else
		(void)printf("migration %s: adjusted\n", id);
	return NULL;
}

static const struct flag flags[] = {
    {"--bandwidth", "R", FLAG_TEXT, CTL_FLAG(bandwidth),
     "memory that is copied ahead takes at most this a second: 800mbit, 50MiB, or none"},
    {"--max-downtime", "D", FLAG_DURATION, CTL_FLAG(max_downtime_ms),
     "go on copying ahead until the predicted downtime is below this"},
};

const struct command command_adjust = {
    .name = "adjust",
    .arguments = "ID",
    .summary = "change limits of a running migration",
    .text = "Changes limits of a migration that runs, at its source. What is not given stays. They "
	    "matter while\n"
	    "memory is copied ahead; the frozen workload's is sent as fast as it can be.\n\n"
	    "example: let it take the whole link now\n"
	    "  haulctl adjust 7f3a2c --bandwidth none\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .word_count = 1,
    .run = run,
};
