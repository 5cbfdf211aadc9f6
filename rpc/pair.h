/* SPDX-License-Identifier: Apache-2.0 */
/* PAIR version 0 of SP over a stream socket, byte for byte as nng speaks it, by the threads that
 * send and receive.
 *
 * Pipes do not go through nng's own PAIR (which may well be at the other end): it clears the memory
 * of each message before that is filled, hands it over between threads on both sides, tells a
 * sender nothing of what was lost, and gives what is queued to whoever comes next. Here a message
 * is read and written where it lies. What we know of SP is in docs/protocol.md. */
#ifndef HAUL_RPC_PAIR_H
#define HAUL_RPC_PAIR_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/defs.h"

enum {
	PAIR_HEADER_BYTES = 8, /* each side says it first */
	PAIR_PREFIX_MOST = 9,  /* before a message */
};

extern const uint8_t pair_header[PAIR_HEADER_BYTES];

/* One connection, after the headers. */
struct pair {
	int fd;
	bool is_ipc; /* a socket file's: its prefix is a byte longer */
	/* What has come of the message that is being received. */
	uint8_t prefix[PAIR_PREFIX_MOST];
	size_t prefix_have;
	uint8_t *message; /* NULL until its size is known */
	size_t size, have;
};

/* How long a prefix is. */
size_t pair_prefix_bytes(bool is_ipc);

/* Writes the prefix of a message of `size` bytes to the bytes before `message`. */
void pair_put_prefix(bool is_ipc, uint8_t *message, uint64_t size);

/* The size in a whole prefix; false when it is none. */
bool pair_get_prefix(bool is_ipc, const uint8_t *prefix, uint64_t *ret_size);

/* Writes all of it. 0, ETIMEDOUT when that takes longer than timeout_ms, or the errno by which the
 * connection has ended. *waited_ms grows by the time in which the socket took nothing. */
int pair_write(int fd, const uint8_t *data, size_t size, int64_t timeout_ms, double *waited_ms);

/* Receives one message, at most `limit` bytes, on the heap (the caller's). 0, ETIMEDOUT when
 * nothing came for timeout_ms (what has come is kept, the next call goes on), EMSGSIZE when it is
 * over the limit or no message of PAIR, or the errno by which the connection has ended. */
int pair_receive(struct pair *pair, size_t limit, int64_t timeout_ms, uint8_t **ret_message,
		 size_t *ret_size);

/* Has the other side closed it, or has it broken? What it sent before may still be there. */
bool pair_is_gone(int fd);

#endif
