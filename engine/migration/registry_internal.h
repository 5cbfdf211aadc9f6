/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by registry.c, registry_list.c and registry_watch.c. */
#ifndef HAUL_ENGINE_MIGRATION_REGISTRY_INTERNAL_H
#define HAUL_ENGINE_MIGRATION_REGISTRY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/migration/registry.h"

enum {
	/* A change of one migration wakes those who wait for it, not the thousand who wait for
	 * others. */
	REGISTRY_BELLS = 64,
	/* While hushed, what has changed is announced after so long all the same. */
	REGISTRY_LATEST_MS = 1000,
};

struct registry {
	pthread_mutex_t lock;
	pthread_cond_t changed[REGISTRY_BELLS]; /* registry_await_end, by the id; CLOCK_MONOTONIC */
	pthread_cond_t watched[REGISTRY_BELLS]; /* registry_watch */
	unsigned watching[REGISTRY_BELLS];	/* those who wait for it */
	struct packed_view *packed[REGISTRY_BELLS]; /* what was asked for last, or NULL */
	uint64_t unannounced;			    /* whose watchers are to be woken, a bit each */
	int64_t unannounced_ms;			    /* since when the first of them is */
	int64_t latest_ms;			    /* REGISTRY_LATEST_MS */
	pthread_cond_t to_announce;		    /* wakes the announcer */
	pthread_t announcer;
	bool has_announcer;
	bool is_ending;
	bool is_closed;
	atomic_uint hushes;	 /* changed under the lock */
	unsigned waits;		 /* registry_await_end */
	pthread_mutex_t keeping; /* around the keeper's calls, taken before `lock` */
	struct registry_keeper keeper;
	Haul__V1__Migration **views; /* by the time they began and their ids, oldest first */
	size_t count, room;
};

Haul__V1__Migration *view_copy(const Haul__V1__Migration *view);

/* The registry's own, or NULL. Caller holds the lock. */
Haul__V1__Migration *registry_find(struct registry *registry, const char *id);
must_check status *registry_not_found(const char *id);

size_t registry_bell(const char *id);

/* Those who watch it are told, later unless it is over. Caller holds the lock. */
void registry_note_change(struct registry *registry, const char *id, bool is_over);

/* It may come back as another. Caller holds the lock. */
void registry_drop_packed(struct registry *registry, const char *id);

/* Nobody watches any more. */
void registry_end_announcing(struct registry *registry);

/* The order of the list: by the time they began, then by id. */
int view_compare(const Haul__V1__Migration *view, int64_t started_unix_ms, const char *id);

#endif
