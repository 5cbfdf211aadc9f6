/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lazy/lazy_socket.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/engine/pipe_pair.h"
#include "tests/unit/test.h"

struct scene {
	char dir[64];
	int criu, ours;
};

/* As CRIU does it: the name is relative to its working directory. */
static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listening = -1;

	assert_non_null(scene);
	scratch_make(scene->dir);
	assert_ok(lazy_socket_listen(scene->dir, &listening));
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/lazy-pages.socket",
		       scene->dir);
	scene->criu = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(scene->criu, (struct sockaddr *)&address, sizeof(address)), 0);
	scene->ours = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	assert_true(scene->ours >= 0);
	(void)close(listening);
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	close_if_open(scene->criu);
	close_if_open(scene->ours);
	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

static void say(const struct scene *scene, int32_t word)
{
	assert_int_equal(send(scene->criu, &word, sizeof(word), 0), sizeof(word));
}

static void say_descriptor(const struct scene *scene, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, dummy = 'd';
	struct iovec data = {&dummy, 1};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	assert_int_equal(sendmsg(scene->criu, &message, 0), 1);
}

static void tasks_a_zombie_and_the_end_are_heard(void **state)
{
	struct scene *scene = *state;
	struct lazy_said said = {0};
	int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

	say(scene, 42);
	say_descriptor(scene, null);
	say(scene, -43);
	say(scene, 44);
	say_descriptor(scene, null);
	say(scene, 0x52535446);
	assert_ok(lazy_socket_hear(scene->ours, &said));
	assert_int_equal(said.pid, 42);
	assert_true(said.uffd >= 0 && !said.is_end);
	assert_int_equal(fcntl(said.uffd, F_GETFD), FD_CLOEXEC);
	(void)close(said.uffd);
	assert_ok(lazy_socket_hear(scene->ours, &said));
	assert_int_equal(said.pid, -43);
	assert_int_equal(said.uffd, -1);
	assert_ok(lazy_socket_hear(scene->ours, &said));
	assert_int_equal(said.pid, 44);
	(void)close(said.uffd);
	assert_ok(lazy_socket_hear(scene->ours, &said));
	assert_true(said.is_end);
	(void)close(null);
}

static void a_task_without_its_memory_is_refused(void **state)
{
	struct scene *scene = *state;
	struct lazy_said said = {0};

	say(scene, 42);
	assert_int_equal(send(scene->criu, "d", 1, 0), 1);
	assert_code(lazy_socket_hear(scene->ours, &said), STATUS_DATA_LOSS);
}

static void an_impossible_pid_is_refused(void **state)
{
	struct scene *scene = *state;
	struct lazy_said said = {0};

	say(scene, 0);
	assert_code(lazy_socket_hear(scene->ours, &said), STATUS_DATA_LOSS);
	say(scene, 0x7fffffff);
	assert_code(lazy_socket_hear(scene->ours, &said), STATUS_DATA_LOSS);
}

static void half_a_word_is_refused_and_the_end_of_criu_is_told(void **state)
{
	struct scene *scene = *state;
	struct lazy_said said = {0};

	assert_int_equal(send(scene->criu, "xy", 2, 0), 2);
	(void)close(TAKE_FD(scene->criu));
	assert_code(lazy_socket_hear(scene->ours, &said), STATUS_DATA_LOSS);
	assert_code(lazy_socket_hear(scene->ours, &said), STATUS_ABORTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(tasks_a_zombie_and_the_end_are_heard, make, end),
	    cmocka_unit_test_setup_teardown(a_task_without_its_memory_is_refused, make, end),
	    cmocka_unit_test_setup_teardown(an_impossible_pid_is_refused, make, end),
	    cmocka_unit_test_setup_teardown(half_a_word_is_refused_and_the_end_of_criu_is_told,
					    make, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
