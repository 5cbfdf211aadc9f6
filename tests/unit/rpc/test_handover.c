/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets that somebody else has connected. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/clock.h"
#include "rpc/handover.h"
#include "tests/unit/rpc/echo.h"

enum { TIMEOUT_MS = 30000, CALLS = 4 };

static int start(void **state)
{
	static struct echo echo;
	echo_start(&echo);
	echo_listen(&echo, "ipc", NULL, 2);
	assert_ok(rpc_server_take_handovers(echo.server, CALLS));
	*state = &echo;
	return 0;
}

static int stop(void **state)
{
	echo_stop(*state);
	return 0;
}

/* Three pairs; ours[i] is connected to theirs[i]. */
static void make_pairs(int ours[RPC_SOCKETS], int theirs[RPC_SOCKETS])
{
	for (size_t i = 0; i < RPC_SOCKETS; i++) {
		int pair[2];
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
		ours[i] = pair[0];
		theirs[i] = pair[1];
	}
}

/* As the echo server's handlers would; what it takes is of this call. */
static struct rpc_call call_of(struct echo *echo)
{
	return (struct rpc_call){.handovers = rpc_server_handovers(echo->server)};
}

static void calls_go_by_the_socket_as_who_is_said_to_be_there(void **state)
{
	struct echo *echo = *state;
	int ours[RPC_SOCKETS], theirs[RPC_SOCKETS];
	scoped(rpc_client) struct rpc_client *client = NULL;
	const struct rpc_call call = call_of(echo);
	make_pairs(ours, theirs);
	assert_ok(rpc_call_hand_over(&call, "a.example.org", theirs));
	/* Nobody listens there. */
	assert_ok(rpc_client_new("tcp://127.0.0.1:1", NULL, &client));
	assert_ok(rpc_client_give(client, ours[RPC_SOCKET_CALLS]));
	for (int i = 0; i < 3; i++) {
		scoped(str) char *node = NULL;
		assert_ok(echo_hello(client, "", TIMEOUT_MS, &node));
		assert_string_equal(node, "a.example.org");
	}
	(void)close(ours[RPC_SOCKET_MEMORY]);
	(void)close(ours[RPC_SOCKET_IMAGES]);
}

static void a_lost_one_is_followed_by_a_connection_to_the_url(void **state)
{
	struct echo *echo = *state;
	int ours[RPC_SOCKETS], theirs[RPC_SOCKETS];
	scoped(rpc_client) struct rpc_client *client = NULL;
	scoped(str) char *before = NULL;
	scoped(str) char *after = NULL;
	const struct rpc_call call = call_of(echo);
	make_pairs(ours, theirs);
	int spare = fcntl(ours[RPC_SOCKET_CALLS], F_DUPFD_CLOEXEC, 3);
	assert_ok(rpc_call_hand_over(&call, "a.example.org", theirs));
	assert_ok(rpc_client_new(echo->url, NULL, &client));
	assert_ok(rpc_client_give(client, ours[RPC_SOCKET_CALLS]));
	assert_ok(echo_hello(client, "", TIMEOUT_MS, &before));
	assert_string_equal(before, "a.example.org");
	assert_int_equal(shutdown(spare, SHUT_RDWR), 0);
	status *st = echo_hello(client, "", TIMEOUT_MS, &after);
	while (status_code_of(st) ==
	       STATUS_UNAVAILABLE) { /* it was on its way when that happened */
		status_free(st);
		st = echo_hello(client, "", TIMEOUT_MS, &after);
	}
	assert_ok(st);
	assert_string_equal(after, "local");
	(void)close(spare);
	(void)close(ours[RPC_SOCKET_MEMORY]);
	(void)close(ours[RPC_SOCKET_IMAGES]);
}

/* Hello of the echo server, over the local socket, finds out what its caller's descriptors are. */
static void what_is_no_connected_stream_socket_is_refused(void **state)
{
	struct echo *echo = *state;
	int pair[2], unconnected = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd = -1;
	struct connections *connections = NULL;
	const struct identity local = {.is_local = true}, remote = {.is_authenticated = true};
	struct rpc_call call = {.caller = &remote, .peer_pid = getpid()};
	(void)echo;
	assert_code(rpc_call_fetch_socket(&call, 3, &fd), STATUS_PERMISSION_DENIED);
	call.caller = &local;
	/* Its connection is gone: the number may be another process's by now. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_ok(connections_new(TRANSPORT_IPC, &connections));
	call.connections = connections;
	call.connection_id = 7;
	assert_code(rpc_call_fetch_socket(&call, pair[0], &fd), STATUS_CANCELLED);
	assert_code(rpc_call_fetch_socket(&call, 9999, &fd), STATUS_INVALID_ARGUMENT);
	assert_int_equal(fd, -1);
	connections_free(connections);
	(void)close(pair[0]);
	(void)close(pair[1]);
	(void)close(unconnected);
}

static void more_than_a_few_are_not_taken_and_nothing_leaks(void **state)
{
	struct echo *echo = *state;
	const struct rpc_call call = call_of(echo);
	int before = count_fds();
	for (int i = 0; i <= LIMIT_HANDOVERS; i++) {
		int ours[RPC_SOCKETS], theirs[RPC_SOCKETS];
		make_pairs(ours, theirs);
		assert_code(rpc_call_hand_over(&call, "a", theirs),
			    i < LIMIT_HANDOVERS ? STATUS_OK : STATUS_RESOURCE_EXHAUSTED);
		for (size_t j = 0; j < RPC_SOCKETS; j++)
			(void)close(ours[j]);
	}
	/* Their other ends are closed, which the server sees. */
	int64_t until_ms = clock_monotonic_ms() + TIMEOUT_MS;
	while (count_fds() > before && clock_monotonic_ms() < until_ms)
		(void)usleep(10000);
	assert_int_equal(count_fds(), before);
	int ours[RPC_SOCKETS], theirs[RPC_SOCKETS];
	make_pairs(ours, theirs);
	assert_code(rpc_call_hand_over(&call, "", theirs), STATUS_INVALID_ARGUMENT);
	for (size_t j = 0; j < RPC_SOCKETS; j++)
		(void)close(ours[j]);
	assert_int_equal(count_fds(), before);
}

struct accepting {
	struct pipe *pipe;
	status *st;
};

static void *accept_pipe(void *self)
{
	struct accepting *accepting = self;
	accepting->st = pipe_accept(accepting->pipe, TIMEOUT_MS);
	return NULL;
}

static void a_pipe_goes_over_a_socket(void **state)
{
	struct pipe_out out = {0};
	struct pipe_in in = {0};
	struct accepting accepting = {0};
	scoped(pipe) struct pipe *dialer = NULL;
	Haul__V1__PipeAddress *address = NULL;
	pthread_t thread;
	int pair[2];
	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	const struct pipe_place place = {.socket = pair[0]};
	assert_ok(pipe_listen(&place, &accepting.pipe, &address));
	assert_int_equal(pthread_create(&thread, NULL, accept_pipe, &accepting), 0);
	assert_ok(pipe_dial_socket(address, pair[1], TIMEOUT_MS, &dialer));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(accepting.st);
	assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, 5, &out));
	memcpy(out.body, "hello", 5);
	assert_ok(pipe_send_frame(dialer, &out, 5, TIMEOUT_MS));
	assert_ok(pipe_receive(accepting.pipe, TIMEOUT_MS, &in));
	assert_int_equal(in.size, 5);
	assert_memory_equal(in.body, "hello", 5);
	pipe_in_drop(&in);
	/* Nobody can dial what is said to be its address. */
	struct pipe *other = NULL;
	assert_code(pipe_dial(address, 100, &other), STATUS_INVALID_ARGUMENT);
	haul__v1__pipe_address__free_unpacked(address, NULL);
	pipe_free(accepting.pipe);
}

static void a_pipe_over_a_socket_whose_other_end_has_gone_is_unavailable(void **state)
{
	struct pipe *listener = NULL, *dialer = NULL;
	Haul__V1__PipeAddress *address = NULL;
	int pair[2];
	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	const struct pipe_place place = {.socket = pair[0]};
	assert_ok(pipe_listen(&place, &listener, &address));
	(void)close(pair[1]);
	assert_code(pipe_accept(listener, TIMEOUT_MS), STATUS_UNAVAILABLE);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	(void)close(pair[0]);
	assert_code(pipe_dial_socket(address, pair[1], TIMEOUT_MS, &dialer), STATUS_UNAVAILABLE);
	haul__v1__pipe_address__free_unpacked(address, NULL);
	pipe_free(listener);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(calls_go_by_the_socket_as_who_is_said_to_be_there,
					    start, stop),
	    cmocka_unit_test_setup_teardown(a_lost_one_is_followed_by_a_connection_to_the_url,
					    start, stop),
	    cmocka_unit_test_setup_teardown(what_is_no_connected_stream_socket_is_refused, start,
					    stop),
	    cmocka_unit_test_setup_teardown(more_than_a_few_are_not_taken_and_nothing_leaks, start,
					    stop),
	    cmocka_unit_test_setup_teardown(a_pipe_goes_over_a_socket, start, stop),
	    cmocka_unit_test(a_pipe_over_a_socket_whose_other_end_has_gone_is_unavailable),
	};
	(void)signal(SIGPIPE, SIG_IGN); /* as hauld does */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
