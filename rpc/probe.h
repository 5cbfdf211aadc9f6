/* SPDX-License-Identifier: Apache-2.0 */
/* Why nobody answers at an endpoint: nng does not say. */
#ifndef HAUL_RPC_PROBE_H
#define HAUL_RPC_PROBE_H

#include "rpc/endpoint.h"

/* The errno of one plain connection, 0 when it comes about. Only numeric hosts, localhost and paths
 * are tried (0 for others): a name server's silence must not add to ours. */
int probe_endpoint(const struct endpoint *endpoint);

#endif
