/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/service.h"
#include "proto/clock.h"

#include "rpc/connections.h"
#include "rpc/nng_error.h"
#include "rpc/running.h"

/* A twentieth, but enough for a slow link and not more than anybody notices. */
enum { MARGIN_PART = 20, MARGIN_LEAST_MS = 20, MARGIN_MOST_MS = 500 };

int64_t rpc_call_budget_ms(const struct rpc_call *call, int64_t most_ms)
{
	if (call->deadline_ms == 0)
		return most_ms;
	int64_t left = call->deadline_ms - clock_monotonic_ms();
	int64_t margin_ms = left / MARGIN_PART;
	if (margin_ms < MARGIN_LEAST_MS)
		margin_ms = MARGIN_LEAST_MS;
	if (margin_ms > MARGIN_MOST_MS)
		margin_ms = MARGIN_MOST_MS;
	left = left > margin_ms ? left - margin_ms : 0;
	return left < most_ms ? left : most_ms;
}

status *rpc_call_add_trailing(const struct rpc_call *call, const char *key, const char *value)
{
	if (call->trailing == NULL)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "a stream's trailing metadata goes by stream_add_trailing");
	return metadata_add(call->trailing, key, value);
}

status *rpc_call_forward(const struct rpc_call *call, struct rpc_client *client,
			 const struct rpc_request *request, ProtobufCMessage **ret_response)
{
	struct rpc_request onward = *request;
	onward.timeout_ms = rpc_call_budget_ms(call, request->timeout_ms);
	if (call->running == NULL)
		return rpc_client_request(client, &onward, ret_response, NULL);
	onward.cancel = &call->running->cancel;
	running_set_onward(call->running, client);
	status *st = rpc_client_request(client, &onward, ret_response, NULL);
	running_set_onward(call->running, NULL);
	return st;
}

bool rpc_call_is_cancelled(const struct rpc_call *call)
{
	if (call->running != NULL && atomic_load(&call->running->cancel.is_set))
		return true;
	return call->connections != NULL &&
	       !connections_has(call->connections, call->connection_id);
}
