/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU lent to other programs (haul.v1.Criu): their messages reach it and its answers reach them
 * unread. A lease is a stream; when that ends, so does the CRIU, in a cgroup of its own. Nothing of
 * a lease is journaled or fenced: docs/relay.md. */
#ifndef HAUL_ENGINE_RELAY_LEASES_H
#define HAUL_ENGINE_RELAY_LEASES_H

#include "engine/core.h"
#include "haul/v1/criu.pb-c.h"
#include "rpc/service.h"
#include "rpc/stream.h"

struct leases;

struct leases *leases_new(struct core *core);

/* Ends what the leases of an earlier hauld left: a CRIU that still runs, sockets, directories. What
 * their CRIUs had restored goes on. */
must_check status *leases_recover(struct leases *leases);

/* Serves one lease until its stream ends, on the stream's thread. What it returns is the stream's
 * status. */
must_check status *leases_serve(struct leases *leases, const struct rpc_call *call,
				const Haul__V1__LeaseRequest *request, struct stream *stream);

/* Ends all of them; no new ones. */
void leases_drain(struct leases *leases);

/* None may be left. */
void leases_free(struct leases *leases);

#endif
