/* SPDX-License-Identifier: Apache-2.0 */
/* Calls over plain transports: what comes back, deadlines, interrupts, lost servers. */
#include "proto/clock.h"
#include "tests/unit/test.h"

#include <errno.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "proto/envelope.h"
#include "rpc/nng_error.h"
#include "tests/unit/rpc/echo.h"

enum { BIG_BYTES = 900 * 1024, STOPS = 100 };

static struct rpc_client *connect_to(const char *url)
{
	struct rpc_client *client = NULL;
	assert_ok(rpc_client_new(url, NULL, &client));
	return client;
}

/* A call on a thread of its own. */
struct background {
	pthread_t thread;
	struct rpc_client *client;
	const char *id;
	int64_t timeout_ms;
	status *st;
};

static void *run_background(void *argument)
{
	struct background *call = argument;
	call->st = echo_hello(call->client, call->id, call->timeout_ms, NULL);
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

static void a_call_is_answered_over_every_plain_transport(void **state)
{
	static const char *const transports[] = {"ipc", "tcp"};
	static const char *const names[] = {"local", "unauthenticated"};
	(void)state;
	for (size_t i = 0; i < array_len(transports); i++) {
		struct echo echo;
		echo_start(&echo);
		echo_listen(&echo, transports[i], NULL, 2);
		scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
		for (int n = 0; n < 20; n++) {
			scoped(str) char *node = NULL;
			assert_ok(echo_hello(client, "", 20000, &node));
			assert_string_equal(node, names[i]);
		}
		assert_true(is_at_least(&echo.called, 20, 10000));
		echo_stop(&echo);
	}
}

static void a_listener_on_every_address_tells_the_one_that_was_reached(void **state)
{
	struct echo echo;
	char url[64];
	scoped(rpc_client) struct rpc_client *client = NULL;
	scoped(message) ProtobufCMessage *response = NULL;
	Haul__V1__HelloRequest request = HAUL__V1__HELLO_REQUEST__INIT;
	unsigned port = 0;

	(void)state;
	echo_start(&echo);
	for (int try = 0; try < 6; try++) {
		port = free_port(); /* for a moment */
		(void)snprintf(url, sizeof(url), "tcp://0.0.0.0:%u", port);
		status *st = rpc_server_listen(echo.server, url, NULL, 2);
		if (st == NULL)
			break;
		assert_true(try < 5);
		status_free(st);
	}
	(void)snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", port);
	assert_ok(rpc_client_new(url, NULL, &client));
	assert_ok(rpc_client_call(client, &haul__v1__peer__descriptor, "Hello", &request.base,
				  20000, &response));
	assert_string_equal(((Haul__V1__HelloResponse *)response)->kernel, "127.0.0.1");
	echo_stop(&echo);
}

static void an_error_comes_with_its_details_and_may_have_run(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 2);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	scoped(status) status *st = echo_hello(client, "fail", 20000, NULL);
	assert_int_equal(status_code_of(st), STATUS_ABORTED);
	assert_string_equal(status_message(st), "it failed");
	assert_string_equal(status_detail_find(st, "next"), "try again");
	/* The handler's own "sent: no" is about another call. */
	assert_true(rpc_client_may_have_run(st));
	assert_code(echo_hello(client, "nothing", 20000, NULL), STATUS_INTERNAL);
	assert_code(echo_hello(client, "big", 20000, NULL), STATUS_RESOURCE_EXHAUSTED);
	assert_ok(echo_hello(client, "", 20000, NULL));
	echo_stop(&echo);
}

static void what_is_not_there_or_not_allowed_is_told(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 2);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	ProtobufCMessage *response = NULL;
	Haul__V1__SettleRequest request = HAUL__V1__SETTLE_REQUEST__INIT;
	assert_reason(rpc_client_call(client, &haul__v1__peer__descriptor, "Settle", &request.base,
				      20000, &response),
		      STATUS_UNIMPLEMENTED, "METHOD_UNKNOWN");
	status *st = rpc_client_call(client, &haul__v1__peer__descriptor, "Nonsense", &request.base,
				     20000, &response);
	assert_false(rpc_client_may_have_run(st));
	assert_code(st, STATUS_UNIMPLEMENTED);
	atomic_store(&echo.deny, true);
	assert_code(echo_hello(client, "", 20000, NULL), STATUS_PERMISSION_DENIED);
	assert_int_equal(atomic_load(&echo.runs), 0);
	echo_stop(&echo);
}

static void a_request_over_the_limit_does_not_leave(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 2);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	scoped(str) char *text = malloc(LIMIT_UNARY_BYTES + 1);
	memset(text, 'x', LIMIT_UNARY_BYTES);
	text[LIMIT_UNARY_BYTES] = '\0';
	status *st = echo_hello(client, text, 20000, NULL);
	assert_false(rpc_client_may_have_run(st));
	assert_code(st, STATUS_RESOURCE_EXHAUSTED);
	text[LIMIT_UNARY_BYTES - 200] = '\0';
	assert_ok(echo_hello(client, text, 20000, NULL));
	echo_stop(&echo);
}

static void nobody_there_is_unavailable_and_not_sent(void **state)
{
	(void)state;
	char url[64];
	(void)snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", free_port());
	static const char *const urls[] = {NULL, "ipc:///tmp/haul-no-such-socket"};
	for (size_t i = 0; i < array_len(urls); i++) {
		scoped(rpc_client) struct rpc_client *client = connect_to(urls[i] ? urls[i] : url);
		int64_t begin_ms = clock_monotonic_ms();
		scoped(status) status *st = echo_hello(client, "", 300, NULL);
		assert_int_equal(status_code_of(st), STATUS_UNAVAILABLE);
		assert_false(rpc_client_may_have_run(st));
		assert_non_null(strstr(status_message(st), "not connected"));
		assert_true(clock_monotonic_ms() - begin_ms < 10000);
	}
}

static void a_server_that_comes_late_is_found(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	char url[128];
	(void)snprintf(url, sizeof(url), "ipc://%s/sock", echo.directory);
	scoped(rpc_client) struct rpc_client *client = connect_to(url);
	struct background call = {.client = client, .id = "", .timeout_ms = 30000};
	start(&call);
	assert_reason(echo_hello(client, "", 200, NULL), STATUS_UNAVAILABLE, "NOT_CONNECTED");
	echo_listen(&echo, "ipc", NULL, 2);
	assert_ok(join(&call));
	echo_stop(&echo);
}

static void an_unanswered_call_ends_at_its_deadline(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 2);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	assert_ok(echo_hello(client, "", 20000, NULL));
	int64_t before_ms = clock_monotonic_ms();
	status *st = echo_hello(client, "block", 500, NULL);
	assert_true(rpc_client_may_have_run(st));
	assert_code(st, STATUS_DEADLINE_EXCEEDED);
	/* The handler was told the same deadline. */
	int64_t told_ms = atomic_load(&echo.last_deadline_ms);
	assert_true(told_ms >= before_ms && told_ms <= clock_monotonic_ms() + 500);
	assert_ok(echo_hello(client, "", 20000, NULL));
	echo_stop(&echo);
}

/* The server has one call in work and one at hand, and takes no more bytes. */
static void a_request_that_cannot_leave_ends_at_its_deadline(void **state)
{
	struct echo echo;
	(void)state;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 1);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	scoped(str) char *big = calloc(1, BIG_BYTES + 1);
	assert_non_null(big);
	memset(big, 'x', BIG_BYTES);
	struct background calls[] = {
	    {.client = client, .id = "block", .timeout_ms = 60000},
	    {.client = client, .id = big, .timeout_ms = 60000},
	    {.client = client, .id = big, .timeout_ms = 60000},
	};
	start(&calls[0]);
	assert_true(is_at_least(&echo.runs, 1, 20000));
	start(&calls[1]);
	start(&calls[2]);
	for (int i = 0; i < 2; i++) {
		int64_t begun_ms = clock_monotonic_ms();
		assert_code(echo_hello(client, big, 300, NULL), STATUS_DEADLINE_EXCEEDED);
		assert_true(clock_monotonic_ms() - begun_ms < 30000);
	}
	echo.is_released = true;
	for (size_t i = 0; i < array_len(calls); i++)
		assert_ok(join(&calls[i]));
	echo_stop(&echo);
}

static void many_threads_share_a_client(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "tcp", NULL, 4);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	for (int round = 0; round < 10; round++) {
		struct background calls[8];
		for (size_t i = 0; i < array_len(calls); i++) {
			calls[i] =
			    (struct background){.client = client, .id = "", .timeout_ms = 30000};
			start(&calls[i]);
		}
		for (size_t i = 0; i < array_len(calls); i++)
			assert_ok(join(&calls[i]));
	}
	assert_int_equal(atomic_load(&echo.runs), 80);
	echo_stop(&echo);
}

static void an_interrupt_ends_calls_at_once(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 2);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	scoped(rpc_client) struct rpc_client *lost = connect_to("ipc:///tmp/haul-no-such-socket");
	struct background sent = {.client = client, .id = "block", .timeout_ms = 60000};
	struct background unsent = {.client = lost, .id = "", .timeout_ms = 2500};
	start(&sent);
	start(&unsent);
	assert_true(is_at_least(&echo.runs, 1, 20000));
	rpc_client_interrupt(client);
	rpc_client_interrupt(lost);
	status *st = join(&sent);
	assert_true(rpc_client_may_have_run(st));
	assert_code(st, STATUS_CANCELLED);
	st = join(&unsent);
	assert_false(rpc_client_may_have_run(st));
	assert_code(st, STATUS_CANCELLED);
	assert_code(echo_hello(client, "", 20000, NULL), STATUS_CANCELLED);
	rpc_client_resume(client);
	assert_ok(echo_hello(client, "", 20000, NULL));
	echo_stop(&echo);
}

static void a_handler_that_waits_sees_its_caller_go(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "tcp", NULL, 2);
	struct rpc_client *client = connect_to(echo.url);
	struct background call = {.client = client, .id = "attend", .timeout_ms = 60000};
	start(&call);
	assert_true(is_at_least(&echo.runs, 1, 20000));
	assert_int_equal(atomic_load(&echo.called), 0);
	rpc_client_interrupt(client);
	assert_code(join(&call), STATUS_CANCELLED);
	rpc_client_free(client);
	assert_true(is_at_least(&echo.called, 1, 20000));
	echo_stop(&echo);
}

static void a_server_that_goes_away_leaves_the_call_in_doubt(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "tcp", NULL, 2);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	struct background call = {.client = client, .id = "block", .timeout_ms = 60000};
	start(&call);
	assert_true(is_at_least(&echo.runs, 1, 20000));
	rpc_server_stop(echo.server, 0);
	status *st = join(&call);
	assert_true(rpc_client_may_have_run(st));
	assert_code(st, STATUS_UNAVAILABLE);
	echo_stop(&echo);
}

static void *call_again_and_again(void *argument)
{
	struct background *call = argument;
	while (call->st == NULL)
		call->st = echo_hello(call->client, call->id, call->timeout_ms, NULL);
	return NULL;
}

/* nng must not be in the middle of anything of ours when its socket is closed. */
static void a_server_may_be_stopped_while_it_answers(void **state)
{
	(void)state;
	for (int round = 0; round < STOPS; round++) {
		struct echo echo;
		struct background calls[8];
		echo_start(&echo);
		echo_listen(&echo, "ipc", NULL, array_len(calls));
		scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
		for (size_t i = 0; i < array_len(calls); i++) {
			calls[i] =
			    (struct background){.client = client, .id = "", .timeout_ms = 60000};
			assert_int_equal(pthread_create(&calls[i].thread, NULL,
							call_again_and_again, &calls[i]),
					 0);
		}
		assert_true(is_at_least(&echo.runs, 20, 20000));
		rpc_server_stop(echo.server, 0);
		rpc_client_interrupt(client);
		for (size_t i = 0; i < array_len(calls); i++)
			status_free(join(&calls[i]));
		echo_stop(&echo);
	}
}

static void *stop_server(void *argument)
{
	struct echo *echo = argument;
	rpc_server_stop(echo->server, 30000);
	return NULL;
}

static void a_stopping_server_finishes_what_runs_and_refuses_the_rest(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "tcp", NULL, 3);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	struct background call = {.client = client, .id = "block", .timeout_ms = 60000};
	pthread_t stopper;
	start(&call);
	assert_true(is_at_least(&echo.runs, 1, 20000));
	assert_int_equal(pthread_create(&stopper, NULL, stop_server, &echo), 0);
	status *st = NULL;
	while (st == NULL) {
		st = echo_hello(client, "", 20000, NULL);
	}
	assert_non_null(status_detail_find(st, "retry_after_ms"));
	assert_reason(st, STATUS_UNAVAILABLE, "ENGINE_STOPPING");
	atomic_store(&echo.is_released, true);
	assert_ok(join(&call));
	assert_int_equal(pthread_join(stopper, NULL), 0);
	echo_stop(&echo);
}

static void the_local_socket_is_private_and_a_stale_one_is_replaced(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	char path[128];
	struct stat stat_buffer;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	(void)snprintf(path, sizeof(path), "%s/sock", echo.directory);
	memcpy(address.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	(void)close(fd);
	echo_listen(&echo, "ipc", NULL, 2);
	assert_int_equal(stat(path, &stat_buffer), 0);
	assert_int_equal(stat_buffer.st_mode & 07777, 0600);
	struct echo second;
	echo_start(&second);
	assert_code(rpc_server_listen(second.server, echo.url, NULL, 1), STATUS_ALREADY_EXISTS);
	echo_stop(&second);
	scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
	assert_ok(echo_hello(client, "", 20000, NULL));
	echo_stop(&echo);
}

static void a_file_in_the_sockets_place_is_kept(void **state)
{
	(void)state;
	struct echo echo;
	char path[128];
	char url[160];
	echo_start(&echo);
	(void)snprintf(path, sizeof(path), "%s/file", echo.directory);
	(void)snprintf(url, sizeof(url), "ipc://%s", path);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	(void)fclose(file);
	assert_code(rpc_server_listen(echo.server, url, NULL, 1), STATUS_FAILED_PRECONDITION);
	assert_int_equal(access(path, F_OK), 0);
	echo_stop(&echo);
}

static void a_full_accept_queue_is_waited_for(void **state)
{
	(void)state;
	struct echo echo;
	echo_start(&echo);
	char url[128];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/sock", echo.directory);
	(void)snprintf(url, sizeof(url), "ipc://%s/sock", echo.directory);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int filler[8];
	int last = 0;
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 0), 0);
	for (size_t i = 0; i < array_len(filler); i++) {
		filler[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		last = connect(filler[i], (struct sockaddr *)&address, sizeof(address)) < 0 ? errno
											    : 0;
	}
	assert_int_equal(last, EAGAIN);
	scoped(rpc_client) struct rpc_client *client = connect_to(url);
	struct background call = {.client = client, .id = "", .timeout_ms = 60000};
	start(&call);
	assert_code(echo_hello(client, "", 500, NULL), STATUS_UNAVAILABLE);
	for (size_t i = 0; i < array_len(filler); i++)
		(void)close(filler[i]);
	(void)close(listener);
	echo_listen(&echo, "ipc", NULL, 2);
	assert_ok(join(&call));
	echo_stop(&echo);
}

/* One raw request under an id of our choice; returns the reply's code. */
static enum status_code ask_raw(nng_socket socket, uint8_t id_byte, const char *id)
{
	char method[] = "/haul.v1.Peer/Hello";
	uint8_t request_id[REQUEST_ID_BYTES] = {id_byte};
	scoped(str) char *text = text_copy(id);
	scoped(buffer) struct buffer payload = {0};
	scoped(buffer) struct buffer whole = {0};
	Haul__V1__HelloRequest hello = HAUL__V1__HELLO_REQUEST__INIT;
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	Haul__V1__Reply *reply = NULL;
	scoped(status) status *verdict = NULL;
	nng_msg *msg = NULL;
	hello.id = text;
	assert_ok(pack_message(&hello.base, 1000, &payload));
	request.version = ENVELOPE_VERSION;
	request.method = method;
	request.request_id = (ProtobufCBinaryData){.len = sizeof(request_id), .data = request_id};
	request.payload = (ProtobufCBinaryData){.len = payload.size, .data = payload.data};
	assert_ok(pack_message(&request.base, 2000, &whole));
	assert_int_equal(nng_send(socket, whole.data, whole.size, 0), 0);
	assert_int_equal(nng_recvmsg(socket, &msg, 0), 0);
	assert_ok(reply_decode(nng_msg_body(msg), nng_msg_len(msg), &reply, &verdict));
	haul__v1__reply__free_unpacked(reply, NULL);
	nng_msg_free(msg);
	if (status_code_of(verdict) == STATUS_ALREADY_EXISTS)
		assert_string_equal(status_detail_find(verdict, "reason"), "REQUEST_ID_REUSED");
	return status_code_of(verdict);
}

static void a_repeated_request_is_carried_out_once(void **state)
{
	(void)state;
	struct echo echo;
	nng_socket socket;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 2);
	assert_int_equal(nng_req0_open(&socket), 0);
	assert_int_equal(nng_dial(socket, echo.url, NULL, 0), 0);
	assert_int_equal(ask_raw(socket, 1, "fail"), STATUS_ABORTED);
	assert_int_equal(ask_raw(socket, 1, "fail"), STATUS_ABORTED);
	assert_int_equal(ask_raw(socket, 1, "other"), STATUS_ALREADY_EXISTS);
	assert_int_equal(atomic_load(&echo.runs), 1);
	assert_int_equal(ask_raw(socket, 2, "other"), STATUS_OK);
	assert_int_equal(atomic_load(&echo.runs), 2);
	(void)nng_socket_close(socket);
	echo_stop(&echo);
}

static void clients_and_servers_leave_no_descriptors(void **state)
{
	(void)state;
	int before = 0;
	for (int round = 0; round < 6; round++) {
		struct echo echo;
		echo_start(&echo);
		echo_listen(&echo, "tcp", NULL, 2);
		for (int n = 0; n < 5; n++) {
			scoped(rpc_client) struct rpc_client *client = connect_to(echo.url);
			assert_ok(echo_hello(client, "", 20000, NULL));
		}
		echo_stop(&echo);
		if (round == 1)
			before = count_fds();
	}
	for (int i = 0; i < 2000 && count_fds() > before; i++)
		(void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	assert_true(count_fds() <= before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_call_is_answered_over_every_plain_transport),
	    cmocka_unit_test(a_listener_on_every_address_tells_the_one_that_was_reached),
	    cmocka_unit_test(an_error_comes_with_its_details_and_may_have_run),
	    cmocka_unit_test(what_is_not_there_or_not_allowed_is_told),
	    cmocka_unit_test(a_request_over_the_limit_does_not_leave),
	    cmocka_unit_test(nobody_there_is_unavailable_and_not_sent),
	    cmocka_unit_test(a_server_that_comes_late_is_found),
	    cmocka_unit_test(an_unanswered_call_ends_at_its_deadline),
	    cmocka_unit_test(a_request_that_cannot_leave_ends_at_its_deadline),
	    cmocka_unit_test(many_threads_share_a_client),
	    cmocka_unit_test(an_interrupt_ends_calls_at_once),
	    cmocka_unit_test(a_handler_that_waits_sees_its_caller_go),
	    cmocka_unit_test(a_server_that_goes_away_leaves_the_call_in_doubt),
	    cmocka_unit_test(a_server_may_be_stopped_while_it_answers),
	    cmocka_unit_test(a_stopping_server_finishes_what_runs_and_refuses_the_rest),
	    cmocka_unit_test(the_local_socket_is_private_and_a_stale_one_is_replaced),
	    cmocka_unit_test(a_file_in_the_sockets_place_is_kept),
	    cmocka_unit_test(a_full_accept_queue_is_waited_for),
	    cmocka_unit_test(a_repeated_request_is_carried_out_once),
	    cmocka_unit_test(clients_and_servers_leave_no_descriptors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
