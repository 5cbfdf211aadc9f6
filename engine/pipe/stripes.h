/* SPDX-License-Identifier: Apache-2.0 */
/* Frames over several pipes side by side, in one order: frame k of a round goes over pipe k modulo
 * their number. Each pipe has a thread of its own, which packs and seals at the source, opens and
 * unpacks at the destination: several processors share that work, and reading memory or putting it
 * in its place goes on meanwhile, with one pipe, too. Each round ends with a RoundEnd on every
 * pipe.
 */
#ifndef HAUL_ENGINE_PIPE_STRIPES_H
#define HAUL_ENGINE_PIPE_STRIPES_H

#include <stdatomic.h>

#include "engine/pipe/batch_codec.h"
#include "proto/limits.h"
#include "rpc/pipe.h"

/* The pipes, borrowed by all that is made from them. Both sides have them in the same order. */
struct pipe_set {
	struct pipe *pipes[LIMIT_STRIPES];
	unsigned count; /* 1 at least, once they are open */
};
/* A set of one. */
static inline struct pipe_set pipe_set_of(struct pipe *pipe)
{
	return (struct pipe_set){{pipe}, 1};
}
/* pipe_interrupt, pipe_hang_up and pipe_free for all of them; freed, the set is empty. */
void pipe_set_interrupt(const struct pipe_set *set);
void pipe_set_hang_up(const struct pipe_set *set);
void pipe_set_free(struct pipe_set *set);
/* All of them together. */
uint64_t pipe_set_bytes_sent(const struct pipe_set *set);
uint64_t pipe_set_bytes_received(const struct pipe_set *set);

/* --- the source's side --- */

struct stripes_out;

/* Told of each frame that has been handed to its pipe, by the stripes' threads, one at a time. */
struct stripes_sent {
	void (*note)(void *self, size_t bytes, double blocked_ms); /* blocked: one wall clock's */
	void *self;
};

/* Starts the threads. limit: what frames may take together, bytes a second, 0 = no limit; NULL:
 * there is never one. Borrowed. */
must_check status *stripes_out_new(const struct pipe_set *set, const struct batch_codecs *codecs,
				   const struct stripes_sent *sent, struct stripes_out **ret_out);
void stripes_out_limit(struct stripes_out *out, const atomic_uint_fast64_t *bytes_per_s);

/* The next frame, a batch of `size` bytes in `frame`; taken, also on error. Waits while its pipe
 * has not taken the one before. is_last: of the final dump, without limit and experiments. An error
 * may be one of an earlier frame. One thread at a time, as for stripes_out_end. */
must_check status *stripes_out_send(struct stripes_out *out, struct pipe_out *frame, size_t size,
				    bool is_last);
/* When all frames have left: the end, on every pipe. The next frame is the first one again. */
must_check status *stripes_out_end(struct stripes_out *out, const ProtobufCMessage *end);

/* Ends all waiting, for good. Any thread. */
void stripes_out_stop(struct stripes_out *out);
void stripes_out_free(
    struct stripes_out *out); /* interrupts only a pipe that has a frame to take */

/* --- the destination's side --- */

struct stripes_in;

/* Starts to receive one round. silence_ms: between two frames; a pipe may be silent as many times
 * longer as there are pipes. */
must_check status *stripes_in_new(const struct pipe_set *set, int64_t silence_ms,
				  struct stripes_in **ret_in);

/* A frame, unpacked, until the next one is asked for. */
struct stripe_frame {
	Haul__V1__FrameKind kind; /* BATCH or ROUND */
	const uint8_t *data;
	size_t size;
	size_t wire; /* what it took in its pipe */
};
/* In order. After a ROUND, which the other pipes must have had next as well, there is nothing more.
 * Errors as pipe_receive's, and DATA_LOSS. */
must_check status *stripes_in_next(struct stripes_in *in, struct stripe_frame *ret_frame);

/* Before the round has ended this hangs up all pipes. */
void stripes_in_free(struct stripes_in *in);

DEFINE_SCOPE(stripes_out, struct stripes_out *, stripes_out_free);
DEFINE_SCOPE(stripes_in, struct stripes_in *, stripes_in_free);

#endif
