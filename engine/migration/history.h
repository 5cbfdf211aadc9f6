/* SPDX-License-Identifier: Apache-2.0 */
/* The reports of finished migrations on disk, a file each in <state-dir>/history, so that they
 * outlive a restart. They are for people: nothing is decided by them (that is the journal's), so
 * they are not synced, and one that is lost or damaged is only missing. */
#ifndef HAUL_ENGINE_MIGRATION_HISTORY_H
#define HAUL_ENGINE_MIGRATION_HISTORY_H

#include "engine/migration/registry.h"

struct history;

must_check status *history_open(const char *state_dir, struct history **ret_history);

/* Keeps a report, instead of an earlier one of this id. */
must_check status *history_keep(struct history *history, const Haul__V1__Migration *view);

/* The kept report (NULL when there is none), and whether a user deleted it: then the journal's
 * record is not to be shown either. */
Haul__V1__Migration *history_find(struct history *history, const char *id, bool *ret_is_deleted);

/* A user wants it out of sight. */
must_check status *history_delete(struct history *history, const char *id);

/* Forgets it, deleted or not. */
void history_forget(struct history *history, const char *id);

/* Calls visit(self, id, report) for each, in no order; the report is valid in the visit, and NULL
 * for one that was deleted. */
must_check status *history_each(struct history *history,
				void (*visit)(void *self, const char *id,
					      const Haul__V1__Migration *view),
				void *self);

void history_free(struct history *history);

#endif
