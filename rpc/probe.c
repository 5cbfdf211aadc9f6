/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/probe.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "proto/clock.h"
#include "rpc/resolve.h"

enum { PROBE_MS = 200 };

/* Why a plain connection does not come about: the errno of one try, 0 when it does. */
static int probe_address(const struct sockaddr *address, socklen_t size)
{
	scoped(fd) int fd = -1;

	return connect_address(address, size, clock_monotonic_ms() + PROBE_MS, &fd);
}

int probe_endpoint(const struct endpoint *endpoint)
{
	if (endpoint->transport == TRANSPORT_IPC) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		memcpy(un.sun_path, endpoint->host, strlen(endpoint->host) + 1);
		return probe_address((const struct sockaddr *)&un, sizeof(un));
	}
	bool is_localhost = strcmp(endpoint->host, "localhost") == 0;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = is_localhost ? 0 : AI_NUMERICHOST};
	struct addrinfo *list = NULL;
	char port[8];
	(void)snprintf(port, sizeof(port), "%u", endpoint->port);
	if (getaddrinfo(endpoint->host, port, &hints, &list) != 0)
		return 0;
	int err = ETIMEDOUT;
	for (const struct addrinfo *item = list; item != NULL && err != 0; item = item->ai_next)
		err = probe_address(item->ai_addr, item->ai_addrlen);
	freeaddrinfo(list);
	return err;
}
