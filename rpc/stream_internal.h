/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by stream.c (what programs call) and stream_io.c (its two threads). */
#ifndef HAUL_RPC_STREAM_INTERNAL_H
#define HAUL_RPC_STREAM_INTERNAL_H

#include <pthread.h>

#include "rpc/stream.h"

enum {
	MESSAGE_COST = 64, /* of a message's bookkeeping, so that empty ones are not free */
	/* Credit goes back by this part of the window: a frame for each message would be as many
	 * frames back as there are messages. */
	CREDIT_PART = 4,
};

struct stream_item {
	struct stream_item *next;
	size_t size;
	uint8_t data[];
};

struct stream_queue {
	struct stream_item *first, **end;
};

struct stream {
	struct pipe *pipe;
	bool is_server;
	struct stream_options options;
	pthread_t sender, receiver;
	bool has_sender, has_receiver;
	bool is_background; /* the lock's, and so are the threads' numbers, 0 before they run */
	pid_t sender_tid, receiver_tid;

	pthread_mutex_t lock; /* of all that follows */
	pthread_cond_t changed;
	/* Out: */
	struct stream_queue out;
	int64_t credit; /* the other side's */
	uint32_t owed;	/* credit that we have to give */
	bool has_sent;	/* metadata is out, or about to */
	bool wants_half_close, half_close_sent;
	bool wants_end, end_sent;
	status *verdict; /* ours */
	int64_t sent_ms;
	/* In: */
	struct stream_queue in;
	int64_t window; /* what the other side may still send */
	bool is_half_closed, is_ended;
	status *trailer;
	status *lost; /* why it is over without an end */
	/* Both: */
	Haul__V1__Metadata *own, *own_trailing, *other, *other_trailing;
	bool is_interrupted;
	bool is_closing; /* the threads shall end */
	void (*waker)(void *self);
	void *waker_self;
	bool is_waking;
};

enum { BACKGROUND_NICE = 10 };

/* Makes the threads that run by now what is_background says; caller holds the lock. */
void stream_renice(const struct stream *stream);

/* The threads. */
void *stream_run_sender(void *stream);
void *stream_run_receiver(void *stream);

/* What the other side sent; not after its end. DATA_LOSS when it breaks a rule. */
must_check status *stream_take_frame(struct stream *stream, const struct pipe_in *in);

void stream_queue_put(struct stream_queue *queue, struct stream_item *item);
struct stream_item *stream_queue_take(struct stream_queue *queue);

/* Nobody reads any more what we send; caller holds the lock. */
bool stream_is_over(const struct stream *stream);

/* Is it time to give credit back? Caller holds the lock. */
bool stream_owes_much(const struct stream *stream);

/* Tells the waker; caller holds the lock, which is given up meanwhile. */
void stream_wake(struct stream *stream);

#endif
