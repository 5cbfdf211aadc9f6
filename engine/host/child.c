/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "engine/host/files.h"
#include "engine/host/proc.h"

enum { FDS_MOST = 32, GROUP_LIMIT = 8192 };

extern char **environ;

/* Descriptors are first lifted above the table's end, so that placing one cannot overwrite another.
 */
static int place_fds(posix_spawn_file_actions_t *actions, const struct child_spec *spec,
		     int lifted[])
{
	int failed = 0;

	for (size_t i = 0; i < spec->fd_count && failed == 0; i++) {
		if (spec->fds[i] < 0) {
			failed = posix_spawn_file_actions_addopen(actions, (int)i, "/dev/null",
								  O_RDWR, 0);
			continue;
		}
		lifted[i] = fcntl(spec->fds[i], F_DUPFD_CLOEXEC, (int)spec->fd_count + 1);
		failed = lifted[i] < 0
			     ? errno
			     : posix_spawn_file_actions_adddup2(actions, lifted[i], (int)i);
	}
	if (failed == 0)
		failed = posix_spawn_file_actions_addchdir_np(actions, spec->directory != NULL
									   ? spec->directory
									   : "/");
	if (failed == 0)
		failed = posix_spawn_file_actions_addclosefrom_np(actions, (int)spec->fd_count);
	return failed;
}

static int set_attributes(posix_spawnattr_t *attributes, int cgroup_fd)
{
	sigset_t none, defaults;
	/* A process group of its own: a Ctrl-C at hauld's terminal is not for a CRIU that holds a
	 * tree. */
	short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP;

	(void)sigemptyset(&none);
	(void)sigfillset(&defaults);
	int failed = posix_spawnattr_setsigmask(attributes, &none);
	if (failed == 0)
		failed = posix_spawnattr_setsigdefault(attributes, &defaults);
	if (failed == 0 && cgroup_fd >= 0) {
		failed = posix_spawnattr_setcgroup_np(attributes, cgroup_fd);
		flags |= POSIX_SPAWN_SETCGROUP;
	}
	return failed == 0 ? posix_spawnattr_setflags(attributes, flags) : failed;
}

static int spawn(const struct child_spec *spec, int cgroup_fd, int *ret_pidfd)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int lifted[FDS_MOST];

	for (size_t i = 0; i < FDS_MOST; i++)
		lifted[i] = -1;
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attributes);
	int failed = place_fds(&actions, spec, lifted);
	if (failed == 0)
		failed = set_attributes(&attributes, cgroup_fd);
	if (failed == 0)
		failed = pidfd_spawnp(ret_pidfd, spec->argv[0], &actions, &attributes,
				      (char *const *)spec->argv,
				      spec->environment != NULL ? (char *const *)spec->environment
								: environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	for (size_t i = 0; i < FDS_MOST; i++)
		close_if_open(lifted[i]);
	return failed;
}

status *child_spawn(const struct child_spec *spec, struct child *ret_child)
{
	scoped(fd) int cgroup_fd = -1;
	int pidfd = -1;

	if (spec->fd_count > FDS_MOST)
		return status_errorf(STATUS_INTERNAL, "too many descriptors for %s", spec->argv[0]);
	if (spec->cgroup != NULL) {
		cgroup_fd = open(spec->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (cgroup_fd < 0)
			return status_errnof(errno, "cannot open the cgroup %s", spec->cgroup);
	}
	int failed = spawn(spec, cgroup_fd, &pidfd);
	if (failed != 0)
		return status_errnof(failed, "cannot start %s", spec->argv[0]);
	pid_t pid = pidfd_getpid(pidfd);
	if (pid < 0) {
		failed = errno;
		(void)close(pidfd);
		return status_errnof(failed, "cannot start %s", spec->argv[0]);
	}
	*ret_child = (struct child){pid, pidfd};
	return NULL;
}

status *child_wait(struct child *child, int64_t timeout_ms, int *ret_wait_status)
{
	struct pollfd ended = {.fd = child->pidfd, .events = POLLIN};
	int wait_status = 0;

	int ready = poll(&ended, 1, timeout_ms > INT_MAX ? INT_MAX : (int)timeout_ms);
	if (ready == 0 || (ready < 0 && errno == EINTR))
		return status_errorf(STATUS_DEADLINE_EXCEEDED, "process %d still runs", child->pid);
	if (ready < 0)
		return status_errnof(errno, "cannot wait for process %d", child->pid);
	if (waitpid(child->pid, &wait_status, 0) != child->pid)
		return status_errnof(errno, "cannot wait for process %d", child->pid);
	(void)close(child->pidfd);
	*child = (struct child){0, -1};
	if (ret_wait_status != NULL)
		*ret_wait_status = wait_status;
	return NULL;
}

void child_kill(struct child *child)
{
	if (child->pid <= 0)
		return;
	(void)pidfd_send_signal(child->pidfd, SIGKILL, NULL, 0);
	(void)waitpid(child->pid, NULL, 0);
	(void)close(child->pidfd);
	*child = (struct child){0, -1};
}

pid_t child_reap(pid_t pid, int *ret_wait_status)
{
	struct proc_stat stat;
	scoped(status) status *st = pid > 0 ? proc_stat(pid, &stat) : NULL;

	/* One that lives may be held by a thread of ours (hold.h), which waits for its stop: that
	 * word is not for here. */
	if (pid <= 0 || (st == NULL && stat.state != 'Z'))
		return 0;
	pid_t ended = waitpid(pid, ret_wait_status, WNOHANG);
	return ended > 0 ? ended : 0;
}

/* Whether /proc/PID/cgroup, which outlives the group, names this directory. */
static bool was_member(pid_t pid, const char *cgroup)
{
	char path[64], text[GROUP_LIMIT + 1];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	scoped(status) status *st = files_read(path, GROUP_LIMIT, &content);
	(void)snprintf(text, sizeof(text), "%.*s", (int)content.size, (const char *)content.data);
	char *begin = st == NULL ? strstr(text, "0::/") : NULL;
	if (begin == NULL)
		return false;
	begin += strlen("0::");
	begin[strcspn(begin, "\n")] = '\0';
	char *deleted = strstr(begin, " (deleted)");
	if (deleted != NULL)
		*deleted = '\0';
	size_t length = strlen(begin), whole = strlen(cgroup);
	return length > 1 && whole >= length && strcmp(cgroup + whole - length, begin) == 0;
}

/* A thread's children: those of the engine are its threads'. */
static void reap_children_of(void *self, const char *thread)
{
	char path[64];
	int pid;
	struct proc_stat stat;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%.20s/children", thread);
	FILE *file = fopen(path, "re");
	while (file != NULL && fscanf(file, "%d", &pid) == 1) {
		scoped(status) status *st = proc_stat(pid, &stat);
		if (st == NULL && stat.state == 'Z' && was_member(pid, self))
			(void)waitpid(pid, NULL, WNOHANG);
	}
	if (file != NULL)
		(void)fclose(file);
}

void child_reap_group(const char *cgroup)
{
	status_free(files_each("/proc/self/task", reap_children_of, (void *)cgroup));
}
