/* SPDX-License-Identifier: Apache-2.0 */
/* How a service's methods are bound to functions, by protobuf-c's descriptor. */
#ifndef HAUL_RPC_SERVICE_H
#define HAUL_RPC_SERVICE_H

#include <protobuf-c/protobuf-c.h>

#include "proto/metadata.h"
#include "proto/status.h"
#include "rpc/identity.h"

struct connections;
struct handovers;
struct rpc_client;
struct rpc_request;
struct running_call;

/* What a handler knows of its call. */
struct rpc_call {
	const struct identity *caller;
	const char *peer;	   /* where the caller is: "10.0.0.1:4711" */
	const char *method;	   /* "/haul.v1.Peer/Commit" */
	const uint8_t *request_id; /* REQUEST_ID_BYTES; the same when a client asks again */
	int64_t deadline_ms;	   /* CLOCK_MONOTONIC; 0 = none */
	/* The migration that the request or its answer names, for who observes; "" while neither is
	 * known. */
	char id[LIMIT_ID + 1];
	/* Host by which the caller reached this server (of the listener's URL, or of the connection
	 * when that is for every address); "" for ipc. */
	char server_host[LIMIT_NAME + 1];
	/* Of the server, for rpc_call_is_cancelled. */
	struct connections *connections;
	int connection_id;
	const Haul__V1__Metadata *metadata; /* the caller's, or NULL: metadata_find */
	Haul__V1__Metadata *trailing;	    /* goes along with the answer; NULL in a stream */
	struct running_call *running;	    /* of the server, or NULL */
	struct handovers *handovers;	    /* of the server, or NULL */
	int peer_pid;			    /* of a local caller */
};

/* Adds an entry to what goes along with the answer, good or bad: metadata_add. */
must_check status *rpc_call_add_trailing(const struct rpc_call *call, const char *key,
					 const char *value);

/* Has the caller gone, or cancelled it, so that nobody waits for the answer? For handlers that wait
 * and change nothing: they look at it now and then. */
bool rpc_call_is_cancelled(const struct rpc_call *call);

/* What a handler may spend on something it waits for or asks of others, at most most_ms: what is
 * left of its caller's time, without what the answer needs to get back. 0 when nothing is left. */
int64_t rpc_call_budget_ms(const struct rpc_call *call, int64_t most_ms);

/* Runs on a thread of the server; may block. The request is borrowed; the response must be
 * wholly on the heap (it is freed with protobuf_c_message_free_unpacked). */
typedef status *(*rpc_handler)(void *self, const struct rpc_call *call,
			       const ProtobufCMessage *request, ProtobufCMessage **ret_response);

/* A call to another server to answer this one: its time is what rpc_call_budget_ms leaves of the
 * request's, and it is cancelled when this one is. */
must_check status *rpc_call_forward(const struct rpc_call *call, struct rpc_client *client,
				    const struct rpc_request *request,
				    ProtobufCMessage **ret_response);

/* What may be handed over (handover.h): stream sockets that somebody else has connected. */
enum rpc_socket { RPC_SOCKET_CALLS, RPC_SOCKET_MEMORY, RPC_SOCKET_IMAGES, RPC_SOCKETS };

/* Takes descriptor `number` of the local process that calls, which keeps its own. INVALID_ARGUMENT
 * when that is not a connected stream socket. */
must_check status *rpc_call_fetch_socket(const struct rpc_call *call, int number, int *ret_fd);

/* Calls that come by sockets[RPC_SOCKET_CALLS] are served from now on, as of `name`; the others
 * wait for rpc_call_take_socket. Takes the sockets, also on error. */
must_check status *rpc_call_hand_over(const struct rpc_call *call, const char *name,
				      int sockets[RPC_SOCKETS]);

/* Did the call come by such a socket? And the other ones of it, each once; -1: there is none (any
 * more). */
bool rpc_call_came_by_handover(const struct rpc_call *call);
int rpc_call_take_socket(const struct rpc_call *call, enum rpc_socket which);

struct stream;

/* Serves a method whose answers (and maybe requests) are a stream (stream.h): on a thread of its
 * own, may block, and should end when stream_is_cancelled. What it returns is the stream's status.
 * All is borrowed. */
typedef status *(*rpc_stream_handler)(void *self, const struct rpc_call *call,
				      const ProtobufCMessage *request, struct stream *stream);

/* handlers[i] serves descriptor->methods[i], or streams[i] does where handlers[i] is NULL: the
 * method's response then has a field `pipe`, the PipeAddress that the caller dials. */
struct rpc_service {
	const ProtobufCServiceDescriptor *descriptor;
	const rpc_handler *handlers;
	void *self;
	const rpc_stream_handler *streams; /* NULL: none */
};

#endif
