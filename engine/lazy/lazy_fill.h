/* SPDX-License-Identifier: Apache-2.0 */
/* Puts the pages of a lazy map into the tree, through the userfaultfd of each of its memories:
 * those that it waits for at once, the rest when there is time.
 *
 * As long as the tree changes nothing about its mappings, a page is where it was when it was
 * dumped, and filling it twice does no harm: whoever holds the userfaultfds can take over without
 * knowing anything but the map. The first fork, munmap, mremap or madvise ends that. It waits in
 * the kernel until it is read as an event, and before that the tree is frozen (lazy_fill_complete),
 * so that nobody runs while what was read is in one process' memory only.
 *
 * Late pages (lazy_map.h) are filled when they have come. Since that may take as long as a link is
 * down, events are read while such pages are missing (lazy_fill_settle, with the tree frozen, and
 * the other holder told of each); from then on it is a list of pieces that may have moved.
 *
 * Not for several threads. A userfaultfd that is closed by its last holder gives zeros. */
#ifndef HAUL_ENGINE_LAZY_LAZY_FILL_H
#define HAUL_ENGINE_LAZY_LAZY_FILL_H

#include <stdatomic.h>

#include "engine/lazy/lazy_map.h"

struct late_range;

struct lazy_fill;
struct uffd_msg;

/* map: borrowed; images: the directory of the rounds. */
must_check status *lazy_fill_new(const struct lazy_map *map, const char *images,
				 struct lazy_fill **ret_fill);

/* The memory of the task of this pid; takes the descriptor. DATA_LOSS for one that the map does not
 * have, or that came before. */
must_check status *lazy_fill_add(struct lazy_fill *fill, int64_t pid, int uffd);
/* Have all tasks of the map a memory? */
bool lazy_fill_is_whole(const struct lazy_fill *fill);

/* Readable when a task waits for a page, or for an event to be read: for poll. */
int lazy_fill_fd(const struct lazy_fill *fill);

/* What has become of a step. */
enum lazy_step {
	LAZY_MORE,  /* there is more to fill */
	LAZY_WAIT,  /* there is, but the source still has it */
	LAZY_DONE,  /* every page is in its place */
	LAZY_EVENT, /* the tree waits for an event to be read: lazy_fill_complete */
};

/* Fills what is waited for now. Only LAZY_MORE or LAZY_EVENT. */
must_check status *lazy_fill_serve(struct lazy_fill *fill, enum lazy_step *ret_step);
/* Fills a bit of what is left. */
must_check status *lazy_fill_some(struct lazy_fill *fill, enum lazy_step *ret_step);

/* Reads the events that there are, and notes what has moved; the tree can go on then. Its group is
 * to be frozen: it is waited for, and pages are served meanwhile, until it is. */
must_check status *lazy_fill_settle(struct lazy_fill *fill, const char *group);

/* Fills all that is left, reading events; waits for what the source still has. The tree's group, if
 * there is one, is to be frozen: it is waited for, and pages are served meanwhile, until it is. */
must_check status *lazy_fill_complete(struct lazy_fill *fill, const char *group);

/* Who else is to know of the events that are read. */
struct lazy_watch {
	/* An event was read of the memory with this number (they count up as they were added, a
	 * fork's behind the others). A fork's descriptor stays the fill's. */
	status *(*event)(void *self, size_t memory, const struct uffd_msg *event);
	void *self;
	atomic_bool *is_reading; /* an event may have been read that `event` was not told of */
	/* The tree waits for pages that the source has. */
	void (*wanted)(void *self, const struct late_range *range);
	const atomic_bool *is_stopping; /* nothing is waited for any more: CANCELLED. Or NULL */
};
void lazy_fill_watch(struct lazy_fill *fill, const struct lazy_watch *watch);
/* An event that another process has read; takes a fork's descriptor. */
must_check status *lazy_fill_replay(struct lazy_fill *fill, size_t memory,
				    const struct uffd_msg *event);

struct lazy_counts {
	uint64_t pages;	 /* filled so far, of the map's */
	uint64_t faults; /* of these, waited for */
};
void lazy_fill_counts(const struct lazy_fill *fill, struct lazy_counts *ret_counts);

void lazy_fill_free(struct lazy_fill *fill); /* closes the userfaultfds */

DEFINE_SCOPE(lazy_fill, struct lazy_fill *, lazy_fill_free);

#endif
