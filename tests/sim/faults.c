/* SPDX-License-Identifier: Apache-2.0 */
/* Points and what strikes there. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/sim.h"

enum { SOON_MS = 40, LATE_MS = 20000, PAST_HOLD_MS = 130000, LOOK_MS = 500, STEP_US = 100 };

static struct {
	struct plan plan; /* and what has been added to it */
	bool is_counting;
	unsigned points, hit;
	unsigned pending; /* what is still to come back */
	bool is_cancelled, was_full;
} faults;

static void *come_back(void *self)
{
	const struct fault *fault = self;

	sim_sleep(fault->ms * MS);
	switch (fault->kind) {
	case FAULT_KILL:
	case FAULT_WIPE:
		if (!node_is_serving(fault->node) && node_is_up(fault->node))
			node_start(fault->node);
		break;
	case FAULT_POWER:
		node_power_on(fault->node);
		break;
	case FAULT_CUT:
		net_set_cut(false);
		break;
	case FAULT_FULL:
		disk_set_full(fault->node, false);
		break;
	case FAULT_EIO:
		disk_set_failing(fault->node, DISK_WORKS);
		node_kill(fault->node);
		node_start(fault->node);
		break;
	default:
		break;
	}
	faults.pending--;
	return NULL;
}

static void *cancel(void *self)
{
	(void)self;
	faults.is_cancelled |= node_cancel();
	return NULL;
}

static void *resolve_there(void *self)
{
	(void)self;
	node_resolve_there();
	return NULL;
}

static void *resolve_here(void *self)
{
	(void)self;
	node_resolve_here();
	return NULL;
}

/* What the one at the destination has done is known to the one at the source. */
static void *operate(void *self)
{
	if (node_is_serving(B))
		(void)fiber_start(node_life(B), resolve_there, NULL);
	sim_sleep(LOOK_MS * MS);
	if (node_is_serving(A))
		(void)fiber_start(node_life(A), resolve_here, NULL);
	faults.pending--;
	return self;
}

static void strike_now(const struct fault *fault)
{
	switch (fault->kind) {
	case FAULT_KILL:
		node_kill(fault->node);
		break;
	case FAULT_WIPE:
		node_kill(fault->node);
		was_wiped = true;
		disk_wipe(fault->node);
		break;
	case FAULT_POWER:
		node_power_off(fault->node, (enum disk_loss)fault->mode);
		break;
	case FAULT_STOP:
		node_life(fault->node)->paused_until = sim_now() + fault->ms * MS;
		break;
	case FAULT_CRIU:
		world_kill_criu(fault->node);
		break;
	case FAULT_GUARD:
		lazy_kill_guard(fault->node);
		break;
	case FAULT_CUT:
		net_set_cut(true);
		break;
	case FAULT_LOSE:
	case FAULT_TWICE:
	case FAULT_LATE:
		break; /* sim_message's */
	case FAULT_FULL:
		disk_set_full(fault->node, true);
		faults.was_full = true;
		break;
	case FAULT_CANCEL:
		if (node_is_serving(A))
			(void)fiber_start(node_life(A), cancel, NULL);
		break;
	case FAULT_SECOND:
		node_start_second(fault->node);
		break;
	case FAULT_EIO:
		disk_set_failing(fault->node, (enum disk_failure)fault->mode);
		break;
	case FAULT_RESOLVE:
		faults.pending++;
		(void)fiber_start(NULL, operate, NULL);
		break;
	}
}

static void strike(const struct fault *fault)
{
	sim_trace("FAULT %s", fault->name);
	faults.hit++;
	strike_now(fault);
	if (fault->kind == FAULT_KILL || fault->kind == FAULT_WIPE || fault->kind == FAULT_POWER ||
	    fault->kind == FAULT_CUT || fault->kind == FAULT_FULL || fault->kind == FAULT_EIO) {
		faults.pending++;
		(void)fiber_start(NULL, come_back, (void *)fault);
	}
}

static bool is_for_messages(const struct fault *fault)
{
	return fault->kind == FAULT_LOSE || fault->kind == FAULT_TWICE || fault->kind == FAULT_LATE;
}

bool fault_fits(const struct fault *fault, uint8_t kind)
{
	/* There is a guard where memory comes later; who plays that asks for it. */
	return fault->kind != FAULT_GUARD && (kind == POINT_MESSAGE || !is_for_messages(fault));
}

/* The run goes on without a further fault here; before that, in a process each, with each one that
 * may still come. */
static void try_each(uint8_t kind)
{
	struct plan *plan = &faults.plan;

	for (unsigned fault = 0; fault < fault_count && plan->more > 0; fault++) {
		if (!plan->is_tried[fault] || !fault_fits(&fault_menu[fault], kind))
			continue;
		plan->faults[plan->count] = (struct planned){fault, faults.points};
		plan->count++;
		pid_t pid = fork();
		if (pid == 0) {
			plan->more--;
			strike(&fault_menu[fault]);
			try_each(kind); /* two at once */
			return;
		}
		int ended = -1;
		if (pid < 0 || waitpid(pid, &ended, 0) != pid)
			sim_fail("cannot run a process");
		plan->tell(plan, ended);
		plan->count--;
	}
}

static void arrive(const char *what, const char *about, uint8_t kind)
{
	faults.points++;
	sim_trace("%u %c%s %s %s", faults.points, 'a' + node_here(),
		  kind == POINT_MESSAGE ? " *" : "", what, about);
	points_note(faults.points, kind);
	for (unsigned i = 0; i < faults.plan.count; i++) {
		if (faults.plan.faults[i].point == faults.points)
			strike(&fault_menu[faults.plan.faults[i].fault]);
	}
	try_each(kind);
}

static bool is_point(void)
{
	return life_here() != NULL && faults.is_counting;
}

static void pass(const char *what, const char *about, uint8_t kind)
{
	if (!is_point())
		return;
	arrive(what, about, kind);
	sim_sleep(STEP_US * 1000);
}

void sim_point(const char *what, const char *about)
{
	pass(what, about, POINT_PLAIN);
}

void sim_disk_point(const char *what, const char *about)
{
	if (life_here() != NULL)
		pass(what, about, (uint8_t)(POINT_DISK + node_here()));
}

/* The fate is known before the fiber gives way: others are at their points meanwhile. */
static struct message_fate fate_here(void)
{
	struct message_fate fate = {0};

	for (unsigned i = 0; i < faults.plan.count; i++) {
		const struct fault *fault = &fault_menu[faults.plan.faults[i].fault];
		if (faults.plan.faults[i].point != faults.points)
			continue;
		if (fault->kind == FAULT_LOSE)
			fate.is_lost = true;
		else if (fault->kind == FAULT_TWICE)
			fate.again_ns = fault->ms * MS;
		else if (fault->kind == FAULT_LATE)
			fate.late_ns = fault->ms * MS;
	}
	return fate;
}

struct message_fate sim_message(const char *what, const char *about)
{
	struct message_fate fate = {0};

	if (!is_point())
		return fate;
	arrive(what, about, POINT_MESSAGE);
	fate = fate_here();
	sim_sleep(STEP_US * 1000);
	return fate;
}

void faults_begin(const struct plan *plan)
{
	faults.plan = *plan;
	faults.is_counting = true;
}

bool faults_pending(void)
{
	return faults.pending > 0;
}

unsigned faults_hit(void)
{
	return faults.hit;
}

unsigned faults_points(void)
{
	return faults.points;
}

bool faults_were_of_disk(void)
{
	return faults.was_full;
}

bool fault_cancelled(void)
{
	return faults.is_cancelled;
}

/* clang-format off */
const struct fault fault_menu[] = {
	{"kill-a",        FAULT_KILL,   A, 0, SOON_MS},
	{"kill-b",        FAULT_KILL,   B, 0, SOON_MS},
	{"kill-a-late",   FAULT_KILL,   A, 0, LATE_MS},
	{"kill-b-late",   FAULT_KILL,   B, 0, LATE_MS},
	{"kill-a-gone",   FAULT_KILL,   A, 0, PAST_HOLD_MS},
	{"kill-b-gone",   FAULT_KILL,   B, 0, PAST_HOLD_MS},
	{"power-a",       FAULT_POWER,  A, DISK_ALL, 2000},
	{"power-b",       FAULT_POWER,  B, DISK_ALL, 2000},
	{"power-a-data",  FAULT_POWER,  A, DISK_DATA, 2000},
	{"power-b-data",  FAULT_POWER,  B, DISK_DATA, 2000},
	{"power-a-names", FAULT_POWER,  A, DISK_NAMES, 2000},
	{"power-b-names", FAULT_POWER,  B, DISK_NAMES, 2000},
	{"power-a-torn",  FAULT_POWER,  A, DISK_TORN, 2000},
	{"power-b-torn",  FAULT_POWER,  B, DISK_TORN, 2000},
	{"power-a-late",  FAULT_POWER,  A, DISK_ALL, 30000},
	{"power-b-late",  FAULT_POWER,  B, DISK_ALL, 30000},
	{"power-a-gone",  FAULT_POWER,  A, DISK_ALL, PAST_HOLD_MS},
	{"power-b-gone",  FAULT_POWER,  B, DISK_ALL, PAST_HOLD_MS},
	{"stop-a",        FAULT_STOP,   A, 0, LATE_MS},
	{"stop-b",        FAULT_STOP,   B, 0, LATE_MS},
	{"stop-a-gone",   FAULT_STOP,   A, 0, PAST_HOLD_MS},
	{"criu-a",        FAULT_CRIU,   A, 0, 0},
	{"criu-b",        FAULT_CRIU,   B, 0, 0},
	{"cut",           FAULT_CUT,    A, 0, 3000},
	{"cut-late",      FAULT_CUT,    A, 0, LATE_MS},
	{"cut-gone",      FAULT_CUT,    A, 0, PAST_HOLD_MS},
	{"lose",          FAULT_LOSE,   A, 0, 0},
	{"twice",         FAULT_TWICE,  A, 0, 2},
	{"twice-late",    FAULT_TWICE,  A, 0, 25000},
	{"late",          FAULT_LATE,   A, 0, 12000},
	{"later",         FAULT_LATE,   A, 0, 45000},
	{"cancel",        FAULT_CANCEL, A, 0, 0},
	{"full-a",        FAULT_FULL,   A, 0, 3000},
	{"full-b",        FAULT_FULL,   B, 0, 3000},
	{"wipe-b",        FAULT_WIPE,   B, 0, SOON_MS},
	{"second-a",      FAULT_SECOND, A, 0, 0},
	{"second-b",      FAULT_SECOND, B, 0, 0},
	{"refuses-a",     FAULT_EIO,    A, DISK_REFUSES, 3000},
	{"refuses-b",     FAULT_EIO,    B, DISK_REFUSES, 3000},
	{"drops-a",       FAULT_EIO,    A, DISK_DROPS, 3000},
	{"drops-b",       FAULT_EIO,    B, DISK_DROPS, 3000},
	{"saves-it-a",    FAULT_EIO,    A, DISK_SAVES_IT, 3000},
	{"saves-it-b",    FAULT_EIO,    B, DISK_SAVES_IT, 3000},
	{"guard-b",       FAULT_GUARD,  B, 0, 0},
	{"resolve",       FAULT_RESOLVE, A, 0, 0},
};
/* clang-format on */
const unsigned fault_count = sizeof(fault_menu) / sizeof(fault_menu[0]);
