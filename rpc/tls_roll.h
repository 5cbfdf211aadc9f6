/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS connections of a context that exist, from their first byte on: how many may be, from
 * where, and which have to go. Thread-safe. */
#ifndef HAUL_RPC_TLS_ROLL_H
#define HAUL_RPC_TLS_ROLL_H

#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "rpc/host_failures.h"
#include "rpc/peer_address.h"

/* The certificates of a peer, as its handshake proved them. */
struct tls_chain {
	X509 *leaf;
	STACK_OF(X509) * others;
};

/* A part of each connection. */
struct tls_member {
	struct tls_member *next, *previous;
	nng_stream *stream;
	struct peer_address from;
	int64_t deadline_ms;		   /* of its handshake */
	atomic_bool is_pipe;		   /* nng has asked who it is: past its negotiation */
	_Atomic(struct tls_chain *) chain; /* NULL until the handshake is over */
	unsigned number;		   /* of the credentials that let it in */
};

struct tls_roll {
	pthread_mutex_t lock; /* taken before nng's own locks */
	pthread_cond_t left;  /* one has left; CLOCK_MONOTONIC */
	struct tls_member *first;
	unsigned count;
	bool is_closing;	       /* nobody joins any more */
	pthread_mutex_t failures_lock; /* the last one: taken also under nng's locks */
	struct host_failures failures;
};

void tls_roll_init(struct tls_roll *roll);
void tls_roll_fini(struct tls_roll *roll);

/* The member's stream tells where it comes from. Returns why it cannot join, or NULL. */
const char *tls_roll_join(struct tls_roll *roll, struct tls_member *member);

/* How the member's handshake went. nng's lock of the connection may be held. */
void tls_roll_judge(struct tls_roll *roll, const struct tls_member *member, bool is_trusted);

/* Also frees the chain. */
void tls_roll_leave(struct tls_roll *roll, struct tls_member *member);

/* Takes references of the certificates of a handshake that is over. Nothing is kept without memory:
 * such a connection is closed with the next replacement of the credentials. */
void tls_member_set_chain(struct tls_member *member, SSL *ssl);

/* Closes those that are unfit. Nobody leaves meanwhile. */
void tls_roll_close(struct tls_roll *roll, bool (*is_unfit)(void *self, struct tls_member *member),
		    void *self);

/* Lets nobody join any more, closes those that are no pipes and waits until they have left, at most
 * within_ms. */
void tls_roll_empty(struct tls_roll *roll, int64_t within_ms);

#endif
