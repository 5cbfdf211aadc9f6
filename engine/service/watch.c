/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/service/watch.h"

#include <pthread.h>
#include <time.h>

#include "proto/clock.h"
#include "rpc/stream.h"

enum {
	SEND_MS = 30000,
	TICK_MS = 2000, /* a watcher that goes wakes nobody */
};

struct watchers {
	pthread_mutex_t lock;
	pthread_cond_t woken;
	unsigned wakes;
	bool is_ending;
};

struct watchers *watchers_new(void)
{
	struct watchers *watchers = calloc(1, sizeof(*watchers));

	if (watchers == NULL)
		abort();
	(void)pthread_mutex_init(&watchers->lock, NULL);
	clock_cond_init(&watchers->woken);
	return watchers;
}

bool watchers_wait(struct watchers *watchers, int64_t timeout_ms)
{
	const struct timespec until = clock_at(clock_monotonic_ms() + timeout_ms);

	(void)pthread_mutex_lock(&watchers->lock);
	unsigned wakes = watchers->wakes;
	while (wakes == watchers->wakes && !watchers->is_ending)
		if (pthread_cond_timedwait(&watchers->woken, &watchers->lock, &until) != 0)
			break;
	bool goes_on = !watchers->is_ending;
	(void)pthread_mutex_unlock(&watchers->lock);
	return goes_on;
}

void watchers_wake(struct watchers *watchers, bool is_end)
{
	(void)pthread_mutex_lock(&watchers->lock);
	watchers->wakes++;
	watchers->is_ending |= is_end;
	(void)pthread_cond_broadcast(&watchers->woken);
	(void)pthread_mutex_unlock(&watchers->lock);
}

void watchers_free(struct watchers *watchers)
{
	if (watchers == NULL)
		return;
	(void)pthread_cond_destroy(&watchers->woken);
	(void)pthread_mutex_destroy(&watchers->lock);
	free(watchers);
}

/* Where to go on for a caller that has seen `after`: from the beginning, when that is of the
 * future, as it is when a new hauld knows of the end from its journal alone. */
static status *first_sequence(struct registry *registry, const char *id, uint64_t after,
			      uint64_t *ret_sequence)
{
	scoped(migration_view) Haul__V1__Migration *view = NULL;
	status *st = registry_get(registry, id, &view);

	if (st == NULL)
		*ret_sequence = after > view->sequence ? 0 : after;
	return st;
}

/* Waits for the next view; NULL when it is over and was sent already. */
static status *next_view(struct registry *registry, const char *id, uint64_t sequence,
			 struct stream *stream, struct packed_view **ret_view)
{
	for (;;) {
		status *st = registry_watch(registry, id, sequence, TICK_MS, ret_view);
		if (status_code_of(st) == STATUS_CANCELLED)
			return status_recode(st,
					     STATUS_UNAVAILABLE); /* of the engine, not of ours */
		if (status_code_of(st) != STATUS_DEADLINE_EXCEEDED)
			return st;
		status_free(st);
		if (stream_is_cancelled(stream))
			return status_errorf(STATUS_CANCELLED, "nobody watches any more");
	}
}

status *watch_migration(struct registry *registry, const char *id, uint64_t after_sequence,
			struct stream *stream)
{
	uint64_t sequence = 0;
	status *st = first_sequence(registry, id, after_sequence, &sequence);

	stream_set_background(stream);
	while (st == NULL) {
		scoped(packed_view) struct packed_view *view = NULL;
		st = next_view(registry, id, sequence, stream, &view);
		if (st != NULL || view == NULL)
			return st;
		sequence = view->sequence;
		st = stream_send_bytes(stream, view->bytes, view->size, SEND_MS);
		if (view->is_over)
			return st;
	}
	return st;
}
