/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that comes later, in the place of engine/lazy: hauld's thread fills it in, and a guard,
 * which lives on when its hauld dies, freezes the tree first and fills then. */
#include <stdio.h>

#include "engine/criu/request.h"
#include "engine/host/files.h"
#include "engine/host/preflight.h"
#include "engine/lazy/lazy.h"
#include "tests/sim/groups.h"

enum { LAZIES = 16, PIECES = 4, PIECE_MS = 20, LAZY_PAGES = 10000, NOTICE_MS = 1 };

struct lazy {
	struct life *hauld, guard_life;
	struct proc *guard;
	pid_t guard_pid;
	char marker[CGROUP_PATH], tree_group[CGROUP_PATH];
	bool is_restored, may_run, is_thawed, is_holding, is_stopping, is_dismissed;
	enum lazy_state state;
};

static struct lazy *lazies[LAZIES];
static int lazy_count;

static bool has_guard(const struct lazy *lazy)
{
	return lazy->guard->is_alive && lazy->guard->pid == lazy->guard_pid;
}

bool lazy_nobody_holds(void)
{
	for (int i = 0; i < lazy_count; i++) {
		const struct lazy *lazy = lazies[i];
		if (lazy->state == LAZY_STATE_FILLING && lazy->is_restored &&
		    lazy->hauld->is_dead && !has_guard(lazy) &&
		    !group_is_frozen(lazy->guard_life.node, lazy->tree_group))
			return true;
	}
	return false;
}

void lazy_life_died(const struct life *life)
{
	for (int i = 0; i < lazy_count; i++)
		if (lazies[i]->hauld == life)
			fiber_wake(lazies[i]);
}

void lazy_kill_guard(int node)
{
	for (int i = 0; i < lazy_count; i++) {
		if (lazies[i]->guard_life.node != node || !has_guard(lazies[i]))
			continue;
		proc_end(lazies[i]->guard);
		fiber_wake(lazies[i]);
	}
	world_check();
}

/* What it announces is durable enough: it is of this boot only. */
static void all_is_there(struct lazy *lazy)
{
	(void)unlink(lazy->marker);
	lazy->state = LAZY_STATE_FILLED;
	sim_point("memory is in place", lazy->tree_group);
}

/* --- the guard --- */

static void *guard(void *self)
{
	struct lazy *lazy = self;

	while (has_guard(lazy) && !lazy->is_dismissed && !lazy->hauld->is_dead)
		(void)fiber_wait(lazy, 0);
	sim_sleep(NOTICE_MS * MS);
	if (!has_guard(lazy))
		return NULL;
	bool is_mine =
	    !lazy->is_dismissed && lazy->is_restored && lazy->state == LAZY_STATE_FILLING;
	if (is_mine && lazy->may_run)
		status_free(cgroup_freeze(lazy->tree_group, 0));
	if (is_mine && has_guard(lazy))
		sim_sleep(PIECES * PIECE_MS * MS);
	if (is_mine && has_guard(lazy)) {
		all_is_there(lazy);
		if (lazy->may_run && has_guard(lazy))
			status_free(cgroup_thaw(lazy->tree_group, 0));
	}
	if (has_guard(lazy))
		proc_end(lazy->guard);
	return NULL;
}

/* --- hauld's thread --- */

static void thaw_if_wanted(struct lazy *lazy)
{
	lazy->is_holding = false;
	if (lazy->may_run && !lazy->is_thawed) {
		lazy->is_thawed = true;
		status_free(cgroup_thaw(lazy->tree_group, 0));
	}
	fiber_wake(&lazy->may_run);
}

static void hold_if_alone(struct lazy *lazy)
{
	if (has_guard(lazy) || lazy->is_holding)
		return;
	lazy->is_holding = true;
	if (lazy->is_thawed)
		status_free(cgroup_freeze(lazy->tree_group, 0));
	lazy->is_thawed = false;
	fiber_wake(&lazy->may_run);
}

static void *fill(void *self)
{
	struct lazy *lazy = self;

	while (!lazy->is_restored && !lazy->is_stopping)
		(void)fiber_wait(lazy, 0);
	for (int piece = 0; piece < PIECES && !lazy->is_stopping; piece++) {
		int64_t until = sim_now() + PIECE_MS * MS;
		while (sim_now() < until && !lazy->is_stopping) {
			hold_if_alone(lazy);
			if (!lazy->is_holding)
				thaw_if_wanted(lazy);
			(void)fiber_wait(lazy, until);
		}
		sim_point("memory comes", lazy->tree_group);
	}
	if (lazy->is_stopping)
		return NULL;
	all_is_there(lazy);
	lazy->is_dismissed = true;
	fiber_wake(lazy);
	thaw_if_wanted(lazy);
	return NULL;
}

/* --- engine/lazy/lazy.h --- */

status *lazy_probe(void)
{
	return NULL;
}

uint64_t preflight_available_bytes(void)
{
	return UINT64_MAX;
}

status *criu_has_lazy_pages(struct swrk *session, const struct criu_limits *limits, bool *ret_has)
{
	(void)session;
	(void)limits;
	*ret_has = true;
	return NULL;
}

status *lazy_new(const struct lazy_options *options, struct lazy **ret_lazy)
{
	struct lazy *lazy = calloc(1, sizeof(*lazy));

	if (lazy == NULL || lazy_count == LAZIES)
		sim_fail("too many lazy restores");
	lazy->hauld = life_here();
	lazy->guard_life = (struct life){.node = node_here()};
	lazy->guard = proc_new(node_here(), options->guard_group);
	lazy->guard_pid = lazy->guard->pid;
	(void)snprintf(lazy->marker, sizeof(lazy->marker), "%s", options->marker);
	(void)snprintf(lazy->tree_group, sizeof(lazy->tree_group), "%s", options->tree_group);
	lazies[lazy_count++] = lazy;
	(void)fiber_start(&lazy->guard_life, guard, lazy);
	sim_point("guard started", options->guard_group);
	*ret_lazy = lazy;
	return NULL;
}

status *lazy_add_round(struct lazy *lazy, unsigned round)
{
	(void)lazy;
	(void)round;
	return NULL;
}

status *lazy_begin(struct lazy *lazy, uint64_t least, uint64_t most, bool *ret_is_lazy,
		   uint64_t *ret_pages)
{
	*ret_pages = LAZY_PAGES;
	*ret_is_lazy = LAZY_PAGES >= least && LAZY_PAGES <= most;
	status *st = files_write(lazy->marker, "", 0);
	if (st != NULL)
		return st;
	lazy->state = LAZY_STATE_FILLING;
	(void)fiber_start(life_here(), fill, lazy);
	return NULL;
}

status *lazy_restored(struct lazy *lazy)
{
	lazy->is_restored = true;
	fiber_wake(lazy);
	return NULL;
}

enum lazy_state lazy_state_of(struct lazy *lazy)
{
	return lazy->state;
}

status *lazy_error(struct lazy *lazy)
{
	(void)lazy;
	return NULL;
}

status *lazy_let_run(struct lazy *lazy)
{
	lazy->may_run = true;
	fiber_wake(lazy);
	while (lazy->state == LAZY_STATE_FILLING && !lazy->is_thawed && !lazy->is_holding)
		(void)fiber_wait(&lazy->may_run, 0);
	if (lazy->state != LAZY_STATE_FILLED || lazy->is_thawed)
		return NULL;
	lazy->is_thawed = true;
	return cgroup_thaw(lazy->tree_group, 0);
}

void lazy_report_of(struct lazy *lazy, struct lazy_report *ret_report)
{
	(void)lazy;
	*ret_report = (struct lazy_report){.pages = LAZY_PAGES, .fill_ms = PIECES * PIECE_MS};
}

static void let_go(struct lazy *lazy, bool is_guard_needed)
{
	lazy->is_stopping = true;
	lazy->is_dismissed = lazy->is_dismissed || !is_guard_needed;
	if (!is_guard_needed && has_guard(lazy))
		proc_end(lazy->guard);
	fiber_wake(lazy);
}

void lazy_free(struct lazy *lazy)
{
	if (lazy != NULL)
		let_go(lazy, lazy->state == LAZY_STATE_FILLING);
}

void lazy_abandon(struct lazy *lazy)
{
	if (lazy == NULL)
		return;
	lazy->state = LAZY_STATE_IDLE;
	let_go(lazy, false);
}
