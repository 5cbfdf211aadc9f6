/* SPDX-License-Identifier: Apache-2.0 */
/* Watchers of a migration may be a thousand, and each that is woken up takes time from the
 * migration that it looks at. So a change wakes none of them: the announcer does, when the change
 * has settled, a few at a time, and not while a workload stands still. What they are told is packed
 * once. */
#include "engine/migration/registry_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/clock.h"

enum {
	APART_MS = 100, /* changes that come closer are one for a watcher */
	BATCH = 32,	/* are woken at a time, */
	BATCH_APART_MS = 2,
};

static_assert(REGISTRY_BELLS <= 64, "each has a bit in registry.unannounced");

static uint64_t bit_of(size_t bell)
{
	return (uint64_t)1 << bell;
}

void registry_note_change(struct registry *registry, const char *id, bool is_over)
{
	size_t bell = registry_bell(id);

	if (is_over) {
		(void)pthread_cond_broadcast(&registry->watched[bell]);
		return;
	}
	if (registry->unannounced == 0) {
		registry->unannounced_ms = clock_monotonic_ms();
		(void)pthread_cond_signal(&registry->to_announce);
	}
	registry->unannounced |= bit_of(bell);
}

/* --- the announcer --- */

static void wait_until(struct registry *registry, int64_t at_ms)
{
	struct timespec at = clock_at(at_ms);

	(void)pthread_cond_timedwait(&registry->to_announce, &registry->lock, &at);
}

/* Until the changes since then may be told; caller holds the lock. */
static void let_settle(struct registry *registry, int64_t since_ms)
{
	while (!registry->is_ending) {
		int64_t wait_ms =
		    registry_is_hushed(registry) ? registry->latest_ms : (int64_t)APART_MS;
		if (clock_monotonic_ms() >= since_ms + wait_ms)
			return;
		wait_until(registry, since_ms + wait_ms);
	}
}

/* Some, then a pause for who has something better to do. Whoever begins to wait meanwhile has seen
 * what there was to see. Caller holds the lock. */
static void wake_watchers(struct registry *registry, size_t bell)
{
	int64_t since_ms = clock_monotonic_ms() - APART_MS;

	for (unsigned left = registry->watching[bell]; left > 0 && !registry->is_ending; left--) {
		(void)pthread_cond_signal(&registry->watched[bell]);
		if (left % BATCH != 1)
			continue;
		wait_until(registry, clock_monotonic_ms() + BATCH_APART_MS);
		let_settle(registry, since_ms);
	}
}

static void *run_announcer(void *argument)
{
	struct registry *registry = argument;

	(void)pthread_mutex_lock(&registry->lock);
	while (!registry->is_ending) {
		if (registry->unannounced == 0) {
			(void)pthread_cond_wait(&registry->to_announce, &registry->lock);
			continue;
		}
		let_settle(registry, registry->unannounced_ms);
		uint64_t bells = registry->unannounced;
		registry->unannounced = 0;
		for (size_t i = 0; i < REGISTRY_BELLS; i++)
			if ((bells & bit_of(i)) != 0)
				wake_watchers(registry, i);
	}
	(void)pthread_mutex_unlock(&registry->lock);
	return NULL;
}

void registry_end_announcing(struct registry *registry)
{
	(void)pthread_mutex_lock(&registry->lock);
	registry->is_ending = true;
	(void)pthread_cond_signal(&registry->to_announce);
	bool has_announcer = registry->has_announcer;
	(void)pthread_mutex_unlock(&registry->lock);
	if (has_announcer)
		(void)pthread_join(registry->announcer, NULL);
	for (size_t i = 0; i < REGISTRY_BELLS; i++)
		packed_view_release(registry->packed[i]);
}

/* The first watcher starts it. Caller holds the lock. */
static status *start_announcer(struct registry *registry)
{
	if (registry->has_announcer)
		return NULL;
	int err = pthread_create(&registry->announcer, NULL, run_announcer, registry);
	registry->has_announcer = err == 0;
	return err == 0 ? NULL : status_errnof(err, "cannot start a thread");
}

/* --- views, packed --- */

void packed_view_release(struct packed_view *view)
{
	if (view != NULL && atomic_fetch_sub(&view->references, 1) == 1)
		free(view);
}

void registry_drop_packed(struct registry *registry, const char *id)
{
	size_t bell = registry_bell(id);

	packed_view_release(registry->packed[bell]);
	registry->packed[bell] = NULL;
}

static struct packed_view *pack(const Haul__V1__Migration *view)
{
	size_t size = haul__v1__migration__get_packed_size(view);
	struct packed_view *packed = malloc(sizeof(*packed) + size);

	if (packed == NULL)
		abort();
	packed->sequence = view->sequence;
	packed->is_over = migration_is_over(view);
	packed->size = size;
	(void)snprintf(packed->id, sizeof(packed->id), "%s", view->id);
	(void)haul__v1__migration__pack(view, packed->bytes);
	atomic_init(&packed->references, 1);
	return packed;
}

/* Caller holds the lock. */
static struct packed_view *packed_of(struct registry *registry, const Haul__V1__Migration *view)
{
	struct packed_view **kept = &registry->packed[registry_bell(view->id)];

	if (*kept == NULL || (*kept)->sequence != view->sequence ||
	    strcmp((*kept)->id, view->id) != 0) {
		packed_view_release(*kept);
		*kept = pack(view);
	}
	(void)atomic_fetch_add(&(*kept)->references, 1);
	return *kept;
}

/* --- watching --- */

/* Caller holds the lock, which is given up meanwhile. */
static status *await_news(struct registry *registry, const char *id, uint64_t sequence,
			  const struct timespec *until, struct packed_view **ret_view)
{
	size_t bell = registry_bell(id);

	for (int waited = -1;;) { /* 0: it was woken up, to be told */
		const Haul__V1__Migration *view = registry_find(registry, id);
		if (view == NULL)
			return registry_not_found(id);
		bool is_over = migration_is_over(view);
		bool is_due = sequence == 0 || is_over || waited == 0 ||
			      (registry->unannounced & bit_of(bell)) == 0;
		if (view->sequence > sequence && is_due)
			*ret_view = packed_of(registry, view);
		if ((view->sequence > sequence && is_due) || is_over)
			return NULL;
		if (registry->is_closed)
			return status_errorf(STATUS_CANCELLED, "this engine stops");
		if (waited == ETIMEDOUT)
			return status_errorf(STATUS_DEADLINE_EXCEEDED, "no change");
		registry->watching[bell]++;
		waited = pthread_cond_timedwait(&registry->watched[bell], &registry->lock, until);
		registry->watching[bell]--;
	}
}

status *registry_watch(struct registry *registry, const char *id, uint64_t sequence,
		       int64_t timeout_ms, struct packed_view **ret_view)
{
	struct timespec until = clock_at(clock_monotonic_ms() + timeout_ms);

	(void)pthread_mutex_lock(&registry->lock);
	status *st = start_announcer(registry);
	if (st == NULL)
		st = await_news(registry, id, sequence, &until, ret_view);
	(void)pthread_mutex_unlock(&registry->lock);
	return st;
}
