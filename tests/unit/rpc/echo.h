/* SPDX-License-Identifier: Apache-2.0 */
/* A server for tests: haul.v1.Peer of which only Hello, Abort and Query exist. Query's pid says
 * how often it was carried out, and the entry "say" of its metadata comes back as "said". Hello
 * does what its `id` says: "" or anything = answer at once with the caller's name in `node`;
 * "block" = until released; "attend" = until the caller has gone, or released; "onward" = ask
 * another server to attend; "fail" = an error with details; "nothing" = no answer; "big" = an
 * answer over the limit.
 */
#ifndef HAUL_TESTS_UNIT_RPC_ECHO_H
#define HAUL_TESTS_UNIT_RPC_ECHO_H

#include <pthread.h>
#include <stdatomic.h>

#include "haul/v1/peer.pb-c.h"
#include "proto/pack.h"
#include "rpc/client.h"
#include "rpc/server.h"

struct echo {
	struct rpc_server *server;
	struct rpc_service service;
	atomic_bool is_released;
	atomic_int runs;   /* handlers started */
	atomic_int reads;  /* of Query */
	atomic_int called; /* observer */
	atomic_int refused;
	atomic_bool deny;	    /* authorize refuses */
	atomic_uint calls_most;	    /* of a caller; 0: no limit */
	pthread_mutex_t lock;	    /* of what follows */
	char last_id[LIMIT_ID + 1]; /* of an observed call; to be read when all are over */
	char last_peer[LIMIT_PEER_TEXT];
	char refusals[8][512]; /* the last ones: "PEER: WHY" */
	unsigned refusal_count;
	_Atomic int64_t last_deadline_ms;
	struct rpc_client *onward;			     /* whom Hello and Query "onward" ask */
	int64_t (*pause_ms)(void *self, const char *method); /* before reads, or NULL */
	char url[128];
	char directory[64];
};

/* Starts without listeners. */
void echo_start(struct echo *echo);
/* Listens at "ipc", "tcp" or "tls" on a free place of its own; sets echo->url. */
void echo_listen(struct echo *echo, const char *transport, const struct credentials *credentials,
		 unsigned calls);
void echo_stop(struct echo *echo);

/* Is this in one of the last refusals that were reported? `from` may be empty. */
bool echo_was_refused_for(struct echo *echo, const char *from, const char *why);

/* One Hello; *ret_node (heap) is the answer's node, when OK. */
status *echo_hello(struct rpc_client *client, const char *id, int64_t timeout_ms, char **ret_node);

/* A port nothing listens on. */
unsigned free_port(void);
bool is_at_least(atomic_int *value, int wanted, int64_t timeout_ms);
int count_fds(void);

#endif
