/* SPDX-License-Identifier: Apache-2.0 */
/* The set of sessions, whose turn it is, leases, and the caretaker of committed trees. */
#include "engine/migration/incoming_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/host/child.h"
#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/reason.h"

enum {
	CARETAKER_TICK_MS = 500,
	SESSION_RETRY_MS = 10000,
	FILL_MOST_MS = 10000 /* of a stop that waits for memory; the guard does the rest */
};

static const char *const state_names[] = {"prepared", "restored", "committed", "aborted"};

struct incoming *incoming_new(struct core *core, const char *id)
{
	struct incoming *incoming = calloc(1, sizeof(*incoming));

	if (incoming == NULL)
		abort();
	incoming->core = core;
	(void)snprintf(incoming->id, sizeof(incoming->id), "%s", id);
	cgroup_path(core->cgroups, "in", id, incoming->group);
	cgroup_path(core->cgroups, CRIU_GROUP_IN, id, incoming->criu_group);
	incoming->heard_ms = clock_monotonic_ms();
	incoming->lease_ms = core->config.lease_ms;
	(void)pthread_mutex_init(&incoming->turn, NULL);
	(void)pthread_mutex_init(&incoming->arrival_lock, NULL);
	clock_cond_init(&incoming->arrived);
	return incoming;
}

void incoming_free(struct incoming *incoming)
{
	if (incoming == NULL)
		return;
	incoming_end_lazy(incoming, incoming->state == INCOMING_ABORTED);
	incoming_close_channels(incoming, true);
	status_free(incoming->failed);
	(void)pthread_cond_destroy(&incoming->arrived);
	(void)pthread_mutex_destroy(&incoming->arrival_lock);
	(void)pthread_mutex_destroy(&incoming->turn);
	free(incoming);
}

struct incomings *incomings_new(struct core *core)
{
	struct incomings *incomings = calloc(1, sizeof(*incomings));

	if (incomings == NULL)
		abort();
	incomings->core = core;
	(void)pthread_mutex_init(&incomings->lock, NULL);
	clock_cond_init(&incomings->changed);
	return incomings;
}

status *incomings_add(struct incomings *incomings, struct incoming *incoming, unsigned most)
{
	status *st = NULL;
	unsigned unfinished = 0, of_source = 0;

	(void)pthread_mutex_lock(&incomings->lock);
	for (size_t i = 0; i < incomings->count && st == NULL; i++) {
		if (strcmp(incomings->list[i]->id, incoming->id) == 0)
			st = status_errorf(STATUS_ALREADY_EXISTS, "migration %s is here already",
					   incoming->id);
		bool is_unfinished = incomings->list[i]->state != INCOMING_COMMITTED;
		bool is_of_source = strcmp(incomings->list[i]->source, incoming->source) == 0;
		unfinished += is_unfinished ? 1 : 0;
		of_source += is_unfinished && is_of_source ? 1 : 0;
	}
	bool is_refused = st == NULL;
	if (st == NULL &&
	    (unfinished >= LIMIT_SESSIONS || incomings->count == array_len(incomings->list)))
		st = status_errorf(STATUS_RESOURCE_EXHAUSTED,
				   "%u migrations are coming in already: try later", unfinished);
	if (st == NULL && most != 0 && of_source >= most)
		st = status_errorf(STATUS_RESOURCE_EXHAUSTED,
				   "%u migrations of %s are coming in already, and the policy "
				   "gives it no more: try later",
				   of_source, incoming->source);
	if (st == NULL)
		incomings->list[incomings->count++] = incoming;
	(void)pthread_mutex_unlock(&incomings->lock);
	if (st != NULL && is_refused)
		st = status_because(status_retry_after(st, SESSION_RETRY_MS),
				    REASON_TOO_MANY_SESSIONS);
	return st;
}

/* --- turns --- */

static struct incoming *find_locked(struct incomings *incomings, const char *id)
{
	for (size_t i = 0; i < incomings->count; i++) {
		if (strcmp(incomings->list[i]->id, id) == 0)
			return incomings->list[i];
	}
	return NULL;
}

static status *check_caller(const struct incoming *incoming, const struct rpc_call *call)
{
	if (call == NULL || strcmp(call->caller->name, incoming->source) == 0)
		return NULL;
	return status_errorf(STATUS_PERMISSION_DENIED, "migration %s was prepared by %s, not by %s",
			     incoming->id, incoming->source, call->caller->name);
}

static status *check_state(const struct incoming *incoming, const struct rpc_call *call,
			   unsigned allowed)
{
	if ((allowed & (1U << incoming->state)) != 0)
		return NULL;
	return status_errorf(STATUS_FAILED_PRECONDITION,
			     "migration %s is %s: %s cannot be done now", incoming->id,
			     state_names[incoming->state], call != NULL ? call->method : "this");
}

status *incoming_enter(struct incomings *incomings, const struct rpc_call *call, const char *id,
		       unsigned allowed, struct incoming **ret_incoming)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&incomings->lock);
	struct incoming *incoming = find_locked(incomings, id);
	if (incoming == NULL)
		st = status_errorf(STATUS_NOT_FOUND, "no session of migration %.64s here", id);
	else
		st = check_caller(incoming, call);
	if (st == NULL) {
		incoming->users++;
		incoming->heard_ms = clock_monotonic_ms();
	}
	(void)pthread_mutex_unlock(&incomings->lock);
	if (st != NULL)
		return st;
	(void)pthread_mutex_lock(&incoming->turn);
	st = check_state(incoming, call, allowed);
	if (st != NULL) {
		incoming_leave(incomings, incoming);
		return st;
	}
	*ret_incoming = incoming;
	return NULL;
}

void incoming_leave(struct incomings *incomings, struct incoming *incoming)
{
	(void)pthread_mutex_unlock(&incoming->turn);
	(void)pthread_mutex_lock(&incomings->lock);
	incoming->users--;
	incoming->heard_ms = clock_monotonic_ms();
	(void)pthread_cond_broadcast(&incomings->changed);
	(void)pthread_mutex_unlock(&incomings->lock);
}

void incoming_renew(struct incomings *incomings, const struct rpc_call *call, const char *id)
{
	(void)pthread_mutex_lock(&incomings->lock);
	struct incoming *incoming = find_locked(incomings, id);
	if (incoming != NULL && strcmp(call->caller->name, incoming->source) == 0)
		incoming->heard_ms = clock_monotonic_ms();
	(void)pthread_mutex_unlock(&incomings->lock);
}

void incoming_set_state(struct incomings *incomings, struct incoming *incoming,
			enum incoming_state state)
{
	(void)pthread_mutex_lock(&incomings->lock);
	incoming->state = state;
	if (state == INCOMING_COMMITTED)
		incoming->committed_ms = clock_monotonic_ms();
	(void)pthread_mutex_unlock(&incomings->lock);
}

/* Out of the list; freed when the last user has left. Turn not held by the caller. */
void incomings_forget(struct incomings *incomings, struct incoming *incoming)
{
	(void)pthread_mutex_lock(&incomings->lock);
	for (size_t i = 0; i < incomings->count; i++) {
		if (incomings->list[i] == incoming)
			incomings->list[i] = incomings->list[--incomings->count];
	}
	while (incoming->users > 0)
		(void)pthread_cond_wait(&incomings->changed, &incomings->lock);
	(void)pthread_mutex_unlock(&incomings->lock);
	incoming_free(incoming);
}

/* --- what all methods need --- */

status *incoming_journal(struct incoming *incoming, Haul__V1__JournalEvent event,
			 const char *reason)
{
	Haul__V1__JournalRecord fields = HAUL__V1__JOURNAL_RECORD__INIT;
	char cut[256];

	(void)snprintf(cut, sizeof(cut), "%s", reason);
	fields.peer_identity = incoming->source;
	fields.pid = incoming->pid;
	fields.start_ticks = incoming->start_ticks;
	fields.reason = cut;
	return core_journal(incoming->core, incoming->id, event, &fields);
}

struct shown {
	Haul__V1__MigrationState state;
	const char *stage;
	const status *error;
	int32_t pid;
};

static void show(void *self, Haul__V1__Migration *view)
{
	const struct shown *shown = self;

	view->state = shown->state;
	text_set(&view->stage, shown->stage);
	if (shown->pid != 0)
		view->restored_pid = shown->pid;
	if (shown->error != NULL) {
		haul__v1__status__free_unpacked(view->error, NULL);
		view->error = status_to_wire(shown->error);
	}
	if (migration_is_over(view) && view->ended_unix_ms == 0)
		view->ended_unix_ms = clock_unix_ms();
}

void incoming_show(struct incomings *incomings, const struct incoming *incoming,
		   Haul__V1__MigrationState state, const char *stage, const status *error)
{
	struct shown shown = {state, stage, error, incoming->pid};

	log_line(LOG_LEVEL_INFO, incoming->id, "incoming: %s", stage);
	registry_change(incomings->core->registry, incoming->id, show, &shown);
}

void incoming_remove_images(struct incoming *incoming)
{
	char dir[FILES_PATH];

	core_path(incoming->core, "in", incoming->id, "", dir);
	scoped(status) status *st = files_remove_tree(dir);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, incoming->id, "images stay behind", st);
	incoming->has_images = false;
}

void incoming_close_pipes(struct incoming *incoming)
{
	if (incoming->is_accepting)
		(void)pthread_join(incoming->accepting, NULL);
	if (incoming->is_receiving)
		(void)pthread_join(incoming->receiving, NULL);
	if (incoming->is_receiving_images)
		(void)pthread_join(incoming->receiving_images, NULL);
	incoming->is_accepting = incoming->is_receiving = incoming->is_receiving_images = false;
	status_free(TAKE(incoming->accepted));
	status_free(TAKE(incoming->received_status));
	status_free(TAKE(incoming->images_status));
	pipe_set_free(&incoming->memory);
	pipe_free(TAKE(incoming->images));
}

void incoming_close_channels(struct incoming *incoming, bool now)
{
	if (now)
		pipe_set_interrupt(&incoming->memory);
	if (now && incoming->images != NULL)
		pipe_interrupt(incoming->images);
	incoming_close_pipes(incoming);
	page_store_free(TAKE(incoming->store));
	shared_memory_free(TAKE(incoming->shared));
	swrk_free(TAKE(incoming->swrk));
	/* The root of a tree that could not be restored is our child, and its zombie would keep its
	 * id. */
	child_reap_group(incoming->group);
	if (cgroup_exists(incoming->criu_group))
		status_free(cgroup_kill(incoming->criu_group, GROUP_TIMEOUT_MS));
}

status *incoming_give_up(struct incomings *incomings, struct incoming *incoming, status *why)
{
	scoped(status) status *shown = why;
	/* First the record: from now on the answer is "aborted", and nothing can commit it. */
	status *st = incoming_journal(incoming, HAUL__V1__JOURNAL_EVENT__J_DEST_ABORTED,
				      status_message(why));

	if (st != NULL)
		return status_wrapf(st,
				    "the copy of migration %s is kept: its end cannot be journaled",
				    incoming->id);
	incoming_set_state(incomings, incoming, INCOMING_ABORTED);
	/* Frozen first: a CRIU that holds the tree may be killed in there an instant before it, and
	 * would let it run. */
	if (cgroup_exists(incoming->group))
		status_free(cgroup_freeze(incoming->group, 0));
	scoped(status) status *killed =
	    cgroup_exists(incoming->group) ? cgroup_kill(incoming->group, GROUP_TIMEOUT_MS) : NULL;
	if (killed != NULL)
		log_status(LOG_LEVEL_ERROR, incoming->id, "the given-up tree did not end", killed);
	if (incoming->is_child && incoming->pid > 0) {
		int ended;
		(void)child_reap(incoming->pid, &ended);
	}
	incoming_end_lazy(incoming, true);
	incoming_close_channels(incoming, true);
	incoming_remove_images(incoming);
	incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__ABORTED, "aborted", shown);
	return NULL;
}

/* --- the caretaker --- */

enum care {
	CARE_NONE,
	CARE_LEASE,
	CARE_HOLD,
	CARE_FILL, /* how far is its memory? */
	CARE_IMAGES,
	CARE_LOOK,
	CARE_FORGET
};

/* Memory that comes in is a sign of life too: on a narrow link it keeps the source's Hello waiting.
 * With the set's lock; the pipe stands while is_open and PREPARED. */
static void listen_to_memory(struct incoming *incoming, int64_t now)
{
	if (!incoming->is_open || incoming->state != INCOMING_PREPARED)
		return;
	uint64_t bytes = pipe_set_bytes_received(&incoming->memory);
	if (bytes != incoming->heard_bytes)
		incoming->heard_ms = now;
	incoming->heard_bytes = bytes;
}

static enum care care_of(const struct incoming *incoming, int64_t now)
{
	int64_t silent = now - incoming->heard_ms;

	switch (incoming->state) {
	case INCOMING_PREPARED:
		return incoming->users == 0 && silent > incoming->lease_ms ? CARE_LEASE : CARE_NONE;
	case INCOMING_RESTORED:
		return silent > incoming->core->config.hold_restored_ms ? CARE_HOLD : CARE_NONE;
	case INCOMING_COMMITTED:
		if (incoming->lazy != NULL || incoming->left != NULL)
			return CARE_FILL;
		if (incoming->has_images &&
		    now - incoming->committed_ms > incoming->core->config.hold_images_ms)
			return CARE_IMAGES;
		return CARE_LOOK;
	case INCOMING_ABORTED:
		return CARE_FORGET;
	}
	return CARE_NONE;
}

/* A committed tree: is it still there? */
static bool has_ended(struct incoming *incoming)
{
	int ended;

	if (incoming->is_child && child_reap(incoming->pid, &ended) == incoming->pid)
		incoming->is_child = false;
	if (proc_is_alive(incoming->pid, incoming->start_ticks))
		return false;
	bool is_populated = false;
	scoped(status) status *st = cgroup_exists(incoming->group)
					? cgroup_is_populated(incoming->group, &is_populated)
					: NULL;
	return st == NULL && !is_populated;
}

/* True when the session is to be forgotten. */
static bool take_care(struct incomings *incomings, struct incoming *incoming, enum care care)
{
	scoped(status) status *st = NULL;

	switch (care) {
	case CARE_LEASE:
		st = incoming_give_up(
		    incomings, incoming,
		    status_because(
			status_errorf(STATUS_ABORTED,
				      "the source fell silent before a whole copy was here"),
			REASON_LEASE_EXPIRED));
		break;
	case CARE_HOLD:
		st = incoming_give_up(
		    incomings, incoming,
		    status_because(status_errorf(STATUS_ABORTED,
						 "the source did not come back within the time a "
						 "whole copy is held"),
				   REASON_HOLD_EXPIRED));
		break;
	case CARE_FILL:
		return incoming_care_for_fill(incomings, incoming);
	case CARE_IMAGES:
		incoming_close_channels(incoming, true);
		incoming_remove_images(incoming);
		break;
	case CARE_LOOK:
		if (!has_ended(incoming))
			return false;
		st = incoming_journal(incoming, HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED,
				      "the tree has ended");
		incoming_close_channels(incoming, true);
		incoming_remove_images(incoming);
		status_free(cgroup_remove(incoming->group));
		log_line(LOG_LEVEL_INFO, incoming->id,
			 "the tree that came here has ended or moved on");
		return true;
	case CARE_FORGET:
		return true;
	case CARE_NONE:
		break;
	}
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, incoming->id, "caretaker", st);
	return false;
}

/* One that needs care, its turn taken if it is free; NULL when none is left in this pass. */
static struct incoming *next_in_need(struct incomings *incomings, size_t *place,
				     enum care *ret_care)
{
	struct incoming *found = NULL;

	(void)pthread_mutex_lock(&incomings->lock);
	for (; *place < incomings->count && found == NULL; (*place)++) {
		struct incoming *incoming = incomings->list[*place];
		listen_to_memory(incoming, clock_monotonic_ms());
		*ret_care = care_of(incoming, clock_monotonic_ms());
		if (*ret_care == CARE_NONE || pthread_mutex_trylock(&incoming->turn) != 0)
			continue;
		incoming->users++;
		found = incoming;
	}
	(void)pthread_mutex_unlock(&incomings->lock);
	return found;
}

static void one_pass(struct incomings *incomings)
{
	enum care care;
	size_t place = 0;

	for (struct incoming *incoming = next_in_need(incomings, &place, &care); incoming != NULL;
	     incoming = next_in_need(incomings, &place, &care)) {
		bool is_done = take_care(incomings, incoming, care);
		(void)pthread_mutex_unlock(&incoming->turn);
		(void)pthread_mutex_lock(&incomings->lock);
		incoming->users--;
		(void)pthread_cond_broadcast(&incomings->changed);
		(void)pthread_mutex_unlock(&incomings->lock);
		if (is_done)
			incomings_forget(incomings, incoming);
	}
}

static bool wait_tick(struct incomings *incomings)
{
	const struct timespec at = clock_at(clock_monotonic_ms() + CARETAKER_TICK_MS);

	(void)pthread_mutex_lock(&incomings->lock);
	while (!incomings->is_stopping &&
	       pthread_cond_timedwait(&incomings->changed, &incomings->lock, &at) != ETIMEDOUT)
		;
	bool go_on = !incomings->is_stopping;
	(void)pthread_mutex_unlock(&incomings->lock);
	return go_on;
}

static void *caretake(void *self)
{
	while (wait_tick(self))
		one_pass(self);
	return NULL;
}

status *incomings_start(struct incomings *incomings)
{
	int failed = pthread_create(&incomings->caretaker, NULL, caretake, incomings);

	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	incomings->has_caretaker = true;
	return NULL;
}

static void stop_caretaker(struct incomings *incomings)
{
	if (!incomings->has_caretaker)
		return;
	(void)pthread_mutex_lock(&incomings->lock);
	incomings->is_stopping = true;
	(void)pthread_cond_broadcast(&incomings->changed);
	(void)pthread_mutex_unlock(&incomings->lock);
	(void)pthread_join(incomings->caretaker, NULL);
	incomings->has_caretaker = false;
}

void incomings_drain(struct incomings *incomings)
{
	stop_caretaker(incomings);
	for (size_t i = 0; i < incomings->count; i++) {
		struct incoming *incoming = incomings->list[i];
		(void)pthread_mutex_lock(&incoming->turn);
		if (incoming->state == INCOMING_PREPARED) {
			scoped(status) status *st =
			    incoming_give_up(incomings, incoming,
					     status_errorf(STATUS_ABORTED,
							   "the destination's engine stops"));
			if (st != NULL)
				log_status(LOG_LEVEL_WARN, incoming->id, "drain", st);
		}
		if (incoming->state == INCOMING_COMMITTED)
			incoming_await_filled(incoming, FILL_MOST_MS);
		(void)pthread_mutex_unlock(&incoming->turn);
	}
}

void incomings_free(struct incomings *incomings)
{
	if (incomings == NULL)
		return;
	stop_caretaker(incomings);
	for (size_t i = 0; i < incomings->count; i++)
		incoming_free(incomings->list[i]);
	(void)pthread_cond_destroy(&incomings->changed);
	(void)pthread_mutex_destroy(&incomings->lock);
	free(incomings);
}
