/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of one listener: who is at the other end, how many calls are open, how long it
 * has been silent. nng's callbacks fill it, the server's threads ask it. Thread-safe. */
#ifndef HAUL_RPC_CONNECTIONS_H
#define HAUL_RPC_CONNECTIONS_H

#include <nng/nng.h>

#include "rpc/endpoint.h"
#include "rpc/peer_address.h"

enum { REFUSALS_KEPT = 32 };

/* Why a connection was refused, kept until the watchdog reports it. */
struct refusal {
	char peer[LIMIT_PEER_TEXT];
	char why[128];
};

struct connections;

must_check status *connections_new(enum transport transport, struct connections **ret_connections);

/* lost(self) is called whenever a connection is gone, by one of nng's threads: it must not block.
 */
void connections_on_loss(struct connections *connections, void (*lost)(void *self), void *self);

/* Of TRANSPORT_SOCKET: who is there, or why not. */
typedef const char *(*connections_identify)(void *self, nng_pipe pipe,
					    struct identity *ret_identity);
void connections_set_identify(struct connections *connections, connections_identify identify,
			      void *self);

/* nng's pipe callback, with the connections as its argument. */
void connections_on_pipe(nng_pipe pipe, nng_pipe_ev event, void *self);

/* Whose call it is. */
struct call_origin {
	struct identity caller;
	char peer[LIMIT_PEER_TEXT];
	unsigned calls; /* that the caller has open here, this one included */
};

/* A request came by this pipe: false when the pipe is unknown (it has just gone). */
bool connections_begin_call(struct connections *connections, nng_pipe pipe,
			    struct call_origin *ret_origin);
void connections_end_call(struct connections *connections, nng_pipe pipe);

/* Is it there still? */
bool connections_has(struct connections *connections, int pipe_id);

/* Closes connections that have been silent without an open call for LIMIT_SILENT_MS. */
void connections_close_silent(struct connections *connections);

bool connections_take_refusal(struct connections *connections, struct refusal *ret_refusal);

void connections_free(struct connections *connections);

/* The process that made a connection of the local socket; 0: the kernel does not say. */
int connection_pid(nng_pipe pipe);

/* The host by which the caller reached this listener: where it will find our other ports too. One
 * on every address (0.0.0.0, [::]) does not say; the connection does. Untouched for ipc. */
void connection_reached_host(nng_pipe pipe, const struct endpoint *listener,
			     char ret_host[LIMIT_NAME + 1]);

#endif
