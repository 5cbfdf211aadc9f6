/* SPDX-License-Identifier: Apache-2.0 */
/* A restore that does not wait for memory: CRIU restores the tree without the pages that may come
 * later, and a thread fills them from the images of pre-copy, those first that are waited for. The
 * images are the store, and outlive every process.
 *
 * The tree's memory is held by two processes, hauld and a guard (lazy_guard.h): if one dies, the
 * other freezes the tree, fills it, and lets it go on. If that cannot be done, the tree is killed
 * while its memory is still held: no page that is missing is ever read as zeros. A marker file is
 * there from before the restore until the last page is in place. docs/safety.md has the argument.
 */
#ifndef HAUL_ENGINE_LAZY_LAZY_H
#define HAUL_ENGINE_LAZY_LAZY_H

#include <stdbool.h>

#include "engine/lazy/late_store.h"
#include "engine/lazy/lazy_fill.h"

struct lazy;

struct lazy_options {
	const char *program;	 /* hauld's own: the guard's */
	const char *guard_group; /* cgroup, existing */
	const char *tree_group;
	const char *images; /* directory of the rounds */
	const char *work_dir;
	const char *marker; /* path */
};

/* Starts the guard. */
must_check status *lazy_new(const struct lazy_options *options, struct lazy **ret_lazy);

/* A round has arrived. */
must_check status *lazy_add_round(struct lazy *lazy, unsigned round);

/* After the last round: marks its images for a lazy restore and gets ready for CRIU, if between
 * `least` and `most` pages can come later, or some are still at the source; else nothing is
 * changed: restore eagerly. *ret_pages is how many there are. */
must_check status *lazy_begin(struct lazy *lazy, uint64_t least, uint64_t most, bool *ret_is_lazy,
			      uint64_t *ret_pages);

/* What is to be fetched from the source, once lazy_begin has found such pages; else NULL. Borrowed.
 */
struct late_store *lazy_late(struct lazy *lazy);

/* CRIU is at the end of its restorer, with the tree frozen: filling begins. DATA_LOSS when a memory
 * of the tree did not come. */
must_check status *lazy_restored(struct lazy *lazy);

enum lazy_state {
	LAZY_STATE_IDLE,    /* no lazy restore (yet) */
	LAZY_STATE_FILLING, /* pages are missing */
	LAZY_STATE_FILLED,
	LAZY_STATE_BROKEN, /* see lazy_error; a tree that ran is killed */
};
enum lazy_state lazy_state_of(struct lazy *lazy);
must_check status *lazy_error(struct lazy *lazy); /* a copy; NULL when there is none */

/* Committed: the thaw of a lazily restored tree's group, now or when it is filled. */
must_check status *lazy_let_run(struct lazy *lazy);

struct lazy_report {
	uint64_t pages;	 /* that came later */
	uint64_t faults; /* of these, waited for */
	double fill_ms;	 /* from the end of the restore until the last was there */
	bool was_frozen; /* it could not be filled while the tree ran */
};
void lazy_report_of(struct lazy *lazy, struct lazy_report *ret_report);

/* Stops. A tree that is not filled is the guard's from then on. */
void lazy_free(struct lazy *lazy);
/* The same for a tree that was killed, or was never restored: the guard ends, too. */
void lazy_abandon(struct lazy *lazy);

/* Can this kernel do it? CRIU says more (criu_has_lazy_pages). */
must_check status *lazy_probe(void);

DEFINE_SCOPE(lazy, struct lazy *, lazy_free);

#endif
