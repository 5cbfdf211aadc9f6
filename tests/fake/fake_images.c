/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool write_image(int images, const char *name, const void *data, size_t size)
{
	int fd = openat(images, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool is_written = write(fd, data, size) == (ssize_t)size;

	(void)close(fd);
	return is_written;
}

static ssize_t read_image(int images, const char *name, char *data, size_t size)
{
	int fd = openat(images, name, O_RDONLY | O_CLOEXEC);
	ssize_t got = read(fd, data, size);

	(void)close(fd);
	return got;
}

/* --- writing --- */

/* The working directory, a zero, the command line. */
static bool write_core(int images, pid_t pid)
{
	char path[64], data[2 * FAKE_TEXT];

	(void)snprintf(path, sizeof(path), "/proc/%d/cwd", pid);
	ssize_t used = readlink(path, data, FAKE_TEXT - 1);
	if (used < 0)
		return true; /* a zombie */
	data[used++] = '\0';
	(void)snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	ssize_t more = read_image(AT_FDCWD, path, data + used, FAKE_TEXT);
	(void)snprintf(path, sizeof(path), "core-%d.img", pid);
	return more > 0 && write_image(images, path, data, (size_t)(used + more));
}

bool images_write_tasks(int images, const struct fake_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++)
		if (!write_core(images, tree->pids[i]))
			return false;
	return true;
}

bool images_write_tree(int images, const struct fake_tree *tree, const struct fake_memory *memory)
{
	char text[FAKE_TEXT];
	int used = snprintf(text, sizeof(text), "%u %u", memory->round, memory->pages);

	for (size_t i = 0; i < tree->count; i++)
		used += snprintf(text + used, sizeof(text) - (size_t)used, " %d", tree->pids[i]);
	return write_image(images, "pstree.img", "fake", 4) &&
	       write_image(images, "inventory.img", text, (size_t)used);
}

/* --- reading --- */

bool images_read(int images, struct fake_images *ret_images)
{
	char text[FAKE_TEXT + 1], name[64], core[2 * FAKE_TEXT];
	int used = 0, more = 0;
	ssize_t size = read_image(images, "inventory.img", text, FAKE_TEXT);

	if (size <= 0)
		return false;
	text[size] = '\0';
	ret_images->count = 0;
	if (sscanf(text, "%u %u%n", &ret_images->round, &ret_images->pages, &used) != 2)
		return false;
	while (ret_images->count < FAKE_PIDS &&
	       sscanf(text + used, "%d%n", &ret_images->pids[ret_images->count], &more) == 1) {
		ret_images->count++;
		used += more;
	}
	if (ret_images->count == 0)
		return false;
	(void)snprintf(name, sizeof(name), "core-%d.img", ret_images->pids[0]);
	size = read_image(images, name, core, sizeof(core));
	if (size <= 0)
		return false;
	size_t cwd = strnlen(core, (size_t)size) + 1;
	if (cwd >= (size_t)size || cwd > FAKE_TEXT)
		return false;
	memcpy(ret_images->cwd, core, cwd);
	ret_images->command_size = (size_t)size - cwd;
	memcpy(ret_images->command, core + cwd, ret_images->command_size);
	return true;
}

/* --- starting --- */

static _Noreturn void run(struct fake_images *images, int gate)
{
	char *argv[FAKE_PIDS];
	size_t count = 0;
	char word = 0, last = 0;

	/* Nothing of the session is kept open by a parked process. */
	(void)dup2(gate, 3);
	(void)close_range(4, ~0U, 0);
	while (word != 'g' && read(3, &word, 1) == 1)
		last = word;
	while (last == 0) /* CRIU died before it was allowed to run */
		(void)pause();
	for (size_t at = 0; at < images->command_size && count + 1 < FAKE_PIDS;
	     at += strnlen(images->command + at, images->command_size - at) + 1)
		argv[count++] = images->command + at;
	argv[count] = NULL;
	(void)setsid();
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3; fd++)
		(void)dup2(null, fd);
	(void)close_range(3, ~0U, 0);
	if (chdir(images->cwd) == 0)
		(void)execvp(argv[0], argv);
	_exit(127);
}

pid_t restored_start(const struct fake_images *images, int *ret_gate)
{
	pid_t wanted = images->pids[0];
	struct fake_images copy = *images;
	int gate[2];
	/* As CRIU does it: the old id, a child of the engine, which reaps it. */
	struct clone_args arguments = {.flags = CLONE_PARENT,
				       .set_tid = (uintptr_t)&wanted,
				       .set_tid_size = 1};

	if (pipe2(gate, O_CLOEXEC) != 0)
		return -errno;
	copy.command[copy.command_size < FAKE_TEXT ? copy.command_size : FAKE_TEXT - 1] = '\0';
	pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
	if (pid < 0 && errno == EEXIST && fault_word("any-pid")) {
		arguments.set_tid_size = 0;
		arguments.set_tid = 0;
		pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));
	}
	if (pid == 0) {
		(void)close(gate[1]);
		run(&copy, gate[0]);
	}
	int failed = errno;
	(void)close(gate[0]);
	if (pid < 0)
		(void)close(gate[1]);
	*ret_gate = gate[1];
	return pid < 0 ? -failed : pid;
}
