/* SPDX-License-Identifier: Apache-2.0 */
/* Which codec moves memory fastest right now: a pure policy, fed with what batches took. Time is
 * that of packing, sealing and waiting for the link together, so link, CPU and how well the content
 * packs all count by themselves. Each codec is tried for a few batches, the cheapest is kept, and
 * the others are tried again now and then, the more rarely the worse they were. */
#ifndef HAUL_ENGINE_PIPE_CODEC_CHOICE_H
#define HAUL_ENGINE_PIPE_CODEC_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/pipe/batch_codec.h"

struct codec_choice {
	unsigned set; /* of codecs, RAW included */
	enum batch_codec now;
	struct {
		double ms_per_byte; /* of content; 0 = not tried yet */
		unsigned rest;	    /* windows until it is tried again */
	} of[BATCH_CODECS];
	unsigned batches; /* of the window that is running */
	uint64_t bytes;
	double ms;
};

void codec_choice_init(struct codec_choice *choice, unsigned set);

/* One batch of `bytes` of content took `ms` with the codec `now`. is_frozen: the workload stands
 * still; no experiments. */
void codec_choice_note(struct codec_choice *choice, uint64_t bytes, double ms, bool is_frozen);

#endif
