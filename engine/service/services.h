/* SPDX-License-Identifier: Apache-2.0 */
/* The services of an engine: thin, each method calls what does the work. */
#ifndef HAUL_ENGINE_SERVICE_SERVICES_H
#define HAUL_ENGINE_SERVICE_SERVICES_H

#include "engine/core.h"
#include "engine/migration/incoming.h"
#include "engine/migration/source.h"
#include "engine/relay/leases.h"
#include "engine/service/watch.h"
#include "rpc/service.h"

/* What handlers get as `self`. */
struct services {
	struct core *core;
	struct sources *sources;
	struct incomings *incomings;
	struct watchers *watchers;
	struct leases *leases;
};

struct rpc_service services_migrations(struct services *services);
struct rpc_service services_peer(struct services *services);
struct rpc_service services_node(struct services *services);
struct rpc_service services_criu(struct services *services);
struct rpc_service services_health(struct services *services);

/* A response on the heap, initialised. */
void *response_new(const ProtobufCMessageDescriptor *descriptor);

#endif
