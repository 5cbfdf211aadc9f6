/* SPDX-License-Identifier: Apache-2.0 */
/* Hosts whose handshakes keep failing, and whether the next one is worth its arithmetic. Each host
 * may fail LIMIT_HOST_FAILURES times at once and then once every LIMIT_HOST_FAILURE_MS: a flood
 * of strangers costs no more than that. One handshake that succeeds makes up for all. Not
 * thread-safe; a new one is all zero. */
#ifndef HAUL_RPC_HOST_FAILURES_H
#define HAUL_RPC_HOST_FAILURES_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/limits.h"
#include "rpc/peer_address.h"

struct host_failures {
	struct {
		uint64_t net;	    /* of peer_address */
		int64_t past_at_ms; /* when all its failures will be forgiven; monotonic */
	} hosts[LIMIT_FAILING_HOSTS];
};

/* What does not come from the network is never counted. When there are more hosts than places,
 * the one that is forgiven first makes room. */
void host_failures_add(struct host_failures *failures, const struct peer_address *from,
		       int64_t now_ms);
void host_failures_forgive(struct host_failures *failures, const struct peer_address *from);
bool host_failures_is_over(const struct host_failures *failures, const struct peer_address *from,
			   int64_t now_ms);

#endif
