/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by registry.c and registry_list.c. */
#ifndef HAUL_ENGINE_MIGRATION_REGISTRY_INTERNAL_H
#define HAUL_ENGINE_MIGRATION_REGISTRY_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/migration/registry.h"

/* A change of one migration wakes those who wait for it, not the thousand who wait for others. */
enum { REGISTRY_BELLS = 64 };

struct registry {
	pthread_mutex_t lock;
	pthread_cond_t changed[REGISTRY_BELLS]; /* by the id; on CLOCK_MONOTONIC */
	bool is_closed;
	atomic_uint hushes;	 /* changed under the lock */
	unsigned waits;		 /* registry_await_end */
	pthread_mutex_t keeping; /* around the keeper's calls, taken before `lock` */
	struct registry_keeper keeper;
	Haul__V1__Migration **views; /* by the time they began and their ids, oldest first */
	size_t count, room;
};

Haul__V1__Migration *view_copy(const Haul__V1__Migration *view);

/* The order of the list: by the time they began, then by id. */
int view_compare(const Haul__V1__Migration *view, int64_t started_unix_ms, const char *id);

#endif
