/* SPDX-License-Identifier: Apache-2.0 */
/* The source's side of one migration: a stage table (source_stages.c) walked by one thread.
 *
 *   preflight → prepare → pre-copy × N → freeze → restore → commit → fill → finish
 *        └──────────┴──────────┴── abort    └───────┴── resume  └──────┴── in doubt ⇄ ask
 *
 * Until commit begins any failure lets the tree run here. From then on only the destination's word
 * decides (verdict.h). */
#ifndef HAUL_ENGINE_MIGRATION_SOURCE_H
#define HAUL_ENGINE_MIGRATION_SOURCE_H

#include "engine/core.h"
#include "haul/v1/migrations.pb-c.h"
#include "rpc/service.h"

struct sources; /* all of an engine */

struct sources *sources_new(struct core *core);
/* Takes up what the journal says was open, before anything is served. */
must_check status *sources_recover(struct sources *sources);

/* Starts one; *ret_view is a copy for the caller. The id is made from the caller and its request's
 * id, so that the same request finds the migration that it started, also after hauld was restarted
 * in between. Without a call (NULL) the id is random. */
must_check status *sources_start(struct sources *sources, const struct rpc_call *call,
				 const Haul__V1__StartRequest *request,
				 Haul__V1__Migration **ret_view);
must_check status *sources_cancel(struct sources *sources, const char *id);
/* One that waits for its destination, after the commit has left, asks it now. NOT_FOUND,
 * FAILED_PRECONDITION. */
must_check status *sources_recover_one(struct sources *sources, const char *id);
/* Changes limits of one that runs here; NOT_FOUND when none does. */
must_check status *sources_adjust(struct sources *sources, const Haul__V1__AdjustRequest *request);
/* An operator's decision on one in doubt; NOT_FOUND when it is none of ours. */
must_check status *sources_resolve(struct sources *sources,
				   const Haul__V1__ResolveRequest *request);

/* Cancels what can be cancelled, waits at most grace_ms for all to end. In-doubt ones just stop
 * asking. */
void sources_drain(struct sources *sources, int64_t grace_ms);
void sources_free(struct sources *sources);

#endif
