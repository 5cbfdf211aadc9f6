/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by client.c (calls) and client_connect.c (the connection they go by). */
#ifndef HAUL_RPC_CLIENT_INTERNAL_H
#define HAUL_RPC_CLIENT_INTERNAL_H

#include <nng/nng.h>
#include <pthread.h>

#include "proto/envelope.h"
#include "rpc/client.h"
#include "rpc/context.h"
#include "rpc/retry.h"
#include "rpc/tls_engine.h"

enum { CLIENT_IDLE_CONTEXTS = 64 };

struct call {
	struct call *next;
	struct context *context; /* NULL until the attempt begins */
	const ProtobufCMethodDescriptor *method;
	const struct buffer *request; /* packed */
	Haul__V1__Metadata *metadata; /* borrowed, or NULL */
	struct rpc_cancel *cancel;    /* borrowed, or NULL */
	const uint8_t *cancels;	      /* the id of the call that this one cancels, or NULL */
	Haul__V1__Metadata *trailing; /* of the last answer, or NULL */
	int64_t deadline_ms;
	int64_t patience_ms; /* of one attempt, 0 = until the deadline */
	char name[LIMIT_NAME + 1];
	uint8_t id[REQUEST_ID_BYTES]; /* the same in each attempt */
	bool is_active;		      /* counted in the client */
	bool was_sent;		      /* an attempt left, what became of it is not known */
	bool is_final;		      /* the server would answer the same again */
};

/* What makes one connection. */
struct dialed {
	nng_dialer dialer;
	struct tls_context *tls; /* NULL without TLS */
};

struct rpc_client {
	struct endpoint endpoint;
	const struct credentials *credentials;
	nng_socket socket;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_interrupted;
	bool is_dialing;
	bool has_dialer;
	bool is_suspect; /* a call went unanswered: do not trust the connection */
	struct dialed dialed;
	int pipe_id; /* of the connection, 0 = none */
	nng_listener given;
	bool has_given; /* the connection is, or will be, the one that was handed over */
	int64_t used_ms;
	unsigned active; /* calls between connect and their end */
	struct call *calls;
	unsigned idle_count;
	struct context *idle[CLIENT_IDLE_CONTEXTS]; /* for the next calls */
	bool does_retry;
	struct retry_budget budget;
};

/* Sees to it that there is a connection; caller holds the lock, which is given up meanwhile. */
must_check status *client_connect(struct rpc_client *client, int64_t deadline_ms);

/* Closes it; caller does not hold the lock. */
void client_disconnect(struct rpc_client *client);

/* Waits for a change; caller holds the lock. */
void client_wait_until(struct rpc_client *client, int64_t deadline_ms);

/* The status of what rpc_client_interrupt ended. */
must_check status *client_interrupted(void);

#endif
