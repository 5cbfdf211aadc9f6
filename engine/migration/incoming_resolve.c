/* SPDX-License-Identifier: Apache-2.0 */
/* An operator's word at the destination: on a whole copy that was not committed, and on a committed
 * one whose last pages are at a source that does not come back. */
#include "engine/migration/incoming_internal.h"

#include "engine/log.h"
#include "proto/reason.h"

static status *resolve(struct incomings *incomings, struct incoming *incoming,
		       const Haul__V1__ResolveRequest *request)
{
	bool is_resume = request->act == HAUL__V1__RESOLVE_REQUEST__ACT__RESUME;

	if (!request->accept_risk)
		return status_because(
		    status_detailf(
			status_errorf(STATUS_FAILED_PRECONDITION, "%s",
				      is_resume ? "risk: if the source's tree runs or is resumed, "
						  "two copies will run"
						: "risk: if the source's tree is gone, this is the "
						  "only copy"),
			"next", "look at the source first, then repeat with --accept-risk"),
		    REASON_RISK_NOT_ACCEPTED);
	return is_resume
		   ? incoming_let_run(incomings, incoming, true, request->reason)
		   : incoming_give_up(incomings, incoming,
				      status_errorf(STATUS_ABORTED, "an operator gave it up"));
}

/* Committed, and it lacks pages of the source. */
static status *resolve_fetching(struct incomings *incomings, struct incoming *incoming,
				const Haul__V1__ResolveRequest *request)
{
	if (request->act == HAUL__V1__RESOLVE_REQUEST__ACT__RESUME)
		return status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION,
				  "it cannot go on without the pages that are at the source"),
		    "next", "bring the source's hauld back, or end the copy here with --kill");
	if (!request->accept_risk)
		return status_because(
		    status_detailf(status_errorf(STATUS_FAILED_PRECONDITION,
						 "risk: what the workload did here since the "
						 "commit is lost; if the source's tree is gone, "
						 "no copy is left"),
				   "next",
				   "look at the source first, then repeat with "
				   "--accept-risk"),
		    REASON_RISK_NOT_ACCEPTED);
	log_line(LOG_LEVEL_WARN, incoming->id, "an operator ended the tree here (%s)",
		 request->reason);
	return incoming_break(incomings, incoming,
			      status_errorf(STATUS_DATA_LOSS,
					    "an operator ended it before all of its memory had "
					    "been fetched"));
}

status *incomings_resolve(struct incomings *incomings, const Haul__V1__ResolveRequest *request)
{
	struct incoming *incoming;
	struct late_counts late;
	status *st = incoming_enter(incomings, NULL, request->id,
				    1U << INCOMING_RESTORED | 1U << INCOMING_COMMITTED, &incoming);

	if (st != NULL)
		return st;
	bool is_missing = incoming_late_counts(incoming, &late);
	bool may_resume = request->act != HAUL__V1__RESOLVE_REQUEST__ACT__RESUME || !is_missing;
	if (incoming->state == INCOMING_COMMITTED && is_missing)
		st = resolve_fetching(incomings, incoming, request);
	else if (incoming->state == INCOMING_COMMITTED)
		st = status_errorf(STATUS_FAILED_PRECONDITION,
				   "migration %s is committed: nothing is to be decided",
				   incoming->id);
	else if (!may_resume)
		st = status_errorf(STATUS_FAILED_PRECONDITION,
				   "%llu pages of the copy are still at the source: it is not "
				   "whole",
				   (unsigned long long)late.missing);
	else
		st = resolve(incomings, incoming, request);
	incoming_leave(incomings, incoming);
	return st;
}
