/* SPDX-License-Identifier: Apache-2.0 */
/* A server: listeners, and threads that each serve one call at a time. */
#ifndef HAUL_RPC_SERVER_H
#define HAUL_RPC_SERVER_H

#include "rpc/endpoint.h"
#include "rpc/pipe.h"
#include "rpc/service.h"

struct rpc_server;

/* What the server reports as it happens; called on its threads. */
struct rpc_observer {
	void *self;
	/* A call is over. st = NULL is OK. */
	void (*called)(void *self, const struct rpc_call *call, const status *st, int64_t took_us);
	/* A connection was refused or dropped (bad certificate, silent, too many). */
	void (*refused)(void *self, const char *listener, const char *peer, const char *why);
};

/* May the caller call the method? NULL = yes, PERMISSION_DENIED or UNAUTHENTICATED otherwise. */
typedef status *(*rpc_authorize)(void *self, const struct identity *caller, const char *method);

/* How many calls the caller may have open at a time at one listener; 0 = no limit. */
typedef unsigned (*rpc_calls_most)(void *self, const struct identity *caller);

struct rpc_server_config {
	const struct rpc_service *services; /* must outlive the server */
	size_t service_count;
	rpc_authorize authorize;   /* NULL: everybody may everything */
	rpc_calls_most calls_most; /* NULL: no limits */
	/* The same for streams; NULL or 0: a quarter of LIMIT_STREAMS. */
	rpc_calls_most streams_most;
	void *authorize_self; /* of all three */
	/* How long a call of a method that only reads waits before it is carried out, when the
	 * server's program has more urgent things to do; NULL: not at all. */
	int64_t (*pause_ms)(void *self, const char *method);
	void *pause_self;
	struct rpc_observer observer;
	/* Where streams may listen: ports for remote callers, a directory for local ones. */
	struct pipe_place stream_place;
};

must_check status *rpc_server_new(const struct rpc_server_config *config,
				  struct rpc_server **ret_server);

/* Opens a listener: ipc (socket file 0600, a stale one is replaced, a live one is an
 * ALREADY_EXISTS), tls (credentials needed; borrowed), tcp (no authentication). Dispatches from now
 * on with `calls` threads. Each listener has its own socket and threads, so that remote callers
 * cannot use up the local ones. */
must_check status *rpc_server_listen(struct rpc_server *server, const char *url,
				     const struct credentials *credentials, unsigned calls);

/* From now on handlers may give the server connections (rpc_call_hand_over), which have threads of
 * their own, too. */
must_check status *rpc_server_take_handovers(struct rpc_server *server, unsigned calls);

/* Its handovers, as its handlers' calls have them; for tests. */
struct handovers *rpc_server_handovers(struct rpc_server *server);

/* Refuses new calls, waits for the running ones at most `grace_ms`, closes. */
void rpc_server_stop(struct rpc_server *server, int64_t grace_ms);
void rpc_server_free(struct rpc_server *server);

DEFINE_SCOPE(rpc_server, struct rpc_server *, rpc_server_free);

#endif
