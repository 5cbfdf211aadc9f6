/* SPDX-License-Identifier: Apache-2.0 */
/* The point of no return and every way on from it. The order of the lines in here is the promise
 * "exactly one copy": a record is durable before the act that it announces. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/host/child.h"
#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/migration/source_internal.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/pack.h"
#include "proto/reason.h"

enum {
	ASK_FIRST_MS = 100, /* backoff between questions, doubled up to */
	ASK_LONGEST_MS = 5000,
	ABORT_BEST_EFFORT_MS = 2000,
	DOUBT_SHOWN_AFTER = 2, /* questions; before that it is only slow */
	FILL_FIRST_MS = 10,    /* between questions about memory that comes in by itself */
	FILL_LONGEST_MS = 250,
	FILL_UNHEARD = 3,    /* questions without an answer; then it is in doubt */
	FETCH_ASK_MS = 2000, /* such a question when pages from here are waited for */
	REASON_BYTES = 256,
};

/* --- what can be asked and said --- */

static status *send_commit(struct source *source, bool source_is_gone, bool *ret_filling)
{
	Haul__V1__CommitRequest request = HAUL__V1__COMMIT_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = source->id;
	request.source_is_gone = source_is_gone;
	status *st = source_call(source, "Commit", &request.base,
				 source->core->config.call_timeout_ms, &response);
	if (st == NULL)
		*ret_filling = ((const Haul__V1__CommitResponse *)response)->filling;
	return st;
}

static void show_fill(void *self, Haul__V1__Migration *view)
{
	const Haul__V1__QueryResponse *there = self;

	view->lazy_faults = there->lazy_faults;
	view->fill_ms = there->fill_ms;
	view->late_missing = there->late_missing;
	view->late_faults = there->late_faults;
}

static status *query(struct source *source, Haul__V1__Outcome *ret_outcome)
{
	Haul__V1__QueryRequest request = HAUL__V1__QUERY_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = source->id;
	int64_t timeout_ms =
	    source->is_fetching ? FETCH_ASK_MS : source->core->config.call_timeout_ms;
	status *st = source_call(source, "Query", &request.base, timeout_ms, &response);
	if (st != NULL)
		return st;
	Haul__V1__QueryResponse *there = (Haul__V1__QueryResponse *)response;
	*ret_outcome = there->outcome;
	if (there->fill_ms > 0 || there->late_missing > 0 || there->late_faults > 0)
		registry_change(source->core->registry, source->id, show_fill, there);
	if (there->fill_was_frozen && there->outcome == HAUL__V1__OUTCOME__OUTCOME_COMMITTED)
		source_note(source,
			    "the last of its memory was filled with the tree frozen, at the "
			    "destination");
	return NULL;
}

/* *ret_given_up (may be NULL): why the destination gave it up, empty unless it did. */
/* Why the destination gave up, in its words. */
struct given_up {
	char reason[REASON_BYTES];
	enum status_code code; /* STATUS_OK: nothing failed there */
};

/* CANCELLED is a user's word, not a destination's. */
static enum status_code failure_code(uint32_t code)
{
	return code != STATUS_CANCELLED ? status_code_from_wire(code) : STATUS_UNKNOWN;
}

static status *tell_abort(struct source *source, const char *reason, int64_t timeout_ms,
			  struct given_up *ret_given_up)
{
	Haul__V1__AbortRequest request = HAUL__V1__ABORT_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = source->id;
	request.reason = (char *)reason;
	status *st = source_call(source, "Abort", &request.base, timeout_ms, &response);
	if (st == NULL && ret_given_up != NULL) {
		const Haul__V1__AbortResponse *there = (const Haul__V1__AbortResponse *)response;
		(void)snprintf(ret_given_up->reason, REASON_BYTES, "%s", there->reason);
		ret_given_up->code = failure_code(there->code);
	}
	return st;
}

static void tell_settled(struct source *source)
{
	Haul__V1__SettleRequest request = HAUL__V1__SETTLE_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = source->id;
	/* Best effort: a destination that was not told only keeps a line in its journal. */
	status_free(source_call(source, "Settle", &request.base, ABORT_BEST_EFFORT_MS, &response));
}

/* --- commit --- */

status *source_commit(struct source *source)
{
	status *st = source_begin_commit(source);

	if (st == NULL)
		st = source_journal(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_COMMITTING, NULL);
	if (st != NULL) { /* nothing has left: the tree may run here */
		source->stage = SRC_RESUME;
		source->error = status_first(source->error, st);
		return NULL;
	}
	st = send_commit(source, false, &source->is_filling);
	if (st != NULL)
		return status_wrapf(st, "commit at %s", source->to);
	source_measured(source, clock_monotonic_fine_ms() - source->frozen_ms);
	return NULL;
}

/* --- in doubt: ask until the destination tells --- */

static bool wait_to_ask(struct source *source, int64_t delay_ms);
static enum destination_says ask(struct source *source);
static void look_here(struct source *source, struct source_situation *ret_here);

/* The destination lacks pages of the tree here: they are served. An error when it is gone. */
static status *serve_late(struct source *source)
{
	struct source_situation here;

	look_here(source, &here);
	if (!here.tree_exists)
		return status_errorf(STATUS_DATA_LOSS,
				     "the tree here is gone, and %s lacks pages of it", source->to);
	return source_late_start(source);
}

/* It runs there, and was not to wait for its memory. Until all of that is in place the tree here is
 * the only one that nothing but this machine can take away: it stays, frozen. */
status *source_fill(struct source *source)
{
	int64_t delay = FILL_FIRST_MS;
	unsigned unheard = 0;

	source_late_goes_on(source);
	source_shut_sockets(source);
	while (source->is_filling) {
		if (!wait_to_ask(source, delay)) {
			source->stage = SRC_OVER; /* the next hauld goes on from the journal */
			return NULL;
		}
		enum destination_says says = ask(source);
		unheard = says == SAYS_NOTHING ? unheard + 1 : 0;
		source->is_filling = says == SAYS_FILLING || says == SAYS_FETCHING ||
				     (unheard > 0 && unheard < FILL_UNHEARD);
		status *st = says == SAYS_FETCHING ? serve_late(source) : NULL;
		if (st != NULL)
			return st;
		source->is_fetching = says == SAYS_FETCHING || (unheard > 0 && source->is_fetching);
		if (!source->is_filling && says != SAYS_COMMITTED)
			return status_errorf(STATUS_UNAVAILABLE,
					     "%s does not say that all memory is in place",
					     source->to);
		delay = delay * 2 > FILL_LONGEST_MS ? FILL_LONGEST_MS : delay * 2;
	}
	return NULL;
}

static void look_here(struct source *source, struct source_situation *ret_here)
{
	*ret_here = (struct source_situation){.is_reserved =
						  source->is_reserved && !source->is_before_fence};
	(void)pthread_mutex_lock(&source->lock);
	ret_here->is_committing = source->is_committing;
	(void)pthread_mutex_unlock(&source->lock);
	if (!source->tree_was_elsewhere)
		fence_look(&source->fence, source->pid, source->start_ticks, &ret_here->tree_exists,
			   &ret_here->tree_has_run);
}

/* Waits for the next question; false when the engine stops, an operator's word comes first. */
static bool wait_to_ask(struct source *source, int64_t delay_ms)
{
	const struct timespec at = clock_at(clock_monotonic_ms() + delay_ms);

	(void)pthread_mutex_lock(&source->lock);
	while (!source->is_stopping && !source->is_nudged &&
	       source->decision == HAUL__V1__RESOLVE_REQUEST__ACT__ACT_UNKNOWN) {
		if (pthread_cond_timedwait(&source->told, &source->lock, &at) == ETIMEDOUT)
			break;
	}
	bool go_on = !source->is_stopping;
	source->is_nudged = false;
	(void)pthread_mutex_unlock(&source->lock);
	return go_on;
}

static Haul__V1__ResolveRequest__Act decision_of(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	Haul__V1__ResolveRequest__Act decision = source->decision;
	source->decision = HAUL__V1__RESOLVE_REQUEST__ACT__ACT_UNKNOWN;
	(void)pthread_mutex_unlock(&source->lock);
	return decision;
}

static void show_in_doubt(void *self, Haul__V1__Migration *view)
{
	const status *doubt = self;

	view->state = HAUL__V1__MIGRATION_STATE__IN_DOUBT;
	if (view->in_doubt_since_unix_ms == 0)
		view->in_doubt_since_unix_ms = clock_unix_ms();
	text_set(&view->doubt, status_message(doubt));
	haul__v1__status__free_unpacked(view->error, NULL);
	view->error = status_to_wire(doubt);
}

static void show_doubt(struct source *source, enum verdict verdict, const char *why)
{
	bool is_endless = verdict == VERDICT_OPERATOR;
	bool is_paused = verdict == VERDICT_ASK_AGAIN && source->is_fetching;
	scoped(status) status *doubt =
	    is_paused ? status_because(
			    status_errorf(STATUS_UNAVAILABLE,
					  "the workload runs at the destination, and waits there "
					  "for memory that is still here: the link, or hauld "
					  "there, is lost; it goes on by itself when it is back "
					  "(`haulctl recover` asks at once)"),
			    REASON_POST_COPY_PAUSED)
		      : status_because(status_errorf(STATUS_UNAVAILABLE, "%s", why),
				       is_endless ? REASON_RESOLVE_NEEDED : REASON_IN_DOUBT);

	registry_change(source->core->registry, source->id, show_in_doubt, doubt);
}

/* An operator decided: journaled as such, then done. */
static status *obey(struct source *source, Haul__V1__ResolveRequest__Act decision)
{
	bool is_resume = decision == HAUL__V1__RESOLVE_REQUEST__ACT__RESUME;
	Haul__V1__JournalRecord fields = HAUL__V1__JOURNAL_RECORD__INIT;

	fields.operator_decided = true;
	fields.reason = source->decision_reason;
	status *st = core_journal(source->core, source->id,
				  is_resume ? HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESUMED
					    : HAUL__V1__JOURNAL_EVENT__J_SOURCE_DONE,
				  &fields);
	if (st != NULL)
		return st;
	log_line(LOG_LEVEL_WARN, source->id, "an operator decided: %s (%s)",
		 is_resume ? "resume here" : "end the tree here", source->decision_reason);
	source->is_resumed_told = is_resume;
	source->stage = is_resume ? SRC_RESUME : SRC_FINISH;
	source_note(source, is_resume ? "an operator let the tree here run"
				      : "an operator ended the tree here");
	return NULL;
}

static enum destination_says ask(struct source *source)
{
	Haul__V1__Outcome outcome = HAUL__V1__OUTCOME__OUTCOME_UNKNOWN;
	scoped(status) status *st = query(source, &outcome);

	if (st == NULL)
		return verdict_says(outcome);
	log_status(LOG_LEVEL_DEBUG, source->id, "the destination did not answer", st);
	return SAYS_NOTHING;
}

/* Does what the verdict allows; the stage changes when that decides. */
static void act_on(struct source *source, enum verdict verdict, const struct source_situation *here)
{
	switch (verdict) {
	case VERDICT_RESUME:
		source->stage = SRC_RESUME;
		break;
	case VERDICT_FINISH:
		source->stage = SRC_FINISH;
		break;
	case VERDICT_LOST: {
		/* One that lacks pages of the tree that is gone hears of it first. */
		scoped(status) status *st = source->is_fetching ? source_late_disown(source) : NULL;
		if (st == NULL)
			source->stage = SRC_LOST;
		break;
	}
	case VERDICT_WAIT:
		source->is_filling = true;
		source->stage = SRC_FILL;
		break;
	case VERDICT_COMMIT: {
		scoped(status) status *st =
		    send_commit(source, !here->tree_exists, &source->is_filling);
		if (st == NULL)
			source->stage = SRC_FILL;
		break;
	}
	case VERDICT_ABORT_FIRST:
		status_free(tell_abort(source, "the source did not learn the outcome",
				       source->core->config.call_timeout_ms, NULL));
		break;
	case VERDICT_ASK_AGAIN:
	case VERDICT_OPERATOR:
		break;
	}
}

static status *ask_until_told(struct source *source)
{
	int64_t delay = ASK_FIRST_MS;

	for (unsigned asked = 0; source->stage == SRC_ASK; asked++) {
		struct source_situation here;
		Haul__V1__ResolveRequest__Act decision = decision_of(source);
		if (decision != HAUL__V1__RESOLVE_REQUEST__ACT__ACT_UNKNOWN) {
			scoped(status) status *st = obey(source, decision);
			if (st == NULL)
				return NULL;
			log_status(LOG_LEVEL_ERROR, source->id,
				   "the decision could not be journaled", st);
		}
		look_here(source, &here);
		/* What needs no answer is not asked for: resume what never may have left. */
		enum destination_says says = SAYS_NOTHING;
		enum verdict verdict = verdict_of(&here, says);
		if (verdict == VERDICT_ASK_AGAIN) {
			says = ask(source);
			verdict = verdict_of(&here, says);
		}
		if (says != SAYS_NOTHING)
			source->is_fetching = says == SAYS_FETCHING;
		if (says != SAYS_NOTHING || asked < DOUBT_SHOWN_AFTER)
			log_line(LOG_LEVEL_INFO, source->id, "in doubt: verdict is %s",
				 verdict_name(verdict));
		act_on(source, verdict, &here);
		if (source->stage != SRC_ASK)
			return NULL;
		if (asked + 1 >= DOUBT_SHOWN_AFTER || verdict == VERDICT_OPERATOR)
			show_doubt(source, verdict, verdict_doubt(&here, says));
		if (!wait_to_ask(source, delay)) {
			source->stage = SRC_OVER; /* the next hauld goes on from the journal */
			return NULL;
		}
		delay = delay * 2 > ASK_LONGEST_MS ? ASK_LONGEST_MS : delay * 2;
	}
	return NULL;
}

status *source_ask(struct source *source)
{
	source_set_asking(source, true);
	status *st = ask_until_told(source);
	source_set_asking(source, false);
	return st;
}

/* --- finish --- */

static status *end_tree(struct source *source)
{
	status *st = NULL;

	if (source->is_dumped && source->swrk != NULL) {
		char work[FILES_PATH], log[32];
		core_path(source->core, "out", source->id, "work", work);
		(void)snprintf(log, sizeof(log), "dump-%u.log", source->round);
		struct criu_dump dump = {.pid = source->pid,
					 .work_dir = work,
					 .log_file = log,
					 .limits = &source->core->criu_limits};
		scoped(status) status *ended = criu_dump_end(source->swrk, &dump, true);
		if (ended != NULL)
			log_status(LOG_LEVEL_INFO, source->id,
				   "CRIU did not end the tree, its group does", ended);
	}
	/* The group is the tree, by construction: what CRIU killed is gone, what it did not dies
	 * here. */
	st = fence_kill(&source->fence);
	/* A tree that once came here is our child: a zombie would keep its pid from coming back. */
	int ended;
	(void)child_reap(source->pid, &ended);
	return st;
}

status *source_finish(struct source *source)
{
	source_late_stop(source);
	scoped(status) status *written =
	    source_journal(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_DONE, NULL);

	/* The destination said "committed": the tree here dies whether that could be written or
	 * not; a new hauld would ask and hear the same. FAILED_PRECONDITION: an operator's word is
	 * there already. */
	if (written != NULL && status_code_of(written) != STATUS_FAILED_PRECONDITION)
		log_status(LOG_LEVEL_WARN, source->id, "the end could not be journaled, continuing",
			   written);
	status *st = end_tree(source);
	if (st != NULL)
		log_status(LOG_LEVEL_ERROR, source->id, "the tree here did not end", st);
	tell_settled(source);
	source_tidy(source);
	source_set_state(source, HAUL__V1__MIGRATION_STATE__COMPLETED, NULL);
	return st;
}

/* --- rollback --- */

static Haul__V1__MigrationState rolled_back_state(const struct source *source)
{
	return status_code_of(source->error) == STATUS_CANCELLED
		   ? HAUL__V1__MIGRATION_STATE__CANCELLED
		   : HAUL__V1__MIGRATION_STATE__ABORTED;
}

/* The error as the user reads it: with where the workload is. */
static void tell_where(struct source *source, const char *state)
{
	if (source->error == NULL)
		source->error =
		    status_because(status_errorf(STATUS_ABORTED, "the destination did not commit"),
				   REASON_DESTINATION_GAVE_UP);
	source->error = status_detailf(source->error, "state", "%s", state);
}

/* The first error becomes the end of the sentence. Its reason does not count any more: a channel
 * that broke, or CRIU at its end. */
static status *lost_there(const struct source *source, const status *first)
{
	status *st = status_because(
	    status_errorf(STATUS_UNAVAILABLE,
			  "the destination's engine was lost: %s does not answer any more: %s",
			  source->to, status_message(first)),
	    REASON_DESTINATION_LOST);

	st = status_detailf(
	    st, "next",
	    "see whether hauld runs there and this host reaches it, then migrate again; "
	    "it will give up by itself what it has");
	for (size_t i = 0; i < status_detail_count(first); i++) {
		struct status_detail detail = status_detail_at(first, i);
		if (strcmp(detail.label, REASON_LABEL) != 0 && strcmp(detail.label, "next") != 0)
			st = status_detailf(st, detail.label, "%s", detail.text);
	}
	return st;
}

/* Best effort. What failed first is mostly that a channel broke: what the destination answers now,
 * or that it does not, tells why. */
static void give_up_there(struct source *source)
{
	const char *reason = source->error != NULL ? status_message(source->error) : "";
	struct given_up given_up = {.code = STATUS_OK};

	if (!source->is_reserved)
		return;
	scoped(status) status *told = tell_abort(source, reason, ABORT_BEST_EFFORT_MS, &given_up);
	enum status_code failed = status_code_of(source->error);
	if (source->error == NULL || failed == STATUS_CANCELLED)
		return;
	/* No broken channel looks like that: it is this side's disk, whoever answers. */
	if (failed == STATUS_RESOURCE_EXHAUSTED && told != NULL)
		return;
	if (status_code_of(told) == STATUS_UNAVAILABLE ||
	    status_code_of(told) == STATUS_DEADLINE_EXCEEDED) {
		scoped(status) status *first = source->error;
		source->error = lost_there(source, first);
	} else if (given_up.reason[0] != '\0' &&
		   strncmp(given_up.reason, reason, sizeof(given_up.reason) - 1) != 0) {
		status *st =
		    status_wrapf(source->error, "the destination gave up (%s)", given_up.reason);
		if (given_up.code != STATUS_OK)
			st = status_recode(st, given_up.code);
		source->error = status_because(st, REASON_DESTINATION_GAVE_UP);
	}
}

status *source_abort(struct source *source)
{
	source_stop_interrupting(source);
	scoped(status) status *written =
	    source_journal(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESUMED,
			   source->error != NULL ? status_message(source->error) : "");
	if (written != NULL)
		log_status(LOG_LEVEL_WARN, source->id, "the end could not be journaled, continuing",
			   written);
	/* CRIU lets go first: a pre-dump that hangs holds the tree. */
	if (source->swrk != NULL)
		swrk_free(TAKE(source->swrk));
	source_full_speed(source);
	give_up_there(source);
	tell_where(source, proc_is_alive(source->pid, source->start_ticks)
			       ? "the workload runs here as before"
			       : "there is no such workload here");
	source_tidy(source);
	source_set_state(source, rolled_back_state(source), source->error);
	return NULL;
}

/* CRIU lets the stopped tree go; behind the fence it stays frozen. */
static void release_from_criu(struct source *source)
{
	char work[FILES_PATH], log[32];

	if (source->swrk == NULL)
		return;
	core_path(source->core, "out", source->id, "work", work);
	(void)snprintf(log, sizeof(log), "dump-%u.log", source->round);
	struct criu_dump dump = {.pid = source->pid,
				 .work_dir = work,
				 .log_file = log,
				 .limits = &source->core->criu_limits};
	if (source->is_dumped) {
		scoped(status) status *st = criu_dump_end(source->swrk, &dump, false);
		if (st != NULL)
			log_status(LOG_LEVEL_INFO, source->id, "CRIU had to be ended", st);
	}
	source->is_dumped = false;
	swrk_free(TAKE(source->swrk));
}

status *source_resume(struct source *source)
{
	const char *reason = source->error != NULL ? status_message(source->error) : "";

	source_stop_interrupting(source);
	/* Before it runs: what it has then is not what was dumped. */
	source_late_stop(source);
	if (source->is_fetching)
		status_free(source_late_disown(source));
	release_from_criu(source);
	if (!source->is_resumed_told) {
		scoped(status) status *written =
		    source_journal(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESUMED, reason);
		if (written != NULL) {
			/* Should this machine die later, nobody would know that the tree ran on:
			 * the destination's copy must be gone before, or it could be taken for the
			 * only one. */
			log_status(LOG_LEVEL_WARN, source->id, "the resume could not be journaled",
				   written);
			if (source->is_reserved)
				status_free(tell_abort(source, reason, ABORT_BEST_EFFORT_MS, NULL));
		}
	}
	source_reopen_sockets(source);
	status *st = fence_open(&source->fence);
	if (st != NULL) {
		source_set_state(source, HAUL__V1__MIGRATION_STATE__IN_DOUBT, st);
		return st;
	}
	source->frozen_ms = 0;
	source_full_speed(source);
	give_up_there(source);
	tell_where(source, proc_is_alive(source->pid, source->start_ticks)
			       ? "the workload runs here as before"
			       : "the workload has ended here");
	source_tidy(source);
	source_set_state(source, rolled_back_state(source), source->error);
	return NULL;
}

status *source_lost(struct source *source)
{
	scoped(status) status *written =
	    source_journal(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_LOST,
			   "no whole copy was at the destination");

	if (written != NULL)
		log_status(LOG_LEVEL_WARN, source->id, "the loss could not be journaled", written);
	status_free(fence_kill(&source->fence));
	source->error =
	    status_detailf(status_errorf(STATUS_DATA_LOSS,
					 "the workload ended here (its machine restarted, or it "
					 "was killed) before the destination had a whole copy"),
			   "next", "start the workload anew");
	source_tidy(source);
	source_set_state(source, HAUL__V1__MIGRATION_STATE__LOST, source->error);
	return NULL;
}
