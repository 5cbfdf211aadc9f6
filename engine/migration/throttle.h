/* SPDX-License-Identifier: Apache-2.0 */
/* Slowing a tree down while its memory is copied ahead: it is moved into a cgroup of its own,
 * slow-<id>, whose cpu.max is lowered step by step. The group is what a new hauld finds, and the
 * journal has where each process came from, so whoever dies, the tree gets its time back. While
 * CRIU holds the tree it is not limited: CRIU works in the tree's own processes. */
#ifndef HAUL_ENGINE_MIGRATION_THROTTLE_H
#define HAUL_ENGINE_MIGRATION_THROTTLE_H

#include "engine/migration/fence.h"

#define THROTTLE_GROUP "slow"

struct throttle;

/* FAILED_PRECONDITION where processor time cannot be limited. */
must_check status *throttle_check(const struct core *core);

/* Moves the tree below root, whose processes' places are in the journal, into its group. It may use
 * `cpus` processors' time until a share is set. */
must_check status *throttle_start(const struct core *core, const char *id, pid_t root, double cpus,
				  struct throttle **ret_throttle);

/* Leaves the tree so many percent of that. */
must_check status *throttle_set(struct throttle *throttle, unsigned share);

/* No limit any more; frees it. The tree stays in the group. */
void throttle_free(struct throttle *throttle);

/* Gives the tree of this migration, if it was slowed down, by this hauld or an earlier one, its
 * time back, moves it to where it came from and removes the group. Nothing to do is fine. */
must_check status *throttle_undo(const struct core *core, const char *id,
				 const struct fence *fence);

/* All that an earlier hauld has slowed down may run at once; where it belongs is a later question.
 */
must_check status *throttle_lift_all(const struct core *core);

DEFINE_SCOPE(throttle, struct throttle *, throttle_free);

#endif
