/* SPDX-License-Identifier: Apache-2.0 */
/* Two engines in one process, on virtual time. What is real: engine/migration, the core, the
 * services, proto. What is played: the kernel (world.c), CRIU (criu.c), the disk (disk.c), the
 * network (net.c, pipes.c), threads and time (sched.c).
 *
 * One fiber runs at a time and gives way only inside of what is played, so a run is the same each
 * time. Each effect there is a point, numbered from the start of the migration; a fault strikes at
 * a point. */
#ifndef HAUL_TESTS_SIM_SIM_H
#define HAUL_TESTS_SIM_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/engine.h"
#include "engine/host/cgroup.h"
#include "proto/status.h"

enum { NODES = 2, A = 0, B = 1 };

/* The engines' settings. */
enum {
	LEASE_MS = 15000,
	HOLD_MS = 60000,
	HOLD_IMAGES_MS = 10000,
	CALL_MS = 10000,
	CRIU_MS = 30000
};

/* --- sched.c --- */

/* A process "hauld": one a start. Its fibers are never scheduled again once it is dead. */
struct life {
	int node;
	pid_t pid;
	bool is_dead, is_serving;
	int64_t paused_until; /* stopped by a signal */
	struct engine *engine;
	status *failed; /* engine_open's */
};

struct fiber;
typedef void *(*fiber_main)(void *self);

/* `life` may be NULL: the world's own. */
struct fiber *fiber_start(struct life *life, fiber_main run, void *self);
struct life *life_here(void); /* of the fiber that runs; NULL for the world */
int node_here(void);
int64_t sim_now(void);	    /* ns */
void sim_sleep(int64_t ns); /* the fiber's */
/* Waits until fiber_wake(on), at most until the time `until` (0: for ever); false when that came
 * first. */
bool fiber_wait(const void *on, int64_t until);
void fiber_wake(const void *on);
/* Gives way for ever: what its life ends with. */
_Noreturn void fiber_end(void);
/* Runs until nothing can run any more. */
void sim_loop(void);

#define MS INT64_C(1000000)
#define SECOND (1000 * MS)

/* --- faults.c --- */

enum fault_kind {
	FAULT_KILL,    /* kill -9 of the engine; a new one after `ms` */
	FAULT_POWER,   /* its machine loses power; back after `ms`; `mode` is what the disk lost */
	FAULT_STOP,    /* SIGSTOP of the engine for `ms` */
	FAULT_CRIU,    /* kill -9 of the node's CRIU */
	FAULT_GUARD,   /* kill -9 of the node's guard of memory that comes later */
	FAULT_CUT,     /* the link, for `ms` */
	FAULT_LOSE,    /* this message */
	FAULT_TWICE,   /* this message comes again `ms` later */
	FAULT_LATE,    /* this message comes `ms` later */
	FAULT_CANCEL,  /* by a user */
	FAULT_FULL,    /* the disk takes no journal records for `ms` */
	FAULT_WIPE,    /* kill -9, and its state directory is lost */
	FAULT_SECOND,  /* another hauld is started in the same state directory */
	FAULT_EIO,     /* the disk fails for `ms` as `mode` says; then hauld is restarted */
	FAULT_RESOLVE, /* an operator looks, and decides what is in doubt, or held */
};

struct fault {
	const char *name;
	enum fault_kind kind;
	int node;
	int mode;
	int64_t ms;
};
extern const struct fault fault_menu[];
extern const unsigned fault_count;

enum { PLAN_MOST = 4, FAULTS_MOST = 64 };
struct planned {
	unsigned fault; /* of the menu */
	unsigned point;
};
struct plan {
	bool is_lazy;	  /* the tree goes on before its memory is there */
	bool is_slow;	  /* CRIU takes longer than a lease */
	bool is_restless; /* writes as much in each round, and is slowed down for that */
	bool is_far;	  /* connecting takes longer than half a lease */
	bool is_narrow;	  /* memory takes all of the link for longer than a lease */
	int big_journal;  /* 1 + node whose journal is compacted soon; 0 = none */
	unsigned big_room;
	struct planned faults[PLAN_MOST];
	unsigned count;
	/* Beside these so many more, of those that are tried, in every way: `tell` is told of each
	 * run that came of it, what struck and how its process ended, when it is over. */
	unsigned more;
	bool is_tried[FAULTS_MOST];
	void (*tell)(const struct plan *plan, int ended);
};

/* What happened to a message at its point. */
struct message_fate {
	bool is_lost;
	int64_t again_ns, late_ns;
};

/* An effect has just been; the fiber may not come back from it. */
void sim_point(const char *what, const char *about);
void sim_disk_point(const char *what, const char *about);
/* The same for a message that is about to leave. */
struct message_fate sim_message(const char *what, const char *about);
void faults_begin(const struct plan *plan);
bool fault_fits(const struct fault *fault, uint8_t kind); /* at such a point? */
bool faults_pending(void);				  /* something is still to come back */
unsigned faults_hit(void);
bool faults_were_of_disk(void);
unsigned faults_points(void);
bool fault_cancelled(void); /* a cancel was accepted */

/* --- world.c --- */

enum { ROOT_PID = 100, CHILD_PID = 101, GROUPS = 16, PROCS = 64 };
#define HOME_GROUP "/cg/user"

struct proc {
	int node;
	pid_t pid, parent;
	uint64_t start_ticks;
	bool is_alive, is_zombie;
	bool is_parked; /* half restored: runs nothing ever */
	bool is_criu;
	bool keeps_holding; /* CRIU that does not notice its engine's death */
	pid_t tracer;
	int copy;	    /* of the workload; -1 = none */
	struct life *owner; /* CRIU's engine; a restored root's parent */
	char cgroup[CGROUP_PATH];
};

void world_init(void);
struct proc *proc_new(int node, const char *cgroup);
struct proc *proc_find(int node, pid_t pid); /* alive or zombie, or NULL */
void proc_end(struct proc *proc);
void criu_process_end(struct proc *criu); /* lets go of what it holds */
void world_stop_tree(int node, pid_t tracer);
void world_release(int node, pid_t tracer);
int world_copy_of_tree(int node); /* the live copy there, or -1 */
int64_t copy_version(int copy);
int copy_restore(int node, int64_t version, const char *cgroup, pid_t criu, struct life *parent);
void copy_is_whole(int copy);
void world_check(void); /* the invariant; called after each change */
void world_engine_died(struct life *life);
void world_power_off(int node);
/* What the destination's disk says; it is durable. */
bool world_is_committed(void);
bool world_is_given_up(void);
void world_final(void);
void world_kill_criu(int node);
void world_heard(void);
void world_promise(void);
void world_boot(int node);
const char *world_boot_id(int node);

_Noreturn void sim_fail(const char *fmt, ...) format_like(1, 2);
void sim_trace(const char *fmt, ...) format_like(1, 2);

/* --- lazy.c --- */

/* A tree may run that lacks memory which nobody holds. */
bool lazy_nobody_holds(void);
void lazy_life_died(const struct life *life);
void lazy_kill_guard(int node);

/* --- disk.c --- */

enum disk_loss { DISK_ALL, DISK_DATA, DISK_NAMES, DISK_TORN };
void disk_init(void);
void disk_power_off(int node, enum disk_loss loss);
void disk_unlock(const struct life *life);
void disk_wipe(int node);
void disk_set_full(int node, bool is_full);
enum disk_failure {
	DISK_WORKS,
	DISK_REFUSES,  /* writes */
	DISK_DROPS,    /* what it is to make durable */
	DISK_SAVES_IT, /* and says that it did not, nor takes anything back */
};
void disk_set_failing(int node, enum disk_failure failure);
bool disk_is_failing(int node);
/* The journal's bytes as a power cut would leave them. */
const uint8_t *disk_durable_journal(int node, size_t *ret_size);
/* Makes a journal in which so many bytes are left until it is rewritten. */
void disk_fill_journal(void);
void disk_make_big(int node, unsigned room);
/* Is there anything below this directory? */
bool disk_has_below(int node, const char *directory);

/* --- net.c --- */

void net_set_cut(bool is_cut);
bool net_is_cut(void);
void net_life_died(const struct life *life);
void pipes_life_died(const struct life *life);
bool pipes_fill_link(void); /* nothing else gets through */

/* --- nodes.c --- */

struct life *node_life(int node); /* the latest */
bool node_is_up(int node);	  /* has power */
bool node_is_serving(int node);
void node_start(int node);
void node_kill(int node);
void node_power_off(int node, enum disk_loss loss);
void node_power_on(int node);
void node_start_second(int node);
bool node_has_open_migrations(int node);
/* What the source's engine tells its user must be so. running: copy, or -1. */
void node_check_report(int running, bool is_excused);
void node_start_migration(void);
bool node_cancel(void); /* true: accepted */
/* An operator at the destination, then at the source. They know what is on the destination's disk,
 * and whether the source's tree is there. To be called in the life of that node's engine. */
void node_resolve_there(void);
void node_resolve_here(void);
extern bool was_wiped;

/* --- spec.c --- */

void plan_print(const struct plan *plan, FILE *file);
bool plan_parse(char *spec, struct plan *plan); /* false: told */
bool plan_set_manner(struct plan *plan, const char *word);

/* --- run.c --- */

enum { POINTS_MOST = 4096 };
enum { POINT_PLAIN, POINT_MESSAGE, POINT_DISK /* + node */ };
struct outcome {
	unsigned points, hit;
	bool is_over, has_failed;
	char text[512];
	uint8_t kinds[POINTS_MOST]; /* of the points */
};
extern bool sim_is_lazy, sim_is_slow, sim_is_far, sim_is_narrow, sim_is_restless;
const char *sim_id(void); /* of the migration, NULL before it began */
void points_note(unsigned point, uint8_t kind);
void sim_fill_journal(int node); /* once for all runs that need it */
_Noreturn void sim_run(const struct plan *plan, struct outcome *ret_outcome, bool trace);

#endif
