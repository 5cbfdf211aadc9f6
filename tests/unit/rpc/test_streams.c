/* SPDX-License-Identifier: Apache-2.0 */
/* Streaming methods of a server: declared in a service, opened by a client. */
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "haul/v1/migrations.pb-c.h"
#include "rpc/client.h"
#include "rpc/nng_error.h"
#include "rpc/server.h"
#include "rpc/stream.h"

enum { PLENTY_MS = 60000 };

struct fixture {
	char directory[64], url[96];
	struct rpc_server *server;
	struct rpc_client *client;
	atomic_int open;
};

static struct fixture fixture;

/* Sends back what comes, behind the request's id, until there is no more. */
static status *echo(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		    struct stream *stream)
{
	status *st = NULL;
	bool has_more = true;
	(void)self;
	(void)atomic_fetch_add(&fixture.open, 1);
	assert_string_equal(call->caller->name, "local");
	while (st == NULL && has_more) {
		scoped(message) ProtobufCMessage *message = NULL;
		st =
		    stream_receive(stream, &haul__v1__get_request__descriptor, PLENTY_MS, &message);
		has_more = message != NULL;
		if (st == NULL && has_more)
			st = stream_send(stream, message, PLENTY_MS);
	}
	(void)atomic_fetch_sub(&fixture.open, 1);
	if (st != NULL)
		return st;
	return status_errorf(STATUS_ABORTED, "that was %s",
			     ((const Haul__V1__WatchRequest *)request)->id);
}

static status *allow(void *self, const struct identity *caller, const char *method)
{
	(void)self;
	(void)caller;
	(void)method;
	return NULL;
}

static int set_up(void **state)
{
	static const rpc_handler handlers[8];
	static const rpc_stream_handler streams[8] = {[4] = echo};
	static const struct rpc_service service = {.descriptor = &haul__v1__migrations__descriptor,
						   .handlers = handlers,
						   .streams = streams};
	(void)state;
	memset(&fixture, 0, sizeof(fixture));
	(void)snprintf(fixture.directory, sizeof(fixture.directory), "/tmp/haul-streams-XXXXXX");
	assert_non_null(mkdtemp(fixture.directory));
	(void)snprintf(fixture.url, sizeof(fixture.url), "ipc://%s/sock", fixture.directory);
	const struct rpc_server_config config = {.services = &service,
						 .service_count = 1,
						 .authorize = allow,
						 .stream_place = {.directory = fixture.directory}};
	assert_ok(rpc_start());
	assert_ok(rpc_server_new(&config, &fixture.server));
	assert_ok(rpc_server_listen(fixture.server, fixture.url, NULL, 2));
	assert_ok(rpc_client_new(fixture.url, NULL, &fixture.client));
	return 0;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	rpc_client_free(fixture.client);
	rpc_server_free(fixture.server);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", fixture.directory);
	return system(command);
}

static status *open_stream(struct stream **ret_stream)
{
	Haul__V1__WatchRequest request = HAUL__V1__WATCH_REQUEST__INIT;
	request.id = (char *)"all";
	return rpc_client_open_stream(fixture.client, &haul__v1__migrations__descriptor, "Watch",
				      &request.base, PLENTY_MS, ret_stream);
}

static void say(struct stream *stream, const char *text)
{
	scoped(message) ProtobufCMessage *message = NULL;
	Haul__V1__GetRequest out = HAUL__V1__GET_REQUEST__INIT;
	out.id = (char *)text;
	assert_ok(stream_send(stream, &out.base, PLENTY_MS));
	assert_ok(stream_receive(stream, &haul__v1__get_request__descriptor, PLENTY_MS, &message));
	assert_string_equal(((Haul__V1__GetRequest *)message)->id, text);
}

static status *end_of(struct stream *stream)
{
	ProtobufCMessage *message = NULL;
	status *st =
	    stream_receive(stream, &haul__v1__get_request__descriptor, PLENTY_MS, &message);
	assert_null(message);
	return st;
}

static void await_open(int wanted)
{
	const struct timespec pause = {.tv_nsec = 2000000};
	while (atomic_load(&fixture.open) != wanted)
		(void)nanosleep(&pause, NULL);
}

static void a_streaming_method_serves_many_at_once(void **state)
{
	struct stream *streams[8];
	(void)state;
	for (size_t i = 0; i < array_len(streams); i++)
		assert_ok(open_stream(&streams[i]));
	for (int round = 0; round < 20; round++)
		for (size_t i = 0; i < array_len(streams); i++)
			say(streams[i], "hello");
	for (size_t i = 0; i < array_len(streams); i++) {
		stream_half_close(streams[i]);
		scoped(status) status *end = end_of(streams[i]);
		assert_int_equal(status_code_of(end), STATUS_ABORTED);
		assert_string_equal(status_message(end), "that was all");
		stream_free(streams[i]);
	}
	await_open(0);
}

static void dead_clients_streams_are_closed(void **state)
{
	struct stream *stream = NULL;
	(void)state;
	assert_ok(open_stream(&stream));
	say(stream, "hello");
	await_open(1);
	stream_free(stream);
	await_open(0);
}

static void a_unary_method_opens_no_stream_and_a_stream_is_no_answer(void **state)
{
	struct stream *stream = NULL;
	Haul__V1__GetRequest request = HAUL__V1__GET_REQUEST__INIT;
	(void)state;
	assert_code(rpc_client_open_stream(fixture.client, &haul__v1__migrations__descriptor, "Get",
					   &request.base, PLENTY_MS, &stream),
		    STATUS_UNIMPLEMENTED);
}

static void an_address_can_be_used_once(void **state)
{
	Haul__V1__WatchRequest request = HAUL__V1__WATCH_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	struct pipe *pipe = NULL, *second = NULL;
	struct stream *stream = NULL;
	(void)state;
	request.id = (char *)"all";
	assert_ok(rpc_client_call(fixture.client, &haul__v1__migrations__descriptor, "Watch",
				  &request.base, PLENTY_MS, &response));
	Haul__V1__PipeAddress *address = ((Haul__V1__WatchResponse *)response)->pipe;
	assert_ok(pipe_dial(address, PLENTY_MS, &pipe));
	assert_ok(stream_new(pipe, false, NULL, &stream));
	say(stream, "hello");
	assert_code(pipe_dial(address, 300, &second), STATUS_UNAVAILABLE);
	say(stream, "still there");
	/* Another's keys do not open it either. */
	address->key_to_listener.data[0] ^= 1;
	assert_code(pipe_dial(address, 300, &second), STATUS_UNAVAILABLE);
	stream_free(stream);
}

static void one_caller_cannot_take_all_streams(void **state)
{
	static struct stream *streams[LIMIT_STREAMS];
	size_t count = 0;
	status *st = NULL;
	(void)state;
	while (st == NULL && count < LIMIT_STREAMS) {
		st = open_stream(&streams[count]);
		count += st == NULL ? 1 : 0;
	}
	assert_code(st, STATUS_RESOURCE_EXHAUSTED);
	/* Some may have been opened twice, when a connection got lost. */
	assert_true(count <= LIMIT_STREAMS / 4 && count > LIMIT_STREAMS / 8);
	for (size_t i = 0; i < count; i++)
		stream_free(streams[i]);
}

static void a_stopping_server_ends_its_streams(void **state)
{
	struct stream *stream = NULL;
	(void)state;
	assert_ok(open_stream(&stream));
	say(stream, "hello");
	rpc_server_stop(fixture.server, 10);
	assert_code(end_of(stream), STATUS_UNAVAILABLE);
	assert_int_equal(atomic_load(&fixture.open), 0);
	stream_free(stream);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_streaming_method_serves_many_at_once, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(dead_clients_streams_are_closed, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(
		a_unary_method_opens_no_stream_and_a_stream_is_no_answer, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(an_address_can_be_used_once, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(one_caller_cannot_take_all_streams, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_stopping_server_ends_its_streams, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
