/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed pipes: what goes through, who is let in, and how they end. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rpc/nng_error.h"
#include "rpc/seal.h"
#include "tests/unit/rpc/pipe_pair.h"

static void *send_bulk(void *pipe)
{
	send_bytes(pipe, 7, LIMIT_BULK_BYTES);
	return NULL;
}

static void frames_go_both_ways(const struct pipe_place *place)
{
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	open_pair(place, &listener, &dialer);
	for (unsigned i = 0; i < 5; i++) {
		send_bytes(dialer, (uint8_t)i, i * 1000);
		send_bytes(listener, (uint8_t)(100 + i), i);
		expect_bytes(listener, (uint8_t)i, i * 1000);
		expect_bytes(dialer, (uint8_t)(100 + i), i);
	}
	pthread_t thread; /* more than a socket takes at once */
	assert_int_equal(pthread_create(&thread, NULL, send_bulk, dialer), 0);
	expect_bytes(listener, 7, LIMIT_BULK_BYTES);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(pipe_bytes_sent(dialer), pipe_bytes_received(listener));
	assert_true(pipe_bytes_sent(dialer) > LIMIT_BULK_BYTES);
	assert_ok(pipe_send_end(dialer, NULL, PLENTY_MS));
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(listener, PLENTY_MS, &in));
	assert_int_equal(in.kind, HAUL__V1__FRAME_KIND__FRAME_END);
}

static void frames_go_both_ways_over_tcp(void **state)
{
	(void)state;
	frames_go_both_ways(&tcp_place);
}

static void frames_go_both_ways_over_a_socket_file(void **state)
{
	char directory[] = "/tmp/haul-pipe-XXXXXX";
	(void)state;
	assert_non_null(mkdtemp(directory));
	const struct pipe_place place = {.directory = directory};
	frames_go_both_ways(&place);
	assert_int_equal(rmdir(directory), 0); /* the file went with the pipe */
}

static void *run_send(void *argument)
{
	struct sending *sending = argument;
	for (unsigned i = 0; i < sending->frames && sending->st == NULL; i++) {
		struct pipe_out out = {0};
		sending->st = pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, FRAME, &out);
		if (sending->st != NULL)
			break;
		memset(out.body, 0, FRAME);
		sending->st = pipe_send_frame(sending->pipe, &out, FRAME, PLENTY_MS);
	}
	if (sending->st == NULL)
		sending->st = pipe_send_end(sending->pipe, NULL, PLENTY_MS);
	return NULL;
}

static void a_mass_of_frames_arrives_whole_and_in_order(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	pthread_t thread;
	struct timespec begin;
	struct timespec end;
	open_pair(&tcp_place, &listener, &dialer);
	struct sending sending = {.pipe = dialer, .frames = 400};
	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	assert_int_equal(pthread_create(&thread, NULL, run_send, &sending), 0);
	unsigned count = 0;
	for (bool is_end = false; !is_end;) {
		scoped(pipe_in) struct pipe_in in = {0};
		assert_ok(pipe_receive(listener, PLENTY_MS, &in));
		is_end = in.kind == HAUL__V1__FRAME_KIND__FRAME_END;
		count += is_end ? 0 : 1;
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	assert_ok(sending.st);
	assert_int_equal(count, sending.frames);
	double seconds =
	    (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
	print_message("%.2f GiB/s\n", (double)count * FRAME / seconds / (1 << 30));
}

static void a_slow_receiver_holds_the_sender_until_its_time_is_over(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	status *st = NULL;
	open_pair(&tcp_place, &listener, &dialer);
	unsigned count = 0;
	while (st == NULL && count++ < 1000) {
		struct pipe_out out = {0};
		assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, FRAME, &out));
		memset(out.body, 0, FRAME);
		st = pipe_send_frame(dialer, &out, FRAME, 500);
	}
	assert_code(st, STATUS_DEADLINE_EXCEEDED);
	/* A message is missing now: nothing may follow. */
	assert_code(pipe_send_end(dialer, NULL, 500), STATUS_DEADLINE_EXCEEDED);
}

static void a_pipe_that_just_closes_is_unavailable(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	struct pipe *dialer = NULL;
	scoped(pipe_in) struct pipe_in in = {0};
	open_pair(&tcp_place, &listener, &dialer);
	send_bytes(dialer, 1, 10);
	expect_bytes(listener, 1, 10);
	pipe_free(dialer);
	assert_code(pipe_receive(listener, PLENTY_MS, &in), STATUS_UNAVAILABLE);
	status *st = NULL;
	while (st == NULL) {
		struct pipe_out out = {0};
		assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, 10, &out));
		memset(out.body, 0, 10);
		st = pipe_send_frame(listener, &out, 10, PLENTY_MS);
	}
	assert_code(st, STATUS_UNAVAILABLE);
}

static void what_was_sent_before_the_end_is_still_received(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	struct pipe *dialer = NULL;
	open_pair(&tcp_place, &listener, &dialer);
	send_bytes(dialer, 1, 1000);
	send_bytes(dialer, 2, 1000);
	scoped(status) status *verdict = status_errorf(STATUS_ABORTED, "changed my mind");
	assert_ok(pipe_send_end(dialer, verdict, PLENTY_MS));
	expect_bytes(listener, 1, 1000);
	expect_bytes(listener, 2, 1000);
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(listener, PLENTY_MS, &in));
	Haul__V1__PipeEnd *end = haul__v1__pipe_end__unpack(NULL, in.size, in.body);
	assert_int_equal(end->status->code, STATUS_ABORTED);
	haul__v1__pipe_end__free_unpacked(end, NULL);
	pipe_free(dialer);
}

static void silence_is_not_waited_for_longer_than_asked(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	scoped(pipe_in) struct pipe_in in = {0};
	open_pair(&tcp_place, &listener, &dialer);
	assert_code(pipe_receive(listener, 50, &in), STATUS_DEADLINE_EXCEEDED);
	send_bytes(dialer, 3, 3);
	expect_bytes(listener, 3, 3);
}

static void *run_receive(void *argument)
{
	struct sending *receiving = argument;
	struct pipe_in in = {0};
	receiving->st = pipe_receive(receiving->pipe, PLENTY_MS, &in);
	pipe_in_drop(&in);
	return NULL;
}

static void an_interrupt_wakes_sender_and_receiver(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	pthread_t sender;
	pthread_t receiver;
	open_pair(&tcp_place, &listener, &dialer);
	struct sending sending = {.pipe = dialer, .frames = 100000};
	struct sending receiving = {.pipe = dialer};
	assert_int_equal(pthread_create(&sender, NULL, run_send, &sending), 0);
	assert_int_equal(pthread_create(&receiver, NULL, run_receive, &receiving), 0);
	expect_bytes(listener, 0, FRAME);
	pipe_interrupt(dialer);
	pipe_interrupt(dialer);
	assert_int_equal(pthread_join(sender, NULL), 0);
	assert_int_equal(pthread_join(receiver, NULL), 0);
	assert_code(sending.st, STATUS_CANCELLED);
	assert_code(receiving.st, STATUS_CANCELLED);
}

static void who_hangs_up_stops_the_other_sides_sender(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	pthread_t sender;
	open_pair(&tcp_place, &listener, &dialer);
	struct sending sending = {.pipe = dialer, .frames = 100000};
	assert_int_equal(pthread_create(&sender, NULL, run_send, &sending), 0);
	expect_bytes(listener, 0, FRAME);
	pipe_hang_up(listener);
	assert_int_equal(pthread_join(sender, NULL), 0);
	assert_code(sending.st, STATUS_UNAVAILABLE);
}

static void an_interrupt_wakes_a_waiting_accept(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	pthread_t thread;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	struct sending accepting = {.pipe = listener};
	assert_int_equal(pthread_create(&thread, NULL, run_accept, &accepting), 0);
	pipe_interrupt(listener);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_code(accepting.st, STATUS_CANCELLED);
}

static void nobody_comes_is_a_deadline_and_nobody_there_is_unavailable(void **state)
{
	(void)state;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct pipe *listener = NULL;
	struct pipe *dialer = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	assert_code(pipe_accept(listener, 100), STATUS_DEADLINE_EXCEEDED);
	pipe_free(listener);
	assert_code(pipe_dial(address, 300, &dialer), STATUS_UNAVAILABLE);
	address->key_to_dialer.len = 31;
	assert_code(pipe_dial(address, 300, &dialer), STATUS_INVALID_ARGUMENT);
}

static void all_ports_taken_is_resource_exhausted(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *first = NULL;
	struct pipe *second = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	Haul__V1__PipeAddress *none = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &first, &address));
	unsigned port = (unsigned)strtoul(strrchr(address->url, ':') + 1, NULL, 10);
	const struct pipe_place place = {.host = "127.0.0.1",
					 .port_low = (uint16_t)port,
					 .port_high = (uint16_t)port};
	assert_code(pipe_listen(&place, &second, &none), STATUS_RESOURCE_EXHAUSTED);
}

static int count_fds(void)
{
	int count = 0;
	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
	return count;
}

static void pipes_closed_in_mid_transfer_leave_no_descriptors(void **state)
{
	(void)state;
	int before = 0;
	for (int round = 0; round < 105; round++) {
		struct pipe *listener = NULL;
		struct pipe *dialer = NULL;
		pthread_t thread;
		open_pair(&tcp_place, &listener, &dialer);
		struct sending sending = {.pipe = dialer, .frames = 100000};
		assert_int_equal(pthread_create(&thread, NULL, run_send, &sending), 0);
		expect_bytes(listener, 0, FRAME);
		if (round % 2 == 0) {
			pipe_free(listener);
			assert_int_equal(pthread_join(thread, NULL), 0);
			assert_code(sending.st, STATUS_UNAVAILABLE);
		} else {
			pipe_interrupt(dialer);
			assert_int_equal(pthread_join(thread, NULL), 0);
			assert_code(sending.st, STATUS_CANCELLED);
			pipe_free(listener);
		}
		pipe_free(dialer);
		if (round == 5)
			before = count_fds();
	}
	for (int i = 0; i < 4000 && count_fds() > before; i++)
		(void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	assert_true(count_fds() <= before);
}

/* A child process that dials and sends until it is killed: its arguments are the address. */
static int run_child(char **arguments)
{
	uint8_t bytes[3][SEAL_KEY_BYTES];
	struct pipe *pipe = NULL;
	Haul__V1__PipeAddress address = HAUL__V1__PIPE_ADDRESS__INIT;
	for (size_t i = 0; i < array_len(bytes); i++)
		for (size_t n = 0; n < strlen(arguments[3 + i]) / 2; n++)
			(void)sscanf(arguments[3 + i] + 2 * n, "%2hhx", &bytes[i][n]);
	address.url = arguments[2];
	address.pipe_id = (ProtobufCBinaryData){.len = SEAL_ID_BYTES, .data = bytes[0]};
	address.key_to_listener = (ProtobufCBinaryData){.len = SEAL_KEY_BYTES, .data = bytes[1]};
	address.key_to_dialer = (ProtobufCBinaryData){.len = SEAL_KEY_BYTES, .data = bytes[2]};
	if (rpc_start() != NULL || pipe_dial(&address, PLENTY_MS, &pipe) != NULL)
		return 1;
	struct sending sending = {.pipe = pipe, .frames = UINT32_MAX};
	(void)run_send(&sending);
	return 1;
}

static void hex_of(const ProtobufCBinaryData *data, char hex[2 * SEAL_KEY_BYTES + 1])
{
	for (size_t i = 0; i < data->len; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", data->data[i]);
}

static pid_t spawn_sender(const Haul__V1__PipeAddress *address)
{
	char program[] = "/proc/self/exe";
	char name[] = "sender";
	char hex[3][2 * SEAL_KEY_BYTES + 1];
	pid_t pid = 0;
	hex_of(&address->pipe_id, hex[0]);
	hex_of(&address->key_to_listener, hex[1]);
	hex_of(&address->key_to_dialer, hex[2]);
	char *arguments[] = {program, name, address->url, hex[0], hex[1], hex[2], NULL};
	assert_int_equal(posix_spawn(&pid, program, NULL, NULL, arguments, environ), 0);
	return pid;
}

static void senders_killed_in_mid_transfer_leave_no_descriptors(void **state)
{
	(void)state;
	int before = 0;
	assert_ok(rpc_start());
	for (int round = 0; round < 100; round++) {
		struct pipe *listener = NULL;
		scoped(address) Haul__V1__PipeAddress *address = NULL;
		assert_ok(pipe_listen(&tcp_place, &listener, &address));
		pid_t pid = spawn_sender(address);
		assert_ok(pipe_accept(listener, PLENTY_MS));
		expect_bytes(listener, 0, FRAME);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		status *st = NULL;
		while (st == NULL) {
			scoped(pipe_in) struct pipe_in in = {0};
			st = pipe_receive(listener, PLENTY_MS, &in);
		}
		assert_code(st, STATUS_UNAVAILABLE);
		pipe_free(listener);
		if (round == 5)
			before = count_fds();
	}
	for (int i = 0; i < 4000 && count_fds() > before; i++)
		(void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	assert_true(count_fds() <= before);
}

/* A socket file as a killed server leaves it, or as one that lives has it. */
static int make_socket(const char *directory, const char *name, bool listens)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", directory, name);
	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	if (listens)
		assert_int_equal(listen(fd, 1), 0);
	else
		(void)close(fd);
	return listens ? fd : -1;
}

static bool has_entry(const char *directory, const char *name)
{
	char path[256];
	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	return access(path, F_OK) == 0;
}

static void what_a_killed_server_left_is_removed_and_nothing_else(void **state)
{
	static const char stale[] = "pipe-00112233445566778899aabbccddeeff.sock";
	static const char live[] = "pipe-00112233445566778899aabbccddee00.sock";
	static const char *const others[] = {
	    "pipe-00112233445566778899aabbccddee.sock",	    /* too short */
	    "pipe-00112233445566778899AABBCCDDEEFF.sock",   /* not as we write it */
	    "pipe-00112233445566778899aabbccddeeff.socket", /* another name */
	    "hauld.sock",
	};
	char directory[] = "/tmp/haul-sweep-XXXXXX", command[64];
	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)make_socket(directory, stale, false);
	int fd = make_socket(directory, live, true);
	for (size_t i = 0; i < array_len(others); i++)
		(void)make_socket(directory, others[i], false);
	assert_int_equal(pipe_sweep(directory), 1);
	assert_false(has_entry(directory, stale));
	assert_true(has_entry(directory, live));
	for (size_t i = 0; i < array_len(others); i++)
		assert_true(has_entry(directory, others[i]));
	/* Whoever listens there is not bothered. */
	struct pollfd waiting = {.fd = fd, .events = POLLIN};
	assert_int_equal(poll(&waiting, 1, 0), 0);
	(void)close(fd);
	assert_int_equal(pipe_sweep(directory), 1);
	assert_int_equal(pipe_sweep("/no/such/directory"), 0);
	(void)snprintf(command, sizeof(command), "rm -rf %s", directory);
	assert_int_equal(system(command), 0);
}

int main(int count, char **arguments)
{
	if (count == 6 && strcmp(arguments[1], "sender") == 0)
		return run_child(arguments);
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(frames_go_both_ways_over_tcp),
	    cmocka_unit_test(frames_go_both_ways_over_a_socket_file),
	    cmocka_unit_test(a_mass_of_frames_arrives_whole_and_in_order),
	    cmocka_unit_test(a_slow_receiver_holds_the_sender_until_its_time_is_over),
	    cmocka_unit_test(a_pipe_that_just_closes_is_unavailable),
	    cmocka_unit_test(what_was_sent_before_the_end_is_still_received),
	    cmocka_unit_test(silence_is_not_waited_for_longer_than_asked),
	    cmocka_unit_test(an_interrupt_wakes_sender_and_receiver),
	    cmocka_unit_test(who_hangs_up_stops_the_other_sides_sender),
	    cmocka_unit_test(an_interrupt_wakes_a_waiting_accept),
	    cmocka_unit_test(nobody_comes_is_a_deadline_and_nobody_there_is_unavailable),
	    cmocka_unit_test(all_ports_taken_is_resource_exhausted),
	    cmocka_unit_test(pipes_closed_in_mid_transfer_leave_no_descriptors),
	    cmocka_unit_test(senders_killed_in_mid_transfer_leave_no_descriptors),
	    cmocka_unit_test(what_a_killed_server_left_is_removed_and_nothing_else),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
