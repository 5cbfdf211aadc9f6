/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl node: what an engine says of itself. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

static status *run(struct ctl *ctl, int *ret_exit)
{
	struct haul_node *view = NULL;
	scoped(message) ProtobufCMessage *response = NULL;
	status *st = ctl_connect(ctl);

	(void)ret_exit;
	if (st == NULL)
		st = ctl_failed(ctl, haul_node_info(ctl->client, &view));
	if (st == NULL)
		st = unpack_message(&haul__v1__node_info__descriptor, view->wire, view->wire_bytes,
				    LIMIT_UNARY_BYTES, &response);
	haul_node_free(view);
	if (st != NULL)
		return st;
	if (ctl->is_json)
		json_print(stdout, json_of_node((const Haul__V1__NodeInfo *)response), false);
	else
		print_node(stdout, (const Haul__V1__NodeInfo *)response);
	return NULL;
}

const struct command command_node = {
    .name = "node",
    .arguments = "",
    .summary = "show a node: versions, CRIU, dirty tracking, certificate",
    .text = "Shows what the engine says of itself and its machine.\n\n"
	    "example: a node elsewhere\n"
	    "  haulctl node --server tls+tcp://b:7777 --ca ca.pem --cert me.pem --key me.key\n",
    .run = run,
};
