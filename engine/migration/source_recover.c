/* SPDX-License-Identifier: Apache-2.0 */
/* What a new hauld does with the source migrations that an earlier one left open. */
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/migration/sources.h"
#include "engine/migration/throttle.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/pack.h"

struct recovery {
	struct sources *sources;
	Haul__V1__JournalRecord *open[LIMIT_SESSIONS];
	size_t count;
};

static Haul__V1__JournalRecord *copy_of(const Haul__V1__JournalRecord *record)
{
	uint8_t bytes[LIMIT_JOURNAL_RECORD];
	size_t size = haul__v1__journal_record__pack(record, bytes);
	Haul__V1__JournalRecord *copy = haul__v1__journal_record__unpack(NULL, size, bytes);

	if (copy == NULL)
		abort();
	return copy;
}

static Haul__V1__MigrationState state_of(Haul__V1__JournalEvent event)
{
	switch ((int)event) {
	case HAUL__V1__JOURNAL_EVENT__J_SOURCE_DONE:
		return HAUL__V1__MIGRATION_STATE__COMPLETED;
	case HAUL__V1__JOURNAL_EVENT__J_SOURCE_LOST:
		return HAUL__V1__MIGRATION_STATE__LOST;
	default:
		return HAUL__V1__MIGRATION_STATE__ABORTED;
	}
}

/* Finished ones are history: their report, or what the journal kept of them. */
static void show_history(struct sources *sources, const Haul__V1__JournalRecord *record)
{
	bool is_deleted = false;
	Haul__V1__Migration *report = history_find(sources->core->history, record->id, &is_deleted);

	if (report != NULL)
		status_free(registry_add(sources->core->registry, report));
	if (report != NULL || is_deleted)
		return;
	struct source shown = {.core = sources->core, .stage = SRC_OVER, .pid = record->pid};

	(void)snprintf(shown.id, sizeof(shown.id), "%s", record->id);
	(void)snprintf(shown.to, sizeof(shown.to), "%s", record->peer_url);
	(void)snprintf(shown.workload, sizeof(shown.workload), "%s", record->workload);
	Haul__V1__Migration *view = source_view(&shown);
	view->state = state_of(record->event);
	view->started_unix_ms = view->ended_unix_ms = record->unix_ms;
	if (record->reason[0] != '\0' && view->state != HAUL__V1__MIGRATION_STATE__COMPLETED) {
		scoped(status) status *why = status_errorf(STATUS_ABORTED, "%s", record->reason);
		view->error = status_to_wire(why);
	}
	status_free(registry_add(sources->core->registry, view));
}

static void sort_record(void *self, const Haul__V1__JournalRecord *record)
{
	struct recovery *recovery = self;

	if (!journal_event_is_source(record->event))
		return;
	if (journal_event_is_final(record->event))
		show_history(recovery->sources, record);
	else if (recovery->count < array_len(recovery->open))
		recovery->open[recovery->count++] = copy_of(record);
}

/* A tree whose end was journaled may still be behind its fence, if hauld died in between. */
static void finish_leftover_fence(void *self, const char *id)
{
	struct sources *sources = self;
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(sources->core->journal, id, true);
	scoped(status) status *st = NULL;
	struct fence fence = {0};

	if (record != NULL && !journal_event_is_final(record->event))
		return; /* its own recovery decides */
	core_end_leftover_criu(sources->core, CRIU_GROUP_OUT, id);
	if (record == NULL) {
		log_line(LOG_LEVEL_ERROR, id,
			 "a frozen tree of an unknown migration is in the cgroup haul/out-%s: the "
			 "state directory was lost? "
			 "It is left as it is; see docs/operations.md",
			 id);
		return;
	}
	fence_recall(&fence, sources->core, record);
	st = record->event == HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESUMED ? fence_open(&fence)
									: fence_kill(&fence);
	if (st != NULL)
		log_status(LOG_LEVEL_ERROR, id, "an earlier migration's tree", st);
	fence_fini(&fence);
}

/* A tree that was slowed down, of a migration that is over or of which nothing is known. */
static void return_slowed(void *self, const char *id)
{
	struct sources *sources = self;
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(sources->core->journal, id, true);
	struct fence fence = {0};

	if (record != NULL && !journal_event_is_final(record->event))
		return; /* its own end returns it */
	if (record != NULL)
		fence_recall(&fence, sources->core, record);
	else
		cgroup_path(sources->core->cgroups, "out", id, fence.path);
	scoped(status) status *st = throttle_undo(sources->core, id, &fence);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, id, "the group of a tree that was slowed down stays",
			   st);
	fence_fini(&fence);
}

static status *take_up(struct sources *sources, const Haul__V1__JournalRecord *record)
{
	struct core *core = sources->core;
	struct source *source = source_new(core, record->id);

	(void)snprintf(source->to, sizeof(source->to), "%s", record->peer_url);
	(void)snprintf(source->workload, sizeof(source->workload), "%s", record->workload);
	source->pid = record->pid;
	source->start_ticks = record->start_ticks;
	source->was_recovered = true;
	source->begun_ms = clock_monotonic_fine_ms();
	source->is_reserved = record->event >= HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESERVED;
	source->is_before_fence = record->event < HAUL__V1__JOURNAL_EVENT__J_SOURCE_FENCED;
	source->is_committing = record->event >= HAUL__V1__JOURNAL_EVENT__J_SOURCE_COMMITTING;
	source->tree_was_elsewhere = strcmp(record->boot_id, core->boot_id) != 0;
	source->stage = SRC_ASK;
	fence_recall(&source->fence, core, record);
	core_end_leftover_criu(core, CRIU_GROUP_OUT, record->id);
	source->error =
	    status_errorf(STATUS_ABORTED, "the engine was restarted during the migration");
	log_line(LOG_LEVEL_WARN, source->id,
		 "open since an earlier hauld (journal event %d), taken up", record->event);
	status *st = rpc_client_new(source->to, core->config.credentials, &source->peer);
	Haul__V1__Migration *view = source_view(source);
	/* Above all that an earlier hauld has counted: who watched it goes on from there. */
	view->sequence = (uint64_t)clock_unix_ms();
	if (st == NULL)
		st = registry_add(core->registry, TAKE(view));
	migration_view_free(view);
	if (st == NULL)
		st = sources_add(sources, source);
	if (st != NULL)
		source_free(source);
	return st;
}

/* CRIU, images and logs of a migration that was over, but not yet tidied, when its hauld died. */
static void remove_leftover_files(void *self, const char *id)
{
	struct sources *sources = self;
	char path[FILES_PATH];
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(sources->core->journal, id, true);

	if (record != NULL && !journal_event_is_final(record->event))
		return;
	core_end_leftover_criu(sources->core, CRIU_GROUP_OUT, id);
	core_path(sources->core, "out", id, "", path);
	scoped(status) status *st = files_remove_tree(path);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, id, "files of an earlier migration stay behind", st);
}

/* What is over and still has something here: its end is decided, and carried out now. */
static status *sweep(struct sources *sources)
{
	char path[FILES_PATH];

	(void)snprintf(path, sizeof(path), "%s/out", sources->core->config.state_dir);
	scoped(status) status *looked =
	    cgroup_each(sources->core->cgroups, "out", finish_leftover_fence, sources);
	looked = status_first(looked, cgroup_each(sources->core->cgroups, THROTTLE_GROUP,
						  return_slowed, sources));
	return status_first(files_each(path, remove_leftover_files, sources), TAKE(looked));
}

status *sources_recover(struct sources *sources)
{
	struct recovery recovery = {.sources = sources};
	/* Before anything is decided: whoever runs, runs at full speed. */
	status *st = throttle_lift_all(sources->core);

	journal_each(sources->core->journal, sort_record, &recovery);
	scoped(status) status *looked = sweep(sources);
	for (size_t i = 0; i < recovery.count; i++) {
		if (st == NULL)
			st = take_up(sources, recovery.open[i]);
		haul__v1__journal_record__free_unpacked(recovery.open[i], NULL);
	}
	return status_first(st, TAKE(looked));
}
