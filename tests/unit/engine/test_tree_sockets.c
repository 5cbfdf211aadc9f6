/* SPDX-License-Identifier: Apache-2.0 */
/* A process with listeners and connections, real ones, that "runs elsewhere". */
#include "tests/unit/test.h"

#include "engine/host/tree_sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BACKLOG = 7, WAIT_MS = 5000 };

struct scene {
	char directory[32], record[64];
	pid_t tree;
	int go; /* the tree accepts a connection and answers for each byte */
	in_port_t port;
};

static int tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	return fd;
}

static struct sockaddr_in local(in_port_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = port,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static in_port_t bind_to(int fd, in_port_t port)
{
	struct sockaddr_in address = local(port);
	socklen_t size = sizeof(address);

	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	return address.sin_port;
}

/* The tree: accepts when told, keeps every connection, and writes to it. */
static _Noreturn void serve(int listener, int go)
{
	char byte;

	while (read(go, &byte, 1) == 1) {
		int fd = accept(listener, NULL, NULL);
		if (fd >= 0)
			(void)!write(fd, "x", 1);
	}
	_exit(0);
}

/* The port is one that the kernel chooses, or (is_named) one that was asked for. */
static int setup_with(void **state, bool is_named)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	int go[2], listener = tcp(), other = tcp();

	assert_non_null(scene);
	(void)snprintf(scene->directory, sizeof(scene->directory), "/tmp/sockets-XXXXXX");
	assert_non_null(mkdtemp(scene->directory));
	(void)snprintf(scene->record, sizeof(scene->record), "%s/listeners", scene->directory);
	scene->port = is_named ? bind_to(other, 0) : 0;
	(void)close(other);
	scene->port = bind_to(listener, scene->port);
	assert_int_equal(listen(listener, BACKLOG), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	scene->tree = fork();
	if (scene->tree == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)close(go[1]);
		serve(listener, go[0]);
	}
	assert_true(scene->tree > 0);
	(void)close(listener);
	(void)close(go[0]);
	scene->go = go[1];
	*state = scene;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, false);
}

static int setup_named(void **state)
{
	return setup_with(state, true);
}

static int teardown(void **state)
{
	struct scene *scene = *state;

	(void)kill(scene->tree, SIGKILL);
	(void)waitpid(scene->tree, NULL, 0);
	(void)close(scene->go);
	(void)unlink(scene->record);
	(void)rmdir(scene->directory);
	free(scene);
	return 0;
}

/* -1: refused. */
static int connect_to(const struct scene *scene)
{
	struct sockaddr_in address = local(scene->port);
	int fd = tcp();

	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	assert_int_equal(errno, ECONNREFUSED);
	(void)close(fd);
	return -1;
}

static void have_it_accept(const struct scene *scene)
{
	assert_int_equal(write(scene->go, "a", 1), 1);
}

/* What a reader gets within the time: 1 a byte, 0 the end, -1 an error. */
static int hear(int fd)
{
	struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
	char byte;

	assert_int_equal(poll(&poll_fd, 1, WAIT_MS), 1);
	return (int)read(fd, &byte, 1);
}

static int connect_and_hear(const struct scene *scene)
{
	int fd = connect_to(scene);

	assert_true(fd >= 0);
	have_it_accept(scene);
	assert_int_equal(hear(fd), 1);
	return fd;
}

static void shut(const struct scene *scene)
{
	assert_ok(tree_sockets_shut(&scene->tree, 1, scene->record));
}

static void clients_see_at_once_that_it_has_gone(void **state)
{
	const struct scene *scene = *state;
	int connected = connect_and_hear(scene), queued = connect_to(scene);

	assert_true(queued >= 0);
	shut(scene);
	assert_int_equal(hear(connected), 0);
	assert_int_equal(hear(queued), -1); /* nobody had accepted it */
	assert_int_equal(connect_to(scene), -1);
	(void)close(connected);
	(void)close(queued);
}

static void it_listens_again_when_it_runs_here_after_all(void **state)
{
	const struct scene *scene = *state;

	shut(scene);
	shut(scene); /* the second hauld, say: nothing that it would forget */
	assert_int_equal(connect_to(scene), -1);
	assert_ok(tree_sockets_reopen(&scene->tree, 1, scene->record));
	int fd = connect_and_hear(scene);
	(void)close(fd);
	/* Nothing changes for one that listens. */
	assert_ok(tree_sockets_reopen(&scene->tree, 1, scene->record));
	fd = connect_and_hear(scene);
	(void)close(fd);
}

static void a_port_that_was_taken_meanwhile_is_told(void **state)
{
	const struct scene *scene = *state;
	int other = tcp();

	shut(scene);
	assert_int_equal(bind_to(other, scene->port), scene->port);
	assert_int_equal(listen(other, BACKLOG), 0);
	status *st = tree_sockets_reopen(&scene->tree, 1, scene->record);
	assert_non_null(st);
	assert_non_null(strstr(status_message(st), "cannot bind a listener again"));
	status_free(st);
	(void)close(other);
	assert_ok(tree_sockets_reopen(&scene->tree, 1, scene->record));
	int fd = connect_and_hear(scene);
	(void)close(fd);
}

static void as_many_may_wait_as_before(void **state)
{
	const struct scene *scene = *state;
	int fds[BACKLOG + 1];

	shut(scene);
	assert_ok(tree_sockets_reopen(&scene->tree, 1, scene->record));
	for (size_t i = 0; i < array_len(fds); i++) {
		fds[i] = connect_to(scene);
		assert_true(fds[i] >= 0);
	}
	for (size_t i = 0; i < array_len(fds); i++) {
		have_it_accept(scene);
		assert_int_equal(hear(fds[i]), 1);
		(void)close(fds[i]);
	}
}

static void what_is_not_its_own_is_left_alone(void **state)
{
	const struct scene *scene = *state;
	int listener = tcp(), client = tcp();
	struct sockaddr_in address = local(bind_to(listener, 0));

	assert_int_equal(listen(listener, BACKLOG), 0);
	shut(scene);
	assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
	(void)close(client);
	(void)close(listener);
}

/* As systemd keeps the listener of a socket unit. */
static void one_that_another_process_has_too_is_left_alone(void **state)
{
	const struct scene *scene = *state;
	const pid_t pids[] = {scene->tree, getpid()};
	int listener = tcp(), ready[2];
	struct sockaddr_in address = local(bind_to(listener, 0));
	struct scene shared = *scene;
	char byte;

	assert_int_equal(listen(listener, BACKLOG), 0);
	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	pid_t other = fork();
	if (other == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		(void)!write(ready[1], "r", 1);
		(void)pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_ok(tree_sockets_shut(pids, array_len(pids), scene->record));
	assert_int_equal(connect_to(scene), -1);
	shared.port = address.sin_port;
	int client = connect_to(&shared);
	assert_true(client >= 0);
	(void)kill(other, SIGKILL);
	(void)waitpid(other, NULL, 0);
	(void)close(client);
	(void)close(listener);
	(void)close(ready[0]);
	(void)close(ready[1]);
}

/* Without a record nobody could listen again. */
static void a_listener_that_cannot_be_noted_stays(void **state)
{
	struct scene *scene = *state;
	int connected = connect_and_hear(scene);

	(void)rmdir(scene->directory);
	status *st = tree_sockets_shut(&scene->tree, 1, scene->record);
	assert_non_null(st);
	status_free(st);
	assert_int_equal(hear(connected), 0);
	(void)close(connected);
	connected = connect_and_hear(scene);
	(void)close(connected);
}

static void nothing_is_made_of_a_damaged_record(void **state)
{
	const struct scene *scene = *state;
	FILE *file = fopen(scene->record, "we");

	assert_non_null(file);
	assert_true(fputs("no record", file) >= 0);
	(void)fclose(file);
	assert_code(tree_sockets_reopen(&scene->tree, 1, scene->record), STATUS_DATA_LOSS);
	/* Nor of processes that have ended. */
	const pid_t nobody = 1 << 22;
	(void)unlink(scene->record);
	assert_ok(tree_sockets_shut(&nobody, 1, scene->record));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(clients_see_at_once_that_it_has_gone, setup, teardown),
	    cmocka_unit_test_setup_teardown(it_listens_again_when_it_runs_here_after_all, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(it_listens_again_when_it_runs_here_after_all,
					    setup_named, teardown),
	    cmocka_unit_test_setup_teardown(a_port_that_was_taken_meanwhile_is_told, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(as_many_may_wait_as_before, setup, teardown),
	    cmocka_unit_test_setup_teardown(what_is_not_its_own_is_left_alone, setup, teardown),
	    cmocka_unit_test_setup_teardown(one_that_another_process_has_too_is_left_alone, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(a_listener_that_cannot_be_noted_stays, setup, teardown),
	    cmocka_unit_test_setup_teardown(nothing_is_made_of_a_damaged_record, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
