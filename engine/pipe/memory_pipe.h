/* SPDX-License-Identifier: Apache-2.0 */
/* Memory from CRIU to CRIU: the sender is the page server of the source's swrk and answers it at
 * once (no round trip while the tree is frozen); batches travel the bulk pipe; the receiver feeds
 * the page store. Batch frame: records (page_stream.h) back to back, then the 8 bytes xxh3-64 of
 * all before; a packed frame has such a batch inside, behind 8 bytes: codec, 3 zeros, its size. */
#ifndef HAUL_ENGINE_PIPE_MEMORY_PIPE_H
#define HAUL_ENGINE_PIPE_MEMORY_PIPE_H

#include <stdatomic.h>

#include "engine/criu/frames.h"
#include "engine/criu/page_store.h"
#include "engine/pipe/batch_codec.h"
#include "engine/pipe/stripes.h"
#include "proto/limits.h"

/* A batch unpacked: its pages, and room for the headers of records with and without data. */
enum { MEMORY_BATCH_BYTES = LIMIT_BATCH_PAGES * PAGE_BYTES + 32 * 1024 + 8 };

struct memory_round {
	uint64_t pages_sent; /* PRESENT, zero pages included */
	uint64_t pages_zero;
	uint64_t pages_late;	/* of pages_sent: named only, the source keeps them */
	uint64_t pages_skipped; /* clean, says the kernel: the destination has them */
	uint64_t pages_same;	/* dirty, but with the content that the destination has; the
				   receiver cannot tell them from skipped ones */
	uint64_t bytes;		/* on the wire */
	uint64_t digest;
	double blocked_ms; /* the sender's: the link took no more */
};

/* Source. Remembers what the round before had (page_table.h). */
struct memory_sender;
must_check status *memory_sender_new(int criu_fd, const struct pipe_set *pipes,
				     const struct batch_codecs *codecs,
				     struct memory_sender **ret_sender);
/* From now on rounds but the last (the tree is frozen) take at most *bytes_per_s, which may change
 * any time; 0 = no limit. Borrowed. Before the first round. */
void memory_sender_limit(struct memory_sender *sender, const atomic_uint_fast64_t *bytes_per_s);
/* Which pages of private anonymous memory are only named (PAGE_LATE): the destination asks for them
 * after the commit, and the source keeps the tree until then. */
enum memory_late {
	LATE_NONE,
	LATE_CHANGED, /* those whose content the destination does not have */
	LATE_ALL,     /* all that CRIU sends, without looking at them */
};
/* Where the pages of a round come from, one after the other. */
struct memory_feed {
	int live_fd; /* live_pages.h writes at its other end; -1 = nobody does. Borrowed */
	/* Reads what was offered there, as live_pages_read; NULL: it follows on live_fd itself. */
	status *(*read_live)(void *live, const struct page_header *run, uint8_t *data,
			     uint32_t *ret_pages);
	void *live;	       /* borrowed */
	bool is_criu;	       /* CRIU writes, too */
	bool is_tracked;       /* CRIU was told of the round before: it asks what that had */
	bool is_last;	       /* nothing is compared with it, so nothing is noted */
	enum memory_late late; /* of what CRIU writes */
	bool was_named; /* the rounds before only named pages: what CRIU takes for sent was so */
	/* Of the tree: what CRIU takes for sent has been, and has stayed where it was, or is read
	 * by it; DATA_LOSS in the last round if it cannot be. Looked at whenever CRIU asks about a
	 * task. Borrowed; NULL: CRIU is trusted. */
	struct frames *frames;
};
/* Serves one round on a thread of its own, from now until its feeds have closed it. */
must_check status *memory_sender_begin(struct memory_sender *sender, unsigned round,
				       const struct memory_feed *feed);
/* Waits for the round's end (all sent, RoundEnd too). An error also shuts criu_fd, so that CRIU
 * does not wait for ever. */
must_check status *memory_sender_end(struct memory_sender *sender, int64_t timeout_ms,
				     struct memory_round *ret_round);
/* After an error of memory_sender_end: was it the pipe that failed? */
bool memory_sender_lost_pipe(const struct memory_sender *sender);
/* How far the destination has come when a pipe was lost. */
struct memory_progress {
	unsigned round;
	bool is_whole;	  /* all of that round is there */
	uint64_t batches; /* of it, otherwise */
	uint64_t digest;  /* over the digests of these */
};
/* Goes on over other pipes, with another CRIU, from there: the next round sends what is not there
 * by then. The round that was cut counts as one. DATA_LOSS when that is not what was sent. Between
 * rounds, not after the last one. */
must_check status *memory_sender_resume(struct memory_sender *sender, int criu_fd,
					const struct pipe_set *pipes,
					const struct memory_progress *there);
/* So far, from any thread: for progress. */
void memory_sender_progress(struct memory_sender *sender, struct memory_round *ret_round);
void memory_sender_free(
    struct memory_sender *sender); /* in a round: interrupts the pipes, shuts criu_fd; joins */

/* Destination: reads one round from the pipes into the store, until its RoundEnd; checks digests
 * and counts (DATA_LOSS). Blocks. After an error the pipes are hung up. */
must_check status *memory_receive_round(const struct pipe_set *pipes, struct page_store *store,
					unsigned round, int64_t silence_ms,
					struct memory_round *ret_round);
/* The same, for one that may be taken up again: *ret_progress is told of an error, too. */
must_check status *memory_receive_resumable(const struct pipe_set *pipes, struct page_store *store,
					    unsigned round, int64_t silence_ms,
					    struct memory_round *ret_round,
					    struct memory_progress *ret_progress);

/* Pure part for fuzzing: one packed batch, unpacked into at most `room` bytes at ret_data. */
must_check status *memory_batch_unpack(struct batch_packer *packer, const uint8_t *body,
				       size_t size, uint8_t *ret_data, size_t room,
				       size_t *ret_size);
/* Pure part for fuzzing: one batch into the store; adds to *round, but for the bytes. */
must_check status *memory_batch_apply(const uint8_t *data, size_t size, struct page_store *store,
				      struct memory_round *round);

DEFINE_SCOPE(memory_sender, struct memory_sender *, memory_sender_free);

#endif
