/* SPDX-License-Identifier: Apache-2.0 */
/* A bad link for tests: a TCP proxy that delays what it passes on and drops connections in the
 * middle of a byte stream, by dice with a seed. It knows nothing of what goes through. */
#ifndef HAUL_TESTS_UNIT_RPC_PROXY_H
#define HAUL_TESTS_UNIT_RPC_PROXY_H

#include <stdatomic.h>

struct proxy;

struct proxy_config {
	unsigned to_port; /* at 127.0.0.1 */
	unsigned seed;
	/* A connection is dropped after up to so many bytes, both directions counted; 0 = never. */
	unsigned drop_after;
	/* Each piece waits for up to so many microseconds. */
	unsigned delay_us;
};

struct proxy *proxy_start(const struct proxy_config *config);
unsigned proxy_port(const struct proxy *proxy);
/* From now on nothing passes, and nobody is told: as when a cable is pulled. */
void proxy_stall(struct proxy *proxy, bool is_stalled);
int proxy_dropped(struct proxy *proxy); /* connections, so far */
void proxy_stop(struct proxy *proxy);

#endif
