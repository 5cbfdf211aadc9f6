/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/throttle.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/proc.h"
#include "engine/log.h"
#include "proto/clock.h"

enum {
	/* What the kernel gives at least, and the shortest period: a tree that runs in small steps
	 * is stopped, and moved, sooner. */
	QUOTA_LEAST_US = 1000,
	PERIOD_US = 10000,
	PERIOD_MOST_US = 1000000,
	LOOK_MS = 2, /* whether CRIU holds it */
	PASSES = 16, /* over a tree that forks */
};

struct throttle {
	char path[CGROUP_PATH], id[LIMIT_ID + 1];
	pid_t root;
	double cpus;
	pthread_t watcher;
	bool has_watcher;
	pthread_mutex_t lock;
	pthread_cond_t told; /* CLOCK_MONOTONIC */
	/* By the lock: */
	unsigned quota_us, period_us; /* 0 = no limit */
	bool is_held;		      /* by a tracer */
	bool is_ending;
};

status *throttle_check(const struct core *core)
{
	return cgroup_check_cpu(core->cgroups);
}

/* --- moving the tree --- */

static status *move_new(const struct throttle *throttle, const struct core *core, bool *ret_moved)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = proc_tree(throttle->root, &pids, &count);

	*ret_moved = false;
	for (size_t i = 0; i < count && st == NULL; i++) {
		char where[CGROUP_PATH];
		st = cgroup_of(pids[i], core->cgroup_mount, where);
		if (st == NULL && strcmp(where, throttle->path) != 0) {
			st = cgroup_add(throttle->path, pids[i]);
			*ret_moved = *ret_moved || st == NULL;
		}
		/* Ended meanwhile, or a zombie, which cannot be moved. */
		if (status_code_of(st) == STATUS_NOT_FOUND) {
			status_free(st);
			st = NULL;
		}
	}
	free(pids);
	return st;
}

static status *move_tree(const struct throttle *throttle, const struct core *core)
{
	bool is_moving = true;
	status *st = NULL;

	for (int pass = 0; pass < PASSES && st == NULL && is_moving; pass++)
		st = move_new(throttle, core, &is_moving);
	return st;
}

/* --- the limit --- */

/* With the lock. */
static status *apply(const struct throttle *throttle)
{
	return cgroup_limit_cpu(throttle->path, throttle->is_held ? 0 : throttle->quota_us,
				throttle->period_us);
}

static void look(struct throttle *throttle)
{
	pid_t tracer = 0;
	scoped(status) status *st = proc_tracer(throttle->root, &tracer);
	bool is_held = st == NULL && tracer != 0;

	if (is_held == throttle->is_held)
		return;
	throttle->is_held = is_held;
	scoped(status) status *applied = apply(throttle);
	if (applied != NULL)
		log_status(LOG_LEVEL_WARN, throttle->id, "a slowed tree's limit", applied);
}

static void *watch(void *self)
{
	struct throttle *throttle = self;

	(void)pthread_mutex_lock(&throttle->lock);
	while (!throttle->is_ending) {
		const struct timespec at = clock_at(clock_monotonic_ms() + LOOK_MS);
		(void)pthread_cond_timedwait(&throttle->told, &throttle->lock, &at);
		if (!throttle->is_ending)
			look(throttle);
	}
	(void)pthread_mutex_unlock(&throttle->lock);
	return NULL;
}

status *throttle_set(struct throttle *throttle, unsigned share)
{
	double part = throttle->cpus * share / 100;
	double period = part * PERIOD_US < QUOTA_LEAST_US ? QUOTA_LEAST_US / part : PERIOD_US;

	if (period > PERIOD_MOST_US)
		period = PERIOD_MOST_US;
	double quota = part * period > QUOTA_LEAST_US ? part * period : QUOTA_LEAST_US;
	(void)pthread_mutex_lock(&throttle->lock);
	throttle->quota_us = (unsigned)quota;
	throttle->period_us = (unsigned)period;
	status *st = apply(throttle);
	(void)pthread_mutex_unlock(&throttle->lock);
	return st;
}

static struct throttle *throttle_new(const struct core *core, const char *id, pid_t root,
				     double cpus)
{
	struct throttle *throttle = calloc(1, sizeof(*throttle));

	if (throttle == NULL)
		abort();
	cgroup_path(core->cgroups, THROTTLE_GROUP, id, throttle->path);
	(void)snprintf(throttle->id, sizeof(throttle->id), "%s", id);
	throttle->root = root;
	throttle->cpus = cpus;
	(void)pthread_mutex_init(&throttle->lock, NULL);
	clock_cond_init(&throttle->told);
	return throttle;
}

status *throttle_start(const struct core *core, const char *id, pid_t root, double cpus,
		       struct throttle **ret_throttle)
{
	scoped(throttle) struct throttle *throttle = throttle_new(core, id, root, cpus);
	status *st = cgroup_enable_cpu(core->cgroups);

	if (st == NULL)
		st = cgroup_make(throttle->path);
	if (st == NULL)
		st = move_tree(throttle, core);
	if (st != NULL)
		return status_wrapf(st, "cannot slow the tree down");
	int failed = pthread_create(&throttle->watcher, NULL, watch, throttle);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	throttle->has_watcher = true;
	*ret_throttle = TAKE(throttle);
	return NULL;
}

static status *lift(const char *path)
{
	return cgroup_exists(path) ? cgroup_limit_cpu(path, 0, 0) : NULL;
}

void throttle_free(struct throttle *throttle)
{
	if (throttle == NULL)
		return;
	(void)pthread_mutex_lock(&throttle->lock);
	throttle->is_ending = true;
	(void)pthread_cond_broadcast(&throttle->told);
	(void)pthread_mutex_unlock(&throttle->lock);
	if (throttle->has_watcher)
		(void)pthread_join(throttle->watcher, NULL);
	scoped(status) status *st = lift(throttle->path);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, throttle->id, "a slowed tree's limit", st);
	(void)pthread_cond_destroy(&throttle->told);
	(void)pthread_mutex_destroy(&throttle->lock);
	free(throttle);
}

/* --- the end of it --- */

status *throttle_undo(const struct core *core, const char *id, const struct fence *fence)
{
	char path[CGROUP_PATH];

	cgroup_path(core->cgroups, THROTTLE_GROUP, id, path);
	status *st = lift(path);
	scoped(status) status *returned = fence_return(fence, path);
	return status_first(st, TAKE(returned));
}

static void lift_one(void *self, const char *id)
{
	const struct core *core = self;
	char path[CGROUP_PATH];

	cgroup_path(core->cgroups, THROTTLE_GROUP, id, path);
	scoped(status) status *st = lift(path);
	if (st != NULL)
		log_status(LOG_LEVEL_ERROR, id, "a tree that an earlier hauld slowed down", st);
}

status *throttle_lift_all(const struct core *core)
{
	return cgroup_each(core->cgroups, THROTTLE_GROUP, lift_one, (void *)core);
}
