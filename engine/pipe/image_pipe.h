/* SPDX-License-Identifier: Apache-2.0 */
/* The images of the final dump, file by file, with sizes and digests. They leave while CRIU still
 * dumps, each when it is closed; at the end what is new, or not what it was, leaves (again), and
 * the last version of a file is the one that counts. Both sides then know the same: image_totals.
 */
#ifndef HAUL_ENGINE_PIPE_IMAGE_PIPE_H
#define HAUL_ENGINE_PIPE_IMAGE_PIPE_H

#include "rpc/pipe.h"

struct image_totals {
	unsigned count;	 /* of files */
	uint64_t digest; /* over their names, sizes and digests */
};

struct image_sender;

/* Begins to send the regular files of dir (not the stats and logs) as they are closed, in a thread.
 * `held` is the name of one that will still be changed: it goes at the end. */
must_check status *image_sender_start(struct pipe *pipe, const char *dir, const char *held,
				      int64_t silence_ms, struct image_sender **ret_sender);

/* When nobody writes to dir any more: sends what is left, then PipeEnd. Once. *ret_bytes have left
 * altogether, *ret_early files of them before. */
must_check status *image_sender_finish(struct image_sender *sender, struct image_totals *ret_totals,
				       uint64_t *ret_bytes, unsigned *ret_early);

/* Interrupts the pipe when it has not been finished. */
void image_sender_free(struct image_sender *sender);
DEFINE_SCOPE(image_sender, struct image_sender *, image_sender_free);

/* Receives files into dir until PipeEnd. Names are checked (plain, no "..", none that exists unless
 * this pipe brought it), sizes and digests too. Blocks. */
must_check status *image_pipe_receive(struct pipe *pipe, const char *dir, int64_t silence_ms,
				      struct image_totals *ret_totals);

/* Pure-ish part for fuzzing: one chunk; state is opaque, zeroed at the start, freed by
 * image_state_free. */
struct image_state;
must_check status *image_state_new(const char *dir, struct image_state **ret_state);
must_check status *image_state_chunk(struct image_state *state, const uint8_t *data, size_t size);
must_check status *image_state_end(struct image_state *state, struct image_totals *ret_totals);
void image_state_free(struct image_state *state);

#endif
