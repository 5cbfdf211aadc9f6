/* SPDX-License-Identifier: Apache-2.0 */
/* The streams that a server has open: a pipe and a thread each. */
#ifndef HAUL_RPC_STREAMS_H
#define HAUL_RPC_STREAMS_H

#include "rpc/pipe.h"
#include "rpc/service.h"

struct rpc_streams;

/* `place` says which ports and directory (borrowed texts); its host is taken from each call.
 * most(self, caller) is how many one caller may have; NULL or 0: a quarter of LIMIT_STREAMS. */
must_check status *rpc_streams_new(const struct pipe_place *place,
				   unsigned (*most)(void *self, const struct identity *caller),
				   void *self, struct rpc_streams **ret_streams);

/* Opens one for this call: *ret_address is how its caller, and nobody else, reaches it, once,
 * within 10 s. Then the handler runs. Takes the request. RESOURCE_EXHAUSTED at LIMIT_STREAMS, or a
 * quarter of them for one caller. */
must_check status *rpc_streams_open(struct rpc_streams *streams, const struct rpc_call *call,
				    rpc_stream_handler handler, void *self,
				    ProtobufCMessage *request, Haul__V1__PipeAddress **ret_address);

/* No new ones; those that are open have grace_ms to end, then they are interrupted. */
void rpc_streams_stop(struct rpc_streams *streams, int64_t grace_ms);

void rpc_streams_free(struct rpc_streams *streams);

#endif
