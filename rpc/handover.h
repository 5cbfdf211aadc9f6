/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that somebody else has made: a local program hands over stream sockets that it has
 * connected to a peer's, however that was done and however it knows who is there. At the
 * destination of a migration one of them carries calls, as if it had come by a listener; two more
 * become its pipes. */
#ifndef HAUL_RPC_HANDOVER_H
#define HAUL_RPC_HANDOVER_H

#include <nng/nng.h>

#include "rpc/connections.h"
#include "rpc/service.h"

struct handovers;

/* The program must ignore SIGPIPE: nng writes to such sockets as to files.
 *
 * Makes a connected socket a connection of nng's, with a listener of its own, which the caller
 * closes (or its nng_socket). *fd is -1 then; it stays the caller's when this fails. Returns nng's
 * error.
 */
int handover_to_nng(nng_socket socket, int *fd, nng_listener *ret_listener);

must_check status *handovers_new(struct handovers **ret_handovers);

/* The socket of the server's that takes them; before the first one comes. */
void handovers_set_socket(struct handovers *handovers, nng_socket socket);

/* Who is at the other end of this connection, by the word of who handed it over: connections'
 * identify. */
const char *handovers_identify(void *self, nng_pipe pipe, struct identity *ret_identity);

/* Now and then: takes those into use that the other side says something on, closes those that are
 * gone from `connections` or that nobody used in time. */
void handovers_tend(struct handovers *handovers, struct connections *connections);

void handovers_free(struct handovers *handovers);

#endif
