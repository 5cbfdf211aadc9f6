/* SPDX-License-Identifier: Apache-2.0 */
/* haul.v1.Reflection: tells clients what a server serves. */
#ifndef HAUL_RPC_REFLECTION_H
#define HAUL_RPC_REFLECTION_H

#include "rpc/service.h"

struct reflection;

/* The FileDescriptorSet (protoc's, with all imports) must outlive it, and so must the services,
 * which are read when they are asked for: reflection_service's own may be one of them. */
must_check status *reflection_new(const struct rpc_service *services, size_t count,
				  const uint8_t *set, size_t set_size,
				  struct reflection **ret_reflection);

struct rpc_service reflection_service(struct reflection *reflection);

void reflection_free(struct reflection *reflection);

#endif
