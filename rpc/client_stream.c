/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "proto/pack.h"
#include "rpc/client.h"
#include "rpc/nng_error.h"
#include "rpc/stream.h"

/* Of one try to connect: nng may lose a connection while it negotiates, and tells nobody. */
enum { DIAL_MS = 5000 };

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
	return pipe_dial(address, timeout_ms < DIAL_MS ? timeout_ms : DIAL_MS, ret_pipe);
}

status *rpc_client_open_stream(struct rpc_client *client, const ProtobufCServiceDescriptor *service,
			       const char *method, const ProtobufCMessage *request,
			       int64_t timeout_ms, struct stream **ret_stream)
{
	int64_t deadline_ms = monotonic_ms() + timeout_ms;
	for (;;) {
		scoped(message) ProtobufCMessage *response = NULL;
		struct pipe *pipe = NULL;
		status *st = rpc_client_call(client, service, method, request, left_ms(deadline_ms),
					     &response);
		if (st != NULL)
			return st;
		st = dial(response, method, left_ms(deadline_ms), &pipe);
		if (st == NULL)
			return stream_new(pipe, false, NULL, ret_stream);
		if (status_code_of(st) != STATUS_UNAVAILABLE || left_ms(deadline_ms) < DIAL_MS)
			return st;
		status_free(st); /* its server gives it up, too; a new one is opened */
	}
}
