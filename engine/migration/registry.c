/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/registry_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/clock.h"
#include "proto/limits.h"
#include "proto/pack.h"
#include "proto/reason.h"

enum { LOOK_MS = 500 };

struct registry *registry_new(void)
{
	struct registry *registry = calloc(1, sizeof(*registry));

	if (registry == NULL)
		abort();
	(void)pthread_mutex_init(&registry->lock, NULL);
	(void)pthread_mutex_init(&registry->keeping, NULL);
	for (size_t i = 0; i < REGISTRY_BELLS; i++) {
		clock_cond_init(&registry->changed[i]);
		clock_cond_init(&registry->watched[i]);
	}
	clock_cond_init(&registry->to_announce);
	registry->latest_ms = REGISTRY_LATEST_MS;
	return registry;
}

void registry_free(struct registry *registry)
{
	if (registry == NULL)
		return;
	registry_end_announcing(registry);
	for (size_t i = 0; i < registry->count; i++)
		migration_view_free(registry->views[i]);
	free(registry->views);
	for (size_t i = 0; i < REGISTRY_BELLS; i++) {
		(void)pthread_cond_destroy(&registry->changed[i]);
		(void)pthread_cond_destroy(&registry->watched[i]);
	}
	(void)pthread_cond_destroy(&registry->to_announce);
	(void)pthread_mutex_destroy(&registry->keeping);
	(void)pthread_mutex_destroy(&registry->lock);
	free(registry);
}

bool migration_is_over(const Haul__V1__Migration *view)
{
	return view->state != HAUL__V1__MIGRATION_STATE__RUNNING &&
	       view->state != HAUL__V1__MIGRATION_STATE__IN_DOUBT;
}

void text_set(char **field, const char *text)
{
	if (*field != NULL && *field != (const char *)protobuf_c_empty_string)
		free(*field);
	*field = text_copy(text);
}

Haul__V1__Migration *view_copy(const Haul__V1__Migration *view)
{
	size_t size = haul__v1__migration__get_packed_size(view);
	uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		abort();
	(void)haul__v1__migration__pack(view, bytes);
	Haul__V1__Migration *copy = haul__v1__migration__unpack(NULL, size, bytes);
	free(bytes);
	if (copy == NULL)
		abort();
	return copy;
}

/* FNV-1a: ids are a few dozen characters. */
size_t registry_bell(const char *id)
{
	uint32_t hash = 2166136261U;

	for (; *id != '\0'; id++)
		hash = (hash ^ (uint8_t)*id) * 16777619U;
	return hash % REGISTRY_BELLS;
}

Haul__V1__Migration *registry_find(struct registry *registry, const char *id)
{
	for (size_t i = registry->count; i-- > 0;) {
		if (strcmp(registry->views[i]->id, id) == 0)
			return registry->views[i];
	}
	return NULL;
}

status *registry_not_found(const char *id)
{
	return status_because(
	    status_detailf(status_errorf(STATUS_NOT_FOUND, "no migration %.64s", id), "next",
			   "`haulctl list` shows those this engine knows"),
	    REASON_MIGRATION_UNKNOWN);
}

static void take_out(struct registry *registry, size_t place)
{
	registry_drop_packed(registry, registry->views[place]->id);
	migration_view_free(registry->views[place]);
	memmove(registry->views + place, registry->views + place + 1,
		(registry->count - place - 1) * sizeof(*registry->views));
	registry->count--;
}

/* Its id is for the keeper; "" when nothing was forgotten. */
static void forget_oldest_finished(struct registry *registry, char ret_id[LIMIT_ID + 1])
{
	for (size_t i = 0; i < registry->count; i++) {
		if (!migration_is_over(registry->views[i]))
			continue;
		(void)snprintf(ret_id, LIMIT_ID + 1, "%s", registry->views[i]->id);
		take_out(registry, i);
		return;
	}
}

int view_compare(const Haul__V1__Migration *view, int64_t started_unix_ms, const char *id)
{
	if (view->started_unix_ms != started_unix_ms)
		return view->started_unix_ms < started_unix_ms ? -1 : 1;
	return strcmp(view->id, id);
}

static void put_in(struct registry *registry, Haul__V1__Migration *view)
{
	size_t place = registry->count;

	while (place > 0 &&
	       view_compare(registry->views[place - 1], view->started_unix_ms, view->id) > 0)
		place--;
	memmove(registry->views + place + 1, registry->views + place,
		(registry->count - place) * sizeof(*registry->views));
	registry->views[place] = view;
	registry->count++;
}

static void count_locked(const struct registry *registry, unsigned *ret_active,
			 unsigned *ret_in_doubt)
{
	unsigned active = 0, in_doubt = 0;

	for (size_t i = 0; i < registry->count; i++) {
		active += migration_is_over(registry->views[i]) ? 0 : 1;
		in_doubt +=
		    registry->views[i]->state == HAUL__V1__MIGRATION_STATE__IN_DOUBT ? 1 : 0;
	}
	*ret_active = active;
	*ret_in_doubt = in_doubt;
}

static status *add_locked(struct registry *registry, Haul__V1__Migration *view,
			  char ret_forgotten[LIMIT_ID + 1])
{
	unsigned active, in_doubt;

	count_locked(registry, &active, &in_doubt);
	if (registry_find(registry, view->id) != NULL)
		return status_errorf(STATUS_ALREADY_EXISTS, "migration %s exists", view->id);
	if (active >= LIMIT_SESSIONS && !migration_is_over(view))
		return status_errorf(
		    STATUS_RESOURCE_EXHAUSTED,
		    "%u migrations are in flight on this engine: wait for one to end", active);
	if (registry->count >= LIMIT_HISTORY)
		forget_oldest_finished(registry, ret_forgotten);
	if (registry->count == registry->room) {
		size_t room = registry->room == 0 ? 64 : registry->room * 2;
		void *grown = realloc(registry->views, room * sizeof(*registry->views));
		if (grown == NULL)
			return status_errnof(ENOMEM, "cannot add a migration");
		registry->views = grown;
		registry->room = room;
	}
	put_in(registry, view);
	return NULL;
}

status *registry_add(struct registry *registry, Haul__V1__Migration *view)
{
	char forgotten[LIMIT_ID + 1] = "";

	(void)pthread_mutex_lock(&registry->lock);
	if (view->sequence == 0)
		view->sequence = 1;
	status *st = add_locked(registry, view, forgotten);
	(void)pthread_mutex_unlock(&registry->lock);
	if (forgotten[0] != '\0' && registry->keeper.forget != NULL)
		registry->keeper.forget(registry->keeper.self, forgotten);
	if (st != NULL)
		migration_view_free(view);
	return st;
}

void registry_set_keeper(struct registry *registry, const struct registry_keeper *keeper)
{
	registry->keeper = *keeper;
}

/* What is there by now is kept: a user may have deleted it, or it may have changed again. */
static void keep_latest(struct registry *registry, const char *id)
{
	scoped(migration_view) Haul__V1__Migration *latest = NULL;

	(void)pthread_mutex_lock(&registry->keeping);
	(void)pthread_mutex_lock(&registry->lock);
	const Haul__V1__Migration *view = registry_find(registry, id);
	if (view != NULL && registry->keeper.keep != NULL)
		latest = view_copy(view);
	(void)pthread_mutex_unlock(&registry->lock);
	if (latest != NULL)
		registry->keeper.keep(registry->keeper.self, latest);
	(void)pthread_mutex_unlock(&registry->keeping);
}

void registry_change(struct registry *registry, const char *id,
		     void (*change)(void *self, Haul__V1__Migration *view), void *self)
{
	bool is_over = false;

	(void)pthread_mutex_lock(&registry->lock);
	Haul__V1__Migration *view = registry_find(registry, id);
	if (view != NULL) {
		change(self, view);
		view->sequence++;
		is_over = migration_is_over(view);
		registry_note_change(registry, id, is_over);
		if (is_over)
			(void)pthread_cond_broadcast(&registry->changed[registry_bell(id)]);
	}
	(void)pthread_mutex_unlock(&registry->lock);
	if (is_over)
		keep_latest(registry, id);
}

void registry_wake(struct registry *registry)
{
	(void)pthread_mutex_lock(&registry->lock);
	for (size_t i = 0; i < REGISTRY_BELLS; i++)
		(void)pthread_cond_broadcast(&registry->changed[i]);
	(void)pthread_mutex_unlock(&registry->lock);
}

void registry_hush(struct registry *registry, bool begins)
{
	(void)pthread_mutex_lock(&registry->lock);
	unsigned before = begins ? atomic_fetch_add(&registry->hushes, 1)
				 : atomic_fetch_sub(&registry->hushes, 1);
	if (!begins && before == 1)
		(void)pthread_cond_signal(&registry->to_announce);
	(void)pthread_mutex_unlock(&registry->lock);
}

static status *delete_locked(struct registry *registry, const char *id)
{
	Haul__V1__Migration *view = registry_find(registry, id);

	if (view == NULL)
		return registry_not_found(id);
	if (!migration_is_over(view))
		return status_detailf(status_errorf(STATUS_FAILED_PRECONDITION,
						    "migration %s is not over", id),
				      "next", "`haulctl cancel %s`, or `haulctl wait %s`", id, id);
	size_t place = 0;
	while (registry->views[place] != view)
		place++;
	take_out(registry, place);
	return NULL;
}

status *registry_delete(struct registry *registry, const char *id)
{
	(void)pthread_mutex_lock(&registry->keeping);
	(void)pthread_mutex_lock(&registry->lock);
	status *st = delete_locked(registry, id);
	(void)pthread_mutex_unlock(&registry->lock);
	if (st == NULL && registry->keeper.hide != NULL)
		st = registry->keeper.hide(registry->keeper.self, id);
	(void)pthread_mutex_unlock(&registry->keeping);
	return st;
}

status *registry_get(struct registry *registry, const char *id, Haul__V1__Migration **ret_view)
{
	(void)pthread_mutex_lock(&registry->lock);
	const Haul__V1__Migration *view = registry_find(registry, id);
	status *st = view == NULL ? registry_not_found(id) : NULL;
	if (view != NULL)
		*ret_view = view_copy(view);
	(void)pthread_mutex_unlock(&registry->lock);
	return st;
}

bool registry_is_hushed(struct registry *registry)
{
	return atomic_load(&registry->hushes) > 0;
}

/* Looks now and then, also when nothing changes: a caller that goes wakes nobody. */
static void wait_locked(struct registry *registry, const char *id, int64_t until_ms,
			bool (*is_wanted)(void *self), void *self)
{
	for (;;) {
		const Haul__V1__Migration *view = registry_find(registry, id);
		int64_t now = clock_monotonic_ms();
		int64_t at_ms = now + LOOK_MS < until_ms ? now + LOOK_MS : until_ms;
		struct timespec at = clock_at(at_ms);
		if (view == NULL || migration_is_over(view) || registry->is_closed ||
		    now >= until_ms || !is_wanted(self))
			return;
		(void)pthread_cond_timedwait(&registry->changed[registry_bell(id)], &registry->lock,
					     &at);
	}
}

status *registry_await_end(struct registry *registry, const char *id, int64_t timeout_ms,
			   bool (*is_wanted)(void *self), void *self,
			   Haul__V1__Migration **ret_view)
{
	int64_t until = clock_monotonic_ms() + timeout_ms;
	status *st = NULL;

	(void)pthread_mutex_lock(&registry->lock);
	if (registry->waits < LIMIT_WAITS) {
		registry->waits++;
		wait_locked(registry, id, until, is_wanted, self);
		registry->waits--;
	}
	Haul__V1__Migration *view = registry_find(registry, id);
	if (view == NULL)
		st = registry_not_found(id);
	else if (registry->is_closed && !migration_is_over(view))
		st = status_errorf(STATUS_UNAVAILABLE, "this engine stops");
	else
		*ret_view = view_copy(view);
	(void)pthread_mutex_unlock(&registry->lock);
	return st;
}

void registry_close(struct registry *registry)
{
	(void)pthread_mutex_lock(&registry->lock);
	registry->is_closed = true;
	for (size_t i = 0; i < REGISTRY_BELLS; i++) {
		(void)pthread_cond_broadcast(&registry->changed[i]);
		(void)pthread_cond_broadcast(&registry->watched[i]);
	}
	(void)pthread_mutex_unlock(&registry->lock);
}

void registry_count(struct registry *registry, unsigned *ret_active, unsigned *ret_in_doubt)
{
	(void)pthread_mutex_lock(&registry->lock);
	count_locked(registry, ret_active, ret_in_doubt);
	(void)pthread_mutex_unlock(&registry->lock);
}
