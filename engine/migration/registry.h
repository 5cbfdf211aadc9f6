/* SPDX-License-Identifier: Apache-2.0 */
/* What users see of migrations: one view each, changed by its migration's thread, read and watched
 * by any. Objects are never shared: readers get copies. */
#ifndef HAUL_ENGINE_MIGRATION_REGISTRY_H
#define HAUL_ENGINE_MIGRATION_REGISTRY_H

#include <stdatomic.h>

#include "haul/v1/migrations.pb-c.h"
#include "proto/limits.h"
#include "proto/status.h"

struct registry;

struct registry *registry_new(void);
void registry_free(struct registry *registry);

/* Who keeps what is over. Called by whoever made the change, without the registry's lock. */
struct registry_keeper {
	void *self;
	void (*keep)(void *self, const Haul__V1__Migration *view); /* it is over, or changed then */
	void (*forget)(void *self, const char *id);  /* the registry has forgotten a finished one */
	status *(*hide)(void *self, const char *id); /* a user has deleted it */
};
/* Before there are other threads. */
void registry_set_keeper(struct registry *registry, const struct registry_keeper *keeper);

/* Adds a view; ALREADY_EXISTS when the id is known, RESOURCE_EXHAUSTED when LIMIT_SESSIONS are
 * active. Old finished ones are forgotten above LIMIT_HISTORY. A sequence that the view brings
 * along goes on. Takes the view, also on error. */
must_check status *registry_add(struct registry *registry, Haul__V1__Migration *view);

/* Changes a view under the registry's lock: change(self, view) must not block. Grows its sequence
 * and wakes watchers. */
void registry_change(struct registry *registry, const char *id,
		     void (*change)(void *self, Haul__V1__Migration *view), void *self);

/* A copy; NOT_FOUND says how to list. */
must_check status *registry_get(struct registry *registry, const char *id,
				Haul__V1__Migration **ret_view);

/* Copies of those that the request wants, newest first, a page of them. INVALID_ARGUMENT for a page
 * token that is none. */
must_check status *registry_list(struct registry *registry, const Haul__V1__ListRequest *request,
				 Haul__V1__ListResponse **ret_list);

/* Waits until the migration is over or `timeout_ms` has passed, then as registry_get; so it does
 * when is_wanted(self) becomes false (looked at twice a second, and after registry_wake),
 * UNAVAILABLE after registry_close. At most LIMIT_WAITS wait at a time, more get what is known at
 * once. */
must_check status *registry_await_end(struct registry *registry, const char *id, int64_t timeout_ms,
				      bool (*is_wanted)(void *self), void *self,
				      Haul__V1__Migration **ret_view);

/* Those who wait shall look again. */
void registry_wake(struct registry *registry);

/* While hushed (as often as it begins, it must end), watchers are told of ends only, and of other
 * changes after a second. */
void registry_hush(struct registry *registry, bool begins);
bool registry_is_hushed(struct registry *registry);

/* Forgets a finished one: NOT_FOUND, FAILED_PRECONDITION when it is not over. */
must_check status *registry_delete(struct registry *registry, const char *id);

/* A view as it was, in bytes; nobody changes it. */
struct packed_view {
	atomic_uint references;
	uint64_t sequence;
	bool is_over;
	char id[LIMIT_ID + 1];
	size_t size;
	uint8_t bytes[]; /* a Migration */
};

/* Waits until the view's sequence is above `sequence` and gives it, to be released; NULL and OK: it
 * is over and was seen. Without a wait when sequence is 0, and when it is over; else the change has
 * settled: watchers hear of those that come within a tenth of a second together, some sooner than
 * others. DEADLINE_EXCEEDED after timeout_ms; CANCELLED after registry_close. */
must_check status *registry_watch(struct registry *registry, const char *id, uint64_t sequence,
				  int64_t timeout_ms, struct packed_view **ret_view);

void packed_view_release(struct packed_view *view);
DEFINE_SCOPE(packed_view, struct packed_view *, packed_view_release);

/* Ends all waiting. */
void registry_close(struct registry *registry);

void registry_count(struct registry *registry, unsigned *ret_active, unsigned *ret_in_doubt);

bool migration_is_over(const Haul__V1__Migration *view); /* nothing will change it any more */

/* Replaces a text of a view. */
void text_set(char **field, const char *text);

static inline void migration_view_free(Haul__V1__Migration *view)
{
	haul__v1__migration__free_unpacked(view, NULL);
}
DEFINE_SCOPE(migration_view, Haul__V1__Migration *, migration_view_free);
DEFINE_SCOPE(registry, struct registry *, registry_free);

#endif
