/* SPDX-License-Identifier: Apache-2.0 */
/* What a server makes of a request's envelope: requests here are made by hand. */
#include "tests/unit/test.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "proto/clock.h"
#include "proto/envelope.h"
#include "tests/unit/rpc/echo.h"

enum { TIMEOUT_MS = 60000, LINGER_MS = 300 };

/* Names and values in turn, of the next requests; NULL: none. */
static const char *const *raw_metadata;

struct raw {
	struct echo echo;
	nng_socket socket;
};

static int raw_start(void **state)
{
	static struct raw raw;
	echo_start(&raw.echo);
	echo_listen(&raw.echo, "ipc", NULL, 4);
	assert_int_equal(nng_req0_open(&raw.socket), 0);
	assert_int_equal(nng_dial(raw.socket, raw.echo.url, NULL, 0), 0);
	raw_metadata = NULL;
	*state = &raw;
	return 0;
}

static int raw_stop(void **state)
{
	struct raw *raw = *state;
	(void)nng_socket_close(raw->socket);
	echo_stop(&raw->echo);
	return 0;
}

/* Whatever it is: what must be refused, too. */
static void put_entry(Haul__V1__Metadata *metadata, const char *key, const char *value)
{
	Haul__V1__Metadata__Entry *entry = malloc(sizeof(*entry));
	void *grown = realloc(metadata->entries, (metadata->n_entries + 1) * sizeof(entry));
	assert_non_null(grown);
	metadata->entries = grown;
	haul__v1__metadata__entry__init(entry);
	entry->key = text_copy(key);
	entry->value = text_copy(value);
	metadata->entries[metadata->n_entries++] = entry;
}

/* Sends a request of this method under an id of our choice; fills in the rest. */
static void send_request(nng_socket socket, char *method, unsigned id,
			 const ProtobufCMessage *message)
{
	uint8_t request_id[REQUEST_ID_BYTES] = {0};
	scoped(metadata) Haul__V1__Metadata *metadata = metadata_new();
	scoped(buffer) struct buffer payload = {0};
	scoped(buffer) struct buffer whole = {0};
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	memcpy(request_id, &id, sizeof(id));
	assert_ok(pack_message(message, 1000, &payload));
	request.version = ENVELOPE_VERSION;
	request.method = method;
	request.timeout_ms = TIMEOUT_MS;
	request.request_id = (ProtobufCBinaryData){.len = sizeof(request_id), .data = request_id};
	request.payload = (ProtobufCBinaryData){.len = payload.size, .data = payload.data};
	for (const char *const *entry = raw_metadata; entry != NULL && *entry != NULL; entry += 2)
		put_entry(metadata, entry[0], entry[1]);
	request.metadata = metadata;
	assert_ok(pack_message(&request.base, 64000, &whole));
	assert_int_equal(nng_send(socket, whole.data, whole.size, 0), 0);
}

static status *receive_reply(nng_socket socket, Haul__V1__Reply **ret_reply)
{
	status *verdict = NULL;
	nng_msg *msg = NULL;
	assert_int_equal(nng_recvmsg(socket, &msg, 0), 0);
	assert_ok(reply_decode(nng_msg_body(msg), nng_msg_len(msg), ret_reply, &verdict));
	nng_msg_free(msg);
	return verdict;
}

static status *ask(nng_socket socket, char *method, unsigned id, const ProtobufCMessage *message,
		   Haul__V1__Reply **ret_reply)
{
	send_request(socket, method, id, message);
	return receive_reply(socket, ret_reply);
}

/* Query says how often it was carried out. */
static int query(nng_socket socket, unsigned id)
{
	char method[] = "/haul.v1.Peer/Query";
	Haul__V1__QueryRequest message = HAUL__V1__QUERY_REQUEST__INIT;
	Haul__V1__Reply *reply = NULL;
	assert_ok(ask(socket, method, id, &message.base, &reply));
	assert_false(reply->is_final);
	Haul__V1__QueryResponse *response =
	    haul__v1__query_response__unpack(NULL, reply->payload.len, reply->payload.data);
	int count = response->pid;
	haul__v1__query_response__free_unpacked(response, NULL);
	haul__v1__reply__free_unpacked(reply, NULL);
	return count;
}

static void a_read_is_carried_out_each_time(void **state)
{
	struct raw *raw = *state;
	assert_int_equal(query(raw->socket, 1), 1);
	assert_int_equal(query(raw->socket, 1), 2);
}

static void busy_readers_leave_the_memory_of_requests_to_changes(void **state)
{
	char method[] = "/haul.v1.Peer/Abort";
	struct raw *raw = *state;
	Haul__V1__AbortRequest message = HAUL__V1__ABORT_REQUEST__INIT;
	Haul__V1__Reply *reply = NULL;
	/* A quarter is all that one caller may have, and their time is not over. */
	for (unsigned id = 1; id <= LIMIT_REQUESTS_KEPT / 4 + 1; id++)
		(void)query(raw->socket, id);
	assert_ok(ask(raw->socket, method, 0, &message.base, &reply));
	assert_true(reply->is_final);
	haul__v1__reply__free_unpacked(reply, NULL);
}

static status *ask_query(struct raw *raw, const char *id, Haul__V1__Reply **ret_reply)
{
	char method[] = "/haul.v1.Peer/Query";
	scoped(str) char *text = text_copy(id);
	Haul__V1__QueryRequest message = HAUL__V1__QUERY_REQUEST__INIT;
	message.id = text;
	return ask(raw->socket, method, 1, &message.base, ret_reply);
}

static void metadata_goes_along_both_ways_with_errors_too(void **state)
{
	static const char *const entries[] = {"say", "a text", "x-other", "", NULL};
	static const char *const ids[] = {"", "fail"};
	struct raw *raw = *state;
	raw_metadata = entries;
	for (size_t i = 0; i < array_len(ids); i++) {
		Haul__V1__Reply *reply = NULL;
		assert_code(ask_query(raw, ids[i], &reply), i == 0 ? STATUS_OK : STATUS_ABORTED);
		assert_int_equal(reply->trailing->n_entries, 2);
		assert_string_equal(metadata_find(reply->trailing, "said"), "a text");
		assert_true(atoi(metadata_find(reply->trailing, "haul-took-us")) >= 0);
		haul__v1__reply__free_unpacked(reply, NULL);
	}
}

static void metadata_that_cannot_be_is_refused(void **state)
{
	static char long_name[LIMIT_NAME + 2], long_value[LIMIT_NAME + 2];
	static const char *const cases[][3] = {
	    {"", "x"},	       {"Upper", "x"},	     {"sp ace", "x"},
	    {"haul-x", "x"},   {"grpc-status", "0"}, {"x", "a\n"},
	    {"x", "\xc3\xa4"}, {long_name, "x"},     {"x", long_value}};
	const char *many[2 * (LIMIT_METADATA + 1) + 1] = {0};
	struct raw *raw = *state;
	memset(long_name, 'a', sizeof(long_name) - 1);
	memset(long_value, 'a', sizeof(long_value) - 1);
	for (size_t i = 0; i < 2 * (LIMIT_METADATA + 1); i++)
		many[i] = "a";
	for (size_t i = 0; i <= array_len(cases); i++) {
		Haul__V1__Reply *reply = NULL;
		raw_metadata = i < array_len(cases) ? cases[i] : many;
		assert_code(ask_query(raw, "", &reply), STATUS_INVALID_ARGUMENT);
		haul__v1__reply__free_unpacked(reply, NULL);
	}
	assert_int_equal(atomic_load(&raw->echo.reads), 0);
}

static void the_same_id_with_other_metadata_is_another_request(void **state)
{
	static const char *const entries[] = {"x", "1", NULL};
	char method[] = "/haul.v1.Peer/Abort";
	struct raw *raw = *state;
	Haul__V1__AbortRequest message = HAUL__V1__ABORT_REQUEST__INIT;
	const enum status_code codes[] = {STATUS_OK, STATUS_ALREADY_EXISTS, STATUS_OK};
	for (size_t i = 0; i < array_len(codes); i++) {
		Haul__V1__Reply *reply = NULL;
		raw_metadata = i == 1 ? entries : NULL;
		assert_code(ask(raw->socket, method, 7, &message.base, &reply), codes[i]);
		haul__v1__reply__free_unpacked(reply, NULL);
	}
}

static void a_client_sends_and_gets_metadata(void **state)
{
	struct raw *raw = *state;
	scoped(rpc_client) struct rpc_client *client = NULL;
	scoped(metadata) Haul__V1__Metadata *metadata = metadata_new();
	scoped(metadata) Haul__V1__Metadata *trailing = NULL;
	scoped(message) ProtobufCMessage *response = NULL;
	Haul__V1__QueryRequest message = HAUL__V1__QUERY_REQUEST__INIT;
	struct rpc_request request = {.service = &haul__v1__peer__descriptor,
				      .method = "Query",
				      .message = &message.base,
				      .timeout_ms = TIMEOUT_MS,
				      .metadata = metadata};
	assert_ok(rpc_client_new(raw->echo.url, NULL, &client));
	assert_code(metadata_add(metadata, "haul-x", "no"), STATUS_INVALID_ARGUMENT);
	assert_ok(metadata_add(metadata, "say", "a text"));
	assert_ok(rpc_client_request(client, &request, &response, &trailing));
	assert_string_equal(metadata_find(trailing, "said"), "a text");
	put_entry(metadata, "grpc-x", "no");
	status *st = rpc_client_request(client, &request, &response, &trailing);
	assert_false(rpc_client_may_have_run(st));
	assert_code(st, STATUS_INVALID_ARGUMENT);
}

/* A Hello on a thread of its own. */
struct background {
	pthread_t thread;
	struct rpc_client *client;
	const char *id;
	struct rpc_cancel cancel;
	status *st;
};

static void *run_background(void *argument)
{
	struct background *call = argument;
	scoped(str) char *id = text_copy(call->id);
	scoped(message) ProtobufCMessage *response = NULL;
	Haul__V1__HelloRequest message = HAUL__V1__HELLO_REQUEST__INIT;
	message.id = id;
	const struct rpc_request request = {.service = &haul__v1__peer__descriptor,
					    .method = "Hello",
					    .message = &message.base,
					    .timeout_ms = TIMEOUT_MS,
					    .cancel = &call->cancel};
	call->st = rpc_client_request(call->client, &request, &response, NULL);
	return NULL;
}

static void start(struct background *call)
{
	assert_int_equal(pthread_create(&call->thread, NULL, run_background, call), 0);
}

static status *join(struct background *call)
{
	assert_int_equal(pthread_join(call->thread, NULL), 0);
	return call->st;
}

static void one_call_is_cancelled_and_the_others_go_on(void **state)
{
	struct raw *raw = *state;
	scoped(rpc_client) struct rpc_client *client = NULL;
	assert_ok(rpc_client_new(raw->echo.url, NULL, &client));
	struct background stays = {.client = client, .id = "block"};
	struct background goes = {.client = client, .id = "attend"};
	start(&stays);
	start(&goes);
	assert_true(is_at_least(&raw->echo.runs, 2, TIMEOUT_MS));
	rpc_client_cancel(client, &goes.cancel);
	status *st = join(&goes);
	assert_true(rpc_client_may_have_run(st));
	assert_code(st, STATUS_CANCELLED);
	/* Its handler ends, over a connection that stays. */
	assert_true(is_at_least(&raw->echo.called, 1, TIMEOUT_MS));
	assert_int_equal(atomic_load(&raw->echo.called), 1);
	atomic_store(&raw->echo.is_released, true);
	assert_ok(join(&stays));
	/* What is cancelled before it begins does not leave. */
	start(&goes);
	st = join(&goes);
	assert_false(rpc_client_may_have_run(st));
	assert_code(st, STATUS_CANCELLED);
	assert_int_equal(atomic_load(&raw->echo.runs), 2);
}

static void a_cancel_goes_on_to_whom_the_handler_asks(void **state)
{
	struct raw *raw = *state;
	struct echo far;
	scoped(rpc_client) struct rpc_client *client = NULL;
	echo_start(&far);
	echo_listen(&far, "ipc", NULL, 2);
	assert_ok(rpc_client_new(far.url, NULL, &raw->echo.onward));
	assert_ok(rpc_client_new(raw->echo.url, NULL, &client));
	struct background call = {.client = client, .id = "onward"};
	start(&call);
	assert_true(is_at_least(&far.runs, 1, TIMEOUT_MS));
	rpc_client_cancel(client, &call.cancel);
	assert_code(join(&call), STATUS_CANCELLED);
	assert_true(is_at_least(&far.called, 1, TIMEOUT_MS));
	assert_true(is_at_least(&raw->echo.called, 1, TIMEOUT_MS));
	rpc_client_free(raw->echo.onward);
	echo_stop(&far);
}

/* Another server than raw's, that raw's asks; gone with `far`. */
static void begin_onward(struct raw *raw, struct echo *far)
{
	echo_start(far);
	echo_listen(far, "ipc", NULL, 2);
	assert_ok(rpc_client_new(far->url, NULL, &raw->echo.onward));
}

static void a_caller_that_goes_cancels_what_its_question_asks_of_others(void **state)
{
	struct raw *raw = *state;
	struct echo far;
	char method[] = "/haul.v1.Peer/Query", id[] = "onward";
	Haul__V1__QueryRequest message = HAUL__V1__QUERY_REQUEST__INIT;
	message.id = id;
	begin_onward(raw, &far);
	send_request(raw->socket, method, 1, &message.base);
	assert_true(is_at_least(&far.runs, 1, TIMEOUT_MS));
	assert_int_equal(atomic_load(&far.called), 0);
	(void)nng_socket_close(raw->socket);
	assert_true(is_at_least(&far.called, 1, TIMEOUT_MS));
	assert_true(is_at_least(&raw->echo.called, 1, TIMEOUT_MS));
	rpc_client_free(raw->echo.onward);
	echo_stop(&far);
}

static void a_caller_that_goes_does_not_end_what_it_has_changed(void **state)
{
	struct raw *raw = *state;
	struct echo far;
	char method[] = "/haul.v1.Peer/Hello", id[] = "onward";
	Haul__V1__HelloRequest message = HAUL__V1__HELLO_REQUEST__INIT;
	Haul__V1__Reply *reply = NULL;
	nng_socket again;
	message.id = id;
	begin_onward(raw, &far);
	send_request(raw->socket, method, 1, &message.base);
	assert_true(is_at_least(&far.runs, 1, TIMEOUT_MS));
	(void)nng_socket_close(raw->socket);
	/* Its caller comes back, with the same id, and gets the answer of the one that ran on. */
	assert_int_equal(nng_req0_open(&again), 0);
	assert_int_equal(nng_dial(again, raw->echo.url, NULL, 0), 0);
	send_request(again, method, 1, &message.base);
	assert_false(is_at_least(&far.called, 1, LINGER_MS));
	atomic_store(&far.is_released, true);
	assert_ok(receive_reply(again, &reply));
	haul__v1__reply__free_unpacked(reply, NULL);
	assert_int_equal(atomic_load(&far.runs), 1);
	(void)nng_socket_close(again);
	rpc_client_free(raw->echo.onward);
	echo_stop(&far);
}

static int64_t pause_of_reads(void *self, const char *method)
{
	(void)self;
	assert_string_equal(method, "/haul.v1.Peer/Query");
	return LINGER_MS;
}

static void questions_wait_while_there_is_something_more_urgent(void **state)
{
	struct raw *raw = *state;
	char method[] = "/haul.v1.Peer/Abort";
	Haul__V1__AbortRequest message = HAUL__V1__ABORT_REQUEST__INIT;
	Haul__V1__Reply *reply = NULL;
	raw->echo.pause_ms = pause_of_reads;
	int64_t begun_ms = clock_monotonic_ms();
	(void)query(raw->socket, 1);
	assert_true(clock_monotonic_ms() - begun_ms >= LINGER_MS);
	/* What changes something is never asked about. */
	assert_ok(ask(raw->socket, method, 2, &message.base, &reply));
	haul__v1__reply__free_unpacked(reply, NULL);
}

static void cancelling_what_does_not_run_is_fine(void **state)
{
	struct raw *raw = *state;
	uint8_t id[REQUEST_ID_BYTES] = {9};
	for (size_t size = REQUEST_ID_BYTES - 1; size <= REQUEST_ID_BYTES; size++) {
		scoped(buffer) struct buffer whole = {0};
		Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
		Haul__V1__Reply *reply = NULL;
		status *verdict = NULL;
		nng_msg *msg = NULL;
		request.version = ENVELOPE_VERSION;
		request.cancels = (ProtobufCBinaryData){.len = size, .data = id};
		assert_ok(pack_message(&request.base, 4000, &whole));
		assert_int_equal(nng_send(raw->socket, whole.data, whole.size, 0), 0);
		assert_int_equal(nng_recvmsg(raw->socket, &msg, 0), 0);
		assert_ok(reply_decode(nng_msg_body(msg), nng_msg_len(msg), &reply, &verdict));
		assert_code(verdict, size == sizeof(id) ? STATUS_OK : STATUS_INVALID_ARGUMENT);
		haul__v1__reply__free_unpacked(reply, NULL);
		nng_msg_free(msg);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_read_is_carried_out_each_time, raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(busy_readers_leave_the_memory_of_requests_to_changes,
					    raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(metadata_goes_along_both_ways_with_errors_too,
					    raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(metadata_that_cannot_be_is_refused, raw_start,
					    raw_stop),
	    cmocka_unit_test_setup_teardown(the_same_id_with_other_metadata_is_another_request,
					    raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(a_client_sends_and_gets_metadata, raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(one_call_is_cancelled_and_the_others_go_on, raw_start,
					    raw_stop),
	    cmocka_unit_test_setup_teardown(a_cancel_goes_on_to_whom_the_handler_asks, raw_start,
					    raw_stop),
	    cmocka_unit_test_setup_teardown(
		a_caller_that_goes_cancels_what_its_question_asks_of_others, raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(a_caller_that_goes_does_not_end_what_it_has_changed,
					    raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(questions_wait_while_there_is_something_more_urgent,
					    raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(cancelling_what_does_not_run_is_fine, raw_start,
					    raw_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
