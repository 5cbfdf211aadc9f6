/* SPDX-License-Identifier: Apache-2.0 */
/* One context of a REQ or REP socket: one request and its reply at a time, again and again. What
 * waits in it can be cancelled at any time, by anybody; everything else is for one thread at a
 * time.
 *
 * What is over at once is done without a callback (operation.h): waking one of nng's threads for it
 * takes as long as a fifth of a call. */
#ifndef HAUL_RPC_CONTEXT_H
#define HAUL_RPC_CONTEXT_H

#include <nng/nng.h>

#include "proto/defs.h"

struct context;

/* The functions that return an int return an error number of nng. */
int context_new(nng_socket socket, struct context **ret_context);

/* Of REQ: sends the message as soon as there is a connection that takes it. On success it is nng's,
 * else still the caller's. NNG_ETIMEDOUT: it has not left. */
int context_send(struct context *context, nng_duration timeout_ms, nng_msg *msg);

/* Receives the request, or the reply to what was sent. */
int context_receive(struct context *context, nng_duration timeout_ms, nng_msg **ret_msg);

/* Of REP: sends the reply, and takes it, also on failure. One that waits is not cancelled: it is
 * over when the peer has room for it, after timeout_ms, or when the socket is closed. */
int context_reply(struct context *context, nng_duration timeout_ms, nng_msg *msg);

/* context_send and context_receive that wait, and whatever comes later, return NNG_ECANCELED, until
 * context_renew. Comes before the socket is closed: nng 1.10 may free a socket under a thread that
 * is in the middle of nng_ctx_send or nng_ctx_recv, and after this none is. */
void context_cancel(struct context *context);
void context_renew(struct context *context);

/* Nothing may be under way. Before the socket is closed, or after it. */
void context_free(struct context *context);

#endif
