/* SPDX-License-Identifier: Apache-2.0 */
/* Lazy restores at the destination: from Prepare, which starts the guard, to the last page. A tree
 * that runs while pages are missing is committed, but its source keeps its own until all are here
 * (docs/safety.md). */
#include "engine/migration/incoming_internal.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "engine/host/preflight.h"
#include "engine/lazy/lazy_guard.h"
#include "engine/log.h"
#include "proto/clock.h"

enum {
	LEAST_PAGES = 2048, /* 8 MiB: fewer are in place as soon as lazy is set up */
	GUARD_MOST_MS = 120000,
	GUARD_POLL_MS = 10,
	FILL_POLL_MS = 10,
	MARKER_MOST = 64,
};

static void guard_group(const struct core *core, const char *id, char ret_path[CGROUP_PATH])
{
	cgroup_path(core->cgroups, LAZY_GROUP, id, ret_path);
}

static void marker_path(const struct core *core, const char *id, char ret_path[FILES_PATH])
{
	core_path(core, "in", id, "unfilled", ret_path);
}

/* --- before the restore --- */

static status *refuse(const struct core *core)
{
	return status_detailf(
	    status_errorf(STATUS_FAILED_PRECONDITION,
			  "the destination cannot restore lazily, which --restore asks for: %s",
			  core->lazy_trouble),
	    "next", "use --restore auto or eager");
}

bool incoming_wants_lazy(const struct incoming *incoming)
{
	return incoming->restore_mode == HAUL__V1__RESTORE_MODE__RESTORE_LAZY ||
	       (incoming->restore_mode == HAUL__V1__RESTORE_MODE__RESTORE_AUTO &&
		incoming->core->has_lazy_restore);
}

status *incoming_open_lazy(struct incoming *incoming)
{
	const struct core *core = incoming->core;
	char group[CGROUP_PATH], images[FILES_PATH], work[FILES_PATH], marker[FILES_PATH];

	if (!incoming_wants_lazy(incoming))
		return NULL;
	if (!core->has_lazy_restore)
		return refuse(core);
	guard_group(core, incoming->id, group);
	marker_path(core, incoming->id, marker);
	core_path(core, "in", incoming->id, "images", images);
	core_path(core, "in", incoming->id, "work", work);
	const struct lazy_options options = {
	    .program = core->config.program,
	    .guard_group = group,
	    .tree_group = incoming->group,
	    .images = images,
	    .work_dir = work,
	    .marker = marker,
	};
	status *st = cgroup_make(group);
	return st == NULL ? lazy_new(&options, &incoming->lazy) : st;
}

status *incoming_lazy_round(struct incoming *incoming)
{
	return incoming->lazy != NULL ? lazy_add_round(incoming->lazy, incoming->round) : NULL;
}

/* A tree whose processes share memory since their fork has each page once; filled one by one they
 * have it several times. Not more than half of what is free. */
static uint64_t pages_most(const struct incoming *incoming)
{
	return incoming->restore_mode == HAUL__V1__RESTORE_MODE__RESTORE_LAZY
		   ? UINT64_MAX
		   : preflight_available_bytes() / 2 / (uint64_t)sysconf(_SC_PAGESIZE);
}

status *incoming_begin_lazy(struct incoming *incoming, bool *ret_is_lazy)
{
	uint64_t pages = 0;
	bool is_auto = incoming->restore_mode == HAUL__V1__RESTORE_MODE__RESTORE_AUTO;

	*ret_is_lazy = false;
	if (incoming->lazy == NULL)
		return NULL;
	status *st = lazy_begin(incoming->lazy, is_auto ? LEAST_PAGES : 1, pages_most(incoming),
				ret_is_lazy, &pages);
	if (st != NULL)
		return st;
	incoming->lazy_pages = *ret_is_lazy ? pages : 0;
	(void)incoming_begin_fetch(incoming);
	if (*ret_is_lazy)
		return NULL;
	log_line(LOG_LEVEL_INFO, incoming->id, "restored eagerly: %llu pages could come later, %s",
		 (unsigned long long)pages,
		 pages < LEAST_PAGES ? "too few to be worth it"
				     : "more than half of the memory that is free");
	incoming_end_lazy(incoming, true);
	return NULL;
}

status *incoming_check_lazy(struct incoming *incoming)
{
	return incoming->lazy != NULL ? lazy_error(incoming->lazy) : NULL;
}

/* --- the end --- */

void incoming_end_lazy(struct incoming *incoming, bool is_tree_gone)
{
	char group[CGROUP_PATH];
	bool was_left = incoming->left != NULL;

	incoming_end_fetch(incoming);
	struct lazy *lazy = TAKE(incoming->lazy);
	guard_group(incoming->core, incoming->id, group);
	if (was_left && is_tree_gone && cgroup_exists(group))
		status_free(cgroup_kill(group, GROUP_TIMEOUT_MS));
	if (lazy == NULL)
		return;
	bool is_left = !is_tree_gone && lazy_state_of(lazy) == LAZY_STATE_FILLING;
	if (is_tree_gone)
		lazy_abandon(lazy);
	else
		lazy_free(lazy);
	if (!is_left)
		status_free(cgroup_kill(group, GROUP_TIMEOUT_MS));
}

bool incoming_is_filling(const struct incoming *incoming)
{
	return incoming->left != NULL ||
	       (incoming->lazy != NULL && lazy_state_of(incoming->lazy) == LAZY_STATE_FILLING);
}

/* What is broken is not in the journal yet: it is no time to say that it is committed. */
Haul__V1__Outcome incoming_tell_fill(const struct incoming *incoming,
				     Haul__V1__QueryResponse *response)
{
	struct lazy_report report = incoming->lazy_report;
	struct late_counts late;
	enum lazy_state state = incoming->lazy != NULL	 ? lazy_state_of(incoming->lazy)
				: incoming->left != NULL ? LAZY_STATE_FILLING
							 : LAZY_STATE_FILLED;

	if (incoming->lazy != NULL)
		lazy_report_of(incoming->lazy, &report);
	bool is_fetching = incoming_late_counts(incoming, &late);
	response->lazy_faults = report.faults;
	response->fill_ms = report.fill_ms;
	response->fill_was_frozen = report.was_frozen;
	response->late_missing = late.missing;
	response->late_faults = late.faults;
	response->late_lost = late.is_lost;
	if (state == LAZY_STATE_FILLING && is_fetching)
		return HAUL__V1__OUTCOME__OUTCOME_FETCHING;
	return state == LAZY_STATE_FILLING || state == LAZY_STATE_BROKEN
		   ? HAUL__V1__OUTCOME__OUTCOME_FILLING
		   : HAUL__V1__OUTCOME__OUTCOME_COMMITTED;
}

/* --- committed --- */

status *incoming_thaw(struct incoming *incoming)
{
	return incoming->lazy != NULL ? lazy_let_run(incoming->lazy)
				      : cgroup_thaw(incoming->group, GROUP_TIMEOUT_MS);
}

void incoming_show_committed(struct incomings *incomings, struct incoming *incoming)
{
	struct late_counts late;

	if (incoming_is_filling(incoming) && incoming_late_counts(incoming, &late))
		incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__RUNNING, "fetching",
			      NULL);
	else
		incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__COMPLETED,
			      "committed", NULL);
}

static void note_filled(struct incomings *incomings, struct incoming *incoming)
{
	struct late_counts late;

	if (incoming->lazy == NULL || lazy_state_of(incoming->lazy) != LAZY_STATE_FILLED)
		return;
	lazy_report_of(incoming->lazy, &incoming->lazy_report);
	log_line(LOG_LEVEL_INFO, incoming->id,
		 "all memory is in place: %llu pages in %.0f ms, %llu of them waited for%s",
		 (unsigned long long)incoming->lazy_report.pages, incoming->lazy_report.fill_ms,
		 (unsigned long long)incoming->lazy_report.faults,
		 incoming->lazy_report.was_frozen ? "; the last of them with the tree frozen" : "");
	incoming_end_lazy(incoming, false);
	(void)incoming_late_counts(incoming, &late);
	if (late.pages > 0)
		incoming_show_committed(incomings, incoming);
}

/* The guard that an earlier hauld left has ended. */
static status *end_left(struct incomings *incomings, struct incoming *incoming, bool is_whole)
{
	char group[CGROUP_PATH];

	if (!is_whole)
		return status_errorf(
		    STATUS_DATA_LOSS,
		    "the guard ended before all of the tree's memory was in place");
	guard_group(incoming->core, incoming->id, group);
	incoming_end_lazy(incoming, false);
	if (cgroup_exists(group))
		status_free(cgroup_kill(group, GROUP_TIMEOUT_MS));
	incoming_remove_images(incoming);
	log_line(LOG_LEVEL_INFO, incoming->id, "its guard has filled the tree's memory");
	/* The guard did that, if it knew of the commit. */
	scoped(status) status *thawed =
	    cgroup_exists(incoming->group) ? cgroup_thaw(incoming->group, GROUP_TIMEOUT_MS) : NULL;
	if (thawed != NULL)
		log_status(LOG_LEVEL_ERROR, incoming->id, "committed, but its group does not thaw",
			   thawed);
	incoming_show_committed(incomings, incoming);
	return NULL;
}

/* What is broken has been killed, and did not end by itself: its state is looked at first. */
bool incoming_care_for_fill(struct incomings *incomings, struct incoming *incoming)
{
	bool is_whole = false;
	status *broken = incoming_check_lazy(incoming);

	incoming_show_fetch(incomings, incoming);
	if (incoming->left != NULL && incoming_has_guard_ended(incoming, &is_whole))
		broken = status_first(broken, end_left(incomings, incoming, is_whole));
	if (broken != NULL) {
		scoped(status) status *st = incoming_break(incomings, incoming, broken);
		if (st != NULL)
			log_status(LOG_LEVEL_ERROR, incoming->id, "lost, which cannot be journaled",
				   st);
		return st == NULL;
	}
	note_filled(incomings, incoming);
	return false;
}

/* Frozen and killed before its memory is let go: nothing reads what is missing. */
status *incoming_break(struct incomings *incomings, struct incoming *incoming, status *why)
{
	scoped(status) status *shown = status_detailf(status_recode(why, STATUS_DATA_LOSS), "next",
						      "the source still has the frozen tree as it "
						      "was at the commit: `haulctl resolve` there");

	if (cgroup_exists(incoming->group)) {
		status_free(cgroup_freeze(incoming->group, 0));
		scoped(status) status *killed = cgroup_kill(incoming->group, GROUP_TIMEOUT_MS);
		if (killed != NULL)
			log_status(LOG_LEVEL_ERROR, incoming->id, "its tree did not end", killed);
	}
	status *st = incoming_journal(incoming, HAUL__V1__JOURNAL_EVENT__J_DEST_BROKEN,
				      status_message(shown));
	if (st != NULL)
		return st;
	incoming_end_lazy(incoming, true);
	incoming_remove_images(incoming);
	incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__LOST, "lost", shown);
	incoming_set_state(incomings, incoming, INCOMING_ABORTED);
	return NULL;
}

void incoming_await_filled(struct incoming *incoming, int64_t most_ms)
{
	int64_t until = clock_monotonic_ms() + most_ms;

	while (incoming->lazy != NULL && incoming_is_filling(incoming) &&
	       clock_monotonic_ms() < until)
		(void)poll(NULL, 0, FILL_POLL_MS);
}

/* --- recovery --- */

/* The guard that an earlier hauld left is filling the tree, frozen: that takes as long as its
 * memory is large, and ends. */
static void await_guard(const char *group, const char *id)
{
	int64_t until = clock_monotonic_ms() + GUARD_MOST_MS;
	bool is_populated = true, is_told = false;

	while (clock_monotonic_ms() < until) {
		scoped(status) status *st = cgroup_is_populated(group, &is_populated);
		if (st != NULL || !is_populated)
			return;
		if (!is_told)
			log_line(LOG_LEVEL_INFO, id, "its guard fills the tree's memory");
		is_told = true;
		(void)poll(NULL, 0, GUARD_POLL_MS);
	}
	log_line(LOG_LEVEL_ERROR, id, "its guard does not come to an end");
}

/* Does the guard wait for pages that are at the source? */
static bool guard_fetches(const char *group)
{
	scoped(fd) int fd = -1;
	scoped(lazy_shared) struct lazy_shared *shared = NULL;
	scoped(status) status *st = lazy_guard_find(group, &fd);

	if (st == NULL)
		st = lazy_shared_open(fd, &shared);
	return st == NULL && atomic_load(&shared->late_missing) > 0;
}

enum incoming_fill incoming_recover_fill(const struct core *core, const char *id, bool is_wanted,
					 bool is_committed)
{
	char group[CGROUP_PATH], marker[FILES_PATH];

	guard_group(core, id, group);
	marker_path(core, id, marker);
	bool is_late = cgroup_exists(group) && is_wanted && guard_fetches(group);
	if (is_late && is_committed)
		return FILL_FETCHING;
	if (cgroup_exists(group) && is_wanted && !is_late)
		await_guard(group, id);
	scoped(status) status *st =
	    cgroup_exists(group) ? cgroup_kill(group, GROUP_TIMEOUT_MS) : NULL;
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, id, "the guard of an earlier hauld does not end", st);
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	scoped(status) status *missing = files_read(marker, MARKER_MOST, &content);
	return status_code_of(missing) == STATUS_NOT_FOUND ? FILL_WHOLE : FILL_BROKEN;
}
