/* SPDX-License-Identifier: Apache-2.0 */
/* Every listener is a REP socket with `calls` contexts, each served by a thread of its own:
 * receive, dispatch, answer. A watchdog thread a listener closes silent connections and reports
 * refusals. rpc_server_stop cancels what waits for a request; a reply ends with its socket. */
#include "proto/clock.h"
#include "rpc/server_internal.h"

#include <errno.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/transport/ipc/ipc.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "rpc/nng_error.h"
#include "rpc/tls_engine.h"

enum { WATCHDOG_MS = 500, REPLY_MS = 10000 };
status *rpc_server_new(const struct rpc_server_config *config, struct rpc_server **ret_server)
{
	struct rpc_server *server = calloc(1, sizeof(*server));
	if (server == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a server");
	status *st = dedupe_new(NULL, &server->dedupe);
	if (st == NULL)
		st = schema_load_own(&server->schema);
	if (st == NULL)
		st = running_calls_new(&server->running_calls);
	if (st == NULL)
		st = handovers_new(&server->handovers);
	if (st == NULL)
		st = rpc_streams_new(&config->stream_place, config->streams_most,
				     config->authorize_self, &server->streams);
	if (st != NULL) {
		dedupe_free(server->dedupe);
		schema_free(server->schema);
		running_calls_free(server->running_calls);
		handovers_free(server->handovers);
		free(server);
		return st;
	}
	server->config = *config;
	clock_cond_init(&server->changed);
	(void)pthread_mutex_init(&server->lock, NULL);
	*ret_server = server;
	return NULL;
}

static void set_busy(struct worker *worker, bool is_busy)
{
	struct listener *listener = worker->listener;
	struct rpc_server *server = listener->server;
	(void)pthread_mutex_lock(&server->lock);
	if (listener->busy == listener->worker_count)
		listener->all_busy_ms = clock_monotonic_ms();
	worker->is_busy = is_busy;
	listener->busy = is_busy ? listener->busy + 1 : listener->busy - 1;
	server->running = is_busy ? server->running + 1 : server->running - 1;
	/* Only rpc_server_stop waits for it; the watchdogs need not wake up for each call. */
	if (server->phase != SERVER_RUNS)
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
	(void)context_reply(worker->context, REPLY_MS, msg);
}

static void serve_message(struct worker *worker, nng_msg *msg)
{
	struct listener *listener = worker->listener;
	struct call_origin origin;
	nng_pipe pipe = nng_msg_get_pipe(msg);
	/* Whoever is gone cannot be identified any more, and gets no answer anyway. */
	if (!connections_begin_call(listener->connections, pipe, &origin))
		return;
	scoped(buffer) struct buffer reply = {0};
	server_answer(listener, &origin, msg, &reply);
	send_reply(worker, &reply);
	connections_end_call(listener->connections, pipe);
}

static void *run_worker(void *argument)
{
	struct worker *worker = argument;
	for (;;) {
		nng_msg *msg = NULL;
		int rv = context_receive(worker->context, NNG_DURATION_INFINITE, &msg);
		if (rv == NNG_ECLOSED || rv == NNG_ECANCELED)
			return NULL;
		if (rv != 0) {
			nng_msleep(10); /* out of memory: not a reason to spin or to give up */
			continue;
		}
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
			observer->refused(observer->self, listener->endpoint.url, failure.peer,
					  failure.text);
}

/* A request that waits in nng for a free worker makes no call open yet: while all workers are busy,
 * and some time after, silence proves nothing. */
static bool may_close_silent(const struct listener *listener)
{
	return listener->busy < listener->worker_count &&
	       clock_monotonic_ms() - listener->all_busy_ms > LIMIT_SILENT_MS;
}

/* Whoever waits for its sake ends at once; the watchdog sees to it, at its next round if it just
 * looks elsewhere. */
static void on_loss(void *self)
{
	struct listener *listener = self;
	atomic_store(&listener->has_lost, true);
	(void)pthread_cond_broadcast(&listener->server->changed);
}

static void *run_watchdog(void *argument)
{
	struct listener *listener = argument;
	struct rpc_server *server = listener->server;
	(void)pthread_mutex_lock(&server->lock);
	int64_t next_ms = clock_monotonic_ms() + WATCHDOG_MS;
	while (server->phase != SERVER_STOPPED) {
		struct timespec until = clock_at(next_ms);
		int rv = pthread_cond_timedwait(&server->changed, &server->lock, &until);
		if (atomic_exchange(&listener->has_lost, false))
			running_cancel_lost(server->running_calls, listener->connections);
		if (rv == 0)
			continue;
		bool may_close = may_close_silent(listener);
		(void)pthread_mutex_unlock(&server->lock);
		if (may_close)
			connections_close_silent(listener->connections);
		if (listener->endpoint.transport == TRANSPORT_SOCKET)
			handovers_tend(server->handovers, listener->connections);
		if (listener->tls != NULL)
			tls_context_close_unfit(listener->tls);
		report_refusals(listener);
		next_ms = clock_monotonic_ms() + WATCHDOG_MS;
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
		context_free(listener->workers[i].context);
	if (listener->tls != NULL)
		tls_context_close_all(listener->tls);
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
		int rv = context_new(listener->socket, &worker->context);
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

/* A listener of this endpoint; of TRANSPORT_SOCKET it is one that sockets are handed over to. */
static status *open_listener(struct rpc_server *server, const struct endpoint *endpoint,
			     const struct credentials *credentials, unsigned calls)
{
	scoped(listener) struct listener *listener = calloc(1, sizeof(*listener));
	if (listener == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a listener");
	if (server->listener_count == SERVER_LISTENERS)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "at most %d listeners are possible",
				     SERVER_LISTENERS);
	listener->server = server;
	listener->endpoint = *endpoint;
	status *st = connections_new(listener->endpoint.transport, &listener->connections);
	if (st == NULL)
		connections_on_loss(listener->connections, on_loss, listener);
	if (st == NULL)
		st = open_socket(listener);
	if (st == NULL)
		st = open_workers(listener, calls > 0 ? calls : 1);
	if (st == NULL && endpoint->transport != TRANSPORT_SOCKET)
		st = open_endpoint(listener, credentials);
	if (st != NULL)
		return st;
	if (endpoint->transport == TRANSPORT_SOCKET) {
		connections_set_identify(listener->connections, handovers_identify,
					 server->handovers);
		handovers_set_socket(server->handovers, listener->socket);
	}
	/* From here the server owns it: threads that did start end with the server. */
	struct listener *owned = TAKE(listener);
	server->listeners[server->listener_count++] = owned;
	return start_threads(owned);
}

status *rpc_server_listen(struct rpc_server *server, const char *url,
			  const struct credentials *credentials, unsigned calls)
{
	struct endpoint endpoint;
	status *st = endpoint_parse(url, &endpoint);
	if (st != NULL)
		return st;
	if (endpoint.transport == TRANSPORT_TLS && credentials == NULL)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "%s needs a certificate, its key and a certificate authority",
				     url);
	return open_listener(server, &endpoint, credentials, calls);
}

status *rpc_server_take_handovers(struct rpc_server *server, unsigned calls)
{
	const struct endpoint endpoint = {.transport = TRANSPORT_SOCKET,
					  .url = "a socket that was handed over"};
	return open_listener(server, &endpoint, NULL, calls);
}

struct handovers *rpc_server_handovers(struct rpc_server *server)
{
	return server->handovers;
}

void rpc_server_stop(struct rpc_server *server, int64_t grace_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + grace_ms;
	struct timespec until = clock_at(deadline_ms);
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
			context_cancel(server->listeners[i]->workers[j].context);
	(void)pthread_mutex_unlock(&server->lock);
	dedupe_stop(server->dedupe);
	rpc_streams_stop(server->streams, left_ms(deadline_ms));
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
	rpc_streams_free(server->streams);
	dedupe_free(server->dedupe);
	schema_free(server->schema);
	running_calls_free(server->running_calls);
	handovers_free(server->handovers);
	(void)pthread_cond_destroy(&server->changed);
	(void)pthread_mutex_destroy(&server->lock);
	free(server);
}
