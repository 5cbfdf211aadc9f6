/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "engine/service/services.h"
#include "grpc/health/v1/health.pb-c.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "rpc/stream.h"
#include "tests/unit/test.h"

#define SERVING(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

enum { WAIT_MS = 30000, CHECK = 0 };

static struct core core;
static struct services services = {.core = &core};
static char directory[64];

static int start(void **state)
{
	(void)state;
	(void)snprintf(directory, sizeof(directory), "/tmp/health-XXXXXX");
	assert_non_null(mkdtemp(directory));
	assert_ok(rpc_start());
	memset(&core, 0, sizeof(core));
	core.config.local_dir = directory;
	core.criu_version = 40101;
	services.watchers = watchers_new();
	return 0;
}

static int stop(void **state)
{
	char command[128];

	(void)state;
	watchers_free(services.watchers);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	assert_int_equal(system(command), 0);
	return 0;
}

static status *call(int method, const char *service, ProtobufCMessage **ret_response)
{
	static const struct identity local = {.is_local = true, .name = "local"};
	const struct rpc_call call = {.caller = &local};
	const struct rpc_service health = services_health(&services);
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;

	request.service = (char *)service;
	return health.handlers[method](health.self, &call, &request.base, ret_response);
}

static int state_of(const char *service)
{
	scoped(message) ProtobufCMessage *response = NULL;

	assert_ok(call(CHECK, service, &response));
	return (int)((const Grpc__Health__V1__HealthCheckResponse *)response)->status;
}

static void an_engine_serves_until_it_drains(void **state)
{
	(void)state;

	assert_int_equal(state_of(""), SERVING(SERVING));
	assert_int_equal(state_of("haul.v1.Migrations"), SERVING(SERVING));
	assert_int_equal(state_of("grpc.health.v1.Health"), SERVING(SERVING));
	atomic_store(&core.is_draining, true);
	assert_int_equal(state_of(""), SERVING(NOT_SERVING));
	assert_int_equal(state_of("haul.v1.Migrations"), SERVING(NOT_SERVING));
	assert_int_equal(state_of("grpc.health.v1.Health"), SERVING(NOT_SERVING));
}

static void without_criu_nothing_migrates_but_the_engine_answers(void **state)
{
	(void)state;

	core.criu_version = 0;
	assert_int_equal(state_of("haul.v1.Migrations"), SERVING(NOT_SERVING));
	assert_int_equal(state_of("haul.v1.Peer"), SERVING(NOT_SERVING));
	assert_int_equal(state_of("haul.v1.Node"), SERVING(SERVING));
	assert_int_equal(state_of(""), SERVING(SERVING));
}

static void a_service_that_is_not_there_is_not_found(void **state)
{
	ProtobufCMessage *response = NULL;
	(void)state;

	assert_code(call(CHECK, "haul.v1.Nothing", &response), STATUS_NOT_FOUND);
	assert_code(call(CHECK, "haul.v1", &response), STATUS_NOT_FOUND);
}

static status *allow(void *self, const struct identity *caller, const char *method)
{
	(void)self;
	(void)caller;
	(void)method;
	return NULL;
}

/* A server with this one service, and a client that watches. */
struct watching {
	struct rpc_service service;
	struct rpc_server *server;
	struct rpc_client *client;
	struct stream *stream;
};

static void watch(struct watching *watching, const char *service)
{
	char url[96];
	Grpc__Health__V1__HealthCheckRequest request = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;

	watching->service = services_health(&services);
	const struct rpc_server_config config = {.services = &watching->service,
						 .service_count = 1,
						 .authorize = allow,
						 .stream_place = {.directory = directory}};
	(void)snprintf(url, sizeof(url), "ipc://%s/sock", directory);
	assert_ok(rpc_server_new(&config, &watching->server));
	assert_ok(rpc_server_listen(watching->server, url, NULL, 2));
	assert_ok(rpc_client_new(url, NULL, &watching->client));
	request.service = (char *)service;
	assert_ok(rpc_client_open_stream(watching->client, &grpc__health__v1__health__descriptor,
					 "Watch", &request.base, WAIT_MS, &watching->stream));
}

static void stop_watching(struct watching *watching)
{
	stream_free(watching->stream);
	rpc_client_free(watching->client);
	rpc_server_free(watching->server);
}

/* The next message: a state, or -1 with the status of the end. */
static int next(struct watching *watching, status **ret_end)
{
	scoped(message) ProtobufCMessage *message = NULL;

	*ret_end =
	    stream_receive(watching->stream, &grpc__health__v1__health_check_response__descriptor,
			   WAIT_MS, &message);
	return message != NULL
		   ? (int)((const Grpc__Health__V1__HealthCheckResponse *)message)->status
		   : -1;
}

static void a_watcher_sees_the_drain_and_the_end(void **state)
{
	struct watching watching;
	status *end = NULL;
	(void)state;

	watch(&watching, "");
	assert_int_equal(next(&watching, &end), SERVING(SERVING));
	atomic_store(&core.is_draining, true);
	watchers_wake(services.watchers, false);
	assert_int_equal(next(&watching, &end), SERVING(NOT_SERVING));
	watchers_wake(services.watchers, true);
	assert_int_equal(next(&watching, &end), -1);
	assert_code(end, STATUS_UNAVAILABLE);
	stop_watching(&watching);
}

static void an_unknown_service_can_be_watched(void **state)
{
	struct watching watching;
	status *end = NULL;
	(void)state;

	watch(&watching, "haul.v1.Nothing");
	assert_int_equal(next(&watching, &end), SERVING(SERVICE_UNKNOWN));
	watchers_wake(services.watchers, true);
	stop_watching(&watching);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(an_engine_serves_until_it_drains, start, stop),
	    cmocka_unit_test_setup_teardown(without_criu_nothing_migrates_but_the_engine_answers,
					    start, stop),
	    cmocka_unit_test_setup_teardown(a_service_that_is_not_there_is_not_found, start, stop),
	    cmocka_unit_test_setup_teardown(a_watcher_sees_the_drain_and_the_end, start, stop),
	    cmocka_unit_test_setup_teardown(an_unknown_service_can_be_watched, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
