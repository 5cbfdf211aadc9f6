/* SPDX-License-Identifier: Apache-2.0 */
/* One run: two engines, one migration, the plan's faults; then everything comes back, and what is
 * left is looked at. Runs in a process of its own. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/log.h"
#include "tests/sim/groups.h"
#include "tests/sim/sim.h"

enum { LONGEST_S = 500, CALM_S = 15, SLOW_CALM_S = 45 };

static struct outcome *outcome;
static bool is_traced;
static int filled; /* 1 + node whose journal is filled already */
bool sim_is_lazy, sim_is_slow, sim_is_far, sim_is_narrow, sim_is_restless;

void sim_trace(const char *fmt, ...)
{
	va_list args;

	if (!is_traced)
		return;
	va_start(args, fmt);
	(void)fprintf(stderr, "%11.4f  ", (double)sim_now() / SECOND - 1000);
	(void)vfprintf(stderr, fmt, args);
	(void)fprintf(stderr, "\n");
	va_end(args);
}

static _Noreturn void end(void)
{
	outcome->points = faults_points();
	outcome->hit = faults_hit();
	outcome->is_over = true;
	_exit(0);
}

void sim_fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(outcome->text, sizeof(outcome->text), fmt, args);
	va_end(args);
	sim_trace("FAILED: %s", outcome->text);
	outcome->has_failed = true;
	end();
}

void points_note(unsigned point, uint8_t kind)
{
	if (point < POINTS_MOST)
		outcome->kinds[point] = kind;
}

static void *fill(void *self)
{
	(void)self;
	disk_fill_journal();
	return NULL;
}

static void *make_big(void *self)
{
	const struct plan *plan = self;

	disk_make_big(plan->big_journal - 1, plan->big_room);
	return NULL;
}

/* Runs it as this node's, before any engine does. */
static void set_up(int node, fiber_main run, const void *self)
{
	struct life setup = {.node = node};

	(void)fiber_start(&setup, run, (void *)self);
	sim_loop();
	disk_unlock(&setup);
}

void sim_fill_journal(int node)
{
	filled = 1 + node;
	set_up(node, fill, NULL);
}

/* Both engines are there, and neither has anything open. */
static bool is_calm(void)
{
	return !faults_pending() && node_is_serving(A) && node_is_serving(B) && !net_is_cut() &&
	       node_life(A)->paused_until <= sim_now() && node_life(B)->paused_until <= sim_now() &&
	       (was_wiped || !node_has_open_migrations(A)) && !node_has_open_migrations(B);
}

static void start_both(void)
{
	node_start(A);
	node_start(B);
	while (!node_is_serving(A) || !node_is_serving(B))
		sim_sleep(MS);
}

static void become_calm(void)
{
	int calm = 0;

	for (int s = 0; calm < (was_wiped ? SLOW_CALM_S : CALM_S); s++) {
		sim_sleep(SECOND);
		if (s == LONGEST_S)
			sim_fail("it does not come to an end: open at a %d, at b %d",
				 node_has_open_migrations(A), node_has_open_migrations(B));
		calm = is_calm() ? calm + 1 : 0;
	}
}

static void *direct(void *self)
{
	start_both();
	faults_begin(self);
	node_start_migration();
	become_calm();
	/* What a full disk did not take, new engines find out. For others nothing changes. */
	if (faults_were_of_disk() || faults_hit() == 0) {
		node_kill(A);
		node_kill(B);
		start_both();
		become_calm();
	}
	world_final();
	end();
}

void sim_run(const struct plan *plan, struct outcome *ret_outcome, bool trace)
{
	outcome = ret_outcome;
	is_traced = trace;
	sim_is_lazy = plan->is_lazy;
	sim_is_slow = plan->is_slow;
	sim_is_restless = plan->is_restless;
	sim_is_far = plan->is_far;
	sim_is_narrow = plan->is_narrow;
	log_configure(false, trace ? LOG_LEVEL_DEBUG : (enum log_level)(LOG_LEVEL_ERROR + 1));
	world_init();
	if (plan->big_journal != 0 && filled == 0)
		sim_fill_journal(plan->big_journal - 1);
	if (plan->big_journal != 0)
		set_up(plan->big_journal - 1, make_big, plan);
	(void)fiber_start(NULL, direct, (void *)plan);
	sim_loop();
	sim_fail("everything waits for ever");
}
