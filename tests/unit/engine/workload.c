/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/workload.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tests/unit/test.h"

static void wait_for_word(int fd)
{
	char word = 0;

	assert_int_equal(read(fd, &word, 1), 1);
	assert_int_equal(word, 'r');
}

struct workload workload_start(const char *part, int error, bool is_in_our_session)
{
	char program[] = "/proc/self/exe", role[] = "part", name[64];
	char *argv[] = {program, role, name, NULL};
	struct workload workload;
	int in[2], out[2];
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;

	(void)snprintf(name, sizeof(name), "%s", part);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	assert_int_equal(posix_spawnattr_init(&attributes), 0);
	if (!is_in_our_session)
		assert_int_equal(posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID), 0);
	(void)posix_spawn_file_actions_adddup2(&actions, in[0], 0);
	(void)posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	if (error >= 0)
		(void)posix_spawn_file_actions_adddup2(&actions, error, 2);
	else
		(void)posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
	(void)posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	assert_int_equal(posix_spawn(&workload.pid, program, &actions, &attributes, argv, environ),
			 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	(void)close(in[0]);
	(void)close(out[1]);
	workload.to = in[1];
	workload.from = out[0];
	wait_for_word(workload.from);
	return workload;
}

void workload_poke(const struct workload *workload)
{
	assert_int_equal(write(workload->to, "p", 1), 1);
	wait_for_word(workload->from);
}

void workload_end(struct workload *workload)
{
	(void)close(workload->to);
	(void)close(workload->from);
	(void)kill(workload->pid, SIGKILL);
	(void)waitpid(workload->pid, NULL, 0);
}

bool part_ready(void)
{
	char word;

	return write(1, "r", 1) == 1 && read(0, &word, 1) == 1;
}
