/* SPDX-License-Identifier: Apache-2.0 */
/* The images of the final dump, file by file, with sizes and digests. */
#ifndef HAUL_ENGINE_PIPE_IMAGE_PIPE_H
#define HAUL_ENGINE_PIPE_IMAGE_PIPE_H

#include "rpc/pipe.h"

/* Sends every regular file of dir (not the stats and logs), then PipeEnd; *ret_count files. */
must_check status *image_pipe_send(struct pipe *pipe, const char *dir, int64_t silence_ms,
				   unsigned *ret_count, uint64_t *ret_bytes);

/* Receives files into dir until PipeEnd. Names are checked (plain, no "..", none twice, none that
 * exists), sizes and digests too. Blocks. */
must_check status *image_pipe_receive(struct pipe *pipe, const char *dir, int64_t silence_ms,
				      unsigned *ret_count);

/* Pure-ish part for fuzzing: one chunk; state is opaque, zeroed at the start, freed by
 * image_state_free. */
struct image_state;
must_check status *image_state_new(const char *dir, struct image_state **ret_state);
must_check status *image_state_chunk(struct image_state *state, const uint8_t *data, size_t size);
must_check status *image_state_end(struct image_state *state, unsigned *ret_count);
void image_state_free(struct image_state *state);

#endif
