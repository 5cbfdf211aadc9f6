/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/registry.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "engine/host/clock.h"
#include "proto/limits.h"
#include "proto/pack.h"

struct registry {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* on CLOCK_MONOTONIC */
	bool is_closed;
	Haul__V1__Migration **views; /* oldest first */
	size_t count, room;
};

struct registry *registry_new(void)
{
	struct registry *registry = calloc(1, sizeof(*registry));
	pthread_condattr_t attributes;

	if (registry == NULL)
		abort();
	(void)pthread_mutex_init(&registry->lock, NULL);
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&registry->changed, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	return registry;
}

void registry_free(struct registry *registry)
{
	if (registry == NULL)
		return;
	for (size_t i = 0; i < registry->count; i++)
		migration_view_free(registry->views[i]);
	free(registry->views);
	(void)pthread_cond_destroy(&registry->changed);
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

static Haul__V1__Migration *view_copy(const Haul__V1__Migration *view)
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

static Haul__V1__Migration *find(struct registry *registry, const char *id)
{
	for (size_t i = registry->count; i-- > 0;) {
		if (strcmp(registry->views[i]->id, id) == 0)
			return registry->views[i];
	}
	return NULL;
}

static status *not_found(const char *id)
{
	return status_detailf(status_errorf(STATUS_NOT_FOUND, "no migration %.64s", id), "next",
			      "`haulctl list` shows those this engine knows");
}

static void forget_oldest_finished(struct registry *registry)
{
	for (size_t i = 0; i < registry->count; i++) {
		if (!migration_is_over(registry->views[i]))
			continue;
		migration_view_free(registry->views[i]);
		memmove(registry->views + i, registry->views + i + 1,
			(registry->count - i - 1) * sizeof(*registry->views));
		registry->count--;
		return;
	}
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

static status *add_locked(struct registry *registry, Haul__V1__Migration *view)
{
	unsigned active, in_doubt;

	count_locked(registry, &active, &in_doubt);
	if (find(registry, view->id) != NULL)
		return status_errorf(STATUS_ALREADY_EXISTS, "migration %s exists", view->id);
	if (active >= LIMIT_SESSIONS && !migration_is_over(view))
		return status_errorf(
		    STATUS_RESOURCE_EXHAUSTED,
		    "%u migrations are in flight on this engine: wait for one to end", active);
	if (registry->count >= LIMIT_HISTORY)
		forget_oldest_finished(registry);
	if (registry->count == registry->room) {
		size_t room = registry->room == 0 ? 64 : registry->room * 2;
		void *grown = realloc(registry->views, room * sizeof(*registry->views));
		if (grown == NULL)
			return status_errnof(ENOMEM, "cannot add a migration");
		registry->views = grown;
		registry->room = room;
	}
	registry->views[registry->count++] = view;
	return NULL;
}

status *registry_add(struct registry *registry, Haul__V1__Migration *view)
{
	(void)pthread_mutex_lock(&registry->lock);
	view->sequence = 1;
	status *st = add_locked(registry, view);
	(void)pthread_mutex_unlock(&registry->lock);
	if (st != NULL)
		migration_view_free(view);
	return st;
}

void registry_change(struct registry *registry, const char *id,
		     void (*change)(void *self, Haul__V1__Migration *view), void *self)
{
	(void)pthread_mutex_lock(&registry->lock);
	Haul__V1__Migration *view = find(registry, id);
	if (view != NULL) {
		change(self, view);
		view->sequence++;
		(void)pthread_cond_broadcast(&registry->changed);
	}
	(void)pthread_mutex_unlock(&registry->lock);
}

status *registry_get(struct registry *registry, const char *id, Haul__V1__Migration **ret_view)
{
	return registry_wait(registry, id, 0, 0, ret_view);
}

status *registry_wait(struct registry *registry, const char *id, uint64_t sequence,
		      int64_t timeout_ms, Haul__V1__Migration **ret_view)
{
	int64_t until = clock_monotonic_ms() + timeout_ms;
	struct timespec at = {.tv_sec = until / 1000, .tv_nsec = (until % 1000) * 1000000};
	status *st = NULL;

	(void)pthread_mutex_lock(&registry->lock);
	for (;;) {
		Haul__V1__Migration *view = find(registry, id);
		if (view == NULL) {
			st = not_found(id);
			break;
		}
		if (view->sequence > sequence) {
			*ret_view = view_copy(view);
			break;
		}
		if (registry->is_closed) {
			st = status_errorf(STATUS_CANCELLED, "this engine stops");
			break;
		}
		if (pthread_cond_timedwait(&registry->changed, &registry->lock, &at) == ETIMEDOUT) {
			st = status_errorf(STATUS_DEADLINE_EXCEEDED, "no change");
			break;
		}
	}
	(void)pthread_mutex_unlock(&registry->lock);
	return st;
}

status *registry_list(struct registry *registry, bool active_only,
		      Haul__V1__ListResponse **ret_list)
{
	Haul__V1__ListResponse *list = malloc(sizeof(*list));

	if (list == NULL)
		abort();
	haul__v1__list_response__init(list);
	(void)pthread_mutex_lock(&registry->lock);
	list->migrations = calloc(registry->count + 1, sizeof(*list->migrations));
	if (list->migrations == NULL)
		abort();
	for (size_t i = registry->count; i-- > 0;) {
		if (!active_only || !migration_is_over(registry->views[i]))
			list->migrations[list->n_migrations++] = view_copy(registry->views[i]);
	}
	(void)pthread_mutex_unlock(&registry->lock);
	*ret_list = list;
	return NULL;
}

void registry_close(struct registry *registry)
{
	(void)pthread_mutex_lock(&registry->lock);
	registry->is_closed = true;
	(void)pthread_cond_broadcast(&registry->changed);
	(void)pthread_mutex_unlock(&registry->lock);
}

void registry_count(struct registry *registry, unsigned *ret_active, unsigned *ret_in_doubt)
{
	(void)pthread_mutex_lock(&registry->lock);
	count_locked(registry, ret_active, ret_in_doubt);
	(void)pthread_mutex_unlock(&registry->lock);
}
