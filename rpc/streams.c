/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/streams.h"
#include "proto/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/reason.h"
#include "rpc/nng_error.h"
#include "rpc/stream.h"

enum { ACCEPT_MS = 10000, END_MS = 10000, STOPPED_END_MS = 1000 };

struct session {
	struct rpc_streams *streams;
	size_t place;
	struct pipe *pipe;     /* until it is accepted */
	struct stream *stream; /* from then on; both are for the streams' lock */
	struct identity caller;
	char method[LIMIT_NAME + 1], peer[LIMIT_NAME + 1];
	struct rpc_call call;
	Haul__V1__Metadata *metadata;
	rpc_stream_handler handler;
	void *self;
	ProtobufCMessage *request;
};

struct rpc_streams {
	struct pipe_place place;
	unsigned (*most)(void *self, const struct identity *caller);
	void *most_self;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_stopping, is_stopped;
	size_t count;
	struct session *sessions[LIMIT_STREAMS];
};

status *rpc_streams_new(const struct pipe_place *place,
			unsigned (*most)(void *self, const struct identity *caller), void *self,
			struct rpc_streams **ret_streams)
{
	struct rpc_streams *streams = calloc(1, sizeof(*streams));
	if (streams == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for the streams");
	streams->place = *place;
	streams->most = most;
	streams->most_self = self;
	clock_cond_init(&streams->changed);
	(void)pthread_mutex_init(&streams->lock, NULL);
	*ret_streams = streams;
	return NULL;
}

static void session_free(struct session *session)
{
	pipe_free(session->pipe);
	stream_free(session->stream);
	message_free(session->request);
	metadata_free(session->metadata);
	free(session);
}

/* Out of the table first: from then on nobody interrupts it. */
static void leave(struct session *session)
{
	struct rpc_streams *streams = session->streams;
	(void)pthread_mutex_lock(&streams->lock);
	streams->sessions[session->place] = NULL;
	(void)pthread_mutex_unlock(&streams->lock);
	session_free(session);
	(void)pthread_mutex_lock(&streams->lock);
	streams->count--;
	(void)pthread_cond_broadcast(&streams->changed);
	(void)pthread_mutex_unlock(&streams->lock);
}

/* The caller has connected: the pipe becomes a stream. */
static status *begin(struct session *session)
{
	status *st = pipe_accept(session->pipe, ACCEPT_MS);
	if (st != NULL)
		return st;
	(void)pthread_mutex_lock(&session->streams->lock);
	st = stream_new(TAKE(session->pipe), true, NULL, &session->stream);
	if (st == NULL && session->streams->is_stopped)
		stream_stop(session->stream);
	(void)pthread_mutex_unlock(&session->streams->lock);
	return st;
}

static void end(struct session *session, const status *verdict)
{
	(void)pthread_mutex_lock(&session->streams->lock);
	bool is_stopped = session->streams->is_stopped;
	(void)pthread_mutex_unlock(&session->streams->lock);
	scoped(status) status *stopped =
	    status_errorf(STATUS_UNAVAILABLE,
			  "the engine stops; the stream can be opened anew when "
			  "it is back");
	stream_end(session->stream, is_stopped ? stopped : verdict,
		   is_stopped ? STOPPED_END_MS : END_MS);
}

static void *run(void *argument)
{
	struct session *session = argument;
	scoped(status) status *st = begin(session);
	if (st == NULL) {
		scoped(status) status *verdict =
		    session->handler(session->self, &session->call, session->request,
				     session->stream);
		end(session, verdict);
	}
	leave(session);
	return NULL;
}

/* Caller holds the lock. */
static status *take_place(struct rpc_streams *streams, struct session *session, size_t most)
{
	size_t own = 0, vacant = LIMIT_STREAMS;
	for (size_t i = 0; i < LIMIT_STREAMS; i++) {
		if (streams->sessions[i] == NULL)
			vacant = i;
		else
			own += identity_equal(&streams->sessions[i]->caller, &session->caller);
	}
	if (streams->is_stopping)
		return status_errorf(STATUS_UNAVAILABLE,
				     "the engine is stopping and opens no new streams");
	if (vacant == LIMIT_STREAMS || own >= most)
		return status_because(
		    status_errorf(STATUS_RESOURCE_EXHAUSTED,
				  "%zu streams are open, %zu of them by this caller, who may have "
				  "%zu",
				  streams->count, own, most),
		    REASON_TOO_MANY_STREAMS);
	session->place = vacant;
	streams->sessions[vacant] = session;
	streams->count++;
	return NULL;
}

static status *start(struct rpc_streams *streams, struct session *session)
{
	pthread_attr_t attributes;
	pthread_t thread;
	unsigned most =
	    streams->most != NULL ? streams->most(streams->most_self, &session->caller) : 0;
	(void)pthread_mutex_lock(&streams->lock);
	status *st = take_place(streams, session, most != 0 ? most : LIMIT_STREAMS / 4);
	(void)pthread_mutex_unlock(&streams->lock);
	if (st != NULL) {
		session_free(session);
		return st;
	}
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int failed = pthread_create(&thread, &attributes, run, session);
	(void)pthread_attr_destroy(&attributes);
	if (failed == 0)
		return NULL;
	leave(session);
	return status_errnof(failed, "cannot start a thread");
}

static struct session *session_new(struct rpc_streams *streams, const struct rpc_call *call)
{
	struct session *session = calloc(1, sizeof(*session));
	if (session == NULL)
		return NULL;
	session->streams = streams;
	session->caller = *call->caller;
	(void)snprintf(session->method, sizeof(session->method), "%s", call->method);
	(void)snprintf(session->peer, sizeof(session->peer), "%s",
		       call->peer != NULL ? call->peer : "");
	session->call = *call;
	session->call.peer = session->peer;
	session->call.caller = &session->caller;
	session->call.method = session->method;
	/* The deadline was that of opening it. */
	session->call.deadline_ms = 0;
	session->call.request_id = NULL;
	session->call.connections = NULL; /* stream_is_cancelled tells */
	session->call.metadata = session->metadata = metadata_copy(call->metadata);
	session->call.trailing = NULL;
	session->call.running = NULL;
	return session;
}

status *rpc_streams_open(struct rpc_streams *streams, const struct rpc_call *call,
			 rpc_stream_handler handler, void *self, ProtobufCMessage *request,
			 Haul__V1__PipeAddress **ret_address)
{
	Haul__V1__PipeAddress *address = NULL;
	struct pipe_place place = streams->place;
	struct session *session = session_new(streams, call);
	if (session == NULL) {
		message_free(request);
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a stream");
	}
	session->handler = handler;
	session->self = self;
	session->request = request;
	place.host = call->caller->is_local ? NULL : call->server_host;
	status *st = pipe_listen(&place, &session->pipe, &address);
	if (st != NULL) {
		session_free(session);
		return st;
	}
	st = start(streams, session);
	if (st != NULL)
		haul__v1__pipe_address__free_unpacked(address, NULL);
	else
		*ret_address = address;
	return st;
}

/* Caller holds the lock. */
static void interrupt_all(struct rpc_streams *streams)
{
	for (size_t i = 0; i < LIMIT_STREAMS; i++) {
		struct session *session = streams->sessions[i];
		if (session != NULL && session->stream != NULL)
			stream_stop(session->stream);
		else if (session != NULL && session->pipe != NULL)
			pipe_interrupt(session->pipe);
	}
}

void rpc_streams_stop(struct rpc_streams *streams, int64_t grace_ms)
{
	int64_t until_ms = clock_monotonic_ms() + grace_ms;
	struct timespec until = clock_at(until_ms);
	(void)pthread_mutex_lock(&streams->lock);
	streams->is_stopping = true;
	while (streams->count > 0)
		if (pthread_cond_timedwait(&streams->changed, &streams->lock, &until) == ETIMEDOUT)
			break;
	streams->is_stopped = true;
	interrupt_all(streams);
	while (streams->count > 0)
		(void)pthread_cond_wait(&streams->changed, &streams->lock);
	(void)pthread_mutex_unlock(&streams->lock);
}

void rpc_streams_free(struct rpc_streams *streams)
{
	if (streams == NULL)
		return;
	rpc_streams_stop(streams, 0);
	(void)pthread_cond_destroy(&streams->changed);
	(void)pthread_mutex_destroy(&streams->lock);
	free(streams);
}
