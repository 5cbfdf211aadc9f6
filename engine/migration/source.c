/* SPDX-License-Identifier: Apache-2.0 */
/* All source migrations of an engine: starting, cancelling, resolving, ending; and the small things
 * that every stage needs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/host/files.h"
#include "engine/log.h"
#include "engine/migration/keeper.h"
#include "engine/migration/source_internal.h"
#include "engine/migration/sources.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/pack.h"
#include "proto/reason.h"

/* The destination gives up before its caller does, so that its answer gets here in time. */
enum { ANSWER_MS = 550 };

/* --- one source --- */

struct source *source_new(struct core *core, const char *id)
{
	struct source *source = calloc(1, sizeof(*source));

	if (source == NULL)
		abort();
	source->core = core;
	(void)snprintf(source->id, sizeof(source->id), "%s", id);
	haul__v1__migrate_options__init(&source->options);
	for (size_t i = 0; i < RPC_SOCKETS; i++)
		source->sockets[i] = -1;
	(void)pthread_mutex_init(&source->lock, NULL);
	clock_cond_init(&source->told);
	return source;
}

void source_free(struct source *source)
{
	if (source == NULL)
		return;
	source_tidy(source);
	rpc_client_free(source->keeper);
	rpc_client_free(source->peer);
	for (size_t i = 0; i < RPC_SOCKETS; i++)
		if (source->sockets[i] >= 0)
			(void)close(source->sockets[i]);
	fence_fini(&source->fence);
	tree_survey_free(&source->survey);
	status_free(source->error);
	(void)pthread_cond_destroy(&source->told);
	(void)pthread_mutex_destroy(&source->lock);
	free(source);
}

void source_tidy(struct source *source)
{
	char path[FILES_PATH], group[CGROUP_PATH];

	keeper_stop(source);
	source_late_stop(source);
	source_full_speed(source);
	(void)pthread_mutex_lock(&source->lock);
	struct swrk *swrk = TAKE(source->swrk);
	struct pipe_set memory = source->memory;
	struct pipe *images = TAKE(source->images);
	source->memory = (struct pipe_set){0};
	(void)pthread_mutex_unlock(&source->lock);
	if (source->sender != NULL)
		memory_sender_free(TAKE(source->sender));
	frames_free(TAKE(source->frames));
	swrk_free(swrk);
	pipe_set_free(&memory);
	pipe_free(images);
	cgroup_path(source->core->cgroups, CRIU_GROUP_OUT, source->id, group);
	if (cgroup_exists(group)) {
		scoped(status) status *st = cgroup_kill(group, 5000);
		if (st != NULL)
			log_status(LOG_LEVEL_WARN, source->id, "CRIU's group stays", st);
	}
	core_path(source->core, "out", source->id, "", path);
	scoped(status) status *st = files_remove_tree(path);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, source->id, "files stay behind", st);
}

/* With the lock held. */
static status *interrupted_locked(const struct source *source)
{
	if (source->is_timed_out)
		return source_tell_convergence(source,
					       status_errorf(STATUS_DEADLINE_EXCEEDED,
							     "--timeout of %u ms has passed",
							     source->options.timeout_ms));
	if (source->is_cancelled)
		return status_errorf(STATUS_CANCELLED, "cancelled");
	if (source->is_deserted)
		return status_because(
		    status_errorf(STATUS_UNAVAILABLE,
				  "nothing was heard from the destination for %lld ms, its lease",
				  (long long)source->core->config.lease_ms),
		    REASON_DESTINATION_LOST);
	return NULL;
}

bool source_is_interrupted_locked(const struct source *source)
{
	return source->is_timed_out || source->is_cancelled || source->is_deserted;
}

status *source_interrupted(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	status *st = interrupted_locked(source);
	(void)pthread_mutex_unlock(&source->lock);
	return st;
}

status *source_begin_commit(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	/* This line is where cancelling ends. */
	status *st = interrupted_locked(source);
	source->is_committing = st == NULL;
	if (st == NULL && source->swrk != NULL)
		swrk_set_deadline(source->swrk, 0);
	(void)pthread_mutex_unlock(&source->lock);
	return st;
}

void source_stop_interrupting(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	source->is_rolling_back = true;
	if (source->swrk != NULL) {
		swrk_set_deadline(source->swrk, 0);
		swrk_resume(source->swrk);
	}
	if (source->peer != NULL)
		rpc_client_resume(source->peer);
	(void)pthread_mutex_unlock(&source->lock);
}

/* With the lock held. Nothing is opened between this and the check that each stage does at its end.
 */
static void interrupt_locked(struct source *source)
{
	if (source->is_rolling_back)
		return;
	if (source->swrk != NULL)
		swrk_interrupt(source->swrk);
	if (source->peer != NULL)
		rpc_client_interrupt(source->peer);
	pipe_set_interrupt(&source->memory);
	if (source->images != NULL)
		pipe_interrupt(source->images);
	(void)pthread_cond_broadcast(&source->told);
}

static void expire(struct source *source, int64_t early_ms)
{
	(void)pthread_mutex_lock(&source->lock);
	if (source->deadline_ms != 0 && clock_monotonic_ms() + early_ms >= source->deadline_ms &&
	    !source->is_committing && !source->is_timed_out) {
		source->is_timed_out = true;
		interrupt_locked(source);
	}
	(void)pthread_mutex_unlock(&source->lock);
}

void source_expire(struct source *source)
{
	expire(source, 0);
}

int64_t source_budget_ms(struct source *source, int64_t most_ms)
{
	(void)pthread_mutex_lock(&source->lock);
	bool counts =
	    source->deadline_ms != 0 && !source->is_committing && !source->is_rolling_back;
	(void)pthread_mutex_unlock(&source->lock);
	int64_t left_ms = counts ? clock_left_ms(source->deadline_ms) : most_ms;
	if (left_ms < 1)
		left_ms = 1;
	return left_ms < most_ms ? left_ms : most_ms;
}

void source_desert(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	if (!source->is_committing && !source->is_deserted) {
		source->is_deserted = true;
		interrupt_locked(source);
	}
	(void)pthread_mutex_unlock(&source->lock);
}

void source_own_session(struct source *source, struct swrk *swrk)
{
	(void)pthread_mutex_lock(&source->lock);
	source->swrk = swrk;
	(void)pthread_mutex_unlock(&source->lock);
}

void source_own_pipes(struct source *source, const struct pipe_set *memory, struct pipe *images)
{
	(void)pthread_mutex_lock(&source->lock);
	source->memory = *memory;
	source->images = images;
	(void)pthread_mutex_unlock(&source->lock);
}

uint64_t source_sent_bytes(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	uint64_t sent = pipe_set_bytes_sent(&source->memory);
	(void)pthread_mutex_unlock(&source->lock);
	return sent;
}

void source_set_asking(struct source *source, bool is_asking)
{
	(void)pthread_mutex_lock(&source->lock);
	source->is_asking = is_asking;
	(void)pthread_mutex_unlock(&source->lock);
}

struct state_view {
	Haul__V1__MigrationState state;
	const status *error;
	double begun_ms;
};

static void show_state(void *self, Haul__V1__Migration *view)
{
	const struct state_view *shown = self;

	view->state = shown->state;
	haul__v1__status__free_unpacked(view->error, NULL); /* also that of a doubt that is over */
	view->error = shown->error != NULL ? status_to_wire(shown->error) : NULL;
	if (migration_is_over(view)) {
		view->ended_unix_ms = clock_unix_ms();
		if (shown->begun_ms > 0)
			view->total_ms = clock_monotonic_fine_ms() - shown->begun_ms;
		text_set(&view->doubt, "");
	}
}

void source_set_state(struct source *source, Haul__V1__MigrationState state, const status *error)
{
	struct state_view shown = {state, error, source->begun_ms};

	log_line(LOG_LEVEL_INFO, source->id, "state %s",
		 haul__v1__migration_state__descriptor.values[state].name);
	registry_change(source->core->registry, source->id, show_state, &shown);
}

static void show_note(void *self, Haul__V1__Migration *view)
{
	char **grown = realloc(view->notes, (view->n_notes + 1) * sizeof(*grown));

	if (grown == NULL)
		abort();
	grown[view->n_notes++] = text_copy(self);
	view->notes = grown;
}

static void show_tracking(void *self, Haul__V1__Migration *view)
{
	text_set(&view->tracking, self);
}

void source_show_tracking(struct source *source)
{
	registry_change(source->core->registry, source->id, show_tracking,
			(void *)tracking_name(source->tracking));
}

void source_note(struct source *source, const char *text)
{
	log_line(LOG_LEVEL_INFO, source->id, "%s", text);
	registry_change(source->core->registry, source->id, show_note, (void *)text);
}

static bool ends_in_time(const status *st)
{
	return status_code_of(st) == STATUS_DEADLINE_EXCEEDED ||
	       status_code_of(st) == STATUS_UNAVAILABLE || status_code_of(st) == STATUS_CANCELLED;
}

status *source_call(struct source *source, const char *method, const ProtobufCMessage *request,
		    int64_t timeout_ms, ProtobufCMessage **ret_response)
{
	int64_t budget_ms = source_budget_ms(source, timeout_ms);
	status *st = rpc_client_call(source->peer, &haul__v1__peer__descriptor, method, request,
				     budget_ms, ret_response);

	if (st != NULL && budget_ms < timeout_ms && ends_in_time(st))
		expire(source, ANSWER_MS);
	else if (status_code_of(st) != STATUS_CANCELLED)
		return st;
	status *why = source_interrupted(source);
	if (why == NULL)
		return st;
	status_free(st);
	return why;
}

status *source_journal(struct source *source, Haul__V1__JournalEvent event, const char *reason)
{
	Haul__V1__JournalRecord fields = HAUL__V1__JOURNAL_RECORD__INIT;
	char cut[256];

	(void)snprintf(cut, sizeof(cut), "%s", reason != NULL ? reason : "");
	fields.peer_url = source->to;
	fields.pid = source->pid;
	fields.start_ticks = source->start_ticks;
	fields.workload = source->workload;
	fields.reason = cut;
	if (event == HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESERVED ||
	    event == HAUL__V1__JOURNAL_EVENT__J_SOURCE_FENCED) {
		fields.origin_cgroups = source->fence.origins;
		fields.n_origin_cgroups = source->fence.origin_count;
	}
	return core_journal(source->core, source->id, event, &fields);
}

/* --- all of them --- */

static void *run(void *self)
{
	struct source *source = self;

	source_walk(source);
	keeper_stop(source);
	(void)pthread_mutex_lock(&source->lock);
	source->is_over = true;
	(void)pthread_mutex_unlock(&source->lock);
	return NULL;
}

struct sources *sources_new(struct core *core)
{
	struct sources *sources = calloc(1, sizeof(*sources));

	if (sources == NULL)
		abort();
	sources->core = core;
	(void)pthread_mutex_init(&sources->lock, NULL);
	return sources;
}

void sources_reap(struct sources *sources)
{
	size_t kept = 0;

	for (size_t i = 0; i < sources->count; i++) {
		struct source *source = sources->list[i];
		(void)pthread_mutex_lock(&source->lock);
		bool is_over = source->is_over && source->has_thread;
		(void)pthread_mutex_unlock(&source->lock);
		if (!is_over) {
			sources->list[kept++] = source;
			continue;
		}
		(void)pthread_join(source->thread, NULL);
		source_free(source);
	}
	sources->count = kept;
}

status *sources_add(struct sources *sources, struct source *source)
{
	if (sources->count == array_len(sources->list))
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "too many migrations at once");
	int failed = pthread_create(&source->thread, NULL, run, source);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	source->has_thread = true;
	sources->list[sources->count++] = source;
	return NULL;
}

static struct source *find_locked(struct sources *sources, const char *id)
{
	for (size_t i = 0; i < sources->count; i++) {
		if (strcmp(sources->list[i]->id, id) == 0)
			return sources->list[i];
	}
	return NULL;
}

static status *cancel_locked(struct source *source)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&source->lock);
	if (source->is_committing || source->was_recovered) {
		st = status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION,
				  "too late to cancel: the destination may have committed already"),
		    "next", "`haulctl watch %s` tells the outcome", source->id);
		st = status_because(st, REASON_TOO_LATE_TO_CANCEL);
	} else if (source->is_over) {
		st = status_errorf(STATUS_FAILED_PRECONDITION, "it is over");
	} else {
		source->is_cancelled = true;
		interrupt_locked(source);
	}
	(void)pthread_mutex_unlock(&source->lock);
	return st;
}

/* All that waits for its next attempt asks now. */
static status *recover_locked(struct source *source)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&source->lock);
	if (!source->is_committing || source->is_over) {
		st = status_errorf(STATUS_FAILED_PRECONDITION,
				   "nothing is to be recovered: the destination has not been told "
				   "to commit");
	} else {
		source->is_nudged = true;
		source_late_nudge(source);
		(void)pthread_cond_broadcast(&source->told);
	}
	(void)pthread_mutex_unlock(&source->lock);
	return st;
}

status *sources_adjust(struct sources *sources, const Haul__V1__AdjustRequest *request)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&sources->lock);
	struct source *source = find_locked(sources, request->id);
	if (source == NULL) {
		st = status_errorf(STATUS_NOT_FOUND, "no running migration %.64s starts here",
				   request->id);
	} else {
		if (request->bandwidth_bytes_per_s != 0 || request->no_bandwidth_limit)
			atomic_store(&source->bandwidth, request->bandwidth_bytes_per_s);
		if (request->max_downtime_ms != 0) {
			atomic_store(&source->max_downtime_ms, request->max_downtime_ms);
			atomic_store(&source->is_promise, true);
		}
	}
	(void)pthread_mutex_unlock(&sources->lock);
	return st;
}

static status *act_on(struct sources *sources, const char *id,
		      status *(*act)(struct source *source))
{
	(void)pthread_mutex_lock(&sources->lock);
	struct source *source = find_locked(sources, id);
	status *st = source != NULL ? act(source)
				    : status_errorf(STATUS_NOT_FOUND,
						    "no running migration %.64s starts here", id);
	(void)pthread_mutex_unlock(&sources->lock);
	return st;
}

status *sources_recover_one(struct sources *sources, const char *id)
{
	return act_on(sources, id, recover_locked);
}

status *sources_cancel(struct sources *sources, const char *id)
{
	return act_on(sources, id, cancel_locked);
}

static status *resolve_locked(struct source *source, const Haul__V1__ResolveRequest *request)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&source->lock);
	if (!source->is_asking) {
		st = status_because(status_errorf(STATUS_FAILED_PRECONDITION,
						  "migration %s is not in doubt", source->id),
				    REASON_NOT_IN_DOUBT);
	} else if (!request->accept_risk) {
		st = status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION, "%s",
				  request->act == HAUL__V1__RESOLVE_REQUEST__ACT__RESUME
				      ? "risk: if the destination did commit, two copies will run"
				      : "risk: if the destination did not commit, no copy is left"),
		    "next",
		    "look at the destination (`haulctl --server … show %s`), then repeat with "
		    "--accept-risk",
		    source->id);
		st = status_because(st, REASON_RISK_NOT_ACCEPTED);
	} else {
		source->decision = request->act;
		(void)snprintf(source->decision_reason, sizeof(source->decision_reason), "%s",
			       request->reason);
		(void)pthread_cond_broadcast(&source->told);
	}
	(void)pthread_mutex_unlock(&source->lock);
	return st;
}

status *sources_resolve(struct sources *sources, const Haul__V1__ResolveRequest *request)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&sources->lock);
	struct source *source = find_locked(sources, request->id);
	if (source == NULL)
		st = status_errorf(STATUS_NOT_FOUND, "no open migration %.64s starts here",
				   request->id);
	else
		st = resolve_locked(source, request);
	(void)pthread_mutex_unlock(&sources->lock);
	return st;
}

/* --- the end --- */

static void stop_asking(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	source->is_stopping = true;
	(void)pthread_cond_broadcast(&source->told);
	(void)pthread_mutex_unlock(&source->lock);
}

static bool is_all_over(struct sources *sources)
{
	(void)pthread_mutex_lock(&sources->lock);
	sources_reap(sources);
	bool none = sources->count == 0;
	for (size_t i = 0; i < sources->count; i++) {
		status_free(cancel_locked(sources->list[i]));
		stop_asking(sources->list[i]);
	}
	(void)pthread_mutex_unlock(&sources->lock);
	return none;
}

void sources_drain(struct sources *sources, int64_t grace_ms)
{
	int64_t until = clock_monotonic_ms() + grace_ms;
	const struct timespec pause = {.tv_nsec = 50 * 1000000L};

	while (!is_all_over(sources) && clock_monotonic_ms() < until)
		(void)nanosleep(&pause, NULL);
}

void sources_free(struct sources *sources)
{
	if (sources == NULL)
		return;
	for (size_t i = 0; i < sources->count; i++) {
		struct source *source = sources->list[i];
		status_free(cancel_locked(source));
		stop_asking(source);
		(void)pthread_join(source->thread, NULL);
		source_free(source);
	}
	(void)pthread_mutex_destroy(&sources->lock);
	free(sources);
}
