/* SPDX-License-Identifier: Apache-2.0 */
/* A client of one server: any number of threads may call at the same time. */
#ifndef HAUL_RPC_CLIENT_H
#define HAUL_RPC_CLIENT_H

#include <protobuf-c/protobuf-c.h>
#include <stdatomic.h>

#include "proto/metadata.h"
#include "rpc/endpoint.h"

struct rpc_client;

/* Does not connect yet (the first call does, within its timeout). credentials are borrowed;
 * needed for tls+tcp. The server's certificate must name the URL's host. */
must_check status *rpc_client_new(const char *url, const struct credentials *credentials,
				  struct rpc_client **ret_client);

/* The first connection is this socket, that somebody else has connected to the server; before the
 * first call. The client dials its URL when that is lost, not before. Takes the socket, also on
 * error. */
must_check status *rpc_client_give(struct rpc_client *client, int fd);

/* One call. `service` and `method` name the method ("Commit"); request and *ret_response are its
 * messages; free the response with message_free. timeout_ms > 0 covers connecting too.
 * Errors: the server's own status; UNAVAILABLE "not connected, the request has not left" when no
 * connection came about within the timeout (unreachable, refused, or a TLS handshake that failed:
 * the reason is told, UNAUTHENTICATED when it is about certificates; where nobody listens it is
 * told after 3 s); DEADLINE_EXCEEDED when sent but not answered in time; UNAVAILABLE with detail
 * "sent" when the connection broke after it left; CANCELLED after rpc_client_interrupt. A request
 * leaves at most once, unless rpc_client_enable_retry. */
must_check status *rpc_client_call(struct rpc_client *client,
				   const ProtobufCServiceDescriptor *service, const char *method,
				   const ProtobufCMessage *request, int64_t timeout_ms,
				   ProtobufCMessage **ret_response);

/* Cancels calls: rpc_client_cancel. {0} at first. */
struct rpc_cancel {
	atomic_bool is_set;
};

/* A call with all that goes along with it. */
struct rpc_request {
	const ProtobufCServiceDescriptor *service;
	const char *method;
	const ProtobufCMessage *message;
	int64_t timeout_ms;
	Haul__V1__Metadata *metadata; /* borrowed; NULL: none. As metadata_add makes it */
	struct rpc_cancel *cancel;    /* borrowed; NULL: it cannot be cancelled by itself */
};

/* As rpc_client_call. What the server sent along with its answer, good or bad, is *ret_trailing
 * (metadata_free), unless ret_trailing is NULL; untouched when no answer came. */
must_check status *rpc_client_request(struct rpc_client *client, const struct rpc_request *request,
				      ProtobufCMessage **ret_response,
				      Haul__V1__Metadata **ret_trailing);

/* The client's calls that have this `cancel`, now and later, return CANCELLED; the others go on.
 * The server is told, and a handler that waits there ends. One that
 * still connects ends when that has come to an end. Any thread. */
void rpc_client_cancel(struct rpc_client *client, struct rpc_cancel *cancel);

struct stream;

/* Opens a stream (stream.h): calls the method, whose response has a field `pipe`, and dials that;
 * both within timeout_ms, which says nothing of how long the stream may last. */
must_check status *rpc_client_open_stream(struct rpc_client *client,
					  const ProtobufCServiceDescriptor *service,
					  const char *method, const ProtobufCMessage *request,
					  int64_t timeout_ms, struct stream **ret_stream);

/* From now on calls that end with UNAVAILABLE after they had left, or that a stopping server did
 * not take, are sent again within their timeout, with the same request id: the server carries them
 * out once. See retry.h for how often. Not for calls whose fate the caller must know, such as an
 * engine's to its peer. */
void rpc_client_enable_retry(struct rpc_client *client);

/* Did the request of this failed call leave, so that it may have been executed? */
bool rpc_client_may_have_run(const status *st);

/* Outstanding and future calls return CANCELLED until rpc_client_resume. Any thread. */
void rpc_client_interrupt(struct rpc_client *client);
void rpc_client_resume(struct rpc_client *client);

void rpc_client_free(struct rpc_client *client);

DEFINE_SCOPE(rpc_client, struct rpc_client *, rpc_client_free);

#endif
