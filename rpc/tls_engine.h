/* SPDX-License-Identifier: Apache-2.0 */
/* OpenSSL as nng's TLS engine. A tls_context is what one listener or one dialer adds to the
 * credentials: the name to be checked, and what became of the handshakes. */
#ifndef HAUL_RPC_TLS_ENGINE_H
#define HAUL_RPC_TLS_ENGINE_H

#include <nng/nng.h>

#include "rpc/endpoint.h"
#include "rpc/peer_address.h"

struct tls_context;

struct tls_failure {
	bool is_auth;		    /* about certificates: trying again will not help */
	char peer[LIMIT_PEER_TEXT]; /* of a listener's; "" for a dialer's */
	char text[512];
};

/* Idempotent. Must come before any TLS dialer or listener. */
must_check status *tls_engine_register(void);

/* For a dialer (host = name or IP the server's certificate must have) or a listener (NULL). */
must_check status *tls_context_new(const struct credentials *credentials, const char *host,
				   struct tls_context **ret_context);
void tls_context_free(struct tls_context *context);

/* Gives the context to an endpoint that has not been started; it keeps what it needs of it. */
must_check status *tls_context_apply_to_dialer(struct tls_context *context, nng_dialer dialer);
must_check status *tls_context_apply_to_listener(struct tls_context *context,
						 nng_listener listener);

/* Takes the oldest failure not yet taken; false when there is none. */
bool tls_context_take_failure(struct tls_context *context, struct tls_failure *ret_failure);

/* To be called now and then. Closes connections whose peer would not get in any more since the
 * credentials were replaced, and those that should have become pipes long ago: nng loses them (and
 * their descriptors) when the peer resets at a bad moment: an error that comes before nng waits for
 * data is told to nobody, and what it then waits for cannot be ended by its own timeout either. */
void tls_context_close_unfit(struct tls_context *context);

/* Before the endpoint is closed: takes no more connections, closes all that nobody has asked for
 * their identity, and waits (a second at most) until nng has let go of them. nng itself loses one
 * that it closes between two waits of its negotiation, for good. */
void tls_context_close_all(struct tls_context *context);

/* The names of a TLS pipe's peer; false when the pipe is gone. */
bool tls_pipe_identity(nng_pipe pipe, struct identity *ret_identity);

DEFINE_SCOPE(tls_context, struct tls_context *, tls_context_free);

#endif
