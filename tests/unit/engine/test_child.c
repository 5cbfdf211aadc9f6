/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/host/child.h"

enum { PLENTY_MS = 60000 };

static const int nothing[] = {-1, -1, -1};

static void spawn_shell(const char *script, const int *fds, size_t fd_count,
			struct child *ret_child)
{
	const char *argv[] = {"sh", "-c", script, NULL};
	struct child_spec spec = {.argv = argv, .fds = fds, .fd_count = fd_count};

	assert_ok(child_spawn(&spec, ret_child));
}

static void its_end_is_waited_for(void **state)
{
	(void)state;
	struct child child;
	int ended = 0;

	spawn_shell("exit 3", nothing, 3, &child);
	assert_true(child.pid > 0 && child.pidfd >= 0);
	assert_ok(child_wait(&child, PLENTY_MS, &ended));
	assert_true(WIFEXITED(ended) && WEXITSTATUS(ended) == 3);
	child_kill(&child); /* does nothing any more */
}

static void one_that_runs_on_is_not_waited_for_for_ever(void **state)
{
	(void)state;
	struct child child;

	spawn_shell("sleep 1000", nothing, 3, &child);
	assert_code(child_wait(&child, 20, NULL), STATUS_DEADLINE_EXCEEDED);
	pid_t pid = child.pid;
	child_kill(&child);
	assert_int_equal(kill(pid, 0), -1);
}

static void it_has_the_listed_descriptors_and_no_others(void **state)
{
	(void)state;
	int out[2];
	struct child child;
	char text[256] = "";
	size_t size = 0;

	/* Its own numbers cross over: 3 gets what is behind a higher number and the other way
	 * round. */
	assert_int_equal(pipe2(out, 0), 0);
	scoped(fd) int stray = dup(out[0]);
	const int fds[] = {-1, out[1], -1, out[1]};
	spawn_shell("echo three >&3; ls /proc/self/fd | tr '\\n' ' '", fds, 4, &child);
	(void)close(out[1]);
	assert_ok(child_wait(&child, PLENTY_MS, NULL));
	for (ssize_t got; (got = read(out[0], text + size, sizeof(text) - 1 - size)) > 0;)
		size += (size_t)got;
	(void)close(out[0]);
	assert_true(stray > 3);
	/* ls has one more for the directory. */
	assert_string_equal(text, "three\n0 1 2 3 4 ");
}

static void descriptors_may_change_places(void **state)
{
	(void)state;
	int first[2], second[2];
	struct child child;
	char byte = 0;

	assert_int_equal(pipe2(first, O_CLOEXEC), 0);
	assert_int_equal(pipe2(second, O_CLOEXEC), 0);
	int fds[16];
	for (int i = 0; i < 16; i++)
		fds[i] = -1;
	assert_true(first[1] < 16 && second[1] < 16);
	fds[first[1]] = second[1];
	fds[second[1]] = first[1];
	char script[64];
	(void)snprintf(script, sizeof(script), "printf a >&%d; printf b >&%d", first[1], second[1]);
	spawn_shell(script, fds, 16, &child);
	assert_ok(child_wait(&child, PLENTY_MS, NULL));
	assert_int_equal(read(second[0], &byte, 1), 1);
	assert_int_equal(byte, 'a');
	assert_int_equal(read(first[0], &byte, 1), 1);
	assert_int_equal(byte, 'b');
	for (int i = 0; i < 2; i++) {
		(void)close(first[i]);
		(void)close(second[i]);
	}
}

static void signals_that_we_ignore_are_not_ignored_by_it(void **state)
{
	(void)state;
	struct child child;
	int ended = 0;

	(void)signal(SIGTERM, SIG_IGN);
	spawn_shell("kill -TERM $$; sleep 1000", nothing, 3, &child);
	(void)signal(SIGTERM, SIG_DFL);
	assert_ok(child_wait(&child, PLENTY_MS, &ended));
	assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGTERM);
}

static void a_program_that_is_not_there_is_told(void **state)
{
	(void)state;
	const char *argv[] = {"haul-no-such-program", NULL};
	struct child_spec spec = {.argv = argv, .fds = nothing, .fd_count = 3};
	struct child child;

	assert_code(child_spawn(&spec, &child), STATUS_NOT_FOUND);
}

static void reaping_takes_only_what_has_ended(void **state)
{
	(void)state;
	struct child child;
	int ended = 0;

	spawn_shell("sleep 1000", nothing, 3, &child);
	assert_int_equal(child_reap(child.pid, &ended), 0);
	assert_int_equal(kill(child.pid, SIGKILL), 0);
	while (child_reap(child.pid, &ended) == 0)
		(void)usleep(1000);
	assert_true(WIFSIGNALED(ended));
	assert_int_equal(child_reap(child.pid, &ended), 0);
	(void)close(child.pidfd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(its_end_is_waited_for),
	    cmocka_unit_test(one_that_runs_on_is_not_waited_for_for_ever),
	    cmocka_unit_test(it_has_the_listed_descriptors_and_no_others),
	    cmocka_unit_test(descriptors_may_change_places),
	    cmocka_unit_test(signals_that_we_ignore_are_not_ignored_by_it),
	    cmocka_unit_test(a_program_that_is_not_there_is_told),
	    cmocka_unit_test(reaping_takes_only_what_has_ended),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
