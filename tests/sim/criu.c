/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU as its engine sees it: it holds a tree and lets it go when it dies, it restores one and
 * holds it until it may run. In the place of engine/criu. */
#include <stdio.h>
#include <string.h>

#include "engine/criu/inventory.h"
#include "engine/criu/mend.h"
#include "engine/criu/page_store.h"
#include "engine/criu/request.h"
#include "engine/criu/shared_memory.h"
#include "engine/criu/stats.h"
#include "engine/host/files.h"
#include "tests/sim/groups.h"
#include "tests/sim/pipes.h"

enum { SESSIONS = 64, RESTLESS = 200000 /* pages that no downtime allows */ };

struct swrk {
	struct proc *process;
	pid_t pid;
	bool is_interrupted, is_free;
	struct played_memory memory;
	char dir[CGROUP_PATH], group[CGROUP_PATH];
};

static struct swrk *sessions[SESSIONS];
static int session_count;

struct played_memory *memory_of(int fd)
{
	return &sessions[fd]->memory;
}

static bool has_process(const struct swrk *session)
{
	return session->process->is_alive && session->process->pid == session->pid;
}

status *swrk_open(const struct swrk_options *options, struct swrk **ret_session)
{
	struct swrk *session = calloc(1, sizeof(*session));

	if (session == NULL || session_count == SESSIONS)
		sim_fail("too many sessions of CRIU");
	if (!cgroup_exists(options->cgroup))
		return status_errorf(STATUS_NOT_FOUND, "no cgroup %s", options->cgroup);
	session->process = proc_new(node_here(), options->cgroup);
	session->process->is_criu = true;
	session->process->owner = life_here();
	session->process->keeps_holding = options->outlives_engine;
	session->pid = session->process->pid;
	session->memory.fd = session_count;
	(void)snprintf(session->dir, sizeof(session->dir), "%s", options->work_dir);
	(void)snprintf(session->group, sizeof(session->group), "%s", options->cgroup);
	sessions[session_count++] = session;
	sim_point("criu started", options->cgroup);
	*ret_session = session;
	return NULL;
}

pid_t swrk_pid(const struct swrk *session)
{
	return session->pid;
}

const char *swrk_work_dir(const struct swrk *session)
{
	return session->dir;
}

int swrk_memory_fd(const struct swrk *session)
{
	return session->memory.fd;
}

void swrk_interrupt(struct swrk *session)
{
	session->is_interrupted = true;
	fiber_wake(session->process);
}

void swrk_resume(struct swrk *session)
{
	session->is_interrupted = false;
}

/* Work here is short: what a time limit could cut is cut by interrupts. */
void swrk_set_deadline(struct swrk *session, int64_t deadline_ms)
{
	(void)session;
	(void)deadline_ms;
}

void swrk_shut_memory(struct swrk *session)
{
	session->memory.is_shut = true;
	fiber_wake(&session->memory);
}

void swrk_free(struct swrk *session)
{
	if (session == NULL)
		return;
	swrk_shut_memory(session);
	if (has_process(session))
		criu_process_end(session->process);
	sim_point("criu ended", session->group);
	if (strstr(session->group, "/criu") != NULL && cgroup_exists(session->group))
		status_free(cgroup_kill(session->group, 0));
}

/* CRIU works for a while: it may be interrupted, or die. */
static status *work(struct swrk *session, int64_t ms)
{
	int64_t until = sim_now() + ms * (sim_is_slow ? 700 : 1) * MS;

	while (sim_now() < until) {
		if (session->is_interrupted)
			return status_errorf(STATUS_CANCELLED, "interrupted");
		if (!has_process(session))
			return status_errorf(STATUS_UNAVAILABLE, "CRIU died");
		int64_t slice = sim_now() + 250 * MS;
		(void)fiber_wait(session->process, slice < until ? slice : until);
	}
	return NULL;
}

/* What CRIU says when it is asked something. */
static status *reply(struct swrk *session, const char *what)
{
	sim_point("criu replied", what);
	if (session->is_interrupted)
		return status_errorf(STATUS_CANCELLED, "interrupted");
	return has_process(session) ? NULL : status_errorf(STATUS_UNAVAILABLE, "CRIU died");
}

status *criu_version(struct swrk *session, const struct criu_limits *limits, unsigned *ret_version)
{
	(void)limits;
	*ret_version = 40101;
	return reply(session, "version");
}

status *criu_has_dirty_tracking(struct swrk *session, const struct criu_limits *limits,
				bool *ret_has)
{
	(void)limits;
	*ret_has = true;
	return reply(session, "features");
}

status *criu_cpuinfo_dump(struct swrk *session, const char *dir, const struct criu_limits *limits)
{
	char path[CGROUP_PATH];

	(void)limits;
	(void)snprintf(path, sizeof(path), "%s/cpuinfo.img", dir);
	status *st = files_write(path, "cpu", 3);
	return st == NULL ? reply(session, "cpuinfo") : st;
}

status *criu_cpuinfo_check(struct swrk *session, const char *dir, const struct criu_limits *limits)
{
	(void)dir;
	(void)limits;
	return reply(session, "cpuinfo check");
}

/* --- dump --- */

static void pages_are_out(struct swrk *session, uint64_t pages)
{
	session->memory.pages = pages;
	session->memory.is_done = true;
	fiber_wake(&session->memory);
}

status *criu_inventory_write(const char *dir, uint64_t uptime_us)
{
	(void)dir;
	(void)uptime_us;
	return NULL;
}

status *criu_uptime_now(uint64_t *ret_us)
{
	*ret_us = 0;
	return NULL;
}

status *criu_pre_dump(struct swrk *session, const struct criu_dump *dump)
{
	int node = node_here();

	(void)dump;
	world_stop_tree(node, session->pid);
	status *st = work(session, 10);
	world_release(node, session->pid);
	world_check();
	if (st == NULL)
		st = work(session, sim_is_restless ? 400 : 20);
	if (st == NULL)
		pages_are_out(session, session->memory.round == 1 ? 2000
				       : sim_is_restless	  ? RESTLESS
								  : 100);
	return st == NULL ? reply(session, "pre-dump") : st;
}

/* As dump_failed: CRIU is given a moment to let the tree go, then it is of no more use. */
static status *dump_failed(struct swrk *session, status *st)
{
	swrk_shut_memory(session);
	if (has_process(session))
		criu_process_end(session->process);
	return st;
}

status *criu_dump_hold(struct swrk *session, const struct criu_dump *dump)
{
	char path[CGROUP_PATH];
	int node = node_here(), copy = world_copy_of_tree(node);

	if (!has_process(session))
		return status_errorf(STATUS_UNAVAILABLE, "CRIU died");
	if (copy < 0)
		return status_errorf(STATUS_NOT_FOUND, "no such tree");
	world_stop_tree(node, session->pid);
	sim_point("criu holds", "the tree");
	int64_t version = copy_version(copy);
	(void)snprintf(path, sizeof(path), "%s/tree.img", dump->images_dir);
	status *st = work(session, 20);
	if (st == NULL)
		st = files_write(path, &version, sizeof(version));
	if (st != NULL)
		return dump_failed(session, st);
	pages_are_out(session, 50);
	st = reply(session, "post-dump");
	return st == NULL ? NULL : dump_failed(session, st);
}

status *criu_dump_end(struct swrk *session, const struct criu_dump *dump, bool kill)
{
	int node = node_here(), copy = world_copy_of_tree(node);

	(void)dump;
	if (!has_process(session))
		return status_errorf(STATUS_UNAVAILABLE, "CRIU died");
	for (pid_t pid = CHILD_PID; kill && copy >= 0 && pid >= ROOT_PID; pid--)
		proc_end(proc_find(node, pid));
	world_release(node, session->pid);
	world_check();
	return reply(session, kill ? "tree ended" : "tree let go");
}

/* --- restore --- */

/* Restores, up to pre-resume. */
static status *restore(struct swrk *session, const struct criu_restore *restore)
{
	char path[CGROUP_PATH];
	scoped(buffer) struct buffer image = {0};
	int64_t version;

	(void)snprintf(path, sizeof(path), "%s/tree.img", restore->images_dir);
	status *st = files_read(path, sizeof(version), &image);
	if (st != NULL)
		return st;
	if (image.size != sizeof(version))
		return status_errorf(STATUS_DATA_LOSS, "%s is not whole", path);
	memcpy(&version, image.data, sizeof(version));
	if (!has_process(session))
		return status_errorf(STATUS_UNAVAILABLE, "CRIU died");
	if (proc_find(node_here(), ROOT_PID) != NULL)
		return status_errorf(STATUS_ALREADY_EXISTS, "pid %d is taken", ROOT_PID);
	int copy = copy_restore(node_here(), version, session->process->cgroup, session->pid,
				session->process->owner);
	sim_point("criu restores", "the tree");
	st = work(session, 30);
	if (st != NULL)
		return st;
	copy_is_whole(copy);
	return NULL;
}

status *criu_restore_frozen(struct swrk *session, const struct criu_restore *wanted,
			    status *(*before_resume)(void *self, pid_t root), void *self,
			    pid_t *ret_pid)
{
	status *st = restore(session, wanted);

	if (st == NULL)
		st = reply(session, "pre-resume");
	if (st == NULL)
		st = before_resume(self, ROOT_PID);
	if (st != NULL)
		return st;
	if (!has_process(session))
		return status_errorf(STATUS_UNAVAILABLE, "CRIU died");
	criu_process_end(session->process); /* it lets go and ends */
	sim_point("criu replied", "restored");
	*ret_pid = ROOT_PID;
	return NULL;
}

/* --- what does not matter here --- */

void criu_stats_frozen_ms(const char *work_dir, double *ret_ms)
{
	(void)work_dir;
	(void)ret_ms;
}

status *criu_mend(const char *dir, unsigned *ret_count)
{
	(void)dir;
	*ret_count = 0;
	return NULL;
}

status *shared_memory_new(const char *images, struct shared_memory **ret_memory)
{
	(void)images;
	*ret_memory = NULL;
	return NULL;
}

const int *shared_memory_fds(const struct shared_memory *memory)
{
	(void)memory;
	return NULL;
}

status *shared_memory_add(struct shared_memory *memory, unsigned round, bool is_last,
			  uint64_t pages_most)
{
	(void)pages_most;
	(void)memory;
	(void)round;
	(void)is_last;
	return NULL;
}

status *shared_memory_finish(struct shared_memory *memory, struct criu_inherit *ret_inherits,
			     size_t *ret_count, uint64_t *ret_pages)
{
	(void)memory;
	(void)ret_inherits;
	*ret_count = 0;
	*ret_pages = 0;
	return NULL;
}

void shared_memory_free(struct shared_memory *memory)
{
	(void)memory;
}

status *page_store_new(const char *base, struct page_store **ret_store)
{
	*ret_store = NULL;
	return files_make_directory(base);
}

status *page_store_begin(struct page_store *store, unsigned round)
{
	(void)store;
	(void)round;
	return NULL;
}

status *page_store_cut(struct page_store *store, uint64_t *ret_pages)
{
	(void)store;
	*ret_pages = 0;
	return NULL;
}

void page_store_free(struct page_store *store)
{
	(void)store;
}
