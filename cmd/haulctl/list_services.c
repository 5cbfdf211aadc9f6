/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl list-services: what an engine serves. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "haul/v1/reflection.pb-c.h"
#include "proto/pack.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	Haul__V1__ListServicesRequest request = HAUL__V1__LIST_SERVICES_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	status *st = ctl_call(ctl, &haul__v1__reflection__descriptor, "ListServices", &request.base,
			      &response);

	(void)ret_exit;
	if (st != NULL)
		return st;
	const Haul__V1__ListServiceResponse *list = (const Haul__V1__ListServiceResponse *)response;
	cJSON *json = cJSON_CreateObject();
	cJSON *services = cJSON_AddArrayToObject(json, "services");
	for (size_t i = 0; i < list->n_service; i++) {
		const char *name = list->service[i]->name;
		(void)cJSON_AddItemToArray(services, cJSON_CreateString(name));
		if (!ctl->is_json) {
			print_clean(stdout, name);
			(void)putchar('\n');
		}
	}
	if (ctl->is_json)
		json_print(stdout, json, false);
	else
		cJSON_Delete(json);
	return NULL;
}

const struct command command_list_services = {
    .name = "list-services",
    .arguments = "",
    .summary = "list the services of an engine",
    .text = "Lists what the engine serves, one full name a line. haulctl describe tells what is in "
	    "each.\n\n"
	    "example:\n"
	    "  haulctl list-services\n",
    .run = run,
};
