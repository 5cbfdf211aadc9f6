/* SPDX-License-Identifier: Apache-2.0 */
/* The source's fence: the whole tree in a cgroup of its own, frozen there, so that it stays frozen
 * whoever dies; and the way back to the groups it came from. */
#ifndef HAUL_ENGINE_MIGRATION_FENCE_H
#define HAUL_ENGINE_MIGRATION_FENCE_H

#include "engine/core.h"

struct fence {
	char path[CGROUP_PATH];
	char **origins; /* "pid directory" each, as journaled */
	size_t origin_count;
};

/* Notes where each process of the tree is now (before the freeze: for the journal). */
must_check status *fence_survey(struct fence *fence, const struct core *core, const char *id,
				const pid_t *pids, size_t count);
/* From the journal. */
void fence_recall(struct fence *fence, const struct core *core,
		  const Haul__V1__JournalRecord *record);

/* Moves the stopped tree below root in and freezes it. Processes that appeared since the survey go
 * back to the root's group. */
must_check status *fence_close(struct fence *fence, pid_t root);

/* After fence_close: is all of it still held by this tracer? A CRIU that died between its last word
 * and the freeze let the tree run on, and what it dumped is of the past: ABORTED. */
must_check status *fence_check_held(const struct fence *fence, pid_t tracer);

/* Thaws and moves every process back; a group that is gone is made again, or the process stays in
 * the fence's parent. Runs the workload: only call when it may run. */
must_check status *fence_open(struct fence *fence);

/* The same for another group that the tree is in, which is not frozen. */
must_check status *fence_return(const struct fence *fence, const char *path);

/* Kills what is inside and removes the group. */
must_check status *fence_kill(struct fence *fence);

/* Is the tree there (root alive with this start time), and has it run: is it not behind its frozen
 * fence? What cannot be read counts as there and as behind it. */
void fence_look(const struct fence *fence, pid_t root, uint64_t start_ticks, bool *ret_exists,
		bool *ret_has_run);

void fence_fini(struct fence *fence);

#endif
