/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by memory_sender.c, memory_kept.c, memory_resume.c and memory_late.c. */
#ifndef HAUL_ENGINE_PIPE_MEMORY_SENDER_INTERNAL_H
#define HAUL_ENGINE_PIPE_MEMORY_SENDER_INTERNAL_H

#include <pthread.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "engine/criu/late_areas.h"
#include "engine/pipe/memory_pipe.h"
#include "engine/pipe/page_table.h"

struct memory_drain;

struct batch_mark {
	struct page_table_mark table;
	uint64_t digest; /* over the digests up to here */
};

struct memory_sender {
	int criu_fd;
	struct stripes_out *stripes;
	struct batch_codecs codecs;
	struct page_table *table;	   /* what the destination has */
	const atomic_uint_fast64_t *limit; /* bytes a second; NULL = none */

	/* The serving thread's: */
	unsigned round_number;
	struct memory_feed feed;
	int fd; /* of the feeds the one that is read */
	struct pipe_out out;
	bool has_out;
	size_t used;		 /* of out */
	unsigned batch_pages;	 /* with data, in out */
	struct page_header last; /* the last record of out */
	size_t last_at;		 /* where its header is; SIZE_MAX = none */
	XXH3_state_t digests;
	struct batch_mark *marks; /* of all batches of the round: where they end */
	size_t mark_count, mark_room;
	bool is_pipe_lost;
	bool is_late;		    /* the pages that are read now may be left here */
	struct late_areas areas;    /* of the image that is open */
	struct memory_drain *drain; /* where the content of such pages goes */

	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* By the lock: */
	struct memory_round round;
	bool is_over;
	bool is_stopping;
	status *error;
};

/* Over these pipes from now on. */
must_check status *memory_sender_use(struct memory_sender *sender, const struct pipe_set *pipes);

/* Makes room for a record with up to `bytes` of data. */
must_check status *memory_sender_make_room(struct memory_sender *sender, size_t bytes);
/* A run without data: continues the last record if it can. There is room. */
void memory_sender_put_bare(struct memory_sender *sender, const struct page_header *header);
/* Where pages come from: writes at most run->pages to data, from run->address on; *ret_pages: so
 * many, 0 when the first one cannot be had. */
struct page_source {
	status *(*read)(void *self, const struct page_header *run, uint8_t *data,
			uint32_t *ret_pages);
	void *self;
};
/* A run of pages by their content. One that cannot be had is left out. */
must_check status *memory_sender_serve_pages(struct memory_sender *sender,
					     const struct page_header *header,
					     const struct page_source *source);

/* memory_kept.c: pages that CRIU takes for sent. */
must_check status *memory_sender_serve_kept(struct memory_sender *sender,
					    const struct page_header *header);

void memory_sender_count(struct memory_sender *sender, const struct memory_round *counts);

/* memory_late.c: the pages that CRIU is about to send are named, and not looked at. */
must_check status *memory_sender_name_pages(struct memory_sender *sender,
					    const struct page_header *header);

/* Pages are named, and that is all. */
must_check status *memory_sender_name(struct memory_sender *sender,
				      const struct page_header *header);

/* The image is opened in CRIU's feed: which of its memory may stay here. */
must_check status *memory_sender_read_areas(struct memory_sender *sender, uint64_t image);
/* Pages that CRIU is about to send, which may stay here if CRIU says so or they are in such an
 * area. */
must_check status *memory_sender_serve_late(struct memory_sender *sender,
					    const struct page_header *header);
/* Pages that may stay here or may not, in a round in which some may. */
must_check status *memory_sender_serve_present(struct memory_sender *sender,
					       const struct page_header *header, bool may_be_late);

void memory_drain_free(struct memory_drain *drain);

/* Notes that the batch that is about to leave ends where the table is now. */
must_check status *memory_sender_mark(struct memory_sender *sender);

#endif
