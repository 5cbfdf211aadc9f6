/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/service/services.h"

static status *lease(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     struct stream *stream)
{
	struct services *services = self;

	return leases_serve(services->leases, call, (const Haul__V1__LeaseRequest *)request,
			    stream);
}

static const rpc_handler handlers[] = {NULL};
static const rpc_stream_handler streams[] = {lease};

struct rpc_service services_criu(struct services *services)
{
	return (struct rpc_service){.descriptor = &haul__v1__criu__descriptor,
				    .handlers = handlers,
				    .self = services,
				    .streams = streams};
}
