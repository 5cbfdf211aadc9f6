/* SPDX-License-Identifier: Apache-2.0 */
/* The played kernel's side of engine/host: cgroups, /proc, children, boots. */
#include <stdio.h>
#include <string.h>

#include "engine/host/child.h"
#include "engine/host/hold.h"
#include "engine/host/proc.h"
#include "tests/sim/groups.h"

struct group {
	bool is_used, is_frozen, is_limited;
	int node;
	char path[CGROUP_PATH];
};

static struct group groups[GROUPS * NODES];

static struct group *group_find(int node, const char *path)
{
	for (size_t i = 0; i < array_len(groups); i++) {
		if (groups[i].is_used && groups[i].node == node &&
		    strcmp(groups[i].path, path) == 0)
			return &groups[i];
	}
	return NULL;
}

static void group_new(int node, const char *path)
{
	for (size_t i = 0; i < array_len(groups); i++) {
		if (groups[i].is_used)
			continue;
		groups[i] = (struct group){.is_used = true, .node = node};
		(void)snprintf(groups[i].path, CGROUP_PATH, "%s", path);
		return;
	}
	sim_fail("too many cgroups");
}

void groups_init(void)
{
	for (int node = 0; node < NODES; node++) {
		group_new(node, "/cg/haul");
		group_new(node, HOME_GROUP);
	}
}

void groups_forget(int node)
{
	for (size_t i = 0; i < array_len(groups); i++) {
		if (groups[i].node == node && strcmp(groups[i].path, HOME_GROUP) != 0)
			groups[i].is_used = false;
	}
}

bool group_is_frozen(int node, const char *path)
{
	const struct group *group = group_find(node, path);

	return group != NULL && group->is_frozen;
}

/* Living members. */
static size_t members(int node, const char *path)
{
	size_t count = 0;

	for (int i = 0; proc_at(i) != NULL; i++) {
		const struct proc *proc = proc_at(i);
		count += proc->is_alive && proc->node == node && strcmp(proc->cgroup, path) == 0;
	}
	return count;
}

void groups_check_left_over(int node)
{
	for (size_t i = 0; i < array_len(groups); i++) {
		const char *path = groups[i].path;
		if (!groups[i].is_used || groups[i].node != node || strcmp(path, HOME_GROUP) == 0 ||
		    strcmp(path, "/cg/haul") == 0)
			continue;
		if (strstr(path, "/in-") != NULL && members(node, path) > 0 && !groups[i].is_frozen)
			continue; /* it runs there */
		sim_fail("the cgroup %s is left at %c", path, 'a' + node);
	}
}

static status *no_group(const char *path)
{
	return status_errorf(STATUS_NOT_FOUND, "there is no cgroup %s", path);
}

/* --- engine/host/cgroup.h --- */

status *cgroup_base(char ret_path[CGROUP_PATH])
{
	(void)snprintf(ret_path, CGROUP_PATH, "/cg/haul");
	return cgroup_make("/cg/haul");
}

void cgroup_path(const char *base, const char *kind, const char *id, char ret_path[CGROUP_PATH])
{
	(void)snprintf(ret_path, CGROUP_PATH, "%.400s/%.8s-%.64s", base, kind, id);
}

status *cgroup_make(const char *path)
{
	if (group_find(node_here(), path) == NULL) {
		group_new(node_here(), path);
		sim_point("cgroup made", path);
	}
	return NULL;
}

bool cgroup_exists(const char *path)
{
	return group_find(node_here(), path) != NULL;
}

status *cgroup_add(const char *path, pid_t pid)
{
	struct proc *proc = proc_find(node_here(), pid);

	if (group_find(node_here(), path) == NULL)
		return no_group(path);
	if (proc == NULL || !proc->is_alive)
		return status_errorf(STATUS_NOT_FOUND, "no such process: %d", pid);
	(void)snprintf(proc->cgroup, sizeof(proc->cgroup), "%s", path);
	world_check();
	sim_point("process moved", path);
	return NULL;
}

status *cgroup_of(pid_t pid, const char *mount_base, char ret_path[CGROUP_PATH])
{
	const struct proc *proc = proc_find(node_here(), pid);

	(void)mount_base;
	if (proc == NULL)
		return status_errorf(STATUS_NOT_FOUND, "no such process: %d", pid);
	(void)snprintf(ret_path, CGROUP_PATH, "%s", proc->cgroup);
	return NULL;
}

static status *set_frozen(const char *path, bool is_frozen)
{
	struct group *group = group_find(node_here(), path);

	if (group == NULL)
		return no_group(path);
	group->is_frozen = is_frozen;
	world_check();
	sim_point(is_frozen ? "cgroup frozen" : "cgroup thawed", path);
	return NULL;
}

status *cgroup_freeze(const char *path, int64_t timeout_ms)
{
	(void)timeout_ms;
	return set_frozen(path, true);
}

status *cgroup_thaw(const char *path, int64_t timeout_ms)
{
	(void)timeout_ms;
	return set_frozen(path, false);
}

status *cgroup_is_frozen(const char *path, bool *ret_frozen)
{
	const struct group *group = group_find(node_here(), path);

	if (group == NULL)
		return no_group(path);
	*ret_frozen = group->is_frozen;
	return NULL;
}

status *cgroup_check_cpu(const char *base)
{
	(void)base;
	return NULL;
}

status *cgroup_enable_cpu(const char *base)
{
	(void)base;
	return NULL;
}

status *cgroup_limit_cpu(const char *path, unsigned quota_us, unsigned period_us)
{
	struct group *group = group_find(node_here(), path);

	(void)period_us;
	if (group == NULL)
		return no_group(path);
	if (group->is_limited == (quota_us != 0))
		return NULL;
	group->is_limited = quota_us != 0;
	sim_point(group->is_limited ? "cgroup slowed" : "cgroup no longer slowed", path);
	return NULL;
}

status *cgroup_is_populated(const char *path, bool *ret_populated)
{
	if (group_find(node_here(), path) == NULL)
		return no_group(path);
	*ret_populated = members(node_here(), path) > 0;
	return NULL;
}

status *cgroup_pids(const char *path, pid_t **ret_pids, size_t *ret_count)
{
	int node = node_here();
	size_t count = 0;

	if (group_find(node, path) == NULL)
		return no_group(path);
	pid_t *pids = calloc(members(node, path) + 1, sizeof(*pids));
	if (pids == NULL)
		abort();
	for (int i = 0; proc_at(i) != NULL; i++) {
		const struct proc *proc = proc_at(i);
		if (proc->is_alive && proc->node == node && strcmp(proc->cgroup, path) == 0)
			pids[count++] = proc->pid;
	}
	*ret_pids = pids;
	*ret_count = count;
	return NULL;
}

status *cgroup_kill(const char *path, int64_t timeout_ms)
{
	int node = node_here();

	(void)timeout_ms;
	if (group_find(node, path) == NULL)
		return NULL;
	/* The tree first: what CRIU held is not let run by its end. */
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; proc_at(i) != NULL; i++) {
			struct proc *proc = proc_at(i);
			if (proc->is_alive && proc->node == node && proc->is_criu == (pass == 1) &&
			    strcmp(proc->cgroup, path) == 0)
				proc_end(proc);
		}
	}
	world_check();
	sim_point("cgroup killed", path);
	return cgroup_remove(path);
}

status *cgroup_remove(const char *path)
{
	struct group *group = group_find(node_here(), path);

	if (group == NULL)
		return NULL;
	for (int tries = 0; members(node_here(), path) > 0; tries++) {
		if (tries == 20)
			return status_errorf(STATUS_FAILED_PRECONDITION, "%s has processes", path);
		sim_sleep(5 * MS);
	}
	group->is_used = false;
	sim_point("cgroup removed", path);
	return NULL;
}

status *cgroup_each(const char *base, const char *kind, void (*visit)(void *self, const char *id),
		    void *self)
{
	char prefix[CGROUP_PATH];
	char found[GROUPS][CGROUP_PATH];
	size_t count = 0;

	(void)snprintf(prefix, sizeof(prefix), "%s/%s-", base, kind);
	for (size_t i = 0; i < array_len(groups) && count < GROUPS; i++) {
		if (groups[i].is_used && groups[i].node == node_here() &&
		    strncmp(groups[i].path, prefix, strlen(prefix)) == 0)
			(void)snprintf(found[count++], CGROUP_PATH, "%s",
				       groups[i].path + strlen(prefix));
	}
	for (size_t i = 0; i < count; i++)
		visit(self, found[i]);
	return NULL;
}

/* --- engine/host/proc.h --- */

static status *no_process(pid_t pid)
{
	return status_errorf(STATUS_NOT_FOUND, "there is no process %d", pid);
}

status *proc_stat(pid_t pid, struct proc_stat *ret_stat)
{
	const struct proc *proc = proc_find(node_here(), pid);

	if (proc == NULL)
		return no_process(pid);
	*ret_stat = (struct proc_stat){.pid = pid,
				       .parent = proc->parent,
				       .state = proc->is_alive ? 'S' : 'Z',
				       .start_ticks = proc->start_ticks,
				       .name = "workload"};
	return NULL;
}

status *proc_tree(pid_t root, pid_t **ret_pids, size_t *ret_count)
{
	if (proc_find(node_here(), root) == NULL)
		return no_process(root);
	pid_t *pids = calloc(2, sizeof(*pids));
	if (pids == NULL)
		abort();
	pids[0] = root;
	*ret_count = 1;
	const struct proc *child = proc_find(node_here(), root + 1);
	if (child != NULL && child->parent == root)
		pids[(*ret_count)++] = child->pid;
	*ret_pids = pids;
	return NULL;
}

bool proc_is_alive(pid_t pid, uint64_t start_ticks)
{
	const struct proc *proc = proc_find(node_here(), pid);

	return proc != NULL && proc->is_alive &&
	       (start_ticks == 0 || proc->start_ticks == start_ticks);
}

bool proc_is_gone(pid_t pid, uint64_t start_ticks)
{
	return !proc_is_alive(pid, start_ticks);
}

status *proc_resident_bytes(pid_t pid, uint64_t *ret_bytes)
{
	(void)pid;
	*ret_bytes = (uint64_t)8 << 20;
	return NULL;
}

status *proc_innermost_pid(pid_t pid, pid_t *ret_pid)
{
	*ret_pid = pid;
	return NULL;
}

status *proc_reset_dirty(pid_t pid)
{
	(void)pid;
	return NULL;
}

/* It is let go at once: whoever dies meanwhile changes nothing. */
status *hold_tree(pid_t root, int64_t timeout_ms, struct hold **ret_hold)
{
	(void)timeout_ms;
	*ret_hold = NULL;
	return proc_find(node_here(), root) == NULL ? no_process(root) : NULL;
}

void hold_release(struct hold *hold)
{
	(void)hold;
}

status *proc_cpu_ms(pid_t pid, double *ret_ms)
{
	(void)pid;
	*ret_ms = (double)sim_now() / (double)MS; /* ever busy */
	return NULL;
}

status *proc_tracer(pid_t pid, pid_t *ret_tracer)
{
	const struct proc *proc = proc_find(node_here(), pid);

	if (proc == NULL)
		return no_process(pid);
	*ret_tracer = proc->tracer;
	return NULL;
}

status *proc_boot_id(char ret_id[40])
{
	(void)snprintf(ret_id, 40, "%s", world_boot_id(node_here()));
	return NULL;
}

/* --- engine/host/child.h: only what reaps --- */

pid_t child_reap(pid_t pid, int *ret_wait_status)
{
	struct proc *proc = proc_find(node_here(), pid);

	if (proc == NULL || !proc->is_zombie)
		return 0;
	proc->is_zombie = false;
	*ret_wait_status = 0;
	return pid;
}

void child_reap_group(const char *cgroup)
{
	(void)cgroup;
}
