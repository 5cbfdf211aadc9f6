/* SPDX-License-Identifier: Apache-2.0 */
/* Which codec moves memory fastest right now: a pure policy, fed with what batches took.
 *
 * Packing and the link work side by side, with the sockets' buffers between them: what a codec
 * costs is the longer of its work and of the link's time for what it leaves. Work and ratio of a
 * codec show in a batch or two, behind a first one that is slower than any that follows. The link's
 * speed shows only while somebody waits for it: then the buffers are full, and what went between
 * two such moments is what the link took. */
#ifndef HAUL_ENGINE_PIPE_CODEC_CHOICE_H
#define HAUL_ENGINE_PIPE_CODEC_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/pipe/batch_codec.h"

struct codec_choice {
	unsigned set; /* of codecs, RAW included */
	enum batch_codec now;
	struct {
		double work_ms;	  /* for a byte of content */
		double wire;	  /* bytes for a byte of content; 0 = not known yet */
		unsigned batches; /* that went since it was tried */
		bool is_warm;	  /* it was tried before: its code and tables are in place */
		unsigned learned; /* batches of which work_ms tells, since its last trial began */
	} of[BATCH_CODECS];
	unsigned trial;	 /* batches that are left of the experiment with `now` */
	double link_ms;	 /* the link's time for a byte on the wire; 0 = nobody had to wait for it */
	unsigned unseen; /* batches since somebody waited */
	bool has_waited; /* the rest is about what went since somebody waited for the link */
	double since_ms; /* without the time in which there was nothing to send */
	double since_wire; /* bytes */
};

/* What one batch was and took. */
struct batch_cost {
	uint64_t content; /* bytes */
	uint64_t wire;	  /* bytes that went for it */
	double work_ms;	  /* packing and sealing */
	double wait_ms;	  /* for the link, or for a limit of the bandwidth */
};

void codec_choice_init(struct codec_choice *choice, unsigned set);

/* One batch went with the codec `now`. is_frozen: the workload stands still; no experiments. */
void codec_choice_note(struct codec_choice *choice, const struct batch_cost *cost, bool is_frozen);

#endif
