/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by incoming.c (the set, leases, the caretaker), incoming_copy.c (prepare, rounds),
 * incoming_restore.c, incoming_lazy.c (memory that comes later), incoming_fetch.c (memory that is
 * fetched from the source), incoming_commit.c (commit, abort, query, recovery) and
 * incoming_resolve.c.
 */
#ifndef HAUL_ENGINE_MIGRATION_INCOMING_INTERNAL_H
#define HAUL_ENGINE_MIGRATION_INCOMING_INTERNAL_H

#include <pthread.h>

#include "engine/criu/shared_memory.h"
#include "engine/lazy/lazy.h"
#include "engine/migration/costs.h"
#include "engine/migration/incoming.h"
#include "engine/pipe/image_pipe.h"
#include "engine/pipe/late_pipe.h"
#include "engine/pipe/memory_pipe.h"

enum { GROUP_TIMEOUT_MS = 10000 }; /* for a cgroup to be frozen, thawed or killed */

enum incoming_state {
	INCOMING_PREPARED,
	INCOMING_RESTORED,
	INCOMING_COMMITTED,
	INCOMING_ABORTED,
};

struct incoming {
	struct core *core;
	char id[LIMIT_ID + 1];
	char source[LIMIT_NAME + 1]; /* identity that prepared it: only it may go on */
	char source_node[LIMIT_NAME + 1];
	char root[1024];
	bool shell_job, tcp_close;
	struct cost_size size; /* of the tree, as the source has surveyed it */
	Haul__V1__RestoreMode restore_mode;
	struct criu_limits limits;
	char group[CGROUP_PATH]; /* in-<id> */
	char criu_group[CGROUP_PATH];

	/* Held for the length of a method: methods of one migration follow each other. Abort first
	 * interrupts. */
	pthread_mutex_t turn;

	/* The following are guarded by the set's lock, or by `turn` where noted. */
	enum incoming_state state; /* written with both held */
	unsigned users;		   /* methods that hold a pointer */
	bool is_open;		   /* session and pipes stand: an abort may interrupt them */
	bool is_aborting;	   /* interrupts are out */
	uint64_t heard_bytes;	   /* of memory, by then */
	int64_t heard_ms;	   /* monotonic: last word of the source */
	int64_t lease_ms;
	int64_t committed_ms; /* monotonic */
	pid_t pid;	      /* of the restored root */
	uint64_t start_ticks;
	bool is_child; /* ours to reap */
	bool has_images;

	/* By `turn`: */
	struct swrk *swrk;
	unsigned streams; /* memory pipes that the source wants */
	Haul__V1__Seal seal;
	struct pipe_set memory;
	struct pipe *images;
	struct page_store *store;
	struct shared_memory *shared; /* from Prepare until it is restored */
	pthread_t accepting;
	bool is_accepting;
	status *accepted; /* what accepting came to */
	pthread_mutex_t arrival_lock;
	pthread_cond_t arrived; /* CLOCK_MONOTONIC */
	unsigned arriving;	/* arrival_lock: threads that accept or receive */
	status *failed;		/* arrival_lock: the first thing that failed here, not on the way */
	pthread_t receiving, receiving_images;
	bool is_receiving, is_receiving_images;
	unsigned round;
	bool is_last;
	struct memory_round received;
	struct memory_progress progress; /* of the round that was received last */
	bool is_unfinished;		 /* that one is neither whole nor ended early */
	unsigned attempt;		 /* the last Resume */
	status *received_status, *images_status;
	struct image_totals images_received;
	struct lazy *lazy;		/* from Prepare to the last page; NULL: eager */
	uint64_t lazy_pages;		/* that come later; 0: eager */
	struct lazy_report lazy_report; /* when all are here */
	struct late_fetcher *fetcher; /* from Prepare to the last page; NULL: nothing is fetched */
	struct late_counts late_counts; /* when all are here */
	/* After a restart: the guard of an earlier hauld holds the tree, and what it waits for is
	 * fetched for it. */
	struct lazy_shared *left;
	struct late_store *left_store;
	bool is_paused; /* shown so */
};

/* What a new hauld finds of a lazy restore. */
enum incoming_fill {
	FILL_WHOLE,    /* nothing is missing */
	FILL_BROKEN,   /* pages are, and nobody holds the tree's memory */
	FILL_FETCHING, /* the guard waits for pages of the source */
};

struct incomings {
	struct core *core;
	pthread_mutex_t lock;
	pthread_cond_t changed;			   /* users went to 0; stopping */
	struct incoming *list[LIMIT_SESSIONS * 4]; /* committed trees stay listed while they live */
	size_t count;
	pthread_t caretaker;
	bool has_caretaker, is_stopping;
};

/* Finds the session and takes its turn; the caller's identity must be the one that prepared it.
 * NOT_FOUND, PERMISSION_DENIED, or FAILED_PRECONDITION when its state is not in `allowed` (bits 1
 * << state): told by name. */
must_check status *incoming_enter(struct incomings *incomings, const struct rpc_call *call,
				  const char *id, unsigned allowed, struct incoming **ret_incoming);
void incoming_leave(struct incomings *incomings, struct incoming *incoming);

/* Ends an uncommitted session for good: journal, kill, tidy. Turn held. Takes why. */
must_check status *incoming_give_up(struct incomings *incomings, struct incoming *incoming,
				    status *why);

/* Waits for, or with `now` interrupts, the session's threads; closes pipes and CRIU. Turn held. */
void incoming_close_channels(struct incoming *incoming, bool now);

/* incoming_copy.c: until when CRIU may take for it; 0 = its own limits are all there is. */
int64_t incoming_deadline(const struct rpc_call *call);
/* incoming_copy.c: the round's pages are in place, and after the last one the images. Turn held. */
must_check status *incoming_take_round(struct incoming *incoming, const struct rpc_call *call,
				       unsigned round);
/* incoming_copy.c: a round is in its files; what is to know of it before the restore is noted. */
must_check status *incoming_note_round(struct incoming *incoming);
/* incoming_copy.c: listens for the pipes and starts to accept them; puts where into an answer's
 * fields. Turn held. */
struct incoming_pipes {
	Haul__V1__PipeAddress **memory, **images, ***more_memory;
	size_t *more;
};
must_check status *incoming_open_pipes(struct incoming *incoming, const struct rpc_call *call,
				       const struct incoming_pipes *ret_pipes);
/* Closes them; nothing is received any more. Turn held. */
void incoming_close_pipes(struct incoming *incoming);

void incoming_set_state(struct incomings *incomings, struct incoming *incoming,
			enum incoming_state state);
must_check status *incoming_journal(struct incoming *incoming, Haul__V1__JournalEvent event,
				    const char *reason);
void incoming_remove_images(struct incoming *incoming);
/* What failed on this side while memory or images came: a copy, or NULL. Any thread. */
status *incoming_failure(struct incoming *incoming);
struct incoming *incoming_new(struct core *core, const char *id);
void incoming_free(struct incoming *incoming);
/* most: how many the same source may have that are not committed; 0 = no limit. */
must_check status *incomings_add(struct incomings *incomings, struct incoming *incoming,
				 unsigned most);
void incomings_forget(struct incomings *incomings, struct incoming *incoming);
/* The commit itself: one durable record, one thaw. Turn held, RESTORED. */
must_check status *incoming_let_run(struct incomings *incomings, struct incoming *incoming,
				    bool by_operator, const char *reason);
/* Whether the restored tree is whole and waiting. An error tells nothing: no reason to give it up,
 * nor to commit. */
must_check status *incoming_look(const struct incoming *incoming, bool *ret_is_whole);
/* incoming_lazy.c. Turn held, in all of them. */
bool incoming_wants_lazy(const struct incoming *incoming);
must_check status *incoming_open_lazy(struct incoming *incoming);
must_check status *incoming_lazy_round(struct incoming *incoming);
must_check status *incoming_begin_lazy(struct incoming *incoming, bool *ret_is_lazy);
must_check status *incoming_check_lazy(struct incoming *incoming); /* what it came to so far */
/* The thaw of a committed tree, now or when its memory allows it. */
must_check status *incoming_thaw(struct incoming *incoming);
bool incoming_is_filling(const struct incoming *incoming);
/* Looks how far a committed tree's memory is. True when the session is to be forgotten. */
bool incoming_care_for_fill(struct incomings *incomings, struct incoming *incoming);
/* A committed tree whose memory cannot be filled: it is killed, and this is journaled. Takes why.
 */
must_check status *incoming_break(struct incomings *incomings, struct incoming *incoming,
				  status *why);
/* Lets the fill go: to the guard, if the tree lives and pages are missing. */
void incoming_end_lazy(struct incoming *incoming, bool is_tree_gone);
void incoming_await_filled(struct incoming *incoming, int64_t most_ms);
/* What an earlier hauld left: waits for its guard if that is wanted, and ends it, unless it waits
 * for the source, and `is_committed`. */
enum incoming_fill incoming_recover_fill(const struct core *core, const char *id, bool is_wanted,
					 bool is_committed);
/* Of a committed tree: FILLING, FETCHING or COMMITTED; and how it went. Turn held. */
Haul__V1__Outcome incoming_tell_fill(const struct incoming *incoming,
				     Haul__V1__QueryResponse *response);

/* incoming_fetch.c. Turn held, in all of them. At Prepare: pages may be late. */
must_check status *incoming_open_fetch(struct incoming *incoming);
/* What is late is known: it is fetched from now on. How many pages. */
uint64_t incoming_begin_fetch(struct incoming *incoming);
/* What is missing; false: nothing, and nothing was. */
bool incoming_late_counts(const struct incoming *incoming, struct late_counts *ret_counts);
/* Takes up a committed tree whose guard waits for pages. */
must_check status *incoming_take_up_fetch(struct incoming *incoming);
/* Has that guard ended? *ret_whole: with all pages in place. */
bool incoming_has_guard_ended(const struct incoming *incoming, bool *ret_whole);
/* Shows whether pages come. */
void incoming_show_fetch(struct incomings *incomings, struct incoming *incoming);
void incoming_end_fetch(struct incoming *incoming);

/* Shows a committed tree: how far its memory is. */
void incoming_show_committed(struct incomings *incomings, struct incoming *incoming);
void incoming_show(struct incomings *incomings, const struct incoming *incoming,
		   Haul__V1__MigrationState state, const char *stage, const status *error);

#endif
