/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of a pipe share: pipe_open.c brings it up, pipe.c moves frames. */
#ifndef HAUL_RPC_PIPE_INTERNAL_H
#define HAUL_RPC_PIPE_INTERNAL_H

#include <nng/nng.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rpc/operation.h"
#include "rpc/pipe.h"
#include "rpc/seal.h"

enum {
	SENDS_IN_FLIGHT = 4,
	KIND_BYTES = 1,
	/* On top of LIMIT_BULK_BYTES: kind, tag, and a batch's page table or an image's name. */
	FRAME_ROOM = 64 * 1024,
	MESSAGE_BYTES = LIMIT_BULK_BYTES + FRAME_ROOM,
	/* Connections that nng has not yet done away with, rejected ones included. */
	CONNECTIONS = 64,
};

struct pipe {
	nng_socket socket;
	bool has_socket;
	bool is_listener;
	nng_dialer dialer;
	bool is_given; /* its one connection was handed over: there will be no other */
	struct seal *out;
	struct seal *in;
	uint8_t pipe_id[SEAL_ID_BYTES];
	struct operation *receiving;
	struct operation *sending[SENDS_IN_FLIGHT];
	unsigned next_send;    /* the sender's */
	double waited_ms;      /* the sender's */
	status *send_error;    /* the sender's: sticky */
	status *receive_error; /* the receiver's: sticky */
	atomic_uint_fast64_t bytes_sent;
	atomic_uint_fast64_t bytes_received;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_interrupted;
	bool is_attached;
	bool is_lost;
	int peer_id;		  /* nng's id of the proven connection */
	int candidate_id;	  /* of the one that is connected, proven or not */
	int64_t candidate_ms;	  /* when it came */
	unsigned generation;	  /* counts connections */
	int present[CONNECTIONS]; /* ids of all that exist, negative once we close it, 0 = free */
};

/* Cancels what is being sent; caller holds the lock. */
void pipe_cancel_sends(struct pipe *pipe);

/* Puts a sealed message under way, takes it also on error; pipe_drain waits until nng has taken
 * everything. After pipe_fail_sending with an error nothing can be sent any more; it returns `st`.
 */
must_check status *pipe_start_send(struct pipe *pipe, nng_msg *msg, int64_t timeout_ms);
must_check status *pipe_drain(struct pipe *pipe);
must_check status *pipe_fail_sending(struct pipe *pipe, status *st);

/* Receives one message, of whatever connection; the caller checks whose. NULL message and NULL
 * status: nothing came in time. */
must_check status *pipe_receive_raw(struct pipe *pipe, int64_t timeout_ms, nng_msg **ret_msg);

/* Closes one connection; 0 is none. */
void pipe_close_connection(int id);

#endif
