/* SPDX-License-Identifier: Apache-2.0 */
/* grpc.health.v1.Health. The engine as a whole serves until it drains; what moves workloads serves
 * only where CRIU works. */
#include <string.h>

#include "engine/service/services.h"
#include "grpc/health/v1/health.pb-c.h"
#include "haul/v1/criu.pb-c.h"
#include "haul/v1/migrations.pb-c.h"
#include "haul/v1/node.pb-c.h"
#include "haul/v1/peer.pb-c.h"
#include "haul/v1/reflection.pb-c.h"
#include "rpc/stream.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving;

#define SERVING(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

enum { LOOK_MS = 1000, SEND_MS = 30000 };

static const struct {
	const ProtobufCServiceDescriptor *service;
	bool needs_criu;
} services_known[] = {
    {&haul__v1__migrations__descriptor, true},	    {&haul__v1__peer__descriptor, true},
    {&haul__v1__node__descriptor, false},	    {&haul__v1__reflection__descriptor, false},
    {&grpc__health__v1__health__descriptor, false}, {&haul__v1__criu__descriptor, true},
};

static serving state_of(const struct core *core, const char *service)
{
	bool is_known = service[0] == '\0';
	bool is_fit = true;

	for (size_t i = 0; i < array_len(services_known); i++)
		if (strcmp(services_known[i].service->name, service) == 0) {
			is_known = true;
			is_fit = core->criu_version != 0 || !services_known[i].needs_criu;
		}
	if (!is_known)
		return SERVING(SERVICE_UNKNOWN);
	return is_fit && !atomic_load(&core->is_draining) ? SERVING(SERVING) : SERVING(NOT_SERVING);
}

static status *check(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response)
{
	const struct services *services = self;
	const char *service = ((const Grpc__Health__V1__HealthCheckRequest *)request)->service;
	serving state = state_of(services->core, service);

	(void)call;
	if (state == SERVING(SERVICE_UNKNOWN))
		return status_errorf(STATUS_NOT_FOUND, "this engine has no service \"%.80s\"",
				     service);
	Grpc__Health__V1__HealthCheckResponse *response =
	    response_new(&grpc__health__v1__health_check_response__descriptor);
	response->status = state;
	*ret_response = &response->base;
	return NULL;
}

/* Sends the state at once and again when it has changed, until the engine ends or the caller is
 * gone. */
static status *watch(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     struct stream *stream)
{
	struct services *services = self;
	const char *service = ((const Grpc__Health__V1__HealthCheckRequest *)request)->service;
	int last = -1;

	(void)call;
	stream_set_background(stream);
	do {
		Grpc__Health__V1__HealthCheckResponse event =
		    GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
		event.status = state_of(services->core, service);
		if ((int)event.status == last)
			continue;
		status *st = stream_send(stream, &event.base, SEND_MS);
		if (st != NULL)
			return st;
		last = (int)event.status;
	} while (watchers_wait(services->watchers, LOOK_MS) && !stream_is_cancelled(stream));
	return status_errorf(STATUS_UNAVAILABLE, "the engine stops");
}

static const rpc_handler handlers[] = {check, NULL};
static const rpc_stream_handler streams[] = {NULL, watch};

struct rpc_service services_health(struct services *services)
{
	return (struct rpc_service){.descriptor = &grpc__health__v1__health__descriptor,
				    .handlers = handlers,
				    .self = services,
				    .streams = streams};
}
