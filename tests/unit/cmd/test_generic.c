/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl call, describe and list-services, against services that haulctl was not built with. */
#include <cjson/cJSON.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "haul/v1/migrations.pb-c.h"
#include "proto/json.h"
#include "proto/raw.h"
#include "rpc/reflection.h"
#include "rpc/server.h"
#include "rpc/stream.h"
#include "tests/unit/cmd/program.h"
#include "tests/unit/test.h"

extern const uint8_t every_descriptor_set[];
extern const size_t every_descriptor_set_size;

enum { WAIT_MS = 60000, SERVICES = 3 };

static struct {
	char directory[64], url[96];
	struct rpc_service services[SERVICES];
	size_t service_count;
	struct reflection *reflection;
	struct rpc_server *server;
	atomic_bool is_endless;
	atomic_int calls;
} engine;

/* haul.test.Tester, for which there is no generated code here either. */
static const ProtobufCMethodDescriptor tester_methods[] = {
    {"Echo", &raw_message_descriptor, &raw_message_descriptor}};
static const unsigned tester_indices[] = {0};
static const ProtobufCServiceDescriptor tester_descriptor = {
    .magic = PROTOBUF_C__SERVICE_DESCRIPTOR_MAGIC,
    .name = "haul.test.Tester",
    .short_name = "Tester",
    .c_name = "Tester",
    .package = "haul.test",
    .n_methods = 1,
    .methods = tester_methods,
    .method_indices_by_name = tester_indices,
};

static status *echo(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		    ProtobufCMessage **ret_response)
{
	scoped(buffer) struct buffer bytes = {0};

	(void)self;
	(void)atomic_fetch_add(&engine.calls, 1);
	const char *text = metadata_find(call->metadata, "say");
	status *st = text != NULL ? rpc_call_add_trailing(call, "said", text) : NULL;
	if (st == NULL)
		st = pack_message(request, LIMIT_UNARY_BYTES, &bytes);
	return st != NULL ? st
			  : unpack_message(&raw_message_descriptor, bytes.data, bytes.size,
					   LIMIT_UNARY_BYTES, ret_response);
}

static const rpc_handler tester_handlers[] = {echo};

static void send_event(struct stream *stream, const char *id)
{
	Haul__V1__Migration event = HAUL__V1__MIGRATION__INIT;

	event.id = (char *)id;
	event.state = HAUL__V1__MIGRATION_STATE__RUNNING;
	event.bytes_on_wire = 1ULL << 60;
	status_free(stream_send(stream, &event.base, WAIT_MS));
}

/* Two events and an error, or two events and then silence until the reader has enough. */
static status *watch(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     struct stream *stream)
{
	ProtobufCMessage *none = NULL;

	(void)self;
	(void)request;
	const char *said = metadata_find(call->metadata, "say");
	send_event(stream, said != NULL ? said : "first");
	send_event(stream, "second");
	if (!atomic_load(&engine.is_endless))
		return status_errorf(STATUS_ABORTED, "it was rolled back");
	return stream_receive(stream, &haul__v1__migration__descriptor, WAIT_MS, &none);
}

static status *list(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		    ProtobufCMessage **ret_response)
{
	Haul__V1__ListResponse *response = calloc(1, sizeof(*response));

	(void)self;
	(void)call;
	(void)request;
	haul__v1__list_response__init(response);
	*ret_response = &response->base;
	return NULL;
}

static const rpc_handler migrations_handlers[] = {NULL, NULL, list, NULL, NULL, NULL, NULL, NULL};
static const rpc_stream_handler migrations_streams[8] = {[4] = watch};

/* Reflection, when there is a set, and one service. */
static void engine_start(const struct rpc_service *service, const uint8_t *set, size_t set_size)
{
	memset(&engine, 0, sizeof(engine));
	engine.services[0] = *service;
	engine.service_count = 1;
	if (set != NULL) {
		assert_ok(reflection_new(engine.services, 2, set, set_size, &engine.reflection));
		engine.services[1] = reflection_service(engine.reflection);
		engine.service_count = 2;
	}
	const struct rpc_server_config config = {.services = engine.services,
						 .service_count = engine.service_count,
						 .stream_place = {.directory = engine.directory}};
	(void)snprintf(engine.directory, sizeof(engine.directory), "/tmp/generic-XXXXXX");
	assert_non_null(mkdtemp(engine.directory));
	(void)snprintf(engine.url, sizeof(engine.url), "ipc://%s/hauld.sock", engine.directory);
	assert_ok(rpc_start());
	assert_ok(rpc_server_new(&config, &engine.server));
	assert_ok(rpc_server_listen(engine.server, engine.url, NULL, 4));
}

static int start_tester(void **state)
{
	const struct rpc_service service = {.descriptor = &tester_descriptor,
					    .handlers = tester_handlers};

	(void)state;
	engine_start(&service, every_descriptor_set, every_descriptor_set_size);
	return 0;
}

static int start_migrations(void **state)
{
	const struct rpc_service service = {.descriptor = &haul__v1__migrations__descriptor,
					    .handlers = migrations_handlers,
					    .streams = migrations_streams};

	(void)state;
	engine_start(&service, own_descriptor_set, own_descriptor_set_size);
	return 0;
}

static int start_without_reflection(void **state)
{
	const struct rpc_service service = {.descriptor = &haul__v1__migrations__descriptor,
					    .handlers = migrations_handlers,
					    .streams = migrations_streams};

	(void)state;
	engine_start(&service, NULL, 0);
	return 0;
}

static int stop(void **state)
{
	char command[128];

	(void)state;
	rpc_server_stop(engine.server, WAIT_MS);
	rpc_server_free(engine.server);
	reflection_free(engine.reflection);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", engine.directory);
	assert_int_equal(system(command), 0);
	return 0;
}

static struct outcome haulctl(const char *const arguments[ARGUMENTS], const char *input)
{
	struct started started = program_start(engine.url, arguments, input);

	return program_end(&started);
}

/* The answer on one line. */
static void answers(const struct outcome *outcome, const char *want)
{
	cJSON *json = cJSON_Parse(outcome->out);

	if (outcome->exit != 0 || json == NULL)
		fail_msg("%d: %s%s", outcome->exit, outcome->out, outcome->err);
	char *text = cJSON_PrintUnformatted(json);
	assert_string_equal(text, want);
	cJSON_free(text);
	cJSON_Delete(json);
}

static void unknown_services_are_listed_and_described(void **state)
{
	static const char *const list_services[ARGUMENTS] = {"list-services"};
	static const char *const service[ARGUMENTS] = {"describe", "haul.test.Tester"};
	static const char *const methods[][ARGUMENTS] = {{"describe", "haul.test.Tester.Echo"},
							 {"describe", "haul.test.Tester/Echo"}};
	static const char *const message[ARGUMENTS] = {"describe", "haul.test.Every"};
	static const char *const enumeration[ARGUMENTS] = {"describe", "haul.test.Colour",
							   "--json"};
	(void)state;

	struct outcome outcome = haulctl(list_services, NULL);
	assert_string_equal(outcome.out, "haul.test.Tester\nhaul.v1.Reflection\n");
	outcome = haulctl(service, NULL);
	assert_string_equal(outcome.out,
			    "service haul.test.Tester {\n"
			    "  rpc Echo(haul.test.Every) returns (haul.test.Every);\n}\n");
	for (size_t i = 0; i < array_len(methods); i++) {
		outcome = haulctl(methods[i], NULL);
		assert_string_equal(outcome.out,
				    "rpc Echo(haul.test.Every) returns (haul.test.Every);\n");
	}
	outcome = haulctl(message, NULL);
	says(outcome.out, "\n  double a_double = 1;\n");
	says(outcome.out, "\n  repeated haul.test.Colour colours = 27;\n");
	says(outcome.out, "\n  uint32 by_number = 32;  // one of several\n");
	says(outcome.out, "\n  map<string, int64> by_text = 51;\n");
	says(outcome.out, "\n  google.protobuf.Timestamp at = 61;\n");
	outcome = haulctl(enumeration, NULL);
	answers(&outcome, "{\"values\":[{\"name\":\"NO_COLOUR\",\"number\":0},{\"name\":\"RED\","
			  "\"number\":1},{\"name\":\"GREEN\",\"number\":2},{\"name\":\"BELOW\","
			  "\"number\":-1}],\"enum\":\"haul.test.Colour\"}");
}

static void unknown_methods_are_called_with_json(void **state)
{
	static const char request[] =
	    "{\"anInt32\": -1, \"an_int64\": 5, \"colour\": \"RED\", \"at\": "
	    "\"2024-02-29T01:02:03Z\", \"byInt32\": {\"7\": {}}}";
	static const char answer[] =
	    "{\"anInt32\":-1,\"anInt64\":\"5\",\"colour\":\"RED\",\"byInt32\":"
	    "{\"7\":{}},\"at\":\"2024-02-29T01:02:03Z\"}";
	static const char *const argument[ARGUMENTS] = {"call", "haul.test.Tester/Echo", "-d",
							request};
	static const char *const input[ARGUMENTS] = {"call", "/haul.test.Tester/Echo", "-d", "@"};
	static const char *const nothing[ARGUMENTS] = {"call", "haul.test.Tester.Echo"};
	(void)state;

	struct outcome outcome = haulctl(argument, NULL);
	answers(&outcome, answer);
	outcome = haulctl(input, request);
	answers(&outcome, answer);
	outcome = haulctl(nothing, NULL);
	answers(&outcome, "{}");
	assert_int_equal(atomic_load(&engine.calls), 3);
}

static void a_template_can_be_sent_as_it_is(void **state)
{
	static const char *const template[ARGUMENTS] = {"describe", "--template",
							"haul.test.Every"};
	static const char *const call[ARGUMENTS] = {"call", "haul.test.Tester/Echo", "-d", "@",
						    "--emit-defaults"};
	(void)state;

	struct outcome outcome = haulctl(template, NULL);
	assert_int_equal(outcome.exit, 0);
	scoped(str) char *text = strdup(outcome.out);
	outcome = haulctl(call, text);
	assert_int_equal(outcome.exit, 0);
	says(outcome.out, "\"aDouble\":\t0,");
	says(outcome.out, "\"byText\":");
}

static void what_is_wrong_is_told_before_anything_is_sent(void **state)
{
	static const struct {
		const char *arguments[ARGUMENTS];
		enum status_code code;
		const char *says;
	} cases[] = {
	    {{"call", "haul.test.Tester/Echo", "-d", "{\"inner\": {\"txt\": 1}}"},
	     STATUS_INVALID_ARGUMENT,
	     "-d: haul.test.Every: inner: txt: haul.test.Every.Inner has no such field"},
	    {{"call", "haul.test.Tester/Echo", "-d", "{"},
	     STATUS_INVALID_ARGUMENT,
	     "not valid JSON"},
	    {{"call", "haul.test.Tester/Ech"}, STATUS_NOT_FOUND, "there is no method"},
	    {{"call", "haul.test.Nothing/Echo"}, STATUS_NOT_FOUND, "list-services"},
	    {{"call", "Echo"}, STATUS_INVALID_ARGUMENT, "SERVICE/METHOD"},
	    {{"call"}, STATUS_INVALID_ARGUMENT, "an argument is missing"},
	    {{"describe", "haul.test.Nothing"}, STATUS_NOT_FOUND, "list-services"},
	    {{"describe", "--template", "haul.test.Colour"},
	     STATUS_INVALID_ARGUMENT,
	     "is not a message"},
	};
	(void)state;

	for (size_t i = 0; i < array_len(cases); i++) {
		struct outcome outcome = haulctl(cases[i].arguments, NULL);
		assert_int_equal(outcome.exit, 64 + cases[i].code);
		says(outcome.err, cases[i].says);
		assert_string_equal(outcome.out, "");
	}
	assert_int_equal(atomic_load(&engine.calls), 0);
}

static void a_stream_is_an_object_a_line_and_its_end_the_exit(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"call", "haul.v1.Migrations/Watch", "-d",
							 "{\"id\": \"7f3a\"}"};
	(void)state;

	struct outcome outcome = haulctl(arguments, NULL);
	assert_string_equal(outcome.out, "{\"id\":\"first\",\"state\":\"RUNNING\",\"bytesOnWire\":"
					 "\"1152921504606846976\"}\n"
					 "{\"id\":\"second\",\"state\":\"RUNNING\",\"bytesOnWire\":"
					 "\"1152921504606846976\"}\n");
	assert_int_equal(outcome.exit, 64 + STATUS_ABORTED);
	says(outcome.err, "it was rolled back");
}

static void a_stream_lasts_no_longer_than_it_may(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"call", "haul.v1.Migrations/Watch",
							 "--max-time", "1500ms"};
	(void)state;

	atomic_store(&engine.is_endless, true);
	struct outcome outcome = haulctl(arguments, NULL);
	assert_int_equal(outcome.exit, 64 + STATUS_DEADLINE_EXCEEDED);
}

static void metadata_is_sent_and_shown(void **state)
{
	static const char *const calls[][ARGUMENTS] = {
	    {"call", "haul.test.Tester/Echo", "-H", "say: a text: two", "-H", "x-y:z", "-v"},
	    {"call", "haul.test.Tester/Echo", "-H", "grpc-timeout: 1"},
	    {"call", "haul.test.Tester/Echo", "-H", "no colon"}};
	(void)state;

	struct outcome outcome = haulctl(calls[0], NULL);
	assert_int_equal(outcome.exit, 0);
	says(outcome.err, "said: a text: two\n");
	says(outcome.err, "haul-took-us: ");
	int before = atomic_load(&engine.calls);
	for (size_t i = 1; i < array_len(calls); i++) {
		outcome = haulctl(calls[i], NULL);
		assert_int_equal(outcome.exit, 64 + STATUS_INVALID_ARGUMENT);
	}
	assert_int_equal(atomic_load(&engine.calls), before);
}

static void metadata_is_sent_with_what_opens_a_stream(void **state)
{
	static const char *const calls[][ARGUMENTS] = {{"call", "haul.v1.Migrations/Watch", "-H",
							"say: who"},
						       {"call", "haul.v1.Migrations/Watch", "-H",
							"haul-x: 1"}};
	(void)state;

	struct outcome outcome = haulctl(calls[0], NULL);
	says(outcome.out, "{\"id\":\"who\",");
	assert_int_equal(outcome.exit, 64 + STATUS_ABORTED);
	outcome = haulctl(calls[1], NULL);
	assert_int_equal(outcome.exit, 64 + STATUS_INVALID_ARGUMENT);
	assert_string_equal(outcome.out, "");
}

static void methods_that_stream_are_described_as_such(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"describe", "haul.v1.Migrations"};
	(void)state;

	struct outcome outcome = haulctl(arguments, NULL);
	says(outcome.out,
	     "  rpc Watch(haul.v1.WatchRequest) returns (stream haul.v1.Migration);\n");
	says(outcome.out, "  rpc Start(haul.v1.StartRequest) returns (haul.v1.Migration);\n");
	says(outcome.out, "  rpc List(haul.v1.ListRequest) returns (haul.v1.ListResponse) "
			  "{ option idempotency_level = NO_SIDE_EFFECTS; }\n");
}

static void without_reflection_what_is_built_in_is_known(void **state)
{
	static const char *const call[ARGUMENTS] = {"call", "haul.v1.Migrations/List",
						    "--emit-defaults"};
	static const char *const list_services[ARGUMENTS] = {"list-services"};
	static const char *const unknown[ARGUMENTS] = {"call", "haul.test.Tester/Echo"};
	(void)state;

	struct outcome outcome = haulctl(call, NULL);
	answers(&outcome, "{\"migrations\":[],\"nextPageToken\":\"\"}");
	outcome = haulctl(list_services, NULL);
	assert_int_equal(outcome.exit, 64 + STATUS_UNIMPLEMENTED);
	outcome = haulctl(unknown, NULL);
	assert_int_equal(outcome.exit, 64 + STATUS_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(unknown_services_are_listed_and_described, start_tester,
					    stop),
	    cmocka_unit_test_setup_teardown(metadata_is_sent_and_shown, start_tester, stop),
	    cmocka_unit_test_setup_teardown(unknown_methods_are_called_with_json, start_tester,
					    stop),
	    cmocka_unit_test_setup_teardown(a_template_can_be_sent_as_it_is, start_tester, stop),
	    cmocka_unit_test_setup_teardown(what_is_wrong_is_told_before_anything_is_sent,
					    start_tester, stop),
	    cmocka_unit_test_setup_teardown(a_stream_is_an_object_a_line_and_its_end_the_exit,
					    start_migrations, stop),
	    cmocka_unit_test_setup_teardown(a_stream_lasts_no_longer_than_it_may, start_migrations,
					    stop),
	    cmocka_unit_test_setup_teardown(metadata_is_sent_with_what_opens_a_stream,
					    start_migrations, stop),
	    cmocka_unit_test_setup_teardown(methods_that_stream_are_described_as_such,
					    start_migrations, stop),
	    cmocka_unit_test_setup_teardown(without_reflection_what_is_built_in_is_known,
					    start_without_reflection, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
