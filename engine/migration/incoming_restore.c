/* SPDX-License-Identifier: Apache-2.0 */
/* From the last round's arrival to a tree that is whole, and frozen in its group. */
#include <stdio.h>

#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/migration/incoming_internal.h"
#include "proto/clock.h"

/* At pre-resume every task is stopped by CRIU behind its last restorer instruction. CRIU itself
 * leaves the group, which is then frozen: when CRIU lets go, nothing runs. */
static status *freeze_restored(void *self, pid_t root)
{
	struct incoming *incoming = self;
	status *st = cgroup_add(incoming->criu_group, swrk_pid(incoming->swrk));

	(void)root;
	if (st == NULL)
		st = cgroup_freeze(incoming->group, GROUP_TIMEOUT_MS);
	return st == NULL && incoming->lazy != NULL ? lazy_restored(incoming->lazy) : st;
}

status *incoming_look(const struct incoming *incoming, bool *ret_is_whole)
{
	bool is_frozen = false;
	status *st =
	    cgroup_exists(incoming->group) ? cgroup_is_frozen(incoming->group, &is_frozen) : NULL;

	if (st != NULL)
		return status_wrapf(st, "the restored tree cannot be looked at");
	*ret_is_whole =
	    is_frozen && incoming->pid > 0 && !proc_is_gone(incoming->pid, incoming->start_ticks);
	return NULL;
}

/* What of the tree's shared memory is in place already. */
static status *begin_shared(const struct incoming *incoming, struct criu_restore *restore)
{
	uint64_t pages = 0;
	status *st = shared_memory_finish(incoming->shared, restore->inherits,
					  &restore->inherit_count, &pages);

	if (restore->inherit_count > 0)
		log_line(LOG_LEVEL_INFO, incoming->id,
			 "%llu pages of shared memory are in place before the restore",
			 (unsigned long long)pages);
	return st;
}

static status *run_criu(struct incoming *incoming)
{
	char images[FILES_PATH], work[FILES_PATH], below[32];
	struct proc_stat root;

	(void)snprintf(below, sizeof(below), "images/%u", incoming->round);
	core_path(incoming->core, "in", incoming->id, below, images);
	core_path(incoming->core, "in", incoming->id, "work", work);
	bool is_lazy = false;
	status *st = incoming_begin_lazy(incoming, &is_lazy);
	if (st != NULL)
		return st;
	struct criu_inherit inherits[SHARED_MEMORY_MOST];
	struct criu_restore restore = {
	    .is_lazy = is_lazy,
	    .inherits = inherits,
	    .images_dir = images,
	    .work_dir = work,
	    .log_file = "restore.log",
	    .root = incoming->root[0] != '\0' ? incoming->root : NULL,
	    .shell_job = incoming->shell_job,
	    .tcp_close = incoming->tcp_close,
	    .limits = &incoming->limits,
	};
	st = begin_shared(incoming, &restore);
	/* Into the tree's own group: all that it restores is in there from its first instruction.
	 */
	if (st == NULL)
		st = cgroup_add(incoming->group, swrk_pid(incoming->swrk));
	if (st == NULL)
		st = criu_restore_frozen(incoming->swrk, &restore, freeze_restored, incoming,
					 &incoming->pid);
	if (st != NULL)
		return st;
	incoming->is_child = true;
	st = proc_stat(incoming->pid, &root);
	if (st != NULL)
		return status_wrapf(st, "the restored tree");
	incoming->start_ticks = root.start_ticks;
	bool is_whole = false;
	st = incoming_look(incoming, &is_whole);
	if (st == NULL && !is_whole)
		st = status_errorf(STATUS_ABORTED, "the restored tree is not frozen in its group");
	return st;
}

/* All that the final dump is made of is there, and is what left. */
static status *take_final_dump(struct incoming *incoming, const struct rpc_call *call,
			       const Haul__V1__RestoreRequest *request)
{
	const struct memory_round *memory = &incoming->received;
	const struct image_totals *images = &incoming->images_received;

	if (!incoming->is_last)
		return status_errorf(STATUS_FAILED_PRECONDITION, "the final dump has not begun");
	status *st = incoming_take_round(incoming, call, request->round);
	if (st != NULL)
		return st;
	if (request->pages != memory->pages_sent || request->pages_digest != memory->digest)
		return status_errorf(
		    STATUS_DATA_LOSS,
		    "round %u: %llu pages left, %llu arrived, or their digests differ",
		    request->round, (unsigned long long)request->pages,
		    (unsigned long long)memory->pages_sent);
	if (request->images != images->count || request->images_digest != images->digest)
		return status_errorf(STATUS_DATA_LOSS,
				     "%u images left, %u arrived, or their digests differ",
				     request->images, images->count);
	return NULL;
}

static status *restore(struct incomings *incomings, struct incoming *incoming,
		       const struct rpc_call *call)
{
	swrk_set_deadline(incoming->swrk, incoming_deadline(call));
	status *st = run_criu(incoming);
	swrk_set_deadline(incoming->swrk, 0);
	if (st == NULL)
		st = incoming_journal(incoming, HAUL__V1__JOURNAL_EVENT__J_DEST_RESTORED, "");
	if (st == NULL)
		incoming_set_state(incomings, incoming, INCOMING_RESTORED);
	return st;
}

status *incoming_restore(struct incomings *incomings, const struct rpc_call *call,
			 const Haul__V1__RestoreRequest *request,
			 Haul__V1__RestoreResponse *ret_response)
{
	struct incoming *incoming;
	double asked = clock_monotonic_fine_ms();
	status *st =
	    incoming_enter(incomings, call, request->id, 1U << INCOMING_PREPARED, &incoming);

	if (st != NULL)
		return st;
	incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__RUNNING, "restore", NULL);
	st = take_final_dump(incoming, call, request);
	double arrived = clock_monotonic_fine_ms();
	if (st == NULL)
		st = restore(incomings, incoming, call);
	ret_response->pid = incoming->pid;
	ret_response->arrival_ms = arrived - asked;
	ret_response->restore_ms = clock_monotonic_fine_ms() - arrived;
	ret_response->lazy_pages = incoming->lazy_pages;
	struct late_counts late;
	(void)incoming_late_counts(incoming, &late);
	ret_response->late_pages = late.pages;
	const struct cost_sample sample = {incoming->size, ret_response->restore_ms};
	if (st == NULL) {
		costs_note(incoming->core->costs,
			   incoming->lazy_pages > 0 ? COST_RESTORE_LAZY : COST_RESTORE, &sample);
		incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__RUNNING, "restored",
			      NULL);
	} else if (incoming->state == INCOMING_PREPARED) {
		/* A half-restored tree is of no use to anyone and must not linger. */
		scoped(status) status *gone =
		    incoming_give_up(incomings, incoming,
				     status_recode(status_copy(st), STATUS_ABORTED));
		if (gone != NULL)
			log_status(LOG_LEVEL_ERROR, incoming->id, "after a failed restore", gone);
	}
	incoming_leave(incomings, incoming);
	return st;
}
