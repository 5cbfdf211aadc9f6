/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/peer_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

enum { HALF = 8, MAPPED_AT = 12 };

/* No host has its address in ::/64, so an IPv4 address fits in there. */
static uint64_t net_of(const uint8_t bytes[16])
{
	uint32_t ip4 = 0;
	uint64_t net = 0;
	if (IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)bytes)) {
		memcpy(&ip4, bytes + MAPPED_AT, sizeof(ip4));
		return ip4;
	}
	memcpy(&net, bytes, HALF);
	return net != 0 ? net : 1; /* ::1 */
}

struct peer_address peer_address_of(const nng_sockaddr *address)
{
	struct peer_address peer = {.text = "unknown"};
	char ip[INET6_ADDRSTRLEN] = "";
	if (address->s_family == NNG_AF_INET &&
	    inet_ntop(AF_INET, &address->s_in.sa_addr, ip, sizeof(ip)) != NULL) {
		(void)snprintf(peer.text, sizeof(peer.text), "%s:%u", ip,
			       ntohs(address->s_in.sa_port));
		peer.net = address->s_in.sa_addr;
	} else if (address->s_family == NNG_AF_INET6 &&
		   inet_ntop(AF_INET6, &address->s_in6.sa_addr, ip, sizeof(ip)) != NULL) {
		(void)snprintf(peer.text, sizeof(peer.text), "[%s]:%u", ip,
			       ntohs(address->s_in6.sa_port));
		peer.net = net_of(address->s_in6.sa_addr);
	} else if (address->s_family == NNG_AF_IPC) {
		(void)snprintf(peer.text, sizeof(peer.text), "a local process");
	}
	return peer;
}

bool peer_address_is_same_host(const struct peer_address *a, const struct peer_address *b)
{
	return a->net != 0 && a->net == b->net;
}
