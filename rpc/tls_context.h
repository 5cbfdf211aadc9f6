/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a tls_context, for the engine. */
#ifndef HAUL_RPC_TLS_CONTEXT_H
#define HAUL_RPC_TLS_CONTEXT_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rpc/tls_engine.h"

enum { FAILURES_KEPT = 16 };

struct nng_tls_engine_conn;

struct tls_context {
	atomic_uint references;
	atomic_uint connections;
	SSL_CTX *ctx;
	BIO_METHOD *bio_method;
	bool is_server;
	char host[LIMIT_NAME + 1];
	pthread_mutex_t lock; /* of what follows */
	struct tls_failure failures[FAILURES_KEPT];
	unsigned failure_count;
	pthread_mutex_t roll; /* of the connections that exist; taken before nng's own locks */
	struct nng_tls_engine_conn *first;
};

/* One reference more; tls_context_free takes one away. */
void tls_context_hold(struct tls_context *context);

/* Keeps a failure for tls_context_take_failure, unless too many are kept. */
void tls_context_add_failure(struct tls_context *context, const struct tls_failure *failure);

#endif
