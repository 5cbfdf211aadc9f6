/* SPDX-License-Identifier: Apache-2.0 */
/* One REQ socket, at most one connection, one context for each call under way.
 *
 * A request leaves when nng's send completes. Before that everything is "not sent": the send is
 * tried in slices, and between them the connection is looked after. After that an attempt is never
 * repeated by itself: resending is switched off in nng, too. Retrying is a loop around attempts,
 * each with a context of its own and all with one request id (call_until_answered).
 *
 * A call is in the list of calls before it begins: rpc_client_interrupt finds the context of each
 * of them and cancels it, once and for all that the call does with it. Nothing of nng is done under
 * the client's lock: other calls would wait for that. */
#include "proto/clock.h"
#include "rpc/client_internal.h"

#include <errno.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "rpc/nng_error.h"

enum {
	SEND_SLICE_MS = 500,
	PATIENCE_MS = 3000, /* with a silent server, before it is asked again */
	CANCEL_MS = 1000,   /* for telling a server that a call is cancelled */
};
static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *self)
{
	struct rpc_client *client = self;
	(void)pthread_mutex_lock(&client->lock);
	if (event == NNG_PIPE_EV_ADD_POST) {
		if (client->has_dialer &&
		    nng_dialer_id(nng_pipe_dialer(pipe)) == nng_dialer_id(client->dialed.dialer))
			client->pipe_id = nng_pipe_id(pipe);
		if (client->has_given &&
		    nng_listener_id(nng_pipe_listener(pipe)) == nng_listener_id(client->given))
			client->pipe_id = nng_pipe_id(pipe);
	} else if (client->pipe_id == nng_pipe_id(pipe)) {
		client->pipe_id = 0;
		client->has_given = false;
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
	retry_budget_init(&client->budget);
	clock_cond_init(&client->changed);
	(void)pthread_mutex_init(&client->lock, NULL);
	st = open_socket(client);
	if (st != NULL) {
		retry_budget_fini(&client->budget);
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

static bool is_cancelled(const struct call *call)
{
	return call->cancel != NULL && atomic_load(&call->cancel->is_set);
}

static status *call_cancelled(void)
{
	return status_errorf(STATUS_CANCELLED, "cancelled");
}

/* Hands the message to nng, when there is a connection to take it. On success nng owns it. */
static status *send_request(struct rpc_client *client, struct call *call, nng_msg *msg)
{
	for (;;) {
		(void)pthread_mutex_lock(&client->lock);
		status *st = is_cancelled(call) ? call_cancelled()
						: client_connect(client, call->deadline_ms);
		if (st == NULL && is_cancelled(call))
			st = call_cancelled();
		if (st == NULL) {
			client->active += call->is_active ? 0 : 1;
			call->is_active = true;
		}
		(void)pthread_mutex_unlock(&client->lock);
		if (st != NULL)
			return st;
		int32_t left = left_ms(call->deadline_ms);
		int rv =
		    context_send(call->context, left < SEND_SLICE_MS ? left : SEND_SLICE_MS, msg);
		if (rv == 0)
			return NULL;
		if (rv == NNG_ECANCELED)
			return is_cancelled(call) ? call_cancelled() : client_interrupted();
		if (rv != NNG_ETIMEDOUT || left_ms(call->deadline_ms) == 0)
			return nng_errorf(rv, "cannot send to %s, the request has not left",
					  client->endpoint.url);
	}
}

static status *receive_error(struct rpc_client *client, const struct call *call, int rv)
{
	const char *url = client->endpoint.url;
	if (is_cancelled(call))
		return call_cancelled();
	(void)pthread_mutex_lock(&client->lock);
	bool is_interrupted = client->is_interrupted || rv == NNG_ECANCELED;
	client->is_suspect = true;
	(void)pthread_mutex_unlock(&client->lock);
	if (is_interrupted)
		return client_interrupted();
	if (left_ms(call->deadline_ms) == 0 || (rv == NNG_ETIMEDOUT && call->patience_ms == 0))
		return status_errorf(STATUS_DEADLINE_EXCEEDED, "%s did not answer in time", url);
	return status_errorf(STATUS_UNAVAILABLE,
			     "the connection to %s broke before the answer came: %s", url,
			     nng_strerror(rv));
}

static status *receive_reply(struct rpc_client *client, struct call *call, nng_msg **ret_msg)
{
	int32_t wait_ms = left_ms(call->deadline_ms);
	if (call->patience_ms > 0 && call->patience_ms < wait_ms)
		wait_ms = (int32_t)call->patience_ms;
	int rv = context_receive(call->context, wait_ms, ret_msg);
	return rv == 0 ? NULL : receive_error(client, call, rv);
}

/* A copy without its "sent": in a server's words that is about a call of the server's. */
static status *without_sent(const status *verdict)
{
	status *st = status_errorf(status_code_of(verdict), "%s", status_message(verdict));
	for (size_t i = 0; i < status_detail_count(verdict); i++) {
		struct status_detail detail = status_detail_at(verdict, i);
		if (strcmp(detail.label, "sent") != 0)
			st = status_detailf(st, detail.label, "%s", detail.text);
	}
	return st;
}

static status *decode_reply(struct call *call, nng_msg *msg, ProtobufCMessage **ret_response)
{
	Haul__V1__Reply *reply = NULL;
	scoped(status) status *verdict = NULL;
	status *st = reply_decode(nng_msg_body(msg), nng_msg_len(msg), &reply, &verdict);
	if (st != NULL)
		return sent(st);
	call->is_final = reply->is_final;
	metadata_free(call->trailing);
	call->trailing = TAKE(reply->trailing);
	if (verdict != NULL)
		st = without_sent(verdict);
	else if (call->cancels == NULL)
		st = unpack_message(call->method->output, reply->payload.data, reply->payload.len,
				    LIMIT_UNARY_BYTES, ret_response);
	if (st != NULL && verdict == NULL)
		st = sent(
		    status_recode(status_wrapf(st, "the server's response"), STATUS_DATA_LOSS));
	haul__v1__reply__free_unpacked(reply, NULL);
	return st;
}

/* The envelope around the request, as one nng message. */
static status *make_message(const struct call *call, nng_msg **ret_msg)
{
	scoped(buffer) struct buffer whole = {0};
	Haul__V1__Request envelope = HAUL__V1__REQUEST__INIT;
	envelope.version = ENVELOPE_VERSION;
	envelope.method = (char *)call->name;
	envelope.request_id =
	    (ProtobufCBinaryData){.len = sizeof(call->id), .data = (uint8_t *)call->id};
	envelope.timeout_ms = (uint32_t)left_ms(call->deadline_ms);
	envelope.payload =
	    (ProtobufCBinaryData){.len = call->request->size, .data = call->request->data};
	envelope.metadata = call->metadata;
	if (call->cancels != NULL)
		envelope.cancels = (ProtobufCBinaryData){.len = sizeof(call->id),
							 .data = (uint8_t *)call->cancels};
	status *st = pack_message(&envelope.base, LIMIT_UNARY_BYTES, &whole);
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

/* Caller holds the lock. */
static void enter_call(struct rpc_client *client, struct call *call, struct context *context)
{
	call->context = context;
	call->is_active = false;
	call->next = client->calls;
	client->calls = call;
}

static status *open_call(struct rpc_client *client, struct call *call)
{
	struct context *context = NULL;
	(void)pthread_mutex_lock(&client->lock);
	bool is_idle = client->idle_count > 0;
	if (is_idle)
		enter_call(client, call, client->idle[--client->idle_count]);
	(void)pthread_mutex_unlock(&client->lock);
	if (is_idle)
		return NULL;
	int rv = context_new(client->socket, &context);
	if (rv != 0)
		return nng_errorf(rv, "cannot open a call");
	(void)pthread_mutex_lock(&client->lock);
	enter_call(client, call, context);
	(void)pthread_mutex_unlock(&client->lock);
	return NULL;
}

/* is_answered: its context holds nothing of it, and will do for another call. */
static void close_call(struct rpc_client *client, struct call *call, bool is_answered)
{
	(void)pthread_mutex_lock(&client->lock);
	struct call **at = &client->calls;
	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	client->active -= call->is_active ? 1 : 0;
	client->used_ms = clock_monotonic_ms();
	struct context *context = TAKE(call->context);
	if (is_answered && client->idle_count < CLIENT_IDLE_CONTEXTS) {
		context_renew(context);
		client->idle[client->idle_count++] = TAKE(context);
	}
	(void)pthread_mutex_unlock(&client->lock);
	context_free(context);
}

static void tell_cancel(struct rpc_client *client, const struct call *call);
static status *attempt(struct rpc_client *client, struct call *call,
		       ProtobufCMessage **ret_response);

/* Sends the request once and waits for the answer, whatever it says. */
static status *exchange(struct rpc_client *client, struct call *call,
			ProtobufCMessage **ret_response, bool *ret_is_answered)
{
	nng_msg *request = NULL;
	nng_msg *reply = NULL;
	call->is_final = false;
	status *st = make_message(call, &request);
	if (st != NULL)
		return unsent(st);
	st = send_request(client, call, request);
	if (st != NULL) {
		nng_msg_free(request);
		return unsent(st);
	}
	st = receive_reply(client, call, &reply);
	if (st != NULL && is_cancelled(call))
		tell_cancel(client, call);
	if (st != NULL)
		return sent(st);
	*ret_is_answered = true;
	st = decode_reply(call, reply, ret_response);
	nng_msg_free(reply);
	return st;
}

/* A request of its own, over the same connection. What becomes of it does not matter much: a server
 * that does not hear of it works for nobody, as it does for one whose caller's time is over. */
static void tell_cancel(struct rpc_client *client, const struct call *call)
{
	const struct buffer nothing = {0};
	struct call other = {.request = &nothing,
			     .cancels = call->id,
			     .deadline_ms = clock_monotonic_ms() + CANCEL_MS};
	if (getrandom(other.id, sizeof(other.id), 0) != (ssize_t)sizeof(other.id))
		return;
	status_free(attempt(client, &other, NULL));
	metadata_free(other.trailing);
}

static status *attempt(struct rpc_client *client, struct call *call,
		       ProtobufCMessage **ret_response)
{
	bool is_answered = false;
	status *st = open_call(client, call);
	if (st != NULL)
		return unsent(st);
	st = exchange(client, call, ret_response, &is_answered);
	close_call(client, call, is_answered);
	return st;
}

/* False when there is no time left for it, or the client is interrupted. */
static bool back_off(struct rpc_client *client, const struct call *call, int64_t begun_ms,
		     unsigned attempts)
{
	int64_t until_ms = clock_monotonic_ms() + retry_backoff_ms(attempts);
	if (until_ms >= call->deadline_ms || until_ms - begun_ms > LIMIT_RETRY_MS)
		return false;
	(void)pthread_mutex_lock(&client->lock);
	while (!client->is_interrupted && !is_cancelled(call) && clock_monotonic_ms() < until_ms)
		client_wait_until(client, until_ms);
	bool go_on = !client->is_interrupted && !is_cancelled(call);
	(void)pthread_mutex_unlock(&client->lock);
	return go_on;
}

/* Only what got lost on the way, or what the server refused before it did anything: connecting is
 * tried again in each attempt, by itself. */
static bool is_worth_another(struct rpc_client *client, const struct call *call, const status *st)
{
	if (status_code_of(st) != STATUS_UNAVAILABLE) {
		retry_budget_succeeded(&client->budget);
		return false;
	}
	return !call->is_final && rpc_client_may_have_run(st) &&
	       retry_budget_failed(&client->budget) && client->does_retry;
}

static status *call_until_answered(struct rpc_client *client, struct call *call,
				   ProtobufCMessage **ret_response)
{
	int64_t begun_ms = clock_monotonic_ms();
	/* nng may lose a connection without noticing it (a reset in the middle of its TLS layer):
	   silence is answered by asking again, over another one. The last attempt waits to the end.
	 */
	int64_t third_ms = (call->deadline_ms - begun_ms) / 3;
	for (unsigned attempts = 1;; attempts++) {
		bool is_last = !client->does_retry || attempts == RETRY_ATTEMPTS;
		call->patience_ms = is_last ? 0 : third_ms > PATIENCE_MS ? third_ms : PATIENCE_MS;
		status *st = attempt(client, call, ret_response);
		if (!is_worth_another(client, call, st) || attempts == RETRY_ATTEMPTS ||
		    !back_off(client, call, begun_ms, attempts)) {
			if (!call->was_sent || rpc_client_may_have_run(st) || st == NULL)
				return st;
			/* This attempt did not leave, but an earlier one did. */
			status *whole = sent(without_sent(st));
			status_free(st);
			return whole;
		}
		call->was_sent = call->was_sent || status_detail_find(st, "sent") != NULL;
		status_free(st);
	}
}

status *rpc_client_request(struct rpc_client *client, const struct rpc_request *request,
			   ProtobufCMessage **ret_response, Haul__V1__Metadata **ret_trailing)
{
	scoped(buffer) struct buffer payload = {0};
	struct call call = {
	    .method =
		protobuf_c_service_descriptor_get_method_by_name(request->service, request->method),
	    .request = &payload,
	    .metadata = request->metadata,
	    .cancel = request->cancel,
	    .deadline_ms = clock_monotonic_ms() + request->timeout_ms,
	};
	if (call.method == NULL || snprintf(call.name, sizeof(call.name), "/%s/%s",
					    request->service->name, request->method) < 0)
		return unsent(status_errorf(STATUS_UNIMPLEMENTED, "there is no method %s in %s",
					    request->method, request->service->name));
	if (getrandom(call.id, sizeof(call.id), 0) != (ssize_t)sizeof(call.id))
		return unsent(status_errnof(errno, "the kernel gives no random numbers"));
	status *st = metadata_check(call.metadata, false);
	if (st == NULL)
		st = pack_message(request->message, LIMIT_UNARY_BYTES, &payload);
	if (st != NULL)
		return unsent(st);
	st = call_until_answered(client, &call, ret_response);
	if (ret_trailing != NULL && call.trailing != NULL)
		*ret_trailing = TAKE(call.trailing);
	metadata_free(call.trailing);
	return st;
}

status *rpc_client_call(struct rpc_client *client, const ProtobufCServiceDescriptor *service,
			const char *method, const ProtobufCMessage *request, int64_t timeout_ms,
			ProtobufCMessage **ret_response)
{
	const struct rpc_request whole = {.service = service,
					  .method = method,
					  .message = request,
					  .timeout_ms = timeout_ms};
	return rpc_client_request(client, &whole, ret_response, NULL);
}

void rpc_client_enable_retry(struct rpc_client *client)
{
	client->does_retry = true;
}

void rpc_client_interrupt(struct rpc_client *client)
{
	(void)pthread_mutex_lock(&client->lock);
	client->is_interrupted = true;
	for (struct call *call = client->calls; call != NULL; call = call->next)
		context_cancel(call->context);
	(void)pthread_cond_broadcast(&client->changed);
	(void)pthread_mutex_unlock(&client->lock);
}

void rpc_client_cancel(struct rpc_client *client, struct rpc_cancel *cancel)
{
	atomic_store(&cancel->is_set, true);
	(void)pthread_mutex_lock(&client->lock);
	for (struct call *call = client->calls; call != NULL; call = call->next)
		if (call->cancel == cancel)
			context_cancel(call->context);
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
	client_disconnect(client);
	while (client->idle_count > 0)
		context_free(client->idle[--client->idle_count]);
	(void)nng_socket_close(client->socket);
	retry_budget_fini(&client->budget);
	(void)pthread_cond_destroy(&client->changed);
	(void)pthread_mutex_destroy(&client->lock);
	free(client);
}
