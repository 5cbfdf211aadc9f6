/* SPDX-License-Identifier: Apache-2.0 */
/* One operation of nng after another, each of which can be cancelled at any time, by anybody.
 *
 * nng_aio_wait is not enough for that: in nng 1.10, cancelling an operation that nng is just about
 * to complete ends the wait for it, and nng completes it afterwards, maybe in memory that was freed
 * (https://github.com/nanomsg/nng/issues/2208; mended in 1.12). The callback is reliable: it comes
 * once for each operation that was started. So that is what is waited for here.
 *
 * Nor may an operation follow another one at once whose time was just over: nng collects what has
 * expired and then ends it one by one, whatever runs in that aio by then. Freeing the aio waits for
 * that, so the next operation gets another one.
 *
 * It has its price: nng completes most operations that are over at once in another thread, which
 * has to be woken up to call back. What nobody cancels, because it is over at once (a timeout of
 * 0), with its timeout, or with its socket, is done with an aio without callback and nng_aio_wait
 * instead. */
#ifndef HAUL_RPC_OPERATION_H
#define HAUL_RPC_OPERATION_H

#include <nng/nng.h>
#include <stdbool.h>

#include "proto/defs.h"

struct operation;

/* Returns an error number of nng. */
int operation_new(struct operation **ret_operation);

/* Begins an operation: the caller hands the aio to nng at once, and to nothing else. The message is
 * what to send, or NULL. None may be running. */
nng_aio *operation_begin(struct operation *operation, nng_duration timeout_ms, nng_msg *msg);

/* Waits until the operation that was begun is over, and returns nng's verdict, again each time. 0
 * when none was begun. */
int operation_wait(struct operation *operation);

bool operation_is_running(struct operation *operation);

/* Takes the message out of an operation that is over: what was received, or what was not sent. */
nng_msg *operation_take_message(struct operation *operation);

/* Ends the operation that runs, if one does, with NNG_ECANCELED unless it is through already. Does
 * not wait. */
void operation_cancel(struct operation *operation);

/* Cancels, waits, and frees the message that is left. Comes before the socket is closed: nng could
 * leave an operation hanging otherwise. */
void operation_free(struct operation *operation);

#endif
