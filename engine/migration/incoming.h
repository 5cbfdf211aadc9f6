/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's side: it reacts. One session a migration:
 *
 *   PREPARED ──restore──▶ RESTORED (whole, frozen) ──commit──▶ COMMITTED (runs)
 *       └──── abort, lease ────┴─── abort, hold ends ──▶ ABORTED (killed)
 *
 * All that is restored lives in the cgroup in-<id> from its birth on; that group is frozen before
 * CRIU lets go of it. So "commit" is one journal record and one thaw, and "abort" one cgroup.kill:
 * neither needs CRIU. */
#ifndef HAUL_ENGINE_MIGRATION_INCOMING_H
#define HAUL_ENGINE_MIGRATION_INCOMING_H

#include "engine/core.h"
#include "haul/v1/peer.pb-c.h"
#include "rpc/service.h"

struct incomings;

struct incomings *incomings_new(struct core *core);
must_check status *incomings_recover(struct incomings *incomings);
/* Starts the thread that ends leases and looks after committed trees. */
must_check status *incomings_start(struct incomings *incomings);

/* Peer's methods (haul.v1.Peer), by name; see peer.proto. `caller` is the source's proven identity.
 */
must_check status *incoming_prepare(struct incomings *incomings, const struct rpc_call *call,
				    const Haul__V1__PrepareRequest *request,
				    Haul__V1__PrepareResponse *ret_response);
must_check status *incoming_begin_round(struct incomings *incomings, const struct rpc_call *call,
					const Haul__V1__BeginRoundRequest *request);
must_check status *incoming_end_round(struct incomings *incomings, const struct rpc_call *call,
				      const Haul__V1__EndRoundRequest *request,
				      Haul__V1__EndRoundResponse *ret_response);
must_check status *incoming_resume(struct incomings *incomings, const struct rpc_call *call,
				   const Haul__V1__ResumeRequest *request,
				   Haul__V1__ResumeResponse *ret_response);
must_check status *incoming_fetch(struct incomings *incomings, const struct rpc_call *call,
				  const Haul__V1__FetchRequest *request,
				  Haul__V1__FetchResponse *ret_response);
must_check status *incoming_restore(struct incomings *incomings, const struct rpc_call *call,
				    const Haul__V1__RestoreRequest *request,
				    Haul__V1__RestoreResponse *ret_response);
must_check status *incoming_commit(struct incomings *incomings, const struct rpc_call *call,
				   const Haul__V1__CommitRequest *request,
				   Haul__V1__CommitResponse *ret_response);
must_check status *incoming_abort(struct incomings *incomings, const struct rpc_call *call,
				  const Haul__V1__AbortRequest *request,
				  Haul__V1__AbortResponse *ret_response);
must_check status *incoming_query(struct incomings *incomings, const struct rpc_call *call,
				  const Haul__V1__QueryRequest *request,
				  Haul__V1__QueryResponse *ret_response);
must_check status *incoming_settle(struct incomings *incomings, const struct rpc_call *call,
				   const Haul__V1__SettleRequest *request);
/* A Hello that names a migration keeps its lease. */
void incoming_renew(struct incomings *incomings, const struct rpc_call *call, const char *id);

/* An operator's decision on a restored, uncommitted copy, or on one that lacks pages. */
must_check status *incomings_resolve(struct incomings *incomings,
				     const Haul__V1__ResolveRequest *request);

/* Aborts what has no whole copy; whole copies stay for the next hauld. */
void incomings_drain(struct incomings *incomings);
void incomings_free(struct incomings *incomings);

#endif
