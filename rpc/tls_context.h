/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a tls_context, for the engine. */
#ifndef HAUL_RPC_TLS_CONTEXT_H
#define HAUL_RPC_TLS_CONTEXT_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rpc/tls_engine.h"
#include "rpc/tls_roll.h"

enum { FAILURES_KEPT = 16 };

struct tls_context {
	atomic_uint references;
	struct keyring *keyring;
	BIO_METHOD *bio_method;
	bool is_server;
	char host[LIMIT_NAME + 1];
	pthread_mutex_t lock; /* of what follows */
	struct tls_failure failures[FAILURES_KEPT];
	unsigned failure_count;
	struct tls_roll roll;
};

/* One reference more; tls_context_free takes one away. */
void tls_context_hold(struct tls_context *context);

/* Keeps a failure for tls_context_take_failure, unless too many are kept. */
void tls_context_add_failure(struct tls_context *context, const struct tls_failure *failure);

#endif
