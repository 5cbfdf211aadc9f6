/* SPDX-License-Identifier: Apache-2.0 */
/* Leases over a server and a client of one process, against the fake CRIU. */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "criu/rpc.pb-c.h"
#include "engine/host/files.h"
#include "engine/service/services.h"
#include "rpc/client.h"
#include "rpc/server.h"
#include "rpc/stream.h"
#include "tests/unit/engine/pipe_pair.h"

enum { WAIT_MS = 60000, LOOK_US = 5000, LOOKS = 4000 };

struct scene {
	char dir[64];
	struct core core;
	struct services services;
	struct rpc_service service;
	struct rpc_server *server;
	struct rpc_client *client;
	struct stream *stream;
	ProtobufCMessage *event; /* the last one */
};

static status *allow(void *self, const struct identity *caller, const char *method)
{
	(void)self;
	(void)caller;
	(void)method;
	return NULL;
}

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	char url[96];

	assert_non_null(scene);
	scratch_make(scene->dir);
	assert_int_equal(setenv("HAUL_FAKE_CRIU", "", 1), 0);
	assert_ok(rpc_start());
	assert_ok(cgroup_base(scene->core.cgroups));
	scene->core.config.state_dir = scene->core.config.local_dir = scene->dir;
	scene->core.config.criu = FAKE_CRIU;
	scene->core.criu_version = 40101;
	scene->services.core = &scene->core;
	scene->services.leases = leases_new(&scene->core);
	assert_ok(leases_recover(scene->services.leases));
	scene->service = services_criu(&scene->services);
	const struct rpc_server_config config = {.services = &scene->service,
						 .service_count = 1,
						 .authorize = allow,
						 .stream_place = {.directory = scene->dir}};
	(void)snprintf(url, sizeof(url), "ipc://%s/sock", scene->dir);
	assert_ok(rpc_server_new(&config, &scene->server));
	assert_ok(rpc_server_listen(scene->server, url, NULL, 2));
	assert_ok(rpc_client_new(url, NULL, &scene->client));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	message_free(scene->event);
	stream_free(scene->stream);
	rpc_client_free(scene->client);
	rpc_server_free(scene->server);
	leases_free(scene->services.leases);
	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

static void lease(struct scene *scene, const Haul__V1__LeaseRequest *request)
{
	assert_ok(rpc_client_open_stream(scene->client, &haul__v1__criu__descriptor, "Lease",
					 &request->base, WAIT_MS, &scene->stream));
}

static status *receive(struct scene *scene)
{
	message_free(TAKE(scene->event));
	return stream_receive(scene->stream, &haul__v1__lease_event__descriptor, WAIT_MS,
			      &scene->event);
}

static const Haul__V1__LeaseEvent *next(struct scene *scene)
{
	assert_ok(receive(scene));
	assert_non_null(scene->event);
	return (const Haul__V1__LeaseEvent *)scene->event;
}

static void say(struct scene *scene, const void *data, size_t size)
{
	Haul__V1__LeaseInput input = HAUL__V1__LEASE_INPUT__INIT;

	input.message.data = (uint8_t *)data;
	input.message.len = size;
	assert_ok(stream_send(scene->stream, &input.base, WAIT_MS));
}

static size_t version_request(uint8_t ret_packed[64], bool keep_open)
{
	CriuReq request = CRIU_REQ__INIT;

	request.type = CRIU_REQ_TYPE__VERSION;
	request.has_keep_open = 1;
	request.keep_open = keep_open;
	assert_true(criu_req__get_packed_size(&request) <= 64);
	return criu_req__pack(&request, ret_packed);
}

static void check_version(const uint8_t *data, size_t size)
{
	CriuResp *response = criu_resp__unpack(NULL, size, data);

	assert_non_null(response);
	assert_int_equal(response->type, CRIU_REQ_TYPE__VERSION);
	assert_true(response->success);
	assert_int_equal(response->version->major_number, 4);
	criu_resp__free_unpacked(response, NULL);
}

/* A lease whose messages go through the stream, and its offer. */
static const Haul__V1__LeaseOffer *streamed(struct scene *scene)
{
	const Haul__V1__LeaseRequest request = HAUL__V1__LEASE_REQUEST__INIT;

	lease(scene, &request);
	return next(scene)->offer;
}

/* A lease with a socket, and its offer. */
static const Haul__V1__LeaseOffer *socketed(struct scene *scene)
{
	Haul__V1__LeaseRequest request = HAUL__V1__LEASE_REQUEST__INIT;

	request.socket = true;
	lease(scene, &request);
	return next(scene)->offer;
}

static void ask_in_stream(struct scene *scene)
{
	uint8_t packed[64];

	say(scene, packed, version_request(packed, true));
}

static void check_answer(struct scene *scene)
{
	const Haul__V1__LeaseEvent *event = next(scene);

	check_version(event->message.data, event->message.len);
}

static void messages_pass_both_ways_in_the_stream(void **state)
{
	struct scene *scene = *state;

	assert_string_equal(streamed(scene)->socket, "");
	for (int i = 0; i < 2; i++) {
		ask_in_stream(scene);
		check_answer(scene);
	}
}

static void a_half_close_lets_criu_end_and_the_lease_with_it(void **state)
{
	struct scene *scene = *state;

	(void)streamed(scene);
	ask_in_stream(scene);
	stream_half_close(scene->stream);
	assert_true(next(scene)->message.len > 0);
	assert_non_null(next(scene)->criu_end);
	assert_ok(receive(scene));
	assert_null(scene->event);
}

static void what_is_no_request_ends_criu_and_not_the_lease(void **state)
{
	struct scene *scene = *state;

	(void)streamed(scene);
	say(scene, "\377\377\377", 3);
	const Haul__V1__LeaseCriuEnd *ended = next(scene)->criu_end;
	assert_non_null(ended);
	assert_true(ended->pid > 0);
	ask_in_stream(scene);
	check_answer(scene);
}

static void an_empty_or_too_long_message_is_refused(void **state)
{
	struct scene *scene = *state;
	scoped(bytes) uint8_t *much = calloc(1, LIMIT_CRIU_MESSAGE + 1);

	for (int i = 0; i < 2; i++) {
		(void)streamed(scene);
		say(scene, much, i == 0 ? 0 : LIMIT_CRIU_MESSAGE + 1);
		assert_code(receive(scene), STATUS_INVALID_ARGUMENT);
		stream_free(TAKE(scene->stream));
	}
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static void ask_version(int fd)
{
	uint8_t packed[64], answer[4096];
	size_t size = version_request(packed, true);

	assert_int_equal(send(fd, packed, size, MSG_NOSIGNAL), size);
	ssize_t got = recv(fd, answer, sizeof(answer), 0);
	assert_true(got > 0);
	check_version(answer, (size_t)got);
}

static void a_socket_is_for_root_and_gone_with_the_lease(void **state)
{
	struct scene *scene = *state;
	struct stat stat_of;
	const Haul__V1__LeaseOffer *offer = socketed(scene);
	scoped(str) char *path = strdup(offer->socket);
	scoped(str) char *images = strdup(offer->images_dir);

	assert_int_equal(stat(path, &stat_of), 0);
	assert_int_equal(stat_of.st_mode & 0777, 0600);
	assert_int_equal(stat(images, &stat_of), 0);
	for (int i = 0; i < 2; i++) { /* a CRIU for each connection */
		scoped(fd) int fd = connect_to(path);
		ask_version(fd);
		ask_version(fd);
		assert_int_equal(shutdown(fd, SHUT_WR), 0);
		assert_non_null(next(scene)->criu_end);
	}
	stream_free(TAKE(scene->stream));
	for (int i = 0; i < LOOKS && (access(path, F_OK) == 0 || access(images, F_OK) == 0); i++)
		(void)usleep(LOOK_US);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(access(images, F_OK), -1);
}

static void a_connection_that_says_nothing_starts_nothing(void **state)
{
	struct scene *scene = *state;
	scoped(str) char *path = strdup(socketed(scene)->socket);

	(void)close(connect_to(path));
	scoped(fd) int fd = connect_to(path);
	ask_version(fd);
}

static void when_the_engine_stops_its_leases_end(void **state)
{
	struct scene *scene = *state;
	const Haul__V1__LeaseRequest request = HAUL__V1__LEASE_REQUEST__INIT;

	(void)streamed(scene);
	ask_in_stream(scene);
	check_answer(scene);
	leases_drain(scene->services.leases);
	assert_code(receive(scene), STATUS_UNAVAILABLE);
	stream_free(TAKE(scene->stream));
	lease(scene, &request);
	assert_code(receive(scene), STATUS_UNAVAILABLE);
}

static status *refused(struct scene *scene, const struct rpc_call *call,
		       const Haul__V1__LeaseRequest *request)
{
	return leases_serve(scene->services.leases, call, request, NULL);
}

static void what_cannot_be_leased_is_refused(void **state)
{
	struct scene *scene = *state;
	const struct identity far = {.is_authenticated = true, .name = "a"};
	const struct rpc_call call = {.caller = &far, .server_host = "127.0.0.1"};
	Haul__V1__LeaseRequest request = HAUL__V1__LEASE_REQUEST__INIT;
	Haul__V1__PipeAddress address = HAUL__V1__PIPE_ADDRESS__INIT;

	request.socket = true;
	assert_code(refused(scene, &call, &request), STATUS_INVALID_ARGUMENT);
	request.socket = false;
	request.memory_to = &address;
	assert_code(refused(scene, &call, &request), STATUS_INVALID_ARGUMENT); /* no URL */
	address.url = (char *)"ipc:///run/haul/pipe.sock";
	assert_code(refused(scene, &call, &request), STATUS_INVALID_ARGUMENT);
	address.url = (char *)"tcp://127.0.0.1:9";
	request.memory_from = true;
	assert_code(refused(scene, &call, &request), STATUS_INVALID_ARGUMENT);
	request.memory_to = NULL;
	request.memory_host = (char *)"10.0.0.1";
	assert_code(refused(scene, &call, &request), STATUS_INVALID_ARGUMENT);
	scene->core.criu_version = 0;
	request.memory_host = (char *)"";
	assert_code(refused(scene, &call, &request), STATUS_FAILED_PRECONDITION);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(messages_pass_both_ways_in_the_stream),
	    TEST(a_half_close_lets_criu_end_and_the_lease_with_it),
	    TEST(what_is_no_request_ends_criu_and_not_the_lease),
	    TEST(an_empty_or_too_long_message_is_refused),
	    TEST(a_socket_is_for_root_and_gone_with_the_lease),
	    TEST(a_connection_that_says_nothing_starts_nothing),
	    TEST(when_the_engine_stops_its_leases_end),
	    TEST(what_cannot_be_leased_is_refused),
	};
	char base[CGROUP_PATH];
	scoped(status) status *none = cgroup_base(base);

	if (none != NULL)
		return 77;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
