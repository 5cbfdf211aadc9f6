/* SPDX-License-Identifier: Apache-2.0 */
/* One request on its way through the server: who calls, may they, is it new; then its handler. */
#include "proto/clock.h"
#include "rpc/server_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/envelope.h"
#include "proto/reason.h"
#include "rpc/nng_error.h"

/* When to come again: a restart takes seconds, a call less. */
enum { STOPPING_RETRY_MS = 5000, CALLS_RETRY_MS = 1000 };

/* What is known of the request by then. */
struct job {
	struct listener *listener;
	const struct call_origin *origin;
	const Haul__V1__Request *request;
	struct rpc_call call;
	const struct rpc_service *service;
	const ProtobufCMethodDescriptor *method;
	rpc_handler handler;
	rpc_stream_handler stream;
};

static status *find_method(const struct rpc_server *server, struct job *job)
{
	const char *slash = strchr(job->request->method + 1, '/');
	size_t length = (size_t)(slash - job->request->method - 1);
	for (size_t i = 0; i < server->config.service_count; i++) {
		const struct rpc_service *service = &server->config.services[i];
		const char *name = service->descriptor->name;
		if (strlen(name) != length || strncmp(name, job->request->method + 1, length) != 0)
			continue;
		job->service = service;
		job->method = protobuf_c_service_descriptor_get_method_by_name(service->descriptor,
									       slash + 1);
		if (job->method == NULL)
			break;
		size_t i_method = (size_t)(job->method - service->descriptor->methods);
		job->handler = service->handlers[i_method];
		if (job->handler == NULL && service->streams != NULL)
			job->stream = service->streams[i_method];
		break;
	}
	if (job->handler == NULL && job->stream == NULL)
		return status_because(status_errorf(STATUS_UNIMPLEMENTED,
						    "this engine has no method %s",
						    job->request->method),
				      REASON_METHOD_UNKNOWN);
	return NULL;
}

/* Which migration it is about, as far as the message says. */
static void note_id(struct job *job, const ProtobufCMessage *message)
{
	const char *id = message_text(message, "id");
	if (id != NULL && job->call.id[0] == '\0')
		(void)snprintf(job->call.id, sizeof(job->call.id), "%s", id);
}

/* Takes the request; the response says where the stream is. */
static status *open_stream(const struct job *job, ProtobufCMessage *request,
			   ProtobufCMessage **ret_response)
{
	const ProtobufCMessageDescriptor *output = job->method->output;
	const ProtobufCFieldDescriptor *field =
	    protobuf_c_message_descriptor_get_field_by_name(output, "pipe");
	Haul__V1__PipeAddress *address = NULL;
	ProtobufCMessage *response = calloc(1, output->sizeof_message);
	status *st = NULL;
	if (field == NULL || field->descriptor != &haul__v1__pipe_address__descriptor ||
	    response == NULL) {
		free(response);
		message_free(request);
		return status_errorf(STATUS_INTERNAL, "%s has no place for a stream's address",
				     job->call.method);
	}
	st = rpc_streams_open(job->listener->server->streams, &job->call, job->stream,
			      job->service->self, request, &address);
	if (st != NULL) {
		free(response);
		return st;
	}
	protobuf_c_message_init(output, response);
	memcpy((uint8_t *)response + field->offset, &address, sizeof(address));
	*ret_response = response;
	return NULL;
}

static status *run_handler(struct job *job, ProtobufCMessage **ret_response)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(job->method->input, job->request->payload.data,
				    job->request->payload.len, LIMIT_UNARY_BYTES, &message);
	if (st != NULL)
		return st;
	note_id(job, message);
	if (job->call.deadline_ms > 0 && clock_monotonic_ms() >= job->call.deadline_ms)
		return status_errorf(STATUS_DEADLINE_EXCEEDED,
				     "the caller's time was over before %s began; nothing was done",
				     job->call.method);
	if (job->stream != NULL)
		return open_stream(job, TAKE(message), ret_response);
	st = job->handler(job->service->self, &job->call, message, ret_response);
	if (st == NULL && *ret_response == NULL)
		return status_errorf(STATUS_INTERNAL, "%s gave no answer", job->call.method);
	if (st == NULL)
		note_id(job, *ret_response);
	return st;
}

/* A reply of this status or response. Replies are never refused for their size: a response that is
 * too large becomes an error, and errors are small. */
static void make_reply(const status *st, const ProtobufCMessage *response,
		       Haul__V1__Metadata *trailing, bool is_final, struct buffer *ret_reply)
{
	Haul__V1__Reply reply = HAUL__V1__REPLY__INIT;
	scoped(buffer) struct buffer payload = {0};
	status *trouble = NULL;
	reply.version = ENVELOPE_VERSION;
	reply.is_final = is_final;
	reply.trailing = trailing;
	if (st == NULL) {
		size_t beside =
		    trailing != NULL ? haul__v1__metadata__get_packed_size(trailing) : 0;
		trouble =
		    pack_message(response, LIMIT_UNARY_BYTES - REQUEST_ROOM - beside, &payload);
		reply.payload.data = payload.data;
		reply.payload.len = payload.size;
	}
	reply.status = status_to_wire(st != NULL ? st : trouble);
	status *failed = pack_message(&reply.base, LIMIT_UNARY_BYTES, ret_reply);
	if (failed != NULL) /* no memory: an empty reply, which is malformed to the client */
		*ret_reply = (struct buffer){0};
	if (reply.status != NULL)
		haul__v1__status__free_unpacked(reply.status, NULL);
	status_free(trouble);
	status_free(failed);
}

static void observe(const struct job *job, const status *st, int64_t since_us)
{
	const struct rpc_observer *observer = &job->listener->server->config.observer;
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	int64_t now_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
	if (observer->called != NULL)
		observer->called(observer->self, &job->call, st, now_us - since_us);
}

/* How long it took goes along with the answer. */
static void note_time(const struct job *job, int64_t since_us)
{
	char text[24];
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	int64_t now_us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
	(void)snprintf(text, sizeof(text), "%lld", (long long)(now_us - since_us));
	/* Without room the handler's own entries are worth more. */
	status_free(metadata_add_reserved(job->call.trailing, "haul-took-us", text));
}

/* Does the method's .proto say that it changes nothing? Unknown is no. */
static bool only_reads(const struct job *job)
{
	const struct schema_service *service =
	    schema_service(job->listener->server->schema, job->service->descriptor->name);
	const struct schema_method *method =
	    service != NULL ? service_method(service, job->method->name) : NULL;
	return method != NULL && method->has_no_side_effects && job->stream == NULL;
}

/* Runs a call that has not been run before, and remembers its answer under the ticket, if any. */
static void run_new(struct job *job, const uint64_t *ticket, struct buffer *ret_reply)
{
	struct timespec start;
	ProtobufCMessage *response = NULL;
	(void)clock_gettime(CLOCK_MONOTONIC, &start);
	struct running_call running;
	/* One that changes something may be asked for again, over another connection. */
	running_add(job->listener->server->running_calls, &job->call, ticket == NULL, &running);
	job->call.running = &running;
	status *st = run_handler(job, &response);
	job->call.running = NULL;
	running_remove(&running);
	note_time(job, (int64_t)start.tv_sec * 1000000 + start.tv_nsec / 1000);
	make_reply(st, response, job->call.trailing, ticket != NULL, ret_reply);
	if (ticket != NULL)
		dedupe_finish(job->listener->server->dedupe, *ticket, ret_reply);
	observe(job, st, (int64_t)start.tv_sec * 1000000 + start.tv_nsec / 1000);
	message_free(response);
	status_free(st);
}

static status *check_calls(const struct rpc_server *server, const struct job *job)
{
	unsigned most = 0;
	if (server->config.calls_most != NULL)
		most = server->config.calls_most(server->config.authorize_self, job->call.caller);
	if (most == 0 || job->origin->calls <= most)
		return NULL;
	return status_because(
	    status_retry_after(status_errorf(STATUS_RESOURCE_EXHAUSTED,
					     "'%s' has %u calls open already, and the policy gives "
					     "it no more; nothing was done",
					     job->call.caller->name, most),
			       CALLS_RETRY_MS),
	    REASON_TOO_MANY_CALLS);
}

static status *admit_call(struct job *job)
{
	struct rpc_server *server = job->listener->server;
	(void)pthread_mutex_lock(&server->lock);
	bool is_running = server->phase == SERVER_RUNS;
	(void)pthread_mutex_unlock(&server->lock);
	if (!is_running)
		return status_because(
		    status_retry_after(
			status_errorf(
			    STATUS_UNAVAILABLE,
			    "the engine is stopping and takes no new calls; nothing was done"),
			STOPPING_RETRY_MS),
		    REASON_ENGINE_STOPPING);
	status *st = NULL;
	if (server->config.authorize != NULL)
		st = server->config.authorize(server->config.authorize_self, job->call.caller,
					      job->request->method);
	if (st == NULL)
		st = check_calls(server, job);
	return st != NULL ? st : find_method(server, job);
}

/* Refused before anything was done: not remembered, the same request may come again. */
static void refuse(const struct job *job, status *st, struct buffer *ret_reply)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	make_reply(st, NULL, NULL, false, ret_reply);
	observe(job, st, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
	status_free(st);
}

static status *explain(enum dedupe_verdict verdict)
{
	switch (verdict) {
	case DEDUPE_DIFFERENT:
		return status_because(
		    status_errorf(
			STATUS_ALREADY_EXISTS,
			"another request was sent with the same request id; nothing was done"),
		    REASON_REQUEST_ID_REUSED);
	case DEDUPE_TIMEOUT:
		return status_errorf(STATUS_DEADLINE_EXCEEDED,
				     "the same request is still being carried out");
	case DEDUPE_FORGOTTEN:
		return status_errorf(STATUS_DATA_LOSS,
				     "this request was carried out, its answer is not kept any "
				     "more");
	default:
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "more changing calls at once than can be remembered; nothing "
				     "was done");
	}
}

/* Its thread is kept, so that there are only so many of them in that time. */
static void pause_for_others(const struct job *job)
{
	const struct rpc_server_config *config = &job->listener->server->config;
	int64_t most_ms =
	    config->pause_ms != NULL ? config->pause_ms(config->pause_self, job->call.method) : 0;
	int64_t pause_ms = most_ms > 0 ? rpc_call_budget_ms(&job->call, most_ms) : 0;
	const struct timespec pause = {.tv_sec = pause_ms / 1000,
				       .tv_nsec = pause_ms % 1000 * 1000000};
	if (pause_ms > 0)
		(void)nanosleep(&pause, NULL);
}

static void answer_request(struct job *job, struct buffer *ret_reply)
{
	uint64_t ticket = 0;
	status *st = admit_call(job);
	if (st != NULL) {
		refuse(job, st, ret_reply);
		return;
	}
	if (only_reads(job)) {
		pause_for_others(job);
		run_new(job, NULL, ret_reply);
		return;
	}
	enum dedupe_verdict verdict =
	    dedupe_begin(job->listener->server->dedupe, job->call.caller, job->request,
			 job->call.deadline_ms, &ticket, ret_reply);
	if (verdict == DEDUPE_RUN)
		run_new(job, &ticket, ret_reply);
	else if (verdict != DEDUPE_ANSWERED)
		refuse(job, explain(verdict), ret_reply);
}

/* Whoever calls may cancel it: it needs no other right, and goes on when the server stops. What is
 * not there, any more or yet, is fine. */
static void cancel_other(const struct listener *listener, const struct call_origin *origin,
			 const Haul__V1__Request *request, struct buffer *ret_reply)
{
	Haul__V1__Reply reply = HAUL__V1__REPLY__INIT;
	running_cancel(listener->server->running_calls, &origin->caller, request->cancels.data);
	reply.version = ENVELOPE_VERSION;
	status *failed = pack_message(&reply.base, LIMIT_UNARY_BYTES, ret_reply);
	if (failed != NULL) /* no memory: an empty reply, which is malformed to the client */
		*ret_reply = (struct buffer){0};
	status_free(failed);
}

void server_answer(struct listener *listener, const struct call_origin *origin, nng_msg *msg,
		   struct buffer *ret_reply)
{
	Haul__V1__Request *request = NULL;
	status *st = request_decode(nng_msg_body(msg), nng_msg_len(msg), &request);
	if (st != NULL) {
		make_reply(st, NULL, NULL, false, ret_reply);
		status_free(st);
		return;
	}
	if (request->cancels.len != 0) {
		cancel_other(listener, origin, request, ret_reply);
		haul__v1__request__free_unpacked(request, NULL);
		return;
	}
	scoped(metadata) Haul__V1__Metadata *trailing = metadata_new();
	struct job job = {.listener = listener, .origin = origin, .request = request};
	job.call.caller = &origin->caller;
	job.call.peer = origin->peer;
	job.call.method = request->method;
	job.call.connections = listener->connections;
	job.call.connection_id = nng_pipe_id(nng_msg_get_pipe(msg));
	job.call.request_id = request->request_id.data;
	job.call.handovers = listener->server->handovers;
	job.call.peer_pid = origin->caller.is_local ? connection_pid(nng_msg_get_pipe(msg)) : 0;
	job.call.metadata = request->metadata;
	job.call.trailing = trailing;
	if (request->timeout_ms > 0)
		job.call.deadline_ms = clock_monotonic_ms() + request->timeout_ms;
	connection_reached_host(nng_msg_get_pipe(msg), &listener->endpoint, job.call.server_host);
	answer_request(&job, ret_reply);
	haul__v1__request__free_unpacked(request, NULL);
}
