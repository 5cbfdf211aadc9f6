/* SPDX-License-Identifier: Apache-2.0 */
/* Every listener is a REP socket with `calls` contexts, each served by a thread of its own:
 * receive, dispatch, answer. A watchdog thread a listener closes silent connections and reports
 * refusals. All blocking nng operations are aios that rpc_server_stop can cancel: they are started
 * under the server's lock, after a look at the phase. */
#include "rpc/server.h"

#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/transport/ipc/ipc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "proto/envelope.h"
#include "rpc/connections.h"
#include "rpc/dedupe.h"
#include "rpc/nng_error.h"
#include "rpc/tls_engine.h"

enum {
	SERVER_LISTENERS = 8,
	WATCHDOG_MS = 500,
	REPLY_MS = 10000,
	/* Room for nng's own header in front of a request. */
	REQUEST_ROOM = 256,
};

enum server_phase { SERVER_RUNS, SERVER_DRAINS, SERVER_STOPPED };

struct listener;

struct worker {
	struct listener *listener;
	pthread_t thread;
	bool has_thread;
	bool is_busy; /* server->lock */
	nng_ctx ctx;
	nng_aio *aio;
};

struct listener {
	struct rpc_server *server;
	struct endpoint endpoint;
	nng_socket socket;
	bool has_socket;
	struct tls_context *tls;
	struct connections *connections;
	pthread_t watchdog;
	bool has_watchdog;
	unsigned worker_count;
	unsigned busy;	     /* server->lock */
	int64_t all_busy_ms; /* server->lock: when no worker was free last */
	struct worker *workers;
};

struct rpc_server {
	struct rpc_server_config config;
	struct dedupe *dedupe;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum server_phase phase;
	unsigned running; /* calls */
	unsigned listener_count;
	struct listener *listeners[SERVER_LISTENERS];
};

status *rpc_server_new(const struct rpc_server_config *config, struct rpc_server **ret_server)
{
	struct rpc_server *server = calloc(1, sizeof(*server));
	if (server == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a server");
	status *st = dedupe_new(&server->dedupe);
	if (st != NULL) {
		free(server);
		return st;
	}
	server->config = *config;
	pthread_condattr_t attr;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&server->changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	(void)pthread_mutex_init(&server->lock, NULL);
	*ret_server = server;
	return NULL;
}

/* One request on its way through the server. */
struct job {
	struct listener *listener;
	struct identity caller;
	const Haul__V1__Request *request;
	struct rpc_call call;
	const struct rpc_service *service;
	const ProtobufCMethodDescriptor *method;
	rpc_handler handler;
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
		job->handler = service->handlers[job->method - service->descriptor->methods];
		break;
	}
	if (job->handler == NULL)
		return status_errorf(STATUS_UNIMPLEMENTED, "this engine has no method %s",
				     job->request->method);
	return NULL;
}

static status *run_handler(const struct job *job, ProtobufCMessage **ret_response)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(job->method->input, job->request->payload.data,
				    job->request->payload.len, LIMIT_UNARY_BYTES, &message);
	if (st != NULL)
		return st;
	if (job->call.deadline_ms > 0 && monotonic_ms() >= job->call.deadline_ms)
		return status_errorf(STATUS_DEADLINE_EXCEEDED,
				     "the caller's time was over before %s began; nothing was done",
				     job->call.method);
	st = job->handler(job->service->self, &job->call, message, ret_response);
	if (st == NULL && *ret_response == NULL)
		return status_errorf(STATUS_INTERNAL, "%s gave no answer", job->call.method);
	return st;
}

/* A reply of this status or response. Replies are never refused for their size: a response that is
 * too large becomes an error, and errors are small. */
static void make_reply(const status *st, const ProtobufCMessage *response, struct buffer *ret_reply)
{
	Haul__V1__Reply reply = HAUL__V1__REPLY__INIT;
	scoped(buffer) struct buffer payload = {0};
	status *trouble = NULL;
	reply.version = ENVELOPE_VERSION;
	if (st == NULL) {
		trouble = pack_message(response, LIMIT_UNARY_BYTES - REQUEST_ROOM, &payload);
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

/* Runs a call that has not been run before, and remembers its answer. */
static void run_new(struct job *job, uint64_t ticket, struct buffer *ret_reply)
{
	struct timespec start;
	ProtobufCMessage *response = NULL;
	(void)clock_gettime(CLOCK_MONOTONIC, &start);
	status *st = run_handler(job, &response);
	make_reply(st, response, ret_reply);
	dedupe_finish(job->listener->server->dedupe, ticket, ret_reply);
	observe(job, st, (int64_t)start.tv_sec * 1000000 + start.tv_nsec / 1000);
	message_free(response);
	status_free(st);
}

static status *admit_call(struct job *job)
{
	struct rpc_server *server = job->listener->server;
	(void)pthread_mutex_lock(&server->lock);
	bool is_running = server->phase == SERVER_RUNS;
	(void)pthread_mutex_unlock(&server->lock);
	if (!is_running)
		return status_errorf(
		    STATUS_UNAVAILABLE,
		    "the engine is stopping and takes no new calls; nothing was done");
	status *st = NULL;
	if (server->config.authorize != NULL)
		st = server->config.authorize(server->config.authorize_self, &job->caller,
					      job->request->method);
	return st != NULL ? st : find_method(server, job);
}

static void answer_request(struct job *job, struct buffer *ret_reply)
{
	uint64_t ticket = 0;
	status *st = admit_call(job);
	if (st != NULL) {
		struct timespec now;
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
		make_reply(st, NULL, ret_reply);
		observe(job, st, (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000);
		status_free(st);
		return;
	}
	switch (dedupe_begin(job->listener->server->dedupe, &job->caller, job->request,
			     job->call.deadline_ms, &ticket, ret_reply)) {
	case DEDUPE_RUN:
		run_new(job, ticket, ret_reply);
		return;
	case DEDUPE_ANSWERED:
		return;
	case DEDUPE_DIFFERENT:
		st = status_errorf(
		    STATUS_ALREADY_EXISTS,
		    "another request was sent with the same request id; nothing was done");
		break;
	case DEDUPE_TIMEOUT:
		st = status_errorf(STATUS_DEADLINE_EXCEEDED,
				   "the same request is still being carried out");
		break;
	}
	make_reply(st, NULL, ret_reply);
	status_free(st);
}

static void handle_message(struct listener *listener, const struct identity *caller, nng_msg *msg,
			   struct buffer *ret_reply)
{
	Haul__V1__Request *request = NULL;
	status *st = request_decode(nng_msg_body(msg), nng_msg_len(msg), &request);
	if (st != NULL) {
		make_reply(st, NULL, ret_reply);
		status_free(st);
		return;
	}
	struct job job = {.listener = listener, .caller = *caller, .request = request};
	job.call.caller = &job.caller;
	job.call.method = request->method;
	if (request->timeout_ms > 0)
		job.call.deadline_ms = monotonic_ms() + request->timeout_ms;
	connection_reached_host(nng_msg_get_pipe(msg), &listener->endpoint, job.call.server_host);
	answer_request(&job, ret_reply);
	haul__v1__request__free_unpacked(request, NULL);
}

/* Starts `start` on the worker's aio unless the server has stopped, and waits. */
static int run_aio(struct worker *worker, void (*start)(nng_ctx, nng_aio *), bool is_receive)
{
	struct rpc_server *server = worker->listener->server;
	(void)pthread_mutex_lock(&server->lock);
	bool is_stopped = server->phase == SERVER_STOPPED;
	if (!is_stopped) {
		nng_aio_set_timeout(worker->aio, is_receive ? NNG_DURATION_INFINITE : REPLY_MS);
		start(worker->ctx, worker->aio);
	}
	(void)pthread_mutex_unlock(&server->lock);
	if (is_stopped)
		return NNG_ECLOSED;
	nng_aio_wait(worker->aio);
	return nng_aio_result(worker->aio);
}

static void set_busy(struct worker *worker, bool is_busy)
{
	struct listener *listener = worker->listener;
	struct rpc_server *server = listener->server;
	(void)pthread_mutex_lock(&server->lock);
	if (listener->busy == listener->worker_count)
		listener->all_busy_ms = monotonic_ms();
	worker->is_busy = is_busy;
	listener->busy = is_busy ? listener->busy + 1 : listener->busy - 1;
	server->running = is_busy ? server->running + 1 : server->running - 1;
	(void)pthread_cond_broadcast(&server->changed);
	(void)pthread_mutex_unlock(&server->lock);
}

static void send_reply(struct worker *worker, const struct buffer *reply)
{
	nng_msg *msg = NULL;
	if (nng_msg_alloc(&msg, 0) != 0)
		return;
	if (reply->size > 0 && nng_msg_append(msg, reply->data, reply->size) != 0) {
		nng_msg_free(msg);
		return;
	}
	nng_aio_set_msg(worker->aio, msg);
	if (run_aio(worker, nng_ctx_send, false) != 0) {
		nng_aio_set_msg(worker->aio, NULL);
		nng_msg_free(msg);
	}
}

static void serve_message(struct worker *worker, nng_msg *msg)
{
	struct listener *listener = worker->listener;
	struct identity caller;
	nng_pipe pipe = nng_msg_get_pipe(msg);
	/* Whoever is gone cannot be identified any more, and gets no answer anyway. */
	if (!connections_begin_call(listener->connections, pipe, &caller))
		return;
	scoped(buffer) struct buffer reply = {0};
	handle_message(listener, &caller, msg, &reply);
	send_reply(worker, &reply);
	connections_end_call(listener->connections, pipe);
}

static void *run_worker(void *argument)
{
	struct worker *worker = argument;
	for (;;) {
		int rv = run_aio(worker, nng_ctx_recv, true);
		if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
			return NULL;
		if (rv != 0) {
			nng_msleep(10); /* out of memory: not a reason to spin or to give up */
			continue;
		}
		nng_msg *msg = nng_aio_get_msg(worker->aio);
		nng_aio_set_msg(worker->aio, NULL);
		set_busy(worker, true);
		serve_message(worker, msg);
		nng_msg_free(msg);
		set_busy(worker, false);
	}
}

static void report_refusals(struct listener *listener)
{
	const struct rpc_observer *observer = &listener->server->config.observer;
	struct refusal refusal;
	struct tls_failure failure;
	while (connections_take_refusal(listener->connections, &refusal))
		if (observer->refused != NULL)
			observer->refused(observer->self, listener->endpoint.url, refusal.peer,
					  refusal.why);
	while (listener->tls != NULL && tls_context_take_failure(listener->tls, &failure))
		if (observer->refused != NULL)
			observer->refused(observer->self, listener->endpoint.url, "a TLS client",
					  failure.text);
}

/* A request that waits in nng for a free worker makes no call open yet: while all workers are busy,
 * and some time after, silence proves nothing. */
static bool may_close_silent(const struct listener *listener)
{
	return listener->busy < listener->worker_count &&
	       monotonic_ms() - listener->all_busy_ms > LIMIT_SILENT_MS;
}

static void *run_watchdog(void *argument)
{
	struct listener *listener = argument;
	struct rpc_server *server = listener->server;
	(void)pthread_mutex_lock(&server->lock);
	int64_t next_ms = monotonic_ms() + WATCHDOG_MS;
	while (server->phase != SERVER_STOPPED) {
		struct timespec until = {.tv_sec = next_ms / 1000,
					 .tv_nsec = (next_ms % 1000) * 1000000};
		if (pthread_cond_timedwait(&server->changed, &server->lock, &until) == 0)
			continue;
		bool may_close = may_close_silent(listener);
		(void)pthread_mutex_unlock(&server->lock);
		if (may_close)
			connections_close_silent(listener->connections);
		if (listener->tls != NULL)
			tls_context_close_stale(listener->tls);
		report_refusals(listener);
		next_ms = monotonic_ms() + WATCHDOG_MS;
		(void)pthread_mutex_lock(&server->lock);
	}
	(void)pthread_mutex_unlock(&server->lock);
	return NULL;
}

/* Wakes everything of the listener and waits for its threads; handlers are waited for. */
static void listener_join(struct listener *listener)
{
	for (unsigned i = 0; i < listener->worker_count; i++)
		if (listener->workers[i].has_thread)
			(void)pthread_join(listener->workers[i].thread, NULL);
	if (listener->has_watchdog)
		(void)pthread_join(listener->watchdog, NULL);
}

static void listener_free(struct listener *listener)
{
	if (listener == NULL)
		return;
	for (unsigned i = 0; listener->workers != NULL && i < listener->worker_count; i++)
		nng_aio_free(listener->workers[i].aio);
	if (listener->has_socket)
		(void)nng_socket_close(listener->socket);
	connections_free(listener->connections);
	tls_context_free(listener->tls);
	free(listener->workers);
	free(listener);
}
DEFINE_SCOPE(listener, struct listener *, listener_free);

/* A socket file that nobody answers at is left over; one that somebody answers at is in use. */
static status *check_socket_file(const struct endpoint *endpoint)
{
	struct stat stat_buffer;
	if (lstat(endpoint->host, &stat_buffer) != 0)
		return errno == ENOENT ? NULL
				       : status_errnof(errno, "cannot look at %s", endpoint->host);
	if (!S_ISSOCK(stat_buffer.st_mode))
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "%s exists and is not a socket; move it away", endpoint->host);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	memcpy(address.sun_path, endpoint->host, strlen(endpoint->host) + 1);
	scoped(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return status_errnof(errno, "cannot make a socket");
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN)
		return status_errorf(
		    STATUS_ALREADY_EXISTS,
		    "another process serves %s; stop it first, or use another socket",
		    endpoint->host);
	if (errno != ECONNREFUSED)
		return status_errnof(errno, "cannot use %s", endpoint->host);
	if (unlink(endpoint->host) != 0 && errno != ENOENT)
		return status_errnof(errno, "cannot remove the stale socket %s", endpoint->host);
	return NULL;
}

static status *open_socket(struct listener *listener)
{
	int rv = nng_rep0_open(&listener->socket);
	if (rv != 0)
		return nng_errorf(rv, "cannot open a socket");
	listener->has_socket = true;
	/* Before the endpoint: it takes the limit over when it is made. */
	rv = nng_socket_set_size(listener->socket, NNG_OPT_RECVMAXSZ,
				 LIMIT_UNARY_BYTES + REQUEST_ROOM);
	if (rv == 0)
		rv = nng_pipe_notify(listener->socket, NNG_PIPE_EV_ADD_PRE, connections_on_pipe,
				     listener->connections);
	if (rv == 0)
		rv = nng_pipe_notify(listener->socket, NNG_PIPE_EV_REM_POST, connections_on_pipe,
				     listener->connections);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot set up a socket");
}

static status *open_endpoint(struct listener *listener, const struct credentials *credentials)
{
	nng_listener handle;
	const struct endpoint *endpoint = &listener->endpoint;
	status *st = endpoint->transport == TRANSPORT_IPC ? check_socket_file(endpoint) : NULL;
	if (st != NULL)
		return st;
	int rv = nng_listener_create(&handle, listener->socket, endpoint->url);
	if (rv != 0)
		return nng_errorf(rv, "cannot listen at %s", endpoint->url);
	if (endpoint->transport == TRANSPORT_TLS) {
		st = tls_context_new(credentials, NULL, &listener->tls);
		if (st == NULL)
			st = tls_context_apply_to_listener(listener->tls, handle);
		if (st != NULL)
			return st;
	}
	/* nng sets the mode between bind and listen: there is no moment in which others get in. */
	if (endpoint->transport == TRANSPORT_IPC)
		rv = nng_listener_set_int(handle, NNG_OPT_IPC_PERMISSIONS, 0600);
	else
		rv = nng_listener_set_bool(handle, NNG_OPT_TCP_KEEPALIVE, true);
	if (rv == 0)
		rv = nng_listener_start(handle, 0);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot listen at %s", endpoint->url);
}

static status *open_workers(struct listener *listener, unsigned calls)
{
	listener->workers = calloc(calls, sizeof(*listener->workers));
	if (listener->workers == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for %u calls", calls);
	listener->worker_count = calls;
	for (unsigned i = 0; i < calls; i++) {
		struct worker *worker = &listener->workers[i];
		worker->listener = listener;
		int rv = nng_ctx_open(&worker->ctx, listener->socket);
		if (rv == 0)
			rv = nng_aio_alloc(&worker->aio, NULL, NULL);
		if (rv != 0)
			return nng_errorf(rv, "cannot prepare %u calls", calls);
	}
	return NULL;
}

static status *start_threads(struct listener *listener)
{
	for (unsigned i = 0; i < listener->worker_count; i++) {
		struct worker *worker = &listener->workers[i];
		int err = pthread_create(&worker->thread, NULL, run_worker, worker);
		if (err != 0)
			return status_errnof(err, "cannot start a thread");
		worker->has_thread = true;
	}
	int err = pthread_create(&listener->watchdog, NULL, run_watchdog, listener);
	if (err != 0)
		return status_errnof(err, "cannot start a thread");
	listener->has_watchdog = true;
	return NULL;
}

status *rpc_server_listen(struct rpc_server *server, const char *url,
			  const struct credentials *credentials, unsigned calls)
{
	scoped(listener) struct listener *listener = calloc(1, sizeof(*listener));
	if (listener == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a listener");
	if (server->listener_count == SERVER_LISTENERS)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "at most %d listeners are possible",
				     SERVER_LISTENERS);
	listener->server = server;
	status *st = endpoint_parse(url, &listener->endpoint);
	if (st != NULL)
		return st;
	if (listener->endpoint.transport == TRANSPORT_TLS && credentials == NULL)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "%s needs a certificate, its key and a certificate authority",
				     url);
	st = connections_new(listener->endpoint.transport, &listener->connections);
	if (st == NULL)
		st = open_socket(listener);
	if (st == NULL)
		st = open_workers(listener, calls > 0 ? calls : 1);
	if (st == NULL)
		st = open_endpoint(listener, credentials);
	if (st != NULL)
		return st;
	/* From here the server owns it: threads that did start end with the server. */
	struct listener *owned = TAKE(listener);
	server->listeners[server->listener_count++] = owned;
	return start_threads(owned);
}

void rpc_server_stop(struct rpc_server *server, int64_t grace_ms)
{
	int64_t deadline_ms = monotonic_ms() + grace_ms;
	struct timespec until = {.tv_sec = deadline_ms / 1000,
				 .tv_nsec = (deadline_ms % 1000) * 1000000};
	(void)pthread_mutex_lock(&server->lock);
	if (server->phase == SERVER_RUNS)
		server->phase = SERVER_DRAINS;
	while (server->running > 0 && server->phase != SERVER_STOPPED)
		if (pthread_cond_timedwait(&server->changed, &server->lock, &until) != 0)
			break;
	server->phase = SERVER_STOPPED;
	(void)pthread_cond_broadcast(&server->changed);
	for (unsigned i = 0; i < server->listener_count; i++)
		for (unsigned j = 0; j < server->listeners[i]->worker_count; j++)
			nng_aio_cancel(server->listeners[i]->workers[j].aio);
	(void)pthread_mutex_unlock(&server->lock);
	dedupe_stop(server->dedupe);
	for (unsigned i = 0; i < server->listener_count; i++) {
		struct listener *listener = server->listeners[i];
		if (listener->has_socket)
			(void)nng_socket_close(listener->socket);
		listener->has_socket = false;
	}
}

void rpc_server_free(struct rpc_server *server)
{
	if (server == NULL)
		return;
	rpc_server_stop(server, 0);
	for (unsigned i = 0; i < server->listener_count; i++) {
		listener_join(server->listeners[i]);
		listener_free(server->listeners[i]);
	}
	dedupe_free(server->dedupe);
	(void)pthread_cond_destroy(&server->changed);
	(void)pthread_mutex_destroy(&server->lock);
	free(server);
}
