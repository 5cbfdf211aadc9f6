/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by server.c (listeners and their threads) and server_call.c (one request on its way). */
#ifndef HAUL_RPC_SERVER_INTERNAL_H
#define HAUL_RPC_SERVER_INTERNAL_H

#include <nng/nng.h>
#include <pthread.h>

#include "proto/schema.h"
#include "rpc/connections.h"
#include "rpc/context.h"
#include "rpc/dedupe.h"
#include "rpc/handover.h"
#include "rpc/running.h"
#include "rpc/server.h"
#include "rpc/streams.h"

enum {
	SERVER_LISTENERS = 8,
	/* Room for nng's own header in front of a request. */
	REQUEST_ROOM = 256,
};

enum server_phase { SERVER_RUNS, SERVER_DRAINS, SERVER_STOPPED };

struct listener;

struct worker {
	struct listener *listener;
	pthread_t thread;
	bool has_thread;
	bool is_busy; /* server->lock */
	struct context *context;
};

struct listener {
	struct rpc_server *server;
	struct endpoint endpoint;
	nng_socket socket;
	bool has_socket;
	struct tls_context *tls;
	struct connections *connections;
	atomic_bool has_lost; /* a connection, and the watchdog has not seen to it */
	pthread_t watchdog;
	bool has_watchdog;
	unsigned worker_count;
	unsigned busy;	     /* server->lock */
	int64_t all_busy_ms; /* server->lock: when no worker was free last */
	struct worker *workers;
};

struct rpc_server {
	struct rpc_server_config config;
	struct dedupe *dedupe;
	struct schema *schema; /* which methods only read */
	struct running_calls *running_calls;
	struct rpc_streams *streams;
	struct handovers *handovers;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum server_phase phase;
	unsigned running; /* calls */
	unsigned listener_count;
	struct listener *listeners[SERVER_LISTENERS];
};

/* Serves the request in the message: decodes, admits, runs, answers. */
void server_answer(struct listener *listener, const struct call_origin *origin, nng_msg *msg,
		   struct buffer *ret_reply);

#endif
