/* SPDX-License-Identifier: Apache-2.0 */
/* Two machines: processes, who runs, and the promise that is checked after each change. */
#include <stdio.h>
#include <string.h>

#include "engine/migration/journal.h"
#include "tests/sim/groups.h"
#include "tests/sim/sim.h"

enum { COPIES = 8, TREE_PROCS = 2, HOLD_SLACK = 1000 };

struct copy {
	int node;
	bool is_whole, is_running, has_run;
	/* Its CRIU was killed in the instant between the restore's end and the freeze: it ran
	 * uncommitted until its engine killed it (docs/safety.md, "known, and accepted"). */
	bool has_escaped;
	int64_t version;
};

static struct {
	struct proc procs[PROCS];
	struct copy copies[COPIES];
	int copy_count;
	int64_t latest;		     /* version: how often a copy has begun to run */
	uint64_t ticks, first_ticks; /* of the tree's root */
	pid_t next_pid;
	unsigned boots[NODES];
	bool has_lost_power[NODES];
	bool is_promised; /* the source was told that a whole copy is there */
	bool is_excused;  /* the machine with the only copy is lost */
	int64_t heard;	  /* when the destination's engine last heard the source's, or began */
	char boot_ids[NODES][40];
} world;

const char *world_boot_id(int node)
{
	(void)snprintf(world.boot_ids[node], sizeof(world.boot_ids[node]), "boot-%c-%u", 'a' + node,
		       world.boots[node]);
	return world.boot_ids[node];
}

/* --- processes --- */

struct proc *proc_find(int node, pid_t pid)
{
	for (int i = 0; i < PROCS; i++) {
		struct proc *proc = &world.procs[i];
		if (proc->pid == pid && proc->node == node && (proc->is_alive || proc->is_zombie))
			return proc;
	}
	return NULL;
}

struct proc *proc_at(int place)
{
	return place < PROCS ? &world.procs[place] : NULL;
}

struct proc *proc_new(int node, const char *cgroup)
{
	for (int i = 0; i < PROCS; i++) {
		struct proc *proc = &world.procs[i];
		if (proc->is_alive || proc->is_zombie)
			continue;
		*proc = (struct proc){.node = node,
				      .pid = ++world.next_pid,
				      .start_ticks = ++world.ticks,
				      .is_alive = true,
				      .copy = -1};
		(void)snprintf(proc->cgroup, sizeof(proc->cgroup), "%s", cgroup);
		return proc;
	}
	sim_fail("too many processes");
}

void proc_end(struct proc *proc)
{
	if (!proc->is_alive)
		return;
	proc->is_alive = false;
	proc->is_zombie = proc->owner != NULL && !proc->owner->is_dead && !proc->is_criu;
	proc->tracer = 0;
	if (proc->is_criu)
		world_release(proc->node, proc->pid);
}

void criu_process_end(struct proc *criu)
{
	proc_end(criu);
	fiber_wake(criu);
	world_check();
}

static bool executes(const struct proc *proc)
{
	return proc->is_alive && proc->tracer == 0 && !proc->is_parked &&
	       !group_is_frozen(proc->node, proc->cgroup);
}

static int alive_procs(int copy)
{
	int count = 0;

	for (int i = 0; i < PROCS; i++)
		count += world.procs[i].is_alive && world.procs[i].copy == copy ? 1 : 0;
	return count;
}

void world_stop_tree(int node, pid_t tracer)
{
	int copy = world_copy_of_tree(node);

	for (int i = 0; i < PROCS; i++) {
		if (world.procs[i].is_alive && copy >= 0 && world.procs[i].copy == copy)
			world.procs[i].tracer = tracer;
	}
	world_check();
}

void world_release(int node, pid_t tracer)
{
	for (int i = 0; i < PROCS; i++) {
		if (world.procs[i].node == node && world.procs[i].tracer == tracer)
			world.procs[i].tracer = 0;
	}
}

int world_copy_of_tree(int node)
{
	const struct proc *root = proc_find(node, ROOT_PID);

	return root != NULL && root->is_alive ? root->copy : -1;
}

/* --- copies --- */

int64_t copy_version(int copy)
{
	return world.copies[copy].version;
}

static void copy_procs(int copy, const char *cgroup, pid_t tracer, bool is_parked)
{
	for (pid_t pid = ROOT_PID; pid <= CHILD_PID; pid++) {
		struct proc *proc = proc_new(world.copies[copy].node, cgroup);
		proc->pid = pid;
		proc->parent = pid == ROOT_PID ? 1 : ROOT_PID;
		proc->copy = copy;
		proc->tracer = tracer;
		proc->is_parked = is_parked;
	}
}

int copy_restore(int node, int64_t version, const char *cgroup, pid_t criu, struct life *parent)
{
	int copy = world.copy_count++;

	if (copy == COPIES)
		sim_fail("too many copies");
	world.copies[copy] = (struct copy){.node = node, .version = version};
	copy_procs(copy, cgroup, criu, true);
	proc_find(node, ROOT_PID)->owner = parent;
	return copy;
}

void copy_is_whole(int copy)
{
	world.copies[copy].is_whole = true;
	for (int i = 0; i < PROCS; i++) {
		if (world.procs[i].is_alive && world.procs[i].copy == copy)
			world.procs[i].is_parked = false;
	}
	world_check();
}

/* --- what the disk would tell after a power cut --- */

struct said {
	bool as_source;
	Haul__V1__JournalEvent event;
};

static void hear(void *self, const Haul__V1__JournalRecord *record)
{
	struct said *said = self;

	if (sim_id() != NULL && strcmp(record->id, sim_id()) == 0 &&
	    journal_event_is_source(record->event) == said->as_source)
		said->event = record->event;
}

static Haul__V1__JournalEvent durable_event(int node, bool as_source)
{
	struct said said = {as_source, HAUL__V1__JOURNAL_EVENT__J_UNKNOWN};
	size_t size = 0, good;
	const uint8_t *data = disk_durable_journal(node, &size);

	if (data != NULL)
		status_free(journal_scan(data, size, &good, hear, &said));
	return said.event;
}

bool world_is_given_up(void)
{
	return durable_event(B, false) == HAUL__V1__JOURNAL_EVENT__J_DEST_ABORTED;
}

bool world_is_committed(void)
{
	Haul__V1__JournalEvent event = durable_event(B, false);

	return event == HAUL__V1__JOURNAL_EVENT__J_DEST_COMMITTED ||
	       event == HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED ||
	       event == HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED;
}

/* --- the promise --- */

void world_heard(void)
{
	world.heard = sim_now();
}

static void begins_to_run(int number)
{
	struct copy *copy = &world.copies[number];

	if (number > 0 && !copy->has_run && copy->has_escaped)
		return;
	if (copy->version != world.latest)
		sim_fail("at %c a copy of the past runs: of %lld, the latest is %lld",
			 'a' + copy->node, (long long)copy->version, (long long)world.latest);
	copy->version = ++world.latest;
	copy->has_run = true;
}

/* Accepted: the machine with the only copy was lost, and its engine did not come back to ask while
 * the other held a whole one. */
static bool is_hold_over(void)
{
	return world.has_lost_power[A] && sim_now() - world.heard >= (HOLD_MS - HOLD_SLACK) * MS;
}

void world_check(void)
{
	int running = 0, resumable = 0;

	for (int i = 0; i < world.copy_count; i++) {
		struct copy *copy = &world.copies[i];
		bool is_running = false;
		for (int p = 0; p < PROCS; p++)
			is_running |= world.procs[p].copy == i && executes(&world.procs[p]);
		if (is_running && !copy->is_running) {
			sim_trace("a copy begins to run at %c", 'a' + copy->node);
			begins_to_run(i);
		}
		copy->is_running = is_running;
		if (is_running && i > 0 && lazy_nobody_holds())
			sim_fail("a tree runs on memory that nobody holds");
		running += is_running && !copy->has_escaped ? 1 : 0;
		if (copy->is_whole && copy->version == world.latest && alive_procs(i) == TREE_PROCS)
			resumable++;
	}
	if (running > 1)
		sim_fail("two copies run");
	if (resumable == 0 && !world.is_excused) {
		if (!is_hold_over())
			sim_fail("no copy is left");
		world.is_excused = true;
	}
}

void world_promise(void)
{
	world.is_promised = true;
}

/* The next boot gives the same numbers to other processes. */
void world_boot(int node)
{
	if (node == B)
		return;
	struct proc *other = proc_new(node, HOME_GROUP);
	other->pid = ROOT_PID;
	other->start_ticks = world.first_ticks;
}

void world_power_off(int node)
{
	bool is_lost;

	if (node == A) {
		Haul__V1__JournalEvent event = durable_event(B, false);
		int copy = world_copy_of_tree(B);
		is_lost =
		    copy < 0 || !world.copies[copy].is_whole ||
		    world.copies[copy].version != world.latest ||
		    (!world.is_promised && event != HAUL__V1__JOURNAL_EVENT__J_DEST_RESTORED &&
		     !world_is_committed());
	} else {
		is_lost = world_is_committed() || world_copy_of_tree(A) < 0;
	}
	world.is_excused = world.is_excused || is_lost;
	world.has_lost_power[node] = true;
	for (int i = 0; i < PROCS; i++) {
		if (world.procs[i].node == node)
			world.procs[i].is_alive = world.procs[i].is_zombie = false;
	}
	groups_forget(node);
	world.boots[node]++;
	world_check();
}

/* CRIU notices that its engine is gone and lets go; what it restored and holds at pre-resume it
 * lets run. */
static void *notice(void *self)
{
	struct proc *criu = self;
	pid_t pid = criu->pid;

	sim_sleep(30 * MS);
	if (criu->is_alive && criu->pid == pid && !criu->keeps_holding)
		criu_process_end(criu);
	return NULL;
}

void world_engine_died(struct life *life)
{
	for (int i = 0; i < PROCS; i++) {
		struct proc *proc = &world.procs[i];
		if (proc->owner != life)
			continue;
		if (proc->is_criu && proc->is_alive)
			(void)fiber_start(NULL, notice, proc);
		proc->is_zombie = false; /* init's now */
	}
}

void world_kill_criu(int node)
{
	for (int i = 0; i < PROCS; i++) {
		struct proc *proc = &world.procs[i];
		if (proc->node != node || !proc->is_criu || !proc->is_alive)
			continue;
		for (int c = 1; node == B && c < world.copy_count; c++)
			world.copies[c].has_escaped |= !world.copies[c].has_run;
		criu_process_end(proc);
	}
}

void world_init(void)
{
	world.next_pid = 1000;
	world.heard = sim_now();
	groups_init();
	world.copies[0] = (struct copy){.node = A, .is_whole = true};
	world.copy_count = 1;
	copy_procs(0, HOME_GROUP, 0, false);
	world.first_ticks = proc_find(A, ROOT_PID)->start_ticks;
	world_check();
}

/* --- the end --- */

static void check_left_over(int node)
{
	char directory[64];
	const char *const sides[] = {"out", "in"};

	for (int i = 0; i < 2; i++) {
		(void)snprintf(directory, sizeof(directory), "/state/%s", sides[i]);
		if (disk_has_below(node, directory))
			sim_fail("files are left in %s at %c", directory, 'a' + node);
	}
	groups_check_left_over(node);
}

static void check_journals(bool runs_there)
{
	Haul__V1__JournalEvent there = durable_event(B, false), here = durable_event(A, true);

	if (here != HAUL__V1__JOURNAL_EVENT__J_UNKNOWN && !journal_event_is_final(here))
		sim_fail("the source's journal ends with %d", here);
	if (there == HAUL__V1__JOURNAL_EVENT__J_DEST_PREPARED ||
	    there == HAUL__V1__JOURNAL_EVENT__J_DEST_RESTORED)
		sim_fail("the destination's journal ends with %d", there);
	if (runs_there != world_is_committed() && !world.is_excused)
		sim_fail("it runs at %c, the destination's journal ends with %d",
			 runs_there ? 'b' : 'a', there);
}

void world_final(void)
{
	int running = -1, count = 0;

	world_check();
	for (int i = 0; i < world.copy_count; i++) {
		if (world.copies[i].is_running) {
			running = i;
			count++;
		} else if (alive_procs(i) > 0 && !was_wiped) {
			sim_fail("a tree that does not run is left at %c",
				 'a' + world.copies[i].node);
		}
	}
	if (was_wiped)
		return;
	if (count != 1 && !world.is_excused)
		sim_fail("%d copies run in the end", count);
	check_left_over(A);
	check_left_over(B);
	check_journals(running > 0);
	if (running == 0 && strcmp(proc_find(A, ROOT_PID)->cgroup, HOME_GROUP) != 0)
		sim_fail("the tree is not back in the group that it came from");
	/* Whose machine is lost gets the copy that is there, cancelled or not. */
	if (fault_cancelled() && running != 0 && !world.has_lost_power[A])
		sim_fail("cancelled, but it does not run at the source");
	if (faults_hit() == 0 && running <= 0)
		sim_fail("without a fault it does not run at the destination");
	node_check_report(running, world.is_excused);
}
