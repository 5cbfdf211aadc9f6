/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "engine/service/services.h"
#include "grpc/health/v1/health.pb-c.h"
#include "proto/envelope.h"
#include "tests/unit/test.h"

#define SERVING(name) GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__##name

enum { WAIT_MS = 30000, CHECK, WATCH };

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
	services.watchers = watchers_new(&core);
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
	return health.handlers[method - CHECK](health.self, &call, &request.base, ret_response);
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

static struct pipe *watch(const char *service)
{
	scoped(message) ProtobufCMessage *response = NULL;
	struct pipe *pipe = NULL;

	assert_ok(call(WATCH, service, &response));
	assert_ok(pipe_dial(((const Grpc__Health__V1__HealthWatchResponse *)response)->pipe,
			    WAIT_MS, &pipe));
	return pipe;
}

/* The next frame: a state, or -1 with the status of the end. */
static int next(struct pipe *pipe, status **ret_end)
{
	scoped(message) ProtobufCMessage *message = NULL;
	scoped(pipe_in) struct pipe_in in = {0};
	int result = -1;

	assert_ok(pipe_receive(pipe, WAIT_MS, &in));
	bool is_event = in.kind == HAUL__V1__FRAME_KIND__FRAME_EVENT;
	assert_ok(unpack_message(is_event ? &grpc__health__v1__health_check_response__descriptor
					  : &haul__v1__pipe_end__descriptor,
				 in.body, in.size, LIMIT_UNARY_BYTES, &message));
	if (is_event)
		result = (int)((const Grpc__Health__V1__HealthCheckResponse *)message)->status;
	else
		*ret_end = status_from_wire(((const Haul__V1__PipeEnd *)message)->status);
	return result;
}

static void a_watcher_sees_the_drain_and_the_end(void **state)
{
	scoped(pipe) struct pipe *pipe = watch("");
	scoped(status) status *end = NULL;
	(void)state;

	assert_int_equal(next(pipe, &end), SERVING(SERVING));
	atomic_store(&core.is_draining, true);
	watchers_wake(services.watchers, false);
	int now = SERVING(SERVING);
	while (now == SERVING(SERVING)) /* one that was on its way may come before */
		now = next(pipe, &end);
	assert_int_equal(now, SERVING(NOT_SERVING));
	watchers_wake(services.watchers, true);
	while (now == SERVING(NOT_SERVING))
		now = next(pipe, &end);
	assert_int_equal(now, -1);
	assert_int_equal(status_code_of(end), STATUS_UNAVAILABLE);
}

static void an_unknown_service_can_be_watched(void **state)
{
	scoped(pipe) struct pipe *pipe = watch("haul.v1.Nothing");
	scoped(status) status *end = NULL;
	(void)state;

	assert_int_equal(next(pipe, &end), SERVING(SERVICE_UNKNOWN));
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
