/* SPDX-License-Identifier: Apache-2.0 */
/* Where a connection comes from: for people, and to count how many come from there. */
#ifndef HAUL_RPC_PEER_ADDRESS_H
#define HAUL_RPC_PEER_ADDRESS_H

#include <nng/nng.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/limits.h"

struct peer_address {
	char
	    text[LIMIT_PEER_TEXT]; /* "10.0.0.1:4711", "[::1]:4711", "a local process", "unknown" */
	uint64_t net;		   /* 0: not from the network */
};

struct peer_address peer_address_of(const nng_sockaddr *address);

/* From the same host: the same IPv4 address, or the same /64 of IPv6, which is the least that one
 * host gets. False for what does not come from the network. */
bool peer_address_is_same_host(const struct peer_address *a, const struct peer_address *b);

#endif
