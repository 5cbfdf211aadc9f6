/* SPDX-License-Identifier: Apache-2.0 */
/* Post-copy at the destination: pages that are fetched from the source after the restore. The pipe
 * is the source's to keep up (Fetch); here pages are asked for as long as there is one. */
#include "engine/migration/incoming_internal.h"

#include <stdio.h>

#include "engine/host/files.h"
#include "engine/lazy/lazy_guard.h"
#include "engine/log.h"
#include "proto/envelope.h"
#include "proto/reason.h"
#include "rpc/seal_choice.h"

enum { MARKER_MOST = 64 };

status *incoming_open_fetch(struct incoming *incoming)
{
	if (incoming->lazy == NULL)
		return status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION,
				  "memory that is fetched after the commit needs a lazy restore, "
				  "which this engine cannot do: %s",
				  incoming->core->lazy_trouble),
		    "next", "use --mode pre-copy or stop-copy");
	page_store_allow_late(incoming->store);
	return late_fetcher_new(&incoming->fetcher);
}

static struct late_store *store_of(const struct incoming *incoming)
{
	return incoming->lazy != NULL ? lazy_late(incoming->lazy) : incoming->left_store;
}

uint64_t incoming_begin_fetch(struct incoming *incoming)
{
	struct late_store *store = store_of(incoming);
	struct late_counts counts = {0};

	if (store == NULL || incoming->fetcher == NULL)
		return 0;
	late_fetcher_feed(incoming->fetcher, store);
	late_store_counts(store, &counts);
	return counts.pages;
}

bool incoming_late_counts(const struct incoming *incoming, struct late_counts *ret_counts)
{
	struct late_store *store = store_of(incoming);

	*ret_counts = incoming->late_counts;
	if (store != NULL)
		late_store_counts(store, ret_counts);
	return ret_counts->missing > 0;
}

void incoming_end_fetch(struct incoming *incoming)
{
	late_fetcher_free(TAKE(incoming->fetcher));
	(void)incoming_late_counts(incoming, &incoming->late_counts);
	late_store_free(TAKE(incoming->left_store));
	lazy_shared_free(TAKE(incoming->left));
}

/* --- the call --- */

static status *open_pipe(struct incoming *incoming, const struct rpc_call *call,
			 const Haul__V1__SealRates *rates, Haul__V1__FetchResponse *response)
{
	const struct engine_config *config = &incoming->core->config;
	struct pipe_place place = {
	    .host = call->server_host[0] != '\0' ? call->server_host : "127.0.0.1",
	    .port_low = config->port_low,
	    .port_high = config->port_high,
	};
	struct pipe *pipe = NULL;
	status *st = seal_choose(&incoming->core->seal_rates, rates, &place.seal);

	if (st == NULL)
		st = pipe_listen(&place, &pipe, &response->late);
	if (st == NULL)
		late_fetcher_offer(incoming->fetcher, pipe);
	return st;
}

/* What the source had is gone: what is missing never comes. */
static void lose(struct incomings *incomings, struct incoming *incoming)
{
	struct late_counts counts;

	if (!incoming_late_counts(incoming, &counts) || counts.is_lost)
		return;
	late_store_lose(store_of(incoming));
	scoped(status) status *lost = status_detailf(
	    status_because(
		status_errorf(STATUS_DATA_LOSS,
			      "%llu pages were still at the source when its tree ended (its "
			      "machine restarted, or an operator let it run): the workload is "
			      "frozen here, and cannot go on",
			      (unsigned long long)counts.missing),
		REASON_PAGES_LOST),
	    "next", "`haulctl resolve %s --kill` here ends it", incoming->id);
	log_status(LOG_LEVEL_ERROR, incoming->id, "post-copy", lost);
	incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__IN_DOUBT, "pages lost", lost);
}

status *incoming_fetch(struct incomings *incomings, const struct rpc_call *call,
		       const Haul__V1__FetchRequest *request, Haul__V1__FetchResponse *ret_response)
{
	struct incoming *incoming;
	status *st = incoming_enter(incomings, call, request->id,
				    1U << INCOMING_PREPARED | 1U << INCOMING_RESTORED |
					1U << INCOMING_COMMITTED,
				    &incoming);

	if (st != NULL)
		return st;
	if (incoming->fetcher == NULL && !request->gone)
		st = status_errorf(STATUS_FAILED_PRECONDITION, "nothing is to be fetched");
	else if (request->gone)
		lose(incomings, incoming);
	else
		st = open_pipe(incoming, call, request->seal_rates, ret_response);
	incoming_leave(incomings, incoming);
	return st;
}

/* --- shown --- */

struct fetch_view {
	struct late_counts counts;
	const char *stage;
};

static void show(void *self, Haul__V1__Migration *view)
{
	const struct fetch_view *shown = self;

	view->late_pages = shown->counts.pages;
	view->late_missing = shown->counts.missing;
	view->late_faults = shown->counts.faults;
	if (shown->stage != NULL)
		text_set(&view->stage, shown->stage);
}

void incoming_show_fetch(struct incomings *incomings, struct incoming *incoming)
{
	struct fetch_view shown = {.stage = NULL};

	if (!incoming_late_counts(incoming, &shown.counts) && shown.counts.pages == 0)
		return;
	bool is_paused = shown.counts.missing > 0 && incoming->fetcher != NULL &&
			 !late_fetcher_is_connected(incoming->fetcher);
	if (shown.counts.missing > 0 && !shown.counts.is_lost)
		shown.stage = is_paused ? "paused" : "fetching";
	if (is_paused != incoming->is_paused) {
		scoped(status) status *why =
		    is_paused ? late_fetcher_error(incoming->fetcher) : NULL;
		log_line(is_paused ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, incoming->id,
			 "%llu pages are at the source, %s%s%s",
			 (unsigned long long)shown.counts.missing,
			 is_paused ? "which is not reached" : "which is reached again",
			 why != NULL ? ": " : "", why != NULL ? status_message(why) : "");
	}
	incoming->is_paused = is_paused;
	registry_change(incomings->core->registry, incoming->id, show, &shown);
}

/* --- after a restart --- */

status *incoming_take_up_fetch(struct incoming *incoming)
{
	char group[CGROUP_PATH];
	scoped(fd) int shared = -1;

	cgroup_path(incoming->core->cgroups, LAZY_GROUP, incoming->id, group);
	status *st = lazy_guard_find(group, &shared);
	if (st == NULL)
		st = lazy_shared_open(shared, &incoming->left);
	if (st == NULL)
		st = late_store_new(incoming->left, &incoming->left_store);
	if (st == NULL)
		st = late_fetcher_new(&incoming->fetcher);
	if (st == NULL)
		(void)incoming_begin_fetch(incoming);
	return st;
}

bool incoming_has_guard_ended(const struct incoming *incoming, bool *ret_whole)
{
	char group[CGROUP_PATH], marker[FILES_PATH];
	bool is_populated = true;

	cgroup_path(incoming->core->cgroups, LAZY_GROUP, incoming->id, group);
	scoped(status) status *st =
	    cgroup_exists(group) ? cgroup_is_populated(group, &is_populated) : NULL;
	if (cgroup_exists(group) && (st != NULL || is_populated))
		return false;
	core_path(incoming->core, "in", incoming->id, "unfilled", marker);
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	scoped(status) status *missing = files_read(marker, MARKER_MOST, &content);
	*ret_whole = status_code_of(missing) == STATUS_NOT_FOUND;
	return true;
}
