/* SPDX-License-Identifier: Apache-2.0 */
/* What the two processes that hold a lazily restored tree's memory share: the map, where things
 * are, and how far it has come. A memfd: it is as long as one of them has it. A new hauld finds it
 * with the guard (lazy_guard_find), and fetches late pages for it. */
#ifndef HAUL_ENGINE_LAZY_LAZY_SHARED_H
#define HAUL_ENGINE_LAZY_LAZY_SHARED_H

#include <stdatomic.h>

#include "engine/host/cgroup.h"
#include "engine/host/files.h"
#include "engine/lazy/lazy_map.h"

enum lazy_phase {
	LAZY_RESTORING, /* CRIU still restores: the userfaultfds come in */
	LAZY_FILLING,	/* all are here; every page is where it was dumped */
	LAZY_SETTLING,	/* events are read: only who does that knows where the pages are */
	LAZY_FILLED,
	LAZY_BROKEN, /* cannot be filled: the tree is killed */
};

struct lazy_shared {
	atomic_uint phase;
	atomic_bool may_run;	 /* it is committed: a thaw is allowed */
	atomic_bool is_reading;	 /* an event may have been read that the guard was not told of */
	char group[CGROUP_PATH]; /* the tree's */
	char images[FILES_PATH]; /* directory of the rounds */
	char marker[FILES_PATH]; /* a file that is there as long as pages are missing */
	uint64_t file_count, run_count, task_count, pages;
	uint64_t late_pages, late_words; /* 0 words: none is late */
	atomic_uint_fast64_t late_missing;
	atomic_bool is_late_lost; /* the source has said that they will not come */
	/* Behind it: runs, tasks, files, a bit for each page that is there. */
};

/* Copies the map into a new area. *ret_shared is mapped, *ret_fd for the other process. */
must_check status *lazy_shared_new(const struct lazy_map *map, int *ret_fd,
				   struct lazy_shared **ret_shared);
/* The other's. DATA_LOSS when it does not fit its size. */
must_check status *lazy_shared_open(int fd, struct lazy_shared **ret_shared);
/* Its map, as long as it is mapped; not to be freed. */
void lazy_shared_map(struct lazy_shared *shared, struct lazy_map *ret_map);
void lazy_shared_free(struct lazy_shared *shared);

DEFINE_SCOPE(lazy_shared, struct lazy_shared *, lazy_shared_free);

#endif
