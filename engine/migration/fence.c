/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/fence.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/proc.h"
#include "engine/log.h"
#include "proto/pack.h"

enum { FENCE_TIMEOUT_MS = 10000 };

status *fence_survey(struct fence *fence, const struct core *core, const char *id,
		     const pid_t *pids, size_t count)
{
	cgroup_path(core->cgroups, "out", id, fence->path);
	fence->origins = calloc(count + 1, sizeof(*fence->origins));
	if (fence->origins == NULL)
		return status_errnof(ENOMEM, "cannot note the tree's cgroups");
	for (size_t i = 0; i < count; i++) {
		char where[CGROUP_PATH], line[CGROUP_PATH + 16];
		scoped(status) status *st = cgroup_of(pids[i], core->cgroup_mount, where);
		if (st != NULL && status_code_of(st) == STATUS_NOT_FOUND)
			continue; /* ended meanwhile */
		if (st != NULL)
			return TAKE(st);
		(void)snprintf(line, sizeof(line), "%d %s", pids[i], where);
		fence->origins[fence->origin_count++] = text_copy(line);
	}
	return NULL;
}

void fence_recall(struct fence *fence, const struct core *core,
		  const Haul__V1__JournalRecord *record)
{
	cgroup_path(core->cgroups, "out", record->id, fence->path);
	fence->origins = calloc(record->n_origin_cgroups + 1, sizeof(*fence->origins));
	if (fence->origins == NULL)
		abort();
	for (size_t i = 0; i < record->n_origin_cgroups; i++)
		fence->origins[fence->origin_count++] = text_copy(record->origin_cgroups[i]);
}

void fence_fini(struct fence *fence)
{
	for (size_t i = 0; i < fence->origin_count; i++)
		free(fence->origins[i]);
	free(fence->origins);
	memset(fence, 0, sizeof(*fence));
}

/* Where this process came from; the root's group (the first line) for one that is not listed. */
static const char *origin_of(const struct fence *fence, pid_t pid)
{
	for (size_t i = 0; i < fence->origin_count; i++) {
		char *rest;
		if (strtol(fence->origins[i], &rest, 10) == pid && *rest == ' ')
			return rest + 1;
	}
	const char *first = fence->origin_count > 0 ? strchr(fence->origins[0], ' ') : NULL;
	return first != NULL ? first + 1 : NULL;
}

status *fence_close(struct fence *fence, pid_t root)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = cgroup_make(fence->path);

	if (st == NULL)
		st = proc_tree(root, &pids, &count);
	for (size_t i = 0; i < count && st == NULL; i++) {
		st = cgroup_add(fence->path, pids[i]);
		if (status_code_of(st) == STATUS_NOT_FOUND &&
		    pids[i] != root) { /* a zombie cannot be moved */
			status_free(st);
			st = NULL;
		}
	}
	free(pids);
	if (st == NULL)
		st = cgroup_freeze(fence->path, FENCE_TIMEOUT_MS);
	return st == NULL ? NULL : status_wrapf(st, "cannot fence the tree");
}

status *fence_check_held(const struct fence *fence, pid_t tracer)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = cgroup_pids(fence->path, &pids, &count);

	for (size_t i = 0; i < count && st == NULL; i++) {
		pid_t found = 0;
		st = proc_tracer(pids[i], &found);
		if (st == NULL && found != tracer)
			st = status_errorf(
			    STATUS_ABORTED,
			    "CRIU let process %d go before it was frozen: its dump is of the past",
			    pids[i]);
	}
	free(pids);
	return st;
}

static void move_back(const struct fence *fence, pid_t pid)
{
	const char *origin = origin_of(fence, pid);
	char parent[CGROUP_PATH];

	if (origin != NULL) {
		scoped(status) status *st = cgroup_exists(origin) ? NULL : cgroup_make(origin);
		if (st == NULL)
			st = cgroup_add(origin, pid);
		if (st == NULL || status_code_of(st) == STATUS_NOT_FOUND)
			return;
	}
	(void)snprintf(parent, sizeof(parent), "%s", fence->path);
	*strrchr(parent, '/') = '\0';
	scoped(status) status *st = cgroup_add(parent, pid);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, NULL, "a process could not leave its fence group", st);
}

status *fence_return(const struct fence *fence, const char *path)
{
	scoped(mem) void *owner = NULL;
	pid_t *pids = NULL;
	size_t count = 0;

	if (!cgroup_exists(path))
		return NULL;
	/* Repeated for what forks while we look. */
	for (int tries = 0; tries < 16; tries++) {
		scoped(status) status *looked = cgroup_pids(path, &pids, &count);
		if (looked != NULL || count == 0)
			break;
		for (size_t i = 0; i < count; i++)
			move_back(fence, pids[i]);
		free(TAKE(pids));
	}
	owner = pids;
	return cgroup_remove(path);
}

status *fence_open(struct fence *fence)
{
	if (!cgroup_exists(fence->path))
		return NULL;
	status *st = cgroup_thaw(fence->path, FENCE_TIMEOUT_MS);
	if (st != NULL)
		return status_wrapf(st, "cannot thaw the tree in %s", fence->path);
	/* It runs from here on; the rest is tidying. */
	scoped(status) status *removed = fence_return(fence, fence->path);
	if (removed != NULL)
		log_status(LOG_LEVEL_WARN, NULL, "the fence group stays", removed);
	return NULL;
}

status *fence_kill(struct fence *fence)
{
	if (!cgroup_exists(fence->path))
		return NULL;
	return cgroup_kill(fence->path, FENCE_TIMEOUT_MS);
}

static status *is_member(const char *path, pid_t root, bool *ret_is_member)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = cgroup_pids(path, &pids, &count);

	if (st != NULL)
		return st;
	*ret_is_member = false;
	for (size_t i = 0; i < count; i++)
		*ret_is_member = *ret_is_member || pids[i] == root;
	free(pids);
	return NULL;
}

void fence_look(const struct fence *fence, pid_t root, uint64_t start_ticks, bool *ret_exists,
		bool *ret_has_run)
{
	bool is_behind = false; /* in the group, and that is frozen */

	*ret_exists = !proc_is_gone(root, start_ticks);
	if (cgroup_exists(fence->path)) {
		scoped(status) status *st = cgroup_is_frozen(fence->path, &is_behind);
		bool is_in = is_behind;
		if (st == NULL && is_behind)
			st = is_member(fence->path, root, &is_in);
		/* "It has run" lets it run on: what could not be read must not say so. */
		is_behind = st != NULL || (is_behind && is_in);
	}
	*ret_has_run = *ret_exists && !is_behind;
}
