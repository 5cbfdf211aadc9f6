/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of a pipe share: pipe_listen.c and pipe_dial.c bring it up, pipe.c moves frames.
 */
#ifndef HAUL_RPC_PIPE_INTERNAL_H
#define HAUL_RPC_PIPE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/pair.h"
#include "rpc/pipe.h"
#include "rpc/seal.h"

enum {
	KIND_BYTES = 1,
	HELLO_BYTES = KIND_BYTES + SEAL_TAG_BYTES,
	/* On top of LIMIT_BULK_BYTES: kind, tag, and a batch's page table or an image's name. */
	FRAME_ROOM = 64 * 1024,
	MESSAGE_BYTES = LIMIT_BULK_BYTES + FRAME_ROOM,
	/* What goes before the peer's place is taken: header, prefix and HELLO. */
	GREETING_MOST = PAIR_HEADER_BYTES + PAIR_PREFIX_MOST + HELLO_BYTES,
};

struct pipe {
	struct pair pair;	 /* its fd is -1 until the peer has proven itself */
	struct waiting *waiting; /* a listener that has not attached yet */
	struct seal *out;
	struct seal *in;
	uint8_t pipe_id[SEAL_ID_BYTES];
	double waited_ms;      /* the sender's */
	status *send_error;    /* the sender's: sticky */
	status *receive_error; /* the receiver's: sticky */
	atomic_uint_fast64_t bytes_sent;
	atomic_uint_fast64_t bytes_received;
	atomic_bool is_interrupted;
	pthread_mutex_t lock; /* is_interrupted and pair.fd, together */
};

/* A pipe that has no connection yet, with the seals of our side. Checks the address, which may come
 * from a peer. */
must_check status *pipe_new(const Haul__V1__PipeAddress *address, bool is_listener,
			    struct pipe **ret_pipe);

/* The sealed HELLO of our side behind its prefix, and the header before that: what a dialer says at
 * once. */
struct greeting {
	uint8_t bytes[GREETING_MOST];
	size_t size;
};
must_check status *pipe_greeting(struct pipe *pipe, bool is_ipc, struct greeting *ret_greeting);

/* Is this, of which `have` bytes have come, the greeting of the peer? Whoever is not the peer is
 * found out as early as can be. */
enum greeted { GREETED_NOT_YET, GREETED_WELL, GREETED_ILL };
enum greeted pipe_greeted(struct pipe *pipe, bool is_ipc, uint8_t *bytes, size_t have);
size_t pipe_greeting_bytes(bool is_ipc);

/* From here on this is the connection; taken. */
void pipe_attach(struct pipe *pipe, int fd, bool is_ipc);

/* For what moves much and says much that is short. */
void pipe_tune(int fd);

/* Closes what a listener has that has not attached. */
void pipe_stop_waiting(struct pipe *pipe);

#endif
