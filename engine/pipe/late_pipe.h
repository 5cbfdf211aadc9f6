/* SPDX-License-Identifier: Apache-2.0 */
/* Late pages from the frozen tree at the source to the restored one, over a pipe of their own. The
 * destination asks (LateWant), the source answers each with one batch (as in memory_pipe.h) of
 * exactly these pages, those first that the tree waits for. A batch's digest is made from what was
 * read and checked before anything is written. A pipe that is lost is replaced by another; what was
 * under way is asked for again. */
#ifndef HAUL_ENGINE_PIPE_LATE_PIPE_H
#define HAUL_ENGINE_PIPE_LATE_PIPE_H

#include <stdatomic.h>

#include "engine/lazy/late_store.h"
#include "engine/pipe/batch_codec.h"
#include "rpc/pipe.h"

/* --- the source --- */

struct late_source {
	/* The content of pages of the frozen tree; an error ends the pipe. */
	status *(*read)(void *self, int64_t pid, uint64_t address, size_t bytes, uint8_t *data);
	void *self;
	struct batch_codecs codecs;
	const atomic_uint_fast64_t
	    *bytes_per_s; /* of what the tree does not wait for; 0 = no limit */
};

/* Serves one destination until it has all: NULL. Else why the pipe has ended: CANCELLED after
 * pipe_interrupt, UNAVAILABLE or DEADLINE_EXCEEDED when it was lost, DATA_LOSS for requests that
 * make no sense, or what reading said, which the destination is told. */
must_check status *late_serve(struct pipe *pipe, const struct late_source *source);

/* --- the destination --- */

struct late_fetcher;

must_check status *late_fetcher_new(struct late_fetcher **ret_fetcher);
/* A pipe that the source was told to dial; takes it, and lets the one before go. */
void late_fetcher_offer(struct late_fetcher *fetcher, struct pipe *pipe);
/* From now on pages are fetched. Borrowed. Once. */
void late_fetcher_feed(struct late_fetcher *fetcher, struct late_store *store);
/* Is there a pipe that works, as far as it is known? And what the last one came to: a copy, or
 * NULL. */
bool late_fetcher_is_connected(struct late_fetcher *fetcher);
status *late_fetcher_error(struct late_fetcher *fetcher);
void late_fetcher_free(struct late_fetcher *fetcher); /* ends what it does; before the store */

/* Pure part for fuzzing: one batch, unpacked, of late pages into the store. *ret_pages: how many.
 */
must_check status *late_batch_apply(const uint8_t *data, size_t size, struct late_store *store,
				    uint64_t *ret_pages);

DEFINE_SCOPE(late_fetcher, struct late_fetcher *, late_fetcher_free);

#endif
