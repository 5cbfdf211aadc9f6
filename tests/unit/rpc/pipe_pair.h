/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a pipe for tests, and frames through them. */
#ifndef HAUL_TESTS_UNIT_RPC_PIPE_PAIR_H
#define HAUL_TESTS_UNIT_RPC_PIPE_PAIR_H

#include <pthread.h>

#include "rpc/pipe.h"

enum { PLENTY_MS = 60000, FRAME = 256 * 1024 };

/* Free ports are found by pipe_listen. */
extern const struct pipe_place tcp_place;

void free_address(Haul__V1__PipeAddress *address);
DEFINE_SCOPE(address, Haul__V1__PipeAddress *, free_address);

/* A pipe_dial on a thread of its own. */
struct dialing {
	pthread_t thread;
	Haul__V1__PipeAddress *address;
	struct pipe *pipe;
	status *st;
	int64_t timeout_ms;
};
void start_dial(struct dialing *dialing, Haul__V1__PipeAddress *address, int64_t timeout_ms);
status *join_dial(struct dialing *dialing);

/* What a thread does with a pipe. */
struct sending {
	struct pipe *pipe;
	unsigned frames;
	status *st;
};
void *run_accept(void *argument);

void open_pair(const struct pipe_place *place, struct pipe **ret_listener,
	       struct pipe **ret_dialer);
void send_bytes(struct pipe *pipe, uint8_t fill, size_t size);
void expect_bytes(struct pipe *pipe, uint8_t fill, size_t size);

#endif
