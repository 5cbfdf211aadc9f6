/* SPDX-License-Identifier: Apache-2.0 */
/* Commit, abort and query at the destination, and what a new hauld does with what an earlier one
 * left. A commit is a durable record and then a thaw; every answer about the past is the journal's.
 */
#include "engine/migration/incoming_internal.h"

#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/pack.h"
#include "proto/reason.h"

enum { ANY_STATE = 0xff };

/* --- commit --- */

status *incoming_let_run(struct incomings *incomings, struct incoming *incoming, bool by_operator,
			 const char *reason)
{
	Haul__V1__JournalRecord fields = HAUL__V1__JOURNAL_RECORD__INIT;
	bool is_whole = false;
	status *st = incoming_look(incoming, &is_whole);

	if (st != NULL)
		return status_wrapf(st, "not committed");
	scoped(status) status *unfilled = incoming_check_lazy(incoming);
	if (unfilled != NULL)
		is_whole = false;
	if (!is_whole) {
		st = incoming_give_up(incomings, incoming,
				      unfilled != NULL
					  ? status_recode(status_copy(unfilled), STATUS_ABORTED)
					  : status_errorf(STATUS_ABORTED,
							  "the restored tree had died "
							  "before the commit"));
		return status_first(
		    st,
		    status_errorf(STATUS_ABORTED,
				  "the restored tree of migration %s had died before the commit",
				  incoming->id));
	}
	fields.peer_identity = incoming->source;
	fields.pid = incoming->pid;
	fields.start_ticks = incoming->start_ticks;
	fields.operator_decided = by_operator;
	fields.reason = (char *)reason;
	st = core_journal(incoming->core, incoming->id, HAUL__V1__JOURNAL_EVENT__J_DEST_COMMITTED,
			  &fields);
	if (st != NULL)
		return status_wrapf(st, "not committed");
	/* Decided. What fails from here on is repeated, never undone. */
	incoming_set_state(incomings, incoming, INCOMING_COMMITTED);
	scoped(status) status *thawed = incoming_thaw(incoming);
	if (thawed != NULL)
		log_status(LOG_LEVEL_ERROR, incoming->id, "committed, but its group does not thaw",
			   thawed);
	incoming_show_committed(incomings, incoming);
	return NULL;
}

/* Of a migration without a session: it stays with who prepared it. */
static status *check_recorded(struct incomings *incomings, const struct rpc_call *call,
			      const char *id)
{
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(incomings->core->journal, id, false);

	if (record == NULL || strcmp(record->peer_identity, call->caller->name) == 0)
		return NULL;
	return status_errorf(STATUS_PERMISSION_DENIED, "migration %s was prepared by %s, not by %s",
			     record->id, record->peer_identity, call->caller->name);
}

/* What the journal says of a migration without a session. */
static Haul__V1__Outcome remembered(struct incomings *incomings, const struct rpc_call *call,
				    const char *id, int32_t *ret_pid)
{
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(incomings->core->journal, id, false);

	if (record == NULL ||
	    (call != NULL && strcmp(record->peer_identity, call->caller->name) != 0))
		return HAUL__V1__OUTCOME__OUTCOME_UNKNOWN;
	*ret_pid = record->pid;
	switch ((int)record->event) {
	case HAUL__V1__JOURNAL_EVENT__J_DEST_COMMITTED:
	case HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED:
	case HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED:
		return HAUL__V1__OUTCOME__OUTCOME_COMMITTED;
	case HAUL__V1__JOURNAL_EVENT__J_DEST_ABORTED:
		return HAUL__V1__OUTCOME__OUTCOME_ABORTED;
	case HAUL__V1__JOURNAL_EVENT__J_DEST_BROKEN:
		return HAUL__V1__OUTCOME__OUTCOME_BROKEN;
	case HAUL__V1__JOURNAL_EVENT__J_DEST_RESTORED:
		return HAUL__V1__OUTCOME__OUTCOME_RESTORED;
	case HAUL__V1__JOURNAL_EVENT__J_DEST_PREPARED:
		return HAUL__V1__OUTCOME__OUTCOME_PREPARED;
	default:
		return HAUL__V1__OUTCOME__OUTCOME_UNKNOWN;
	}
}

status *incoming_commit(struct incomings *incomings, const struct rpc_call *call,
			const Haul__V1__CommitRequest *request,
			Haul__V1__CommitResponse *ret_response)
{
	struct incoming *incoming;
	status *st = incoming_enter(incomings, call, request->id, ANY_STATE, &incoming);

	if (status_code_of(st) == STATUS_NOT_FOUND) {
		Haul__V1__Outcome outcome =
		    remembered(incomings, call, request->id, &ret_response->pid);
		if (outcome == HAUL__V1__OUTCOME__OUTCOME_COMMITTED) {
			status_free(st);
			return NULL;
		}
	}
	if (st != NULL)
		return st;
	ret_response->pid = incoming->pid;
	if (incoming->state == INCOMING_RESTORED)
		st = incoming_let_run(incomings, incoming, false,
				      request->source_is_gone ? "the source's tree is gone" : "");
	else if (incoming->state != INCOMING_COMMITTED)
		st = status_errorf(STATUS_FAILED_PRECONDITION,
				   "no whole copy of migration %s is here", incoming->id);
	ret_response->filling = incoming_is_filling(incoming);
	incoming_leave(incomings, incoming);
	return st;
}

/* --- abort --- */

/* Wakes a method that holds the turn, so that abort need not wait for its end. */
static void interrupt(struct incomings *incomings, const struct rpc_call *call, const char *id)
{
	(void)pthread_mutex_lock(&incomings->lock);
	for (size_t i = 0; i < incomings->count; i++) {
		struct incoming *incoming = incomings->list[i];
		if (strcmp(incoming->id, id) != 0 || incoming->state != INCOMING_PREPARED ||
		    !incoming->is_open || strcmp(call->caller->name, incoming->source) != 0 ||
		    incoming->is_aborting)
			continue;
		incoming->is_aborting = true;
		/* They stand while is_open and PREPARED: closing them comes after the change of
		 * state. */
		if (incoming->swrk != NULL)
			swrk_interrupt(incoming->swrk);
		pipe_set_interrupt(&incoming->memory);
		if (incoming->images != NULL)
			pipe_interrupt(incoming->images);
	}
	(void)pthread_mutex_unlock(&incomings->lock);
}

static void tell_reason(struct incomings *incomings, const char *id,
			Haul__V1__AbortResponse *response)
{
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(incomings->core->journal, id, false);

	response->reason = text_copy(record != NULL ? record->reason : "");
}

/* An abort for what never came (or has not come yet): remembered, so that a late Prepare is
 * refused. */
static status *abort_unknown(struct incomings *incomings, const struct rpc_call *call,
			     const Haul__V1__AbortRequest *request,
			     Haul__V1__AbortResponse *ret_response)
{
	Haul__V1__JournalRecord fields = HAUL__V1__JOURNAL_RECORD__INIT;

	status *st = check_recorded(incomings, call, request->id);
	if (st != NULL)
		return st;
	ret_response->outcome = remembered(incomings, call, request->id, &ret_response->pid);
	if (ret_response->outcome == HAUL__V1__OUTCOME__OUTCOME_COMMITTED ||
	    ret_response->outcome == HAUL__V1__OUTCOME__OUTCOME_BROKEN)
		return NULL;
	if (ret_response->outcome == HAUL__V1__OUTCOME__OUTCOME_ABORTED) {
		tell_reason(incomings, request->id, ret_response);
		return NULL;
	}
	st = core_check_id(request->id);
	if (st != NULL)
		return st;
	fields.peer_identity = (char *)call->caller->name;
	fields.reason = (char *)"aborted before it came";
	st = core_journal(incomings->core, request->id, HAUL__V1__JOURNAL_EVENT__J_DEST_ABORTED,
			  &fields);
	/* The record keeps a later Prepare out. It proves nothing about before (the state directory
	 * may be a new one), and does not say so. */
	ret_response->outcome = HAUL__V1__OUTCOME__OUTCOME_UNKNOWN;
	return st;
}

/* What failed here comes first: it is why the source gives up. */
static status *why_given_up(struct incoming *incoming, const Haul__V1__AbortRequest *request,
			    uint32_t *ret_code)
{
	status *failed = incoming_failure(incoming);

	if (failed != NULL) {
		*ret_code = (uint32_t)status_code_of(failed);
		return failed;
	}
	return status_errorf(STATUS_ABORTED, "%s",
			     request->reason[0] != '\0' ? request->reason : "the source gave up");
}

status *incoming_abort(struct incomings *incomings, const struct rpc_call *call,
		       const Haul__V1__AbortRequest *request, Haul__V1__AbortResponse *ret_response)
{
	struct incoming *incoming;

	interrupt(incomings, call, request->id);
	status *st = incoming_enter(incomings, call, request->id, ANY_STATE, &incoming);
	if (status_code_of(st) == STATUS_NOT_FOUND) {
		status_free(st);
		return abort_unknown(incomings, call, request, ret_response);
	}
	if (st != NULL)
		return st;
	ret_response->pid = incoming->pid;
	bool is_given_up =
	    incoming->state == INCOMING_PREPARED || incoming->state == INCOMING_RESTORED;
	if (is_given_up)
		st = incoming_give_up(incomings, incoming,
				      why_given_up(incoming, request, &ret_response->code));
	ret_response->outcome =
	    incoming->state == INCOMING_COMMITTED ? HAUL__V1__OUTCOME__OUTCOME_COMMITTED
	    : is_given_up			  ? HAUL__V1__OUTCOME__OUTCOME_ABORTED
			  : remembered(incomings, call, request->id, &ret_response->pid);
	if (incoming->state == INCOMING_ABORTED)
		tell_reason(incomings, request->id, ret_response);
	incoming_leave(incomings, incoming);
	return st;
}

/* --- query, settle --- */

status *incoming_query(struct incomings *incomings, const struct rpc_call *call,
		       const Haul__V1__QueryRequest *request, Haul__V1__QueryResponse *ret_response)
{
	struct incoming *incoming;
	status *st = incoming_enter(incomings, call, request->id, ANY_STATE, &incoming);

	if (journal_is_broken(incomings->core->journal)) {
		if (st == NULL)
			incoming_leave(incomings, incoming);
		status_free(st);
		return status_errorf(
		    STATUS_UNAVAILABLE,
		    "the journal is broken: only a restart of this hauld can tell");
	}
	if (st != NULL && status_code_of(st) != STATUS_NOT_FOUND)
		return st;
	Haul__V1__Outcome fill = HAUL__V1__OUTCOME__OUTCOME_COMMITTED;
	if (st == NULL)
		fill = incoming_tell_fill(incoming, ret_response);
	if (st == NULL)
		incoming_leave(incomings, incoming);
	status_free(st);
	st = check_recorded(incomings, call, request->id);
	if (st != NULL)
		return st;
	ret_response->outcome = remembered(incomings, call, request->id, &ret_response->pid);
	if (ret_response->outcome != HAUL__V1__OUTCOME__OUTCOME_COMMITTED)
		return NULL;
	ret_response->alive = proc_is_alive(ret_response->pid, 0);
	ret_response->outcome = fill;
	return NULL;
}

status *incoming_settle(struct incomings *incomings, const struct rpc_call *call,
			const Haul__V1__SettleRequest *request)
{
	int32_t pid;
	Haul__V1__JournalRecord fields = HAUL__V1__JOURNAL_RECORD__INIT;

	status *st = check_recorded(incomings, call, request->id);
	if (st != NULL)
		return st;
	if (remembered(incomings, call, request->id, &pid) != HAUL__V1__OUTCOME__OUTCOME_COMMITTED)
		return NULL;
	fields.peer_identity = (char *)call->caller->name;
	st = core_journal(incomings->core, request->id, HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED,
			  &fields);
	if (status_code_of(st) == STATUS_FAILED_PRECONDITION) { /* ended meanwhile */
		status_free(st);
		return NULL;
	}
	return st;
}

/* --- recovery --- */

struct found {
	struct incomings *incomings;
	Haul__V1__JournalRecord *records[LIMIT_SESSIONS * 4];
	size_t count;
};

/* What the journal knows of an earlier hauld's migration. */
static Haul__V1__Migration *recorded_view(const Haul__V1__JournalRecord *record)
{
	Haul__V1__Migration *view = malloc(sizeof(*view));

	if (view == NULL)
		abort();
	haul__v1__migration__init(view);
	view->sequence = (uint64_t)clock_unix_ms();
	view->id = text_copy(record->id);
	view->state = HAUL__V1__MIGRATION_STATE__RUNNING;
	view->stage = text_copy("recovered");
	view->role = text_copy("destination");
	view->workload = text_copy("");
	view->peer = text_copy(record->peer_identity);
	view->tracking = text_copy("");
	view->doubt = text_copy("");
	view->restore = text_copy("");
	view->mode = text_copy("");
	view->restored_pid = record->pid;
	view->started_unix_ms = record->unix_ms;
	return view;
}

static void show_end(Haul__V1__Migration *view, const Haul__V1__JournalRecord *record)
{
	bool has_run = record->event == HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED;

	view->state =
	    has_run ? HAUL__V1__MIGRATION_STATE__COMPLETED : HAUL__V1__MIGRATION_STATE__ABORTED;
	text_set(&view->stage, has_run ? "committed" : "aborted");
	view->ended_unix_ms = record->unix_ms;
	if (has_run)
		return;
	scoped(status) status *why = status_errorf(STATUS_ABORTED, "%s", record->reason);
	view->error = status_to_wire(why);
}

/* Nothing is left to do about it; one that is settled still runs here. */
static bool is_over(const Haul__V1__JournalRecord *record)
{
	return record->event == HAUL__V1__JOURNAL_EVENT__J_DEST_ABORTED ||
	       record->event == HAUL__V1__JOURNAL_EVENT__J_DEST_BROKEN ||
	       record->event == HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED;
}

/* Its report, or, when that was lost with the power, what the journal kept. */
static void show_recorded(struct incomings *incomings, const Haul__V1__JournalRecord *record)
{
	bool is_deleted = false;
	Haul__V1__Migration *view = history_find(incomings->core->history, record->id, &is_deleted);

	if (view == NULL && is_deleted)
		return;
	if (view == NULL) {
		view = recorded_view(record);
		if (is_over(record))
			show_end(view, record);
	}
	status_free(registry_add(incomings->core->registry, view));
}

static void collect(void *self, const Haul__V1__JournalRecord *record)
{
	struct found *found = self;
	uint8_t bytes[LIMIT_JOURNAL_RECORD];

	if (journal_event_is_source(record->event))
		return;
	if (is_over(record)) {
		show_recorded(found->incomings, record);
		return;
	}
	if (found->count == array_len(found->records))
		return;
	size_t size = haul__v1__journal_record__pack(record, bytes);
	Haul__V1__JournalRecord *copy = haul__v1__journal_record__unpack(NULL, size, bytes);
	if (copy == NULL)
		abort();
	found->records[found->count++] = copy;
}

/* What an uncommitted tree's CRIU may still hold is frozen before that CRIU ends and lets it go. */
static void end_restoring_criu(struct core *core, const char *id, const char *group)
{
	if (cgroup_exists(group))
		status_free(cgroup_freeze(group, GROUP_TIMEOUT_MS));
	core_end_leftover_criu(core, CRIU_GROUP_IN, id);
}

/* Committed: it runs, or must; a tree that the kernel's restart took has ended. */
static status *recover_committed(struct incomings *incomings, struct incoming *incoming,
				 bool is_same_boot, enum incoming_fill fill)
{
	incoming_set_state(incomings, incoming, INCOMING_COMMITTED);
	if (fill == FILL_FETCHING) {
		incoming->has_images = true;
		status *st = incoming_take_up_fetch(incoming);
		if (st != NULL)
			return st;
		incoming_show_committed(incomings, incoming);
		return NULL;
	}
	if (fill == FILL_BROKEN)
		return incoming_break(
		    incomings, incoming,
		    status_errorf(
			STATUS_DATA_LOSS,
			"both processes that held its memory ended before all of it was in "
			"place: the tree is killed"));
	incoming_remove_images(incoming);
	if (!is_same_boot)
		incoming->pid = 0; /* the caretaker finds it gone and journals the end */
	else if (cgroup_exists(incoming->group)) {
		status *st = cgroup_thaw(incoming->group, GROUP_TIMEOUT_MS);
		if (st != NULL)
			return st;
	}
	incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__COMPLETED, "committed", NULL);
	return NULL;
}

static status *recover_one(struct incomings *incomings, const Haul__V1__JournalRecord *record)
{
	struct core *core = incomings->core;
	struct incoming *incoming = incoming_new(core, record->id);
	bool is_same_boot = strcmp(record->boot_id, core->boot_id) == 0;
	bool is_committed = record->event == HAUL__V1__JOURNAL_EVENT__J_DEST_COMMITTED ||
			    record->event == HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED;

	(void)snprintf(incoming->source, sizeof(incoming->source), "%s", record->peer_identity);
	incoming->pid = record->pid;
	incoming->start_ticks = record->start_ticks;
	if (is_committed)
		core_end_leftover_criu(core, CRIU_GROUP_IN, record->id);
	else
		end_restoring_criu(core, record->id, incoming->group);
	bool is_restored = record->event == HAUL__V1__JOURNAL_EVENT__J_DEST_RESTORED;
	enum incoming_fill fill =
	    incoming_recover_fill(core, record->id, is_committed || is_restored, is_committed);
	status *st = incomings_add(incomings, incoming, 0);
	if (st != NULL) {
		incoming_free(incoming);
		return st;
	}
	show_recorded(incomings, record);
	if (is_committed)
		return recover_committed(incomings, incoming, is_same_boot, fill);
	bool is_whole = false;
	if (is_restored && is_same_boot && fill == FILL_WHOLE)
		st = incoming_look(incoming, &is_whole);
	if (st != NULL)
		return st;
	if (is_whole) {
		incoming_set_state(incomings, incoming, INCOMING_RESTORED);
		incoming->has_images = true;
		incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__RUNNING, "restored",
			      NULL);
		return NULL;
	}
	return incoming_give_up(
	    incomings, incoming,
	    status_errorf(STATUS_ABORTED,
			  "the destination's engine was restarted before a whole copy was there"));
}

/* A group without an open record: given up, but hauld died before the kill. */
static void kill_leftover(void *self, const char *id)
{
	struct incomings *incomings = self;
	char group[CGROUP_PATH];
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(incomings->core->journal, id, false);

	cgroup_path(incomings->core->cgroups, "in", id, group);
	if (record == NULL) {
		bool is_frozen = true;
		scoped(status) status *looked = cgroup_is_frozen(group, &is_frozen);
		log_line(LOG_LEVEL_ERROR, id,
			 "a %s tree of a migration that the journal does not know is in the cgroup "
			 "haul/in-%s: the state "
			 "directory was lost? It is left as it is; see docs/operations.md",
			 is_frozen ? "frozen" : "running", id);
		return;
	}
	if (record->event != HAUL__V1__JOURNAL_EVENT__J_DEST_ABORTED &&
	    record->event != HAUL__V1__JOURNAL_EVENT__J_DEST_BROKEN)
		return;
	end_restoring_criu(incomings->core, id, group);
	scoped(status) status *st = cgroup_kill(group, GROUP_TIMEOUT_MS);
	if (st != NULL)
		log_status(LOG_LEVEL_ERROR, id, "a given-up tree did not end", st);
}

/* The directory goes last, so whoever died in the middle of an end, or of a Prepare that was not
 * journaled yet, left it. Without a record nothing was restored, and the group is empty. If
 * something is in it (the journal was lost, not the directory), it stays. */
static void remove_leftover_files(void *self, const char *id)
{
	struct incomings *incomings = self;
	char path[FILES_PATH], group[CGROUP_PATH];
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(incomings->core->journal, id, false);
	scoped(status) status *st = NULL;

	if (record != NULL && !is_over(record))
		return; /* its own recovery decides */
	(void)incoming_recover_fill(incomings->core, id, false, false);
	cgroup_path(incomings->core->cgroups, "in", id, group);
	if (record != NULL)
		end_restoring_criu(incomings->core, id, group);
	else
		core_end_leftover_criu(incomings->core, CRIU_GROUP_IN, id);
	if (record == NULL && cgroup_exists(group))
		st = cgroup_remove(group);
	core_path(incomings->core, "in", id, "", path);
	if (st == NULL)
		st = files_remove_tree(path);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, id, "files of an earlier migration stay behind", st);
}

static status *sweep(struct incomings *incomings)
{
	char path[FILES_PATH];

	(void)snprintf(path, sizeof(path), "%s/in", incomings->core->config.state_dir);
	scoped(status) status *looked = files_each(path, remove_leftover_files, incomings);
	return status_first(cgroup_each(incomings->core->cgroups, "in", kill_leftover, incomings),
			    TAKE(looked));
}

status *incomings_recover(struct incomings *incomings)
{
	struct found found = {.incomings = incomings};
	status *st = NULL;

	scoped(status) status *swept = sweep(incomings);
	journal_each(incomings->core->journal, collect, &found);
	for (size_t i = 0; i < found.count; i++) {
		if (st == NULL)
			st = recover_one(incomings, found.records[i]);
		haul__v1__journal_record__free_unpacked(found.records[i], NULL);
	}
	return status_first(st, TAKE(swept));
}
