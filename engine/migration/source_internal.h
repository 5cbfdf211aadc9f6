/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files that make up the source: source.c (all of them, threads), source_stages.c
 * (the table), source_copy.c (up to the held, fenced tree), source_converge.c (pre-copy),
 * source_rounds.c (memory), source_late.c (memory that is fetched later), source_commit.c (the
 * point of no return), source_recover.c. */
#ifndef HAUL_ENGINE_MIGRATION_SOURCE_INTERNAL_H
#define HAUL_ENGINE_MIGRATION_SOURCE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/host/files.h"
#include "engine/host/preflight.h"
#include "engine/migration/converge.h"
#include "engine/migration/fence.h"
#include "engine/migration/source.h"
#include "engine/migration/verdict.h"
#include "engine/pipe/image_pipe.h"
#include "engine/pipe/memory_pipe.h"
#include "rpc/client.h"

enum source_stage {
	SRC_PREFLIGHT,
	SRC_PREPARE,
	SRC_PRECOPY,
	SRC_FREEZE,
	SRC_RESTORE,
	SRC_COMMIT,
	SRC_FILL, /* it runs there; the tree here is kept until all its memory is there */
	SRC_ASK,  /* in doubt */
	SRC_FINISH,
	SRC_ABORT,  /* the tree was never frozen, or runs again by CRIU's own hand */
	SRC_RESUME, /* the tree is behind the fence and may run again */
	SRC_LOST,
	SRC_OVER,
};

enum { SOURCE_ROUNDS = 128, DEFAULT_ROUNDS = 8 };

struct source_late;
struct throttle;

/* When memory is copied. */
enum source_mode {
	MODE_PRE_COPY,	/* while it runs; the rest while it is frozen */
	MODE_POST_COPY, /* after it runs at the destination */
	MODE_HYBRID,	/* while it runs; the rest after it runs at the destination */
	MODE_STOP_COPY, /* while it is frozen */
};
/* From "pre-copy" (or ""), "post-copy", "hybrid", "stop-copy". INVALID_ARGUMENT. */
must_check status *source_mode_parse(const char *text, enum source_mode *ret_mode);
const char *source_mode_name(enum source_mode mode);

/* How pre-copy finds what has changed. */
enum tracking {
	TRACKING_AUTO,
	TRACKING_SOFT_DIRTY, /* the kernel tells, through CRIU */
	TRACKING_HASH,	     /* all is read, content is compared */
	TRACKING_NONE,	     /* no pre-copy */
};
/* From "auto" (or ""), "soft-dirty", "hash", "none". INVALID_ARGUMENT. */
must_check status *tracking_parse(const char *text, enum tracking *ret_tracking);
const char *tracking_name(enum tracking tracking);

/* From "auto" (or ""), "lazy", "eager". INVALID_ARGUMENT. */
must_check status *restore_mode_parse(const char *text, Haul__V1__RestoreMode *ret_mode);

struct round_view {
	struct memory_round memory;
	double duration_ms, frozen_ms, predicted_ms;
};

struct source {
	struct core *core;
	char id[LIMIT_ID + 1];
	char to[LIMIT_URL + 1];
	char workload[64];
	pid_t pid;
	uint64_t start_ticks;
	Haul__V1__MigrateOptions options; /* dest_root is ours, compression is in codecs */
	char dest_root[1024];
	struct batch_codecs
	    codecs; /* wanted; what the destination lacks is taken off by preflight */
	enum source_stage stage;
	pthread_t thread;
	bool has_thread;

	/* Limits that may change while it runs. */
	atomic_uint_fast64_t bandwidth; /* bytes a second of pre-copy; 0 = none */
	atomic_uint max_downtime_ms;
	atomic_bool is_promise; /* somebody has asked for it: converge.h */

	/* Guarded by lock: what other threads may say to this one. */
	pthread_mutex_t lock;
	pthread_cond_t told; /* CLOCK_MONOTONIC */
	bool is_cancelled;   /* by a user */
	bool is_timed_out;   /* --timeout passed */
	bool is_deserted;    /* the destination has been silent for its lease */
	bool is_committing;  /* too late for all three */
	bool is_stopping;    /* the engine ends: leave it to the journal */
	bool is_over;
	bool is_asking;				/* in doubt: an operator may decide */
	bool is_nudged;				/* ask now */
	bool is_rolling_back;			/* interrupts are not wanted any more */
	Haul__V1__ResolveRequest__Act decision; /* an operator's, in doubt */
	char decision_reason[256];

	/* The thread's own. */
	struct tree_survey survey;
	struct criu_limits limits; /* longer for more memory */
	struct fence fence;
	struct rpc_client *peer;
	struct rpc_client *keeper;	 /* keeps the lease alive, on a connection of its own */
	int sockets[RPC_SOCKETS];	 /* that were handed over, -1 once they are used */
	bool is_handed_over;		 /* calls go by one of them: the keeper's too */
	struct rpc_cancel keeper_cancel; /* of these */
	pthread_t keeper_thread;
	bool has_keeper;
	struct swrk *swrk;
	struct pipe_set memory;
	struct pipe *images;
	struct memory_sender *sender;
	struct converge_round rounds[SOURCE_ROUNDS];
	unsigned round;		/* rounds done or begun, the final dump included */
	enum tracking tracking; /* AUTO until preflight knows the kernel */
	enum source_mode mode;
	bool may_be_late;	  /* pages may stay here until they are fetched */
	bool is_late;		  /* they do, in the final dump */
	struct source_late *late; /* serves them; NULL: not (any more) */
	bool is_reserved;	  /* Prepare left */
	bool is_dumped;		  /* CRIU holds the tree at post-dump */
	bool is_filling;  /* the destination runs the tree, and has not got all its memory */
	bool is_fetching; /* and what it lacks is here: it has said so */
	Haul__V1__RestoreMode restore_mode; /* wanted; EAGER where the destination knows no other */
	bool is_resumed_told;		    /* RESUMED is in the journal */
	bool
	    is_before_fence; /* recovered, and no final dump had begun: no whole copy is anywhere */
	bool was_recovered;  /* by a new hauld: no CRIU session, no pipes */
	bool tree_was_elsewhere; /* the boot has changed: nothing of it is here */
	int64_t deadline_ms;
	int64_t precopy_until_ms;   /* --on-timeout stop-copy: no longer; 0 = no end */
	double begun_ms, frozen_ms; /* monotonic; frozen_ms = 0 while it runs */

	/* After a link that was lost: source_reconnect.c. */
	unsigned reconnects, attempt; /* attempts count all questions */
	bool is_untracked; /* the kernel's dirty bits do not tell what is there: until a round is
			      whole */
	/* Rounds that are read here, not by CRIU: source_rounds.c. */
	bool is_live; /* the one that is under way, or was last */
	uint64_t last_sent,
	    last_same;		  /* pages of the last one: that had changed, and that had not */
	uint64_t reset_uptime_us; /* when the dirty bits were reset for it */
	struct frames *frames;	  /* what the dirty bits do not tell */

	/* For the prediction and its error: source_converge.c. */
	struct cost restore_cost; /* the destination's */
	double call_ms;		  /* the fastest call that has waited for nothing */
	struct converge_prediction prediction;
	struct round_view last;	     /* the final dump: Restore ends it */
	double final_ms, restore_ms; /* freeze to all there; from then on, at the destination */
	uint64_t final_bytes;	     /* of pages, in that time */

	/* Slowing the tree down. */
	bool may_throttle;	   /* --auto-converge */
	struct throttle *throttle; /* NULL = it is not slowed down, by this hauld */
	unsigned share;		   /* percent */
	double cpus;		   /* that it kept busy before that */
	double cpu_ms, cpu_at_ms;  /* used, then */
	struct image_totals images_sent;
	status *error; /* what ended it, for the report */
};

struct source_row {
	const char *name;
	status *(*action)(struct source *source);
	enum source_stage on_ok, on_error;
	bool is_frozen; /* the workload does not run in this stage */
};
const struct source_row *source_row(enum source_stage stage);

/* Walks the table from source->stage to SRC_OVER. */
void source_walk(struct source *source);

/* The actions, by file. source_copy.c: */
status *source_preflight(struct source *source);
status *source_prepare(struct source *source);
status *source_freeze(struct source *source);
status *source_restore(struct source *source);
/* source_converge.c: */
status *source_precopy(struct source *source);
/* source_commit.c: */
status *source_commit(struct source *source);
status *source_fill(struct source *source);
status *source_ask(struct source *source);
status *source_finish(struct source *source);
status *source_abort(struct source *source);
status *source_resume(struct source *source);
status *source_lost(struct source *source);

/* source_copy.c, for each of CRIU's dumps: what it said, or RESOURCE_EXHAUSTED if the disk is full,
 * which CRIU does not notice. Takes and returns. */
must_check status *source_blame_disk(const struct source *source, status *st);

/* source_copy.c: where each process is now, into the journal with this event. */
must_check status *source_note_origins(struct source *source, Haul__V1__JournalEvent event);

/* source_converge.c: */
struct converge_prediction source_predict(const struct source *source);
/* So many at most before the freeze. */
unsigned source_most_rounds(const struct source *source);
void source_note_call(struct source *source, double took_ms);
/* The commit is there: the report, and what there is to learn from it. */
void source_measured(struct source *source, double downtime_ms);
/* To an error that ends it in the middle of pre-copy: how far that was. Takes and returns. */
must_check status *source_tell_convergence(const struct source *source, status *st);
/* A tree that was slowed down is no longer, and is where it came from. Nothing to do is fine. */
void source_full_speed(struct source *source);

/* source_reconnect.c: after a round that failed with st, which it takes. NULL: the link was lost,
 * is back, and pre-copy can go on. Else st. */
must_check status *source_reconnect(struct source *source, status *st, double begun_ms);

/* source_late.c: pages that the destination fetches. Serves them from now on, over pipes that it
 * asks the destination for as often as they are lost; the tree is to be behind its fence by the
 * time it asks. Nothing to do when that is so already. */
must_check status *source_late_start(struct source *source);
/* Until the first pipe is there; else why it is not. */
must_check status *source_late_await(struct source *source, int64_t timeout_ms);
/* Ask at once, do not wait for the next attempt. Any thread, with the source's lock. */
void source_late_nudge(struct source *source);
/* Nothing is read from the tree any more when this returns. */
void source_late_stop(struct source *source);
/* The tree here is no more what was dumped: tells the destination, best effort unless there is an
 * answer. */
must_check status *source_late_disown(struct source *source);
/* The destination answers again, and fetches: shown so. */
void source_late_goes_on(struct source *source);
/* Which pages of a round stay here. */
enum memory_late source_late_pages(const struct source *source, bool is_last);

/* source_sockets.c: of the frozen tree, once it runs over there. */
void source_shut_sockets(const struct source *source);
/* Before it runs here after all. */
void source_reopen_sockets(struct source *source);

/* source_copy.c, for both: */
must_check status *source_open_session(struct source *source);
/* Where the destination's pipes listen, as its answers say. */
struct source_pipes {
	const Haul__V1__PipeAddress *memory, *images;
	Haul__V1__PipeAddress *const *more_memory;
	size_t more;
};
must_check status *source_dial(struct source *source, const struct source_pipes *there,
			       struct pipe_set *ret_memory, struct pipe **ret_images);

/* source_rounds.c, for the final dump too: */
/* By the kernel's bits: it has some, and they are of the round before. */
bool source_is_tracked(const struct source *source);
must_check status *source_one_round(struct source *source);
struct source_dump_paths {
	char work[FILES_PATH], log[32], parent[32];
};
struct live_pages;
/* The destination is ready, the sender serves; live_fd and live as in struct memory_feed. */
must_check status *source_begin_round(struct source *source, bool is_last, int live_fd,
				      struct live_pages *live, char ret_dir[FILES_PATH]);
/* Of one that is not the last. DATA_LOSS unless both sides have counted the same. */
must_check status *source_end_round(struct source *source, const struct memory_round *sent);
void source_fill_dump(const struct source *source, const char *dir, struct criu_dump *dump,
		      struct source_dump_paths *paths);
void source_show_round(struct source *source, struct round_view *round);

/* source.c: */
/* CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE (deserted) or NULL. */
status *source_interrupted(struct source *source);
bool source_is_interrupted_locked(const struct source *source); /* with the lock */
/* From now on nobody can cancel; an error when somebody did. */
must_check status *source_begin_commit(struct source *source);
void source_stop_interrupting(struct source *source);
void source_expire(struct source *source); /* ends it when --timeout has passed */
/* What is left of --timeout, at most most_ms; all of that when there is none, or it counts no more:
 * from Commit on, and while rolling back. 1 at least. */
int64_t source_budget_ms(struct source *source, int64_t most_ms);
void source_desert(struct source *source); /* ends it: the destination is lost */
/* Makes what an interrupt must reach known to other threads. */
void source_own_session(struct source *source, struct swrk *swrk);
void source_own_pipes(struct source *source, const struct pipe_set *memory, struct pipe *images);
uint64_t source_sent_bytes(struct source *source); /* through the memory pipe */
void source_set_asking(struct source *source, bool is_asking);
void source_set_state(struct source *source, Haul__V1__MigrationState state, const status *error);
void source_note(struct source *source, const char *text);
void source_show_tracking(struct source *source);
must_check status *source_call(struct source *source, const char *method,
			       const ProtobufCMessage *request, int64_t timeout_ms,
			       ProtobufCMessage **ret_response);
must_check status *source_journal(struct source *source, Haul__V1__JournalEvent event,
				  const char *reason);
/* Closes CRIU session, pipes and clients, removes files. The tree is not touched. */
void source_tidy(struct source *source);
struct source *source_new(struct core *core, const char *id);
void source_free(struct source *source);

#endif
