/* SPDX-License-Identifier: Apache-2.0 */
/* The set of an engine's source migrations, for source.c and source_recover.c. */
#ifndef HAUL_ENGINE_MIGRATION_SOURCES_H
#define HAUL_ENGINE_MIGRATION_SOURCES_H

#include "engine/migration/source_internal.h"

struct sources {
	struct core *core;
	pthread_mutex_t lock;
	struct source *list[LIMIT_SESSIONS];
	size_t count;
};

/* Starts the source's thread; the set owns it from then on. With the lock held, or alone. */
must_check status *sources_add(struct sources *sources, struct source *source);

Haul__V1__Migration *source_view(const struct source *source);

/* Joins and frees those that are over. With the lock held. */
void sources_reap(struct sources *sources);

#endif
