/* SPDX-License-Identifier: Apache-2.0 */
/* cgroup v2: the fence. A frozen group keeps a tree from running whoever dies; cgroup.kill ends all
 * of it at once. All our groups are under <mount>/haul: out-<id> (source's fence), in-<id>
 * (destination's tree), criu-<id> (a CRIU session), slow-<id> (a source's tree that is slowed
 * down). */
#ifndef HAUL_ENGINE_HOST_CGROUP_H
#define HAUL_ENGINE_HOST_CGROUP_H

#include <stdbool.h>
#include <sys/types.h>

#include "proto/status.h"

enum { CGROUP_PATH = 512 };

/* Where cgroup2 is mounted (from /proc/self/mountinfo); FAILED_PRECONDITION when it is not, or
 * when freezer files are missing. Makes <mount>/haul. */
must_check status *cgroup_base(char ret_path[CGROUP_PATH]);

/* Full directory of our group "<kind>-<id>" under `base`; kind is "out", "in", "criu". */
void cgroup_path(const char *base, const char *kind, const char *id, char ret_path[CGROUP_PATH]);

must_check status *cgroup_make(const char *path); /* existing is fine */
bool cgroup_exists(const char *path);
must_check status *cgroup_add(const char *path, pid_t pid); /* the whole process */
must_check status *cgroup_of(pid_t pid, const char *mount_base,
			     char ret_path[CGROUP_PATH]); /* directory now */

/* Writes cgroup.freeze and waits until cgroup.events says so (at most timeout_ms). */
must_check status *cgroup_freeze(const char *path, int64_t timeout_ms);
must_check status *cgroup_thaw(const char *path, int64_t timeout_ms);
must_check status *cgroup_is_frozen(const char *path, bool *ret_frozen); /* cgroup.freeze = 1 */
must_check status *cgroup_is_populated(const char *path, bool *ret_populated);

/* May the groups below `base` be limited in processor time? FAILED_PRECONDITION tells what is
 * missing. Changes nothing; cgroup_enable_cpu then makes it so. */
must_check status *cgroup_check_cpu(const char *base);
must_check status *cgroup_enable_cpu(const char *base);
/* cpu.max: so much processor time in each period; quota_us = 0: no limit. */
must_check status *cgroup_limit_cpu(const char *path, unsigned quota_us, unsigned period_us);

/* Pids in the group and below: a heap array. */
must_check status *cgroup_pids(const char *path, pid_t **ret_pids, size_t *ret_count);

/* cgroup.kill, waits until empty (zombies of other parents do not count), removes the group. */
must_check status *cgroup_kill(const char *path, int64_t timeout_ms);
/* Removes an empty group; missing is fine; FAILED_PRECONDITION when populated. */
must_check status *cgroup_remove(const char *path);

/* Calls visit(self, id) for each "<kind>-<id>" under base. */
must_check status *cgroup_each(const char *base, const char *kind,
			       void (*visit)(void *self, const char *id), void *self);

#endif
