/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl version: of this program, without asking any engine. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	(void)ret_exit;
	if (!ctl->is_json) {
		(void)printf("haulctl %s (nng %s, OpenSSL %s)\n", HAUL_VERSION, rpc_nng_version(),
			     rpc_openssl_version());
		return NULL;
	}
	cJSON *json = cJSON_CreateObject();
	(void)cJSON_AddStringToObject(json, "version", HAUL_VERSION);
	(void)cJSON_AddStringToObject(json, "nng", rpc_nng_version());
	(void)cJSON_AddStringToObject(json, "openssl", rpc_openssl_version());
	json_print(stdout, json, false);
	return NULL;
}

const struct command command_version = {
    .name = "version",
    .arguments = "",
    .summary = "show the version of haulctl and its libraries",
    .text = "Shows the version of this program. An engine's version: haulctl node.\n\n"
	    "example:\n"
	    "  haulctl version --json\n",
    .run = run,
};
