/* SPDX-License-Identifier: Apache-2.0 */
/* Late pages of a lazy restore: those that stayed at the source. What is fetched is written into
 * the hole that the round's pages file has for it, and then its bit is set, in memory that hauld
 * and its guard share: whoever fills the tree finds it there. Pages that the tree waits for go
 * before all others.
 *
 * Any thread. One that hauld has made, or a later hauld, of what the guard holds. */
#ifndef HAUL_ENGINE_LAZY_LATE_STORE_H
#define HAUL_ENGINE_LAZY_LATE_STORE_H

#include "engine/lazy/lazy_shared.h"

struct late_store;

/* 256 KiB: what is waited for does not wait long behind what is under way. */
enum { LATE_RANGE_PAGES = 64 };

/* Pages of one process. */
struct late_range {
	int64_t pid; /* as the tree sees it */
	uint64_t address;
	uint32_t pages; /* at most LATE_RANGE_PAGES */
	bool is_urgent; /* the tree waits for them */
};

/* shared: borrowed; it has late pages. */
must_check status *late_store_new(struct lazy_shared *shared, struct late_store **ret_store);

/* Told after pages have come, and when they are lost; NULL: nobody. From any thread. */
void late_store_on_arrival(struct late_store *store, void (*told)(void *self), void *self);

/* The tree waits for these: they are asked for before all others. */
void late_store_want(struct late_store *store, const struct late_range *range);

/* What is to be asked for next: what the tree waits for, else (with `may_go_ahead`) the next that
 * was not asked for. Waits at most timeout_ms, or until late_store_wake; false: nothing. */
bool late_store_next(struct late_store *store, bool may_go_ahead, int64_t timeout_ms,
		     struct late_range *ret_range);
void late_store_wake(struct late_store *store);
/* Everything that is missing is to be asked for again: of another source's engine. */
void late_store_restart(struct late_store *store);

/* Content has come; NULL: zeros. Pages that are there already are left alone. DATA_LOSS for what is
 * not late. */
must_check status *late_store_put(struct late_store *store, const struct late_range *range,
				  const uint8_t *data);

/* The source has said that it has them no more. */
void late_store_lose(struct late_store *store);

struct late_counts {
	uint64_t pages, missing;
	uint64_t faults; /* fetched because the tree waited for them, or for one beside them */
	bool is_lost;
};
void late_store_counts(struct late_store *store, struct late_counts *ret_counts);

void late_store_free(struct late_store *store);

DEFINE_SCOPE(late_store, struct late_store *, late_store_free);

#endif
