/* SPDX-License-Identifier: Apache-2.0 */
/* Thousands of changing calls over a link that drops and delays, and repeated by hand: the service
 * counts how often it carried out each. */
#include "tests/unit/test.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "haul/v1/peer.pb-c.h"
#include "proto/envelope.h"
#include "rpc/client.h"
#include "rpc/nng_error.h"
#include "rpc/server.h"
#include "tests/unit/rpc/echo.h"
#include "tests/unit/rpc/pki.h"
#include "tests/unit/rpc/proxy.h"

enum {
	CLIENTS = 6,
	TLS_CLIENTS = 24,
	MOST = 65536,
	PLENTY_MS = 60000,
	CALL_MS = 20000,
	/* Of a call below TLS, where nng may not notice a reset: a third is waited before it is
	   asked again. */
	TLS_CALL_MS = 9000
};

/* Aborts are what changes here: each names a number, and its answer's pid is made from it. */
struct service {
	atomic_int runs[MOST];
	atomic_int sum;
	struct rpc_service rpc;
	struct rpc_server *server;
	unsigned port;
};

static struct service service;

static status *count_run(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			 ProtobufCMessage **ret_response)
{
	Haul__V1__AbortResponse *response = malloc(sizeof(*response));
	int number = atoi(((const Haul__V1__AbortRequest *)request)->id);
	(void)self;
	(void)call;
	(void)atomic_fetch_add(&service.runs[number], 1);
	haul__v1__abort_response__init(response);
	response->pid = number * 3 + 1;
	*ret_response = &response->base;
	return NULL;
}

static const rpc_handler handlers[9] = {[6] = count_run};

static status *allow(void *self, const struct identity *caller, const char *method)
{
	(void)self;
	(void)caller;
	(void)method;
	return NULL;
}

static void service_start(const char *transport, const struct credentials *credentials)
{
	const struct rpc_server_config config = {.services = &service.rpc,
						 .service_count = 1,
						 .authorize = allow};
	memset(&service, 0, sizeof(service));
	service.rpc =
	    (struct rpc_service){.descriptor = &haul__v1__peer__descriptor, .handlers = handlers};
	assert_ok(rpc_start());
	assert_ok(rpc_server_new(&config, &service.server));
	for (int try = 0; try < 5; try++) {
		char url[64];
		service.port = free_port();
		(void)snprintf(url, sizeof(url), "%s://127.0.0.1:%u", transport, service.port);
		status *st = rpc_server_listen(service.server, url, credentials, 8);
		if (st == NULL)
			return;
		status_free(st);
	}
	fail_msg("no port to listen at");
}

static void service_stop(void)
{
	rpc_server_stop(service.server, PLENTY_MS);
	rpc_server_free(service.server);
}

static status *do_once(struct rpc_client *client, int number, int64_t timeout_ms)
{
	char id[16];
	Haul__V1__AbortRequest request = HAUL__V1__ABORT_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	(void)snprintf(id, sizeof(id), "%d", number);
	request.id = id;
	status *st = rpc_client_call(client, &haul__v1__peer__descriptor, "Abort", &request.base,
				     timeout_ms, &response);
	if (st == NULL && ((Haul__V1__AbortResponse *)response)->pid != number * 3 + 1)
		return status_errorf(STATUS_INTERNAL, "the answer to %d is another's", number);
	return st;
}

struct worker {
	pthread_t thread;
	const char *url;
	const struct credentials *credentials;
	int64_t call_ms;
	int first, count;
	int answered;
	status *trouble; /* checked by the thread that started this one */
};

/* Those whose retries or time ended without an answer may have been carried out or not: never
 * twice. */
static void *run_worker(void *argument)
{
	struct worker *worker = argument;
	struct rpc_client *client = NULL;
	worker->trouble = rpc_client_new(worker->url, worker->credentials, &client);
	if (worker->trouble != NULL)
		return NULL;
	rpc_client_enable_retry(client);
	for (int i = 0; i < worker->count && worker->trouble == NULL; i++) {
		status *st = do_once(client, worker->first + i, worker->call_ms);
		worker->answered += st == NULL ? 1 : 0;
		if (status_code_of(st) == STATUS_UNAVAILABLE ||
		    status_code_of(st) == STATUS_DEADLINE_EXCEEDED)
			status_free(st);
		else
			worker->trouble = st;
	}
	rpc_client_free(client);
	return NULL;
}

static void run_workers(const char *scheme, unsigned port, const struct credentials *credentials,
			int clients, int calls, int *ret_answered)
{
	struct worker workers[TLS_CLIENTS];
	char url[64];
	(void)snprintf(url, sizeof(url), "%s://127.0.0.1:%u", scheme, port);
	for (int i = 0; i < clients; i++) {
		workers[i] = (struct worker){.url = url,
					     .credentials = credentials,
					     .call_ms = credentials != NULL ? TLS_CALL_MS : CALL_MS,
					     .first = i * calls,
					     .count = calls};
		assert_int_equal(pthread_create(&workers[i].thread, NULL, run_worker, &workers[i]),
				 0);
	}
	*ret_answered = 0;
	for (int i = 0; i < clients; i++) {
		assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
		*ret_answered += workers[i].answered;
		assert_ok(workers[i].trouble);
	}
}

static void check_each_ran_at_most_once(int calls, int answered)
{
	int ran = 0;
	for (int i = 0; i < calls; i++) {
		int runs = atomic_load(&service.runs[i]);
		assert_true(runs <= 1);
		ran += runs;
	}
	assert_true(ran >= answered);
	/* Giving up is for a link that is worse than this one. */
	assert_true(answered >= calls * 98 / 100);
}

static void each_call_is_carried_out_once_over_a_bad_link(void **state)
{
	int answered = 0;
	int calls = getenv("HAUL_FULL") != NULL ? 5000 : 400;
	(void)state;
	service_start("tcp", NULL);
	struct proxy *proxy = proxy_start(&(struct proxy_config){
	    .to_port = service.port, .seed = 1, .drop_after = 4000, .delay_us = 200});
	run_workers("tcp", proxy_port(proxy), NULL, CLIENTS, calls, &answered);
	print_message("%d calls, %d answered, %d connections dropped\n", CLIENTS * calls, answered,
		      proxy_dropped(proxy));
	assert_true(proxy_dropped(proxy) > CLIENTS);
	proxy_stop(proxy);
	service_stop();
	check_each_ran_at_most_once(CLIENTS * calls, answered);
}

static void the_same_below_tls(void **state)
{
	int answered = 0;
	int calls = getenv("HAUL_FULL") != NULL ? 250 : 15;
	(void)state;
	assert_ok(rpc_start());
	struct pki *pki = pki_new();
	struct credentials *server = pki_credentials(pki, "server", "IP:127.0.0.1");
	struct credentials *client = pki_credentials(pki, "client", "DNS:a.example.org");
	service_start("tls+tcp", server);
	struct proxy *proxy = proxy_start(&(struct proxy_config){
	    .to_port = service.port, .seed = 2, .drop_after = 12000, .delay_us = 200});
	run_workers("tls+tcp", proxy_port(proxy), client, TLS_CLIENTS, calls, &answered);
	print_message("%d calls, %d answered, %d connections dropped\n", TLS_CLIENTS * calls,
		      answered, proxy_dropped(proxy));
	assert_true(proxy_dropped(proxy) > 0);
	proxy_stop(proxy);
	service_stop();
	check_each_ran_at_most_once(TLS_CLIENTS * calls, answered);
	credentials_free(server);
	credentials_free(client);
	pki_free(pki);
}

/* Sends one envelope and returns the reply's pid. */
static int send_raw(nng_socket socket, const struct buffer *envelope)
{
	nng_msg *msg = NULL;
	Haul__V1__Reply *reply = NULL;
	status *verdict = NULL;
	assert_int_equal(nng_send(socket, envelope->data, envelope->size, 0), 0);
	assert_int_equal(nng_recvmsg(socket, &msg, 0), 0);
	assert_ok(reply_decode(nng_msg_body(msg), nng_msg_len(msg), &reply, &verdict));
	assert_ok(verdict);
	assert_true(reply->is_final);
	Haul__V1__AbortResponse *response =
	    haul__v1__abort_response__unpack(NULL, reply->payload.len, reply->payload.data);
	int pid = response->pid;
	haul__v1__abort_response__free_unpacked(response, NULL);
	haul__v1__reply__free_unpacked(reply, NULL);
	nng_msg_free(msg);
	return pid;
}

static void make_envelope(int number, struct buffer *ret_envelope)
{
	char method[] = "/haul.v1.Peer/Abort";
	char id[16];
	uint8_t request_id[REQUEST_ID_BYTES] = {0};
	scoped(buffer) struct buffer payload = {0};
	Haul__V1__AbortRequest abort_request = HAUL__V1__ABORT_REQUEST__INIT;
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	(void)snprintf(id, sizeof(id), "%d", number);
	abort_request.id = id;
	memcpy(request_id, &number, sizeof(number));
	assert_ok(pack_message(&abort_request.base, 1000, &payload));
	request.version = ENVELOPE_VERSION;
	request.method = method;
	request.timeout_ms = 20000;
	request.request_id = (ProtobufCBinaryData){.len = sizeof(request_id), .data = request_id};
	request.payload = (ProtobufCBinaryData){.len = payload.size, .data = payload.data};
	assert_ok(pack_message(&request.base, 2000, ret_envelope));
}

struct twin {
	pthread_t thread;
	nng_socket socket;
	int count;
	int wrong;
};

static void *run_twin(void *argument)
{
	struct twin *twin = argument;
	for (int number = 0; number < twin->count; number++) {
		scoped(buffer) struct buffer envelope = {0};
		make_envelope(number, &envelope);
		twin->wrong += send_raw(twin->socket, &envelope) != number * 3 + 1 ? 1 : 0;
	}
	return NULL;
}

static void the_same_envelopes_from_several_at_once_are_carried_out_once(void **state)
{
	struct twin twins[4];
	char url[64];
	const int count = 1000;
	(void)state;
	service_start("tcp", NULL);
	(void)snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", service.port);
	for (size_t i = 0; i < array_len(twins); i++) {
		twins[i] = (struct twin){.count = count};
		assert_int_equal(nng_req0_open(&twins[i].socket), 0);
		assert_int_equal(nng_dial(twins[i].socket, url, NULL, 0), 0);
	}
	for (size_t i = 0; i < array_len(twins); i++)
		assert_int_equal(pthread_create(&twins[i].thread, NULL, run_twin, &twins[i]), 0);
	for (size_t i = 0; i < array_len(twins); i++) {
		assert_int_equal(pthread_join(twins[i].thread, NULL), 0);
		assert_int_equal(twins[i].wrong, 0);
		(void)nng_socket_close(twins[i].socket);
	}
	service_stop();
	for (int number = 0; number < count; number++)
		assert_int_equal(atomic_load(&service.runs[number]), 1);
}

static void without_retry_a_broken_call_is_told_and_not_repeated(void **state)
{
	scoped(rpc_client) struct rpc_client *client = NULL;
	char url[64];
	int failed = 0;
	(void)state;
	service_start("tcp", NULL);
	struct proxy *proxy = proxy_start(
	    &(struct proxy_config){.to_port = service.port, .seed = 3, .drop_after = 500});
	(void)snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", proxy_port(proxy));
	assert_ok(rpc_client_new(url, NULL, &client));
	for (int number = 0; number < 100; number++) {
		status *st = do_once(client, number, PLENTY_MS);
		assert_true(st == NULL || rpc_client_may_have_run(st));
		failed += st != NULL ? 1 : 0;
		status_free(st);
	}
	assert_true(failed > 0);
	proxy_stop(proxy);
	service_stop();
	for (int number = 0; number < 100; number++)
		assert_true(atomic_load(&service.runs[number]) <= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_call_is_carried_out_once_over_a_bad_link),
	    cmocka_unit_test(the_same_below_tls),
	    cmocka_unit_test(the_same_envelopes_from_several_at_once_are_carried_out_once),
	    cmocka_unit_test(without_retry_a_broken_call_is_told_and_not_repeated),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
