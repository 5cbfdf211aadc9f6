/* SPDX-License-Identifier: Apache-2.0 */
/* Where a host is, and a plain connection there, with a deadline: the C library's own lookup may
 * take as long as a name server is silent. */
#ifndef HAUL_RPC_RESOLVE_H
#define HAUL_RPC_RESOLVE_H

#include <netdb.h>
#include <sys/socket.h>

#include "proto/status.h"

/* The TCP addresses of a host (a name, or an address without brackets), for freeaddrinfo.
 * UNAVAILABLE, or DEADLINE_EXCEEDED. */
must_check status *resolve_host(const char *host, uint16_t port, int64_t timeout_ms,
				struct addrinfo **ret_list);

/* A connected, non-blocking stream socket. 0, or why there is none: an errno, ETIMEDOUT after the
 * deadline (monotonic). */
int connect_address(const struct sockaddr *address, socklen_t size, int64_t deadline_ms,
		    int *ret_fd);

#endif
