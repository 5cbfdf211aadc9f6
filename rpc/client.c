/* SPDX-License-Identifier: Apache-2.0 */
/* One REQ socket, at most one connection, one context a call.
 *
 * nng connects again by itself and never says why it could not; so every connection gets a dialer
 * of its own, which one caller (`is_dialing`) makes while the others wait, and which is closed when
 * it is lost or not needed for a while: the server drops silent connections, and a request that
 * leaves at that very moment would have an unknown fate.
 *
 * A request leaves when nng's send completes. Before that everything is "not sent": the send is
 * tried in slices, and between them the connection is looked after. After that nothing is tried
 * again: resending is switched off in nng, too.
 *
 * All aios are started under the lock after a look at is_interrupted, and are in the list of calls:
 * rpc_client_interrupt finds each of them. */
#include "rpc/client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "proto/envelope.h"
#include "rpc/nng_error.h"
#include "rpc/tls_engine.h"

enum {
	SEND_SLICE_MS = 500,
	DIAL_SLICE_MS = 20,
	RECONNECT_MS = 100,
	/* A connection unused for longer is made anew: half the time after which the server drops
	   it. */
	IDLE_MS = LIMIT_SILENT_MS / 2,
	/* Nobody listens: a service that restarts is back by then, and a person is not kept
	   waiting. */
	REFUSED_MS = 3000,
	PROBE_MS = 200,
	NEVER_MS = 24 * 3600 * 1000,
};

struct call {
	struct call *next;
	nng_ctx ctx;
	nng_aio *aio;
	int64_t deadline_ms;
	bool is_active; /* counted in the client */
};

struct rpc_client {
	struct endpoint endpoint;
	const struct credentials *credentials;
	nng_socket socket;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_interrupted;
	bool is_dialing;
	bool has_dialer;
	bool is_suspect; /* a call went unanswered: do not trust the connection */
	nng_dialer dialer;
	int pipe_id; /* of the connection, 0 = none */
	int64_t used_ms;
	unsigned active; /* calls between connect and their end */
	struct call *calls;
};

static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *self)
{
	struct rpc_client *client = self;
	(void)pthread_mutex_lock(&client->lock);
	if (event == NNG_PIPE_EV_ADD_POST) {
		if (client->has_dialer &&
		    nng_dialer_id(nng_pipe_dialer(pipe)) == nng_dialer_id(client->dialer))
			client->pipe_id = nng_pipe_id(pipe);
	} else if (client->pipe_id == nng_pipe_id(pipe)) {
		client->pipe_id = 0;
	}
	(void)pthread_cond_broadcast(&client->changed);
	(void)pthread_mutex_unlock(&client->lock);
}

static status *open_socket(struct rpc_client *client)
{
	int rv = nng_req0_open(&client->socket);
	if (rv != 0)
		return nng_errorf(rv, "cannot open a socket");
	/* Before contexts and dialers: they take these over when they are made. */
	rv = nng_socket_set_ms(client->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
	if (rv == 0)
		rv =
		    nng_socket_set_size(client->socket, NNG_OPT_RECVMAXSZ, LIMIT_UNARY_BYTES + 256);
	if (rv == 0)
		rv = nng_pipe_notify(client->socket, NNG_PIPE_EV_ADD_POST, on_pipe, client);
	if (rv == 0)
		rv = nng_pipe_notify(client->socket, NNG_PIPE_EV_REM_POST, on_pipe, client);
	if (rv != 0)
		(void)nng_socket_close(client->socket);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot set up a socket");
}

status *rpc_client_new(const char *url, const struct credentials *credentials,
		       struct rpc_client **ret_client)
{
	struct endpoint endpoint;
	status *st = endpoint_parse(url, &endpoint);
	if (st != NULL)
		return st;
	if (endpoint.transport == TRANSPORT_TLS && credentials == NULL)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "%s needs a certificate, its key and a certificate authority",
				     url);
	struct rpc_client *client = calloc(1, sizeof(*client));
	if (client == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a client");
	client->endpoint = endpoint;
	client->credentials = credentials;
	pthread_condattr_t attr;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&client->changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	(void)pthread_mutex_init(&client->lock, NULL);
	st = open_socket(client);
	if (st != NULL) {
		(void)pthread_cond_destroy(&client->changed);
		(void)pthread_mutex_destroy(&client->lock);
		free(client);
		return st;
	}
	*ret_client = client;
	return NULL;
}

/* Marks a failure before the request left; see rpc_client_may_have_run. */
static status *unsent(status *st)
{
	return status_detailf(st, "sent", "no");
}

static status *sent(status *st)
{
	return status_detailf(st, "sent",
			      "yes: the request left, whether it was carried out is not known");
}

bool rpc_client_may_have_run(const status *st)
{
	const char *text = status_detail_find(st, "sent");
	return st != NULL && (text == NULL || strcmp(text, "no") != 0);
}

static status *interrupted(void)
{
	return status_errorf(STATUS_CANCELLED, "the call was interrupted");
}

/* Why a plain connection does not come about: the errno of one try, 0 when it does. */
static int probe_address(const struct sockaddr *address, socklen_t size)
{
	scoped(fd) int fd =
	    socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return errno;
	if (connect(fd, address, size) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return errno;
	struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};
	int err = ETIMEDOUT;
	socklen_t length = sizeof(err);
	if (poll(&poll_fd, 1, PROBE_MS) == 1)
		(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &length);
	return err;
}

/* Only for numeric hosts, localhost and paths: a name server's silence must not add to ours. */
static int probe(const struct endpoint *endpoint)
{
	if (endpoint->transport == TRANSPORT_IPC) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		memcpy(un.sun_path, endpoint->host, strlen(endpoint->host) + 1);
		return probe_address((const struct sockaddr *)&un, sizeof(un));
	}
	bool is_localhost = strcmp(endpoint->host, "localhost") == 0;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = is_localhost ? 0 : AI_NUMERICHOST};
	struct addrinfo *list = NULL;
	char port[8];
	(void)snprintf(port, sizeof(port), "%u", endpoint->port);
	if (getaddrinfo(endpoint->host, port, &hints, &list) != 0)
		return 0;
	int err = ETIMEDOUT;
	for (const struct addrinfo *item = list; item != NULL && err != 0; item = item->ai_next)
		err = probe_address(item->ai_addr, item->ai_addrlen);
	freeaddrinfo(list);
	return err;
}

static status *not_connected(const struct rpc_client *client, const char *tls_text)
{
	const char *url = client->endpoint.url;
	char buffer[128];
	if (tls_text[0] != '\0')
		return status_errorf(STATUS_UNAVAILABLE,
				     "not connected to %s, the request has not left: %s", url,
				     tls_text);
	int err = probe(&client->endpoint);
	return status_errorf(STATUS_UNAVAILABLE,
			     "not connected to %s, the request has not left: %s", url,
			     err != 0
				 ? strerror_r(err, buffer, sizeof(buffer))
				 : "no answer in time (is the name right, is the server well?)");
}

static void wait_until(struct rpc_client *client, int64_t deadline_ms)
{
	struct timespec until = {.tv_sec = deadline_ms / 1000,
				 .tv_nsec = (deadline_ms % 1000) * 1000000};
	(void)pthread_cond_timedwait(&client->changed, &client->lock, &until);
}

/* Waits until the dialer is connected; caller holds the lock. */
static status *wait_connected(struct rpc_client *client, struct tls_context *tls,
			      int64_t deadline_ms)
{
	struct tls_failure failure = {0};
	int64_t refused_ms = monotonic_ms() + REFUSED_MS;
	while (client->pipe_id == 0) {
		int64_t now = monotonic_ms();
		if (client->is_interrupted)
			return interrupted();
		if (tls != NULL && tls_context_take_failure(tls, &failure) && failure.is_auth)
			return status_errorf(STATUS_UNAUTHENTICATED,
					     "not connected to %s, the request has not left: %s",
					     client->endpoint.url, failure.text);
		if (now >= deadline_ms)
			return not_connected(client, failure.text);
		if (now >= refused_ms && failure.text[0] == '\0') {
			int err = probe(&client->endpoint);
			if (err == ECONNREFUSED || err == ENOENT)
				return not_connected(client, "");
			refused_ms = now + REFUSED_MS;
		}
		wait_until(client,
			   now + DIAL_SLICE_MS < deadline_ms ? now + DIAL_SLICE_MS : deadline_ms);
	}
	return NULL;
}

static status *make_dialer(struct rpc_client *client, struct tls_context *tls,
			   nng_dialer *ret_dialer)
{
	nng_dialer dialer;
	int rv = nng_dialer_create(&dialer, client->socket, client->endpoint.url);
	if (rv != 0)
		return nng_errorf(rv, "cannot connect to %s", client->endpoint.url);
	status *st = tls != NULL ? tls_context_apply_to_dialer(tls, dialer) : NULL;
	rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, RECONNECT_MS);
	if (rv == 0)
		rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, RECONNECT_MS);
	if (rv == 0 && client->endpoint.transport != TRANSPORT_IPC)
		rv = nng_dialer_set_bool(dialer, NNG_OPT_TCP_KEEPALIVE, true);
	if (st == NULL && rv != 0)
		st = nng_errorf(rv, "cannot connect to %s", client->endpoint.url);
	if (st != NULL) {
		(void)nng_dialer_close(dialer);
		return st;
	}
	*ret_dialer = dialer;
	return NULL;
}

/* Takes the dialer out; caller holds the lock and closes it without. */
static bool take_dialer(struct rpc_client *client, nng_dialer *ret_dialer)
{
	bool had = client->has_dialer;
	*ret_dialer = client->dialer;
	client->has_dialer = false;
	client->pipe_id = 0;
	client->is_suspect = false;
	return had;
}

/* Makes the connection anew. Caller holds the lock, which is given up meanwhile, and is_dialing. */
static status *dial(struct rpc_client *client, int64_t deadline_ms)
{
	scoped(tls_context) struct tls_context *tls = NULL;
	nng_dialer old;
	nng_dialer dialer;
	bool had = take_dialer(client, &old);
	(void)pthread_mutex_unlock(&client->lock);
	if (had)
		(void)nng_dialer_close(old);
	status *st = NULL;
	if (client->endpoint.transport == TRANSPORT_TLS)
		st = tls_context_new(client->credentials, client->endpoint.host, &tls);
	if (st == NULL)
		st = make_dialer(client, tls, &dialer);
	(void)pthread_mutex_lock(&client->lock);
	if (st != NULL)
		return st;
	client->dialer = dialer;
	client->has_dialer = true;
	int rv = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
	st = rv == 0 ? wait_connected(client, tls, deadline_ms)
		     : nng_errorf(rv, "cannot connect to %s", client->endpoint.url);
	if (st == NULL) {
		/* From now on losing it must not bring it back. */
		(void)nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, NEVER_MS);
		(void)nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, NEVER_MS);
		return NULL;
	}
	had = take_dialer(client, &old);
	(void)pthread_mutex_unlock(&client->lock);
	if (had)
		(void)nng_dialer_close(old);
	(void)pthread_mutex_lock(&client->lock);
	return st;
}

static bool is_usable(const struct rpc_client *client)
{
	bool is_stale = client->is_suspect || monotonic_ms() - client->used_ms > IDLE_MS;
	return client->pipe_id != 0 && (client->active > 0 || !is_stale);
}

/* Sees to it that there is a connection; caller holds the lock. */
static status *connect_client(struct rpc_client *client, int64_t deadline_ms)
{
	while (!client->is_interrupted) {
		if (is_usable(client)) {
			client->used_ms = monotonic_ms();
			return NULL;
		}
		if (monotonic_ms() >= deadline_ms)
			return not_connected(client, "");
		if (client->is_dialing) {
			wait_until(client, deadline_ms);
			continue;
		}
		client->is_dialing = true;
		status *st = dial(client, deadline_ms);
		client->is_dialing = false;
		client->used_ms = monotonic_ms();
		(void)pthread_cond_broadcast(&client->changed);
		if (st != NULL)
			return st;
	}
	return interrupted();
}

/* Hands the message to nng, when there is a connection to take it. On success nng owns it. */
static status *send_request(struct rpc_client *client, struct call *call, nng_msg *msg)
{
	for (;;) {
		(void)pthread_mutex_lock(&client->lock);
		status *st = connect_client(client, call->deadline_ms);
		int32_t slice = left_ms(call->deadline_ms);
		if (st == NULL) {
			client->active += call->is_active ? 0 : 1;
			call->is_active = true;
			nng_aio_set_msg(call->aio, msg);
			nng_aio_set_timeout(call->aio,
					    slice < SEND_SLICE_MS ? slice : SEND_SLICE_MS);
			nng_ctx_send(call->ctx, call->aio);
		}
		(void)pthread_mutex_unlock(&client->lock);
		if (st != NULL)
			return st;
		nng_aio_wait(call->aio);
		int rv = nng_aio_result(call->aio);
		if (rv == 0)
			return NULL;
		nng_aio_set_msg(call->aio, NULL);
		if (rv != NNG_ETIMEDOUT && rv != NNG_ECANCELED)
			return nng_errorf(rv, "cannot send to %s, the request has not left",
					  client->endpoint.url);
	}
}

static status *receive_error(struct rpc_client *client, const struct call *call, int rv)
{
	const char *url = client->endpoint.url;
	(void)pthread_mutex_lock(&client->lock);
	bool is_interrupted = client->is_interrupted;
	client->is_suspect = true;
	(void)pthread_mutex_unlock(&client->lock);
	if (is_interrupted)
		return interrupted();
	if (rv == NNG_ETIMEDOUT || left_ms(call->deadline_ms) == 0)
		return status_errorf(STATUS_DEADLINE_EXCEEDED, "%s did not answer in time", url);
	return status_errorf(STATUS_UNAVAILABLE,
			     "the connection to %s broke before the answer came: %s", url,
			     nng_strerror(rv));
}

static status *receive_reply(struct rpc_client *client, struct call *call, nng_msg **ret_msg)
{
	(void)pthread_mutex_lock(&client->lock);
	bool is_interrupted = client->is_interrupted;
	if (!is_interrupted) {
		nng_aio_set_timeout(call->aio, left_ms(call->deadline_ms));
		nng_ctx_recv(call->ctx, call->aio);
	}
	(void)pthread_mutex_unlock(&client->lock);
	if (is_interrupted)
		return interrupted();
	nng_aio_wait(call->aio);
	int rv = nng_aio_result(call->aio);
	if (rv != 0)
		return receive_error(client, call, rv);
	*ret_msg = nng_aio_get_msg(call->aio);
	nng_aio_set_msg(call->aio, NULL);
	return NULL;
}

/* The server's own words; a "sent" in them is about a call of the server's. */
static status *verdict_of_server(const status *verdict)
{
	status *st = status_errorf(status_code_of(verdict), "%s", status_message(verdict));
	for (size_t i = 0; i < status_detail_count(verdict); i++) {
		struct status_detail detail = status_detail_at(verdict, i);
		if (strcmp(detail.label, "sent") != 0)
			st = status_detailf(st, detail.label, "%s", detail.text);
	}
	return st;
}

static status *decode_reply(const ProtobufCMethodDescriptor *method, nng_msg *msg,
			    ProtobufCMessage **ret_response)
{
	Haul__V1__Reply *reply = NULL;
	scoped(status) status *verdict = NULL;
	status *st = reply_decode(nng_msg_body(msg), nng_msg_len(msg), &reply, &verdict);
	if (st != NULL)
		return sent(st);
	if (verdict != NULL)
		st = verdict_of_server(verdict);
	else
		st = unpack_message(method->output, reply->payload.data, reply->payload.len,
				    LIMIT_UNARY_BYTES, ret_response);
	if (st != NULL && verdict == NULL)
		st = sent(
		    status_recode(status_wrapf(st, "the server's response"), STATUS_DATA_LOSS));
	haul__v1__reply__free_unpacked(reply, NULL);
	return st;
}

static status *exchange(struct rpc_client *client, struct call *call,
			const ProtobufCMethodDescriptor *method, nng_msg *request,
			ProtobufCMessage **ret_response)
{
	nng_msg *reply = NULL;
	status *st = send_request(client, call, request);
	if (st != NULL) {
		nng_msg_free(request);
		return unsent(st);
	}
	st = receive_reply(client, call, &reply);
	if (st != NULL)
		return sent(st);
	st = decode_reply(method, reply, ret_response);
	nng_msg_free(reply);
	return st;
}

/* The envelope around the request, as one nng message. */
static status *make_message(const char *name, const ProtobufCMessage *request, int64_t timeout_ms,
			    nng_msg **ret_msg)
{
	uint8_t id[REQUEST_ID_BYTES];
	scoped(buffer) struct buffer payload = {0};
	scoped(buffer) struct buffer whole = {0};
	scoped(str) char *method = text_copy(name);
	if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
		return status_errnof(errno, "the kernel gives no random numbers");
	status *st = pack_message(request, LIMIT_UNARY_BYTES, &payload);
	if (st != NULL)
		return st;
	Haul__V1__Request envelope = HAUL__V1__REQUEST__INIT;
	envelope.version = ENVELOPE_VERSION;
	envelope.method = method;
	envelope.request_id = (ProtobufCBinaryData){.len = sizeof(id), .data = id};
	envelope.timeout_ms = (uint32_t)(timeout_ms < UINT32_MAX ? timeout_ms : UINT32_MAX);
	envelope.payload = (ProtobufCBinaryData){.len = payload.size, .data = payload.data};
	st = pack_message(&envelope.base, LIMIT_UNARY_BYTES, &whole);
	if (st != NULL)
		return st;
	nng_msg *msg = NULL;
	int rv = nng_msg_alloc(&msg, whole.size);
	if (rv != 0)
		return nng_errorf(rv, "no memory for a request");
	memcpy(nng_msg_body(msg), whole.data, whole.size);
	*ret_msg = msg;
	return NULL;
}

static status *open_call(struct rpc_client *client, struct call *call)
{
	int rv = nng_ctx_open(&call->ctx, client->socket);
	if (rv != 0)
		return nng_errorf(rv, "cannot open a call");
	rv = nng_aio_alloc(&call->aio, NULL, NULL);
	if (rv != 0) {
		(void)nng_ctx_close(call->ctx);
		return nng_errorf(rv, "cannot open a call");
	}
	(void)pthread_mutex_lock(&client->lock);
	call->next = client->calls;
	client->calls = call;
	(void)pthread_mutex_unlock(&client->lock);
	return NULL;
}

static void close_call(struct rpc_client *client, struct call *call)
{
	(void)pthread_mutex_lock(&client->lock);
	struct call **at = &client->calls;
	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	client->active -= call->is_active ? 1 : 0;
	client->used_ms = monotonic_ms();
	(void)pthread_mutex_unlock(&client->lock);
	nng_aio_free(call->aio);
	(void)nng_ctx_close(call->ctx);
}

status *rpc_client_call(struct rpc_client *client, const ProtobufCServiceDescriptor *service,
			const char *method, const ProtobufCMessage *request, int64_t timeout_ms,
			ProtobufCMessage **ret_response)
{
	char name[LIMIT_NAME + 1];
	nng_msg *msg = NULL;
	struct call call = {.deadline_ms = monotonic_ms() + timeout_ms};
	const ProtobufCMethodDescriptor *descriptor =
	    protobuf_c_service_descriptor_get_method_by_name(service, method);
	if (descriptor == NULL || snprintf(name, sizeof(name), "/%s/%s", service->name, method) < 0)
		return unsent(status_errorf(STATUS_UNIMPLEMENTED, "there is no method %s in %s",
					    method, service->name));
	status *st = make_message(name, request, timeout_ms, &msg);
	if (st != NULL)
		return unsent(st);
	st = open_call(client, &call);
	if (st != NULL) {
		nng_msg_free(msg);
		return unsent(st);
	}
	st = exchange(client, &call, descriptor, msg, ret_response);
	close_call(client, &call);
	return st;
}

void rpc_client_interrupt(struct rpc_client *client)
{
	(void)pthread_mutex_lock(&client->lock);
	client->is_interrupted = true;
	for (struct call *call = client->calls; call != NULL; call = call->next)
		nng_aio_cancel(call->aio);
	(void)pthread_cond_broadcast(&client->changed);
	(void)pthread_mutex_unlock(&client->lock);
}

void rpc_client_resume(struct rpc_client *client)
{
	(void)pthread_mutex_lock(&client->lock);
	client->is_interrupted = false;
	(void)pthread_mutex_unlock(&client->lock);
}

void rpc_client_free(struct rpc_client *client)
{
	if (client == NULL)
		return;
	(void)nng_socket_close(client->socket);
	(void)pthread_cond_destroy(&client->changed);
	(void)pthread_mutex_destroy(&client->lock);
	free(client);
}
