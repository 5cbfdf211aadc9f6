/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl health: grpc.health.v1.Health/Check, its answer as exit status: for supervisors. */
#include <string.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"
#include "grpc/health/v1/health.pb-c.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving;

enum { IS_SERVING = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING };

static const char *name_of(serving state)
{
	const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value(
	    &grpc__health__v1__health_check_response__serving_status__descriptor, (int)state);

	return value != NULL ? value->name : "UNKNOWN";
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(str) char *service = text_copy(ctl->service != NULL ? ctl->service : "");

	request.service = service;
	status *st =
	    ctl_call(ctl, &grpc__health__v1__health__descriptor, "Check", &request.base, &response);
	if (st != NULL)
		return st;
	serving state = ((Grpc__Health__V1__HealthCheckResponse *)response)->status;
	if (ctl->is_json) {
		cJSON *json = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(json, "service", service);
		(void)cJSON_AddStringToObject(json, "status", name_of(state));
		json_print(stdout, json, false);
	} else {
		(void)printf("%s\n", name_of(state));
	}
	*ret_exit = (int)state == IS_SERVING ? 0 : 1;
	return NULL;
}

static const struct flag flags[] = {
    {"--service", "NAME", FLAG_TEXT, CTL_FLAG(service),
     "of one service, like haul.v1.Peer (default: of the engine as a whole)"},
};

const struct command command_health = {
    .name = "health",
    .arguments = "",
    .summary = "tell whether the engine serves, by the exit status",
    .text = "Asks grpc.health.v1.Health/Check. The exit status is 0 for SERVING, 1 for any other "
	    "answer, and\n"
	    "that of the failed call when there was none.\n\n"
	    "example:\n"
	    "  haulctl --timeout 2s health --service haul.v1.Migrations\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .run = run,
};
