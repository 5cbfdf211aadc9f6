/* SPDX-License-Identifier: Apache-2.0 */
/* Calls between the engines: each request and each answer is a message that may be lost, come late
 * or come again; a second copy of a request is carried out again, which real connections would not
 * do. In the place of rpc/client and rpc/server. */
#include <stdio.h>
#include <string.h>

#include "proto/envelope.h"
#include "rpc/client.h"
#include "rpc/service.h"
#include "tests/sim/sim.h"

enum {
	LATENCY_MS = 1,
	NOT_LISTENING_MS = 3000,
	FAR_MS = 8000, /* to connect, where that takes long: more than half a lease */
	PATIENCE_MS = 3000,
	CALLS = 1024
};

struct rpc_client {
	int server;
	struct life *life;
	struct life *connected; /* to which; NULL = not, or not well */
	bool is_interrupted, does_retry;
};

struct call {
	struct life *caller;
	int server;
	struct life *served_by;
	const ProtobufCServiceDescriptor *service;
	unsigned method;
	struct buffer request;
	bool is_answered, is_broken, is_over;
	ProtobufCMessage *response;
	status *verdict;
};

static void pass_link(void)
{
	while (pipes_fill_link())
		sim_sleep(100 * MS);
}

/* One copy of a request on its way. */
struct delivery {
	struct call *call;
	int64_t after;
};

static struct call *calls[CALLS];
static unsigned call_count;
static bool is_cut;

void net_set_cut(bool cut)
{
	is_cut = cut;
	sim_trace(cut ? "the link is cut" : "the link is back");
}

bool net_is_cut(void)
{
	return is_cut;
}

/* A killed engine's kernel resets its connections. */
void net_life_died(const struct life *life)
{
	for (unsigned i = 0; i < call_count; i++) {
		if (calls[i]->served_by == life && !calls[i]->is_over && !is_cut) {
			calls[i]->is_broken = true;
			fiber_wake(calls[i]);
		}
	}
}

status *rpc_client_new(const char *url, const struct credentials *credentials,
		       struct rpc_client **ret_client)
{
	struct rpc_client *client = calloc(1, sizeof(*client));

	(void)credentials;
	if (client == NULL)
		abort();
	client->server = strstr(url, "//b") != NULL ? B : A;
	client->life = life_here();
	*ret_client = client;
	return NULL;
}

void rpc_client_interrupt(struct rpc_client *client)
{
	client->is_interrupted = true;
	fiber_wake(client);
	for (unsigned i = 0; i < call_count; i++)
		fiber_wake(calls[i]);
}

void rpc_client_resume(struct rpc_client *client)
{
	client->is_interrupted = false;
}

void rpc_client_enable_retry(struct rpc_client *client)
{
	client->does_retry = true;
}

void rpc_client_free(struct rpc_client *client)
{
	free(client);
}

bool rpc_client_may_have_run(const status *st)
{
	return st != NULL && status_detail_find(st, "sent") != NULL;
}

/* --- at the server --- */

static void answer(struct call *call, ProtobufCMessage *response, status *verdict)
{
	/* The first answer is the one. */
	if (call->is_answered || call->is_over) {
		message_free(response);
		status_free(verdict);
		return;
	}
	call->is_answered = true;
	call->response = response;
	call->verdict = verdict;
	fiber_wake(call);
}

/* In the server's life. */
static void *serve(void *self)
{
	struct call *call = self;
	static const struct identity callers[NODES] = {
	    {.is_authenticated = true, .name = "a"},
	    {.is_authenticated = true, .name = "b"},
	};
	static const uint8_t request_id[REQUEST_ID_BYTES];
	const ProtobufCMethodDescriptor *method = &call->service->methods[call->method];
	const struct rpc_service *service = engine_services(life_here()->engine);
	ProtobufCMessage *request = NULL, *response = NULL;
	struct rpc_call about = {.caller = &callers[call->caller->node],
				 .method = method->name,
				 .request_id = request_id,
				 .server_host = "b"};

	if (node_here() == B)
		world_heard();
	sim_point("received", method->name);
	while (service->descriptor != call->service)
		service++;
	status *st = unpack_message(method->input, call->request.data, call->request.size,
				    LIMIT_UNARY_BYTES, &request);
	if (st == NULL)
		st = service->handlers[call->method](service->self, &about, request, &response);
	message_free(request);
	sim_trace("%s at %c: %s", method->name, 'a' + node_here(),
		  st == NULL ? "ok" : status_message(st));
	struct message_fate fate = sim_message("answer leaves", method->name);
	bool is_lost = fate.is_lost || is_cut;
	sim_sleep(LATENCY_MS * MS + fate.late_ns);
	pass_link();
	if (!is_lost && !is_cut)
		answer(call, response, st);
	return NULL;
}

static void *deliver(void *self)
{
	struct delivery *delivery = self;
	struct call *call = delivery->call;

	sim_sleep(delivery->after);
	pass_link();
	if (is_cut || !node_is_up(call->server))
		return NULL;
	if (!node_is_serving(call->server)) {
		call->is_broken = true;
		fiber_wake(call);
		return NULL;
	}
	call->served_by = node_life(call->server);
	(void)fiber_start(call->served_by, serve, call);
	return NULL;
}

static void send_copy(struct call *call, int64_t after)
{
	struct delivery *delivery = malloc(sizeof(*delivery));

	if (delivery == NULL)
		abort();
	*delivery = (struct delivery){call, after};
	(void)fiber_start(NULL, deliver, delivery);
}

/* --- at the client --- */

static status *interrupted(void)
{
	return status_errorf(STATUS_CANCELLED, "interrupted");
}

static status *not_connected(void)
{
	return status_errorf(STATUS_UNAVAILABLE, "not connected, the request has not left");
}

/* A connection that is not there by then is given up: the next one begins anew. */
static status *shake_hands(struct rpc_client *client, int64_t until)
{
	int64_t ready = sim_now() + (sim_is_far ? FAR_MS * MS : 0);

	if (client->connected == node_life(client->server))
		return NULL;
	while (sim_now() < ready) {
		if (sim_now() >= until)
			return not_connected();
		(void)fiber_wait(client, ready < until ? ready : until);
		if (client->is_interrupted)
			return interrupted();
	}
	client->connected = node_life(client->server);
	return NULL;
}

static status *connect(struct rpc_client *client, int64_t until)
{
	int64_t refused_until = sim_now() + NOT_LISTENING_MS * MS;

	while (is_cut || !node_is_serving(client->server)) {
		bool is_refused = !is_cut && node_is_up(client->server);
		if (sim_now() >= until || (is_refused && sim_now() >= refused_until))
			return not_connected();
		int64_t next = sim_now() + 100 * MS;
		(void)fiber_wait(client, next < until ? next : until);
		if (client->is_interrupted)
			return interrupted();
	}
	return shake_hands(client, until);
}

static status *await(const struct rpc_client *client, struct call *call, int64_t until)
{
	while (!call->is_answered) {
		if (client->is_interrupted)
			return interrupted();
		if (call->is_broken)
			return status_detailf(status_errorf(STATUS_UNAVAILABLE, "connection broke"),
					      "sent", "yes");
		if (!fiber_wait(call, until) && !call->is_answered)
			return status_detailf(status_errorf(STATUS_DEADLINE_EXCEEDED,
							    "no answer in time"),
					      "sent", "yes");
	}
	return NULL;
}

static struct call *call_new(struct rpc_client *client, const ProtobufCServiceDescriptor *service,
			     const char *method)
{
	struct call *call = calloc(1, sizeof(*call));

	if (call == NULL || call_count == CALLS)
		sim_fail("too many calls");
	calls[call_count++] = call;
	call->caller = client->life;
	call->server = client->server;
	call->service = service;
	while (strcmp(service->methods[call->method].name, method) != 0)
		call->method++;
	return call;
}

/* Asks once; gives the answer up at `until`. */
static status *attempt(struct rpc_client *client, struct call *call, int64_t until)
{
	const char *method = call->service->methods[call->method].name;
	/* On its way before the sender may die: deliveries belong to nobody. */
	struct message_fate fate = sim_message("sends", method);

	if (!fate.is_lost && !is_cut)
		send_copy(call, LATENCY_MS * MS + fate.late_ns);
	if (fate.again_ns != 0 && !is_cut)
		send_copy(call, fate.again_ns);
	sim_point("sent", method);
	status *st = await(client, call, until);
	if (st != NULL)
		client->connected = NULL;
	return st;
}

/* When the answer of the next attempt is given up. */
static int64_t patience(const struct rpc_client *client, int64_t until)
{
	int64_t third = (until - sim_now()) / 3;
	int64_t ends = sim_now() + (third > PATIENCE_MS * MS ? third : PATIENCE_MS * MS);

	return client->does_retry && ends < until ? ends : until;
}

/* As in the real one, a client that retries asks again, over another connection. */
static status *ask(struct rpc_client *client, struct call *call, int64_t until)
{
	for (;;) {
		status *st = connect(client, until);
		int64_t ends = patience(client, until);
		if (st == NULL)
			st = attempt(client, call, ends);
		if (st == NULL || client->is_interrupted || !client->does_retry || ends >= until ||
		    status_detail_find(st, "sent") == NULL)
			return st;
		status_free(st);
		call->is_broken = false;
	}
}

status *rpc_client_call(struct rpc_client *client, const ProtobufCServiceDescriptor *service,
			const char *method, const ProtobufCMessage *request, int64_t timeout_ms,
			ProtobufCMessage **ret_response)
{
	if (client->is_interrupted)
		return interrupted();
	struct call *call = call_new(client, service, method);
	status *st = pack_message(request, LIMIT_UNARY_BYTES, &call->request);
	if (st == NULL)
		st = ask(client, call, sim_now() + timeout_ms * MS);
	call->is_over = true;
	if (st != NULL)
		return st;
	if (call->verdict == NULL && strcmp(method, "Restore") == 0)
		world_promise();
	sim_point("answered", method);
	if (call->verdict == NULL)
		*ret_response = call->response;
	return call->verdict;
}
