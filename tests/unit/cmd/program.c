/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/cmd/program.h"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/unit/test.h"

enum { SILENCE_MS = 60000 };

/* A descriptor to read the text from. */
static int input_of(const char *input)
{
	int ends[2];

	if (input == NULL)
		return open("/dev/null", O_RDONLY | O_CLOEXEC);
	/* As much as a pipe takes at once. */
	assert_true(strlen(input) < 32768);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_int_equal(write(ends[1], input, strlen(input)), strlen(input));
	(void)close(ends[1]);
	return ends[0];
}

struct started program_start(const char *url, const char *const arguments[ARGUMENTS],
			     const char *input)
{
	char local[128], *argv[ARGUMENTS + 4], program[] = "haulctl";
	int count = 0, out[2], err[2], in = input_of(input);
	posix_spawn_file_actions_t actions;
	struct started started;

	argv[count++] = program;
	(void)snprintf(local, sizeof(local), "--local=%s", url);
	if (url[0] != '\0')
		argv[count++] = local;
	for (int i = 0; i < ARGUMENTS && arguments[i] != NULL; i++)
		argv[count++] = (char *)arguments[i];
	argv[count] = NULL;
	assert_true(in >= 0);
	assert_int_equal(pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), 0);
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	(void)posix_spawn_file_actions_adddup2(&actions, in, 0);
	(void)posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	(void)posix_spawn_file_actions_adddup2(&actions, err[1], 2);
	assert_int_equal(posix_spawn(&started.pid, HAULCTL_PATH, &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(in);
	(void)close(out[1]);
	(void)close(err[1]);
	started.out = out[0];
	started.err = err[0];
	return started;
}

static void read_both(const struct started *started, struct outcome *outcome)
{
	struct pollfd fds[2] = {{.fd = started->out, .events = POLLIN},
				{.fd = started->err, .events = POLLIN}};
	char *texts[2] = {outcome->out, outcome->err};
	size_t used[2] = {0, 0};

	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		assert_true(poll(fds, 2, SILENCE_MS) > 0);
		for (size_t i = 0; i < 2; i++) {
			if (fds[i].revents == 0)
				continue;
			ssize_t got = read(fds[i].fd, texts[i] + used[i], OUTPUT - 1 - used[i]);
			if (got <= 0)
				fds[i].fd = -1;
			used[i] += got > 0 ? (size_t)got : 0;
		}
	}
	outcome->out[used[0]] = outcome->err[used[1]] = '\0';
}

struct outcome program_end(struct started *started)
{
	static struct outcome outcome;
	int wait_status = 0;

	read_both(started, &outcome);
	(void)close(started->out);
	(void)close(started->err);
	assert_int_equal(waitpid(started->pid, &wait_status, 0), started->pid);
	assert_true(WIFEXITED(wait_status));
	outcome.exit = WEXITSTATUS(wait_status);
	return outcome;
}

void says(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", text, part);
}
