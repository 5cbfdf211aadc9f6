/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "proto/clock.h"
#include "proto/pack.h"
#include "rpc/client.h"
#include "rpc/nng_error.h"
#include "rpc/stream.h"

static status *dial(const ProtobufCMessage *response, const char *method, int64_t timeout_ms,
		    struct pipe **ret_pipe)
{
	const Haul__V1__PipeAddress *address = NULL;
	const ProtobufCFieldDescriptor *field =
	    protobuf_c_message_descriptor_get_field_by_name(response->descriptor, "pipe");
	if (field != NULL && field->descriptor == &haul__v1__pipe_address__descriptor)
		memcpy(&address, (const uint8_t *)response + field->offset, sizeof(address));
	if (address == NULL)
		return status_errorf(STATUS_INTERNAL, "the answer to %s opens no stream", method);
	return pipe_dial(address, timeout_ms, ret_pipe);
}

status *rpc_client_open_stream(struct rpc_client *client, const ProtobufCServiceDescriptor *service,
			       const char *method, const ProtobufCMessage *request,
			       int64_t timeout_ms, struct stream **ret_stream)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	scoped(message) ProtobufCMessage *response = NULL;
	struct pipe *pipe = NULL;
	status *st = rpc_client_call(client, service, method, request, timeout_ms, &response);
	if (st == NULL)
		st = dial(response, method, left_ms(deadline_ms), &pipe);
	return st != NULL ? st : stream_new(pipe, false, NULL, ret_stream);
}
