/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Reads a small file of /proc in one go, so that it is one moment's truth; ends it with NUL. */
static int read_small(const char *path, char *buffer, size_t size)
{
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return -errno;
	do
		got = read(fd, buffer, size - 1);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	buffer[got] = '\0';
	return (int)got;
}

static status *no_such_process(pid_t pid, int err)
{
	if (err == ENOENT || err == ESRCH)
		return status_errorf(STATUS_NOT_FOUND, "there is no process %d", (int)pid);
	return status_errnof(err, "cannot read /proc of process %d", (int)pid);
}

status *proc_stat(pid_t pid, struct proc_stat *ret_stat)
{
	char path[64], text[2048];
	struct proc_stat found = {.pid = pid};
	int parent, group, session, tty;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	int got = read_small(path, text, sizeof(text));
	if (got <= 0)
		return no_such_process(pid, got == 0 ? ESRCH : -got);
	/* The name may hold anything, parentheses too: the last one ends it. */
	char *open_at = strchr(text, '('), *close_at = strrchr(text, ')');
	if (open_at == NULL || close_at == NULL || close_at < open_at)
		return status_errorf(STATUS_INTERNAL, "cannot understand %s", path);
	*close_at = '\0';
	(void)snprintf(found.name, sizeof(found.name), "%s", open_at + 1);
	if (sscanf(close_at + 1,
		   " %c %d %d %d %d %*d %" SCNu64 " %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
		   "%*d %" SCNu64,
		   &found.state, &parent, &group, &session, &tty, &found.flags,
		   &found.start_ticks) != 7)
		return status_errorf(STATUS_INTERNAL, "cannot understand %s", path);
	found.parent = parent;
	found.session = session;
	found.tty = tty;
	*ret_stat = found;
	return NULL;
}

status *proc_cpu_ms(pid_t pid, double *ret_ms)
{
	char path[64], text[2048];
	uint64_t user, system;

	(void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	int got = read_small(path, text, sizeof(text));
	if (got <= 0)
		return no_such_process(pid, got == 0 ? ESRCH : -got);
	const char *close_at = strrchr(text, ')');
	if (close_at == NULL ||
	    sscanf(close_at + 1,
		   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %" SCNu64 " %" SCNu64, &user,
		   &system) != 2)
		return status_errorf(STATUS_INTERNAL, "cannot understand %s", path);
	*ret_ms = (double)(user + system) * 1000 / (double)sysconf(_SC_CLK_TCK);
	return NULL;
}

struct tree {
	pid_t *pids;
	size_t count, room;
};

static status *tree_add(struct tree *tree, pid_t pid)
{
	if (tree->count >= PROC_TREE_MAX)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "process %d has more than %d descendants", (int)tree->pids[0],
				     PROC_TREE_MAX - 1);
	/* A child that moved while we looked must not be listed twice. */
	for (size_t i = 0; i < tree->count; i++)
		if (tree->pids[i] == pid)
			return NULL;
	if (tree->count == tree->room) {
		size_t room = tree->room == 0 ? 16 : tree->room * 2;
		pid_t *larger = reallocarray(tree->pids, room, sizeof(*larger));
		if (larger == NULL)
			return status_errnof(ENOMEM, "cannot list a process tree");
		tree->pids = larger;
		tree->room = room;
	}
	tree->pids[tree->count++] = pid;
	return NULL;
}

/* Children of one thread; a thread that has ended has none. */
static status *add_children(struct tree *tree, pid_t pid, const char *thread)
{
	char path[320];
	int child;
	status *st = NULL;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, thread);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return NULL;
	while (st == NULL && fscanf(file, "%d", &child) == 1)
		st = tree_add(tree, child);
	(void)fclose(file);
	return st;
}

static status *add_children_of_threads(struct tree *tree, pid_t pid)
{
	char path[64];
	status *st = NULL;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	DIR *threads = opendir(path);
	if (threads == NULL)
		return NULL;
	for (struct dirent *entry; st == NULL && (entry = readdir(threads)) != NULL;)
		if (entry->d_name[0] != '.')
			st = add_children(tree, pid, entry->d_name);
	(void)closedir(threads);
	return st;
}

status *proc_tree(pid_t root, pid_t **ret_pids, size_t *ret_count)
{
	struct proc_stat stat;
	struct tree tree = {0};
	status *st = proc_stat(root, &stat);

	if (st != NULL)
		return st;
	st = tree_add(&tree, root);
	for (size_t next = 0; st == NULL && next < tree.count; next++)
		st = add_children_of_threads(&tree, tree.pids[next]);
	if (st != NULL) {
		free(tree.pids);
		return st;
	}
	*ret_pids = tree.pids;
	*ret_count = tree.count;
	return NULL;
}

bool proc_is_alive(pid_t pid, uint64_t start_ticks)
{
	struct proc_stat stat;
	status *st = proc_stat(pid, &stat);

	if (st != NULL) {
		status_free(st);
		return false;
	}
	return stat.state != 'Z' && stat.state != 'X' &&
	       (start_ticks == 0 || stat.start_ticks == start_ticks);
}

bool proc_is_gone(pid_t pid, uint64_t start_ticks)
{
	struct proc_stat stat;
	scoped(status) status *st = proc_stat(pid, &stat);

	if (st != NULL)
		return status_code_of(st) == STATUS_NOT_FOUND;
	return stat.state == 'Z' || stat.state == 'X' ||
	       (start_ticks != 0 && stat.start_ticks != start_ticks);
}

status *proc_resident_bytes(pid_t pid, uint64_t *ret_bytes)
{
	char path[64], text[256];
	uint64_t pages;

	(void)snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
	int got = read_small(path, text, sizeof(text));
	if (got <= 0)
		return no_such_process(pid, got == 0 ? ESRCH : -got);
	if (sscanf(text, "%*u %" SCNu64, &pages) != 1)
		return status_errorf(STATUS_INTERNAL, "cannot understand %s", path);
	*ret_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
	return NULL;
}

/* Documentation/admin-guide/mm/soft-dirty.rst */
status *proc_reset_dirty(pid_t pid)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)pid);
	scoped(fd) int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "4", 1) != 1)
		return errno == ENOENT || errno == ESRCH ? no_such_process(pid, ESRCH)
							 : status_errnof(errno, "%s", path);
	return NULL;
}

status *proc_innermost_pid(pid_t pid, pid_t *ret_pid)
{
	char path[64], text[4096];
	int inner = 0, used = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	int got = read_small(path, text, sizeof(text));
	if (got <= 0)
		return no_such_process(pid, got == 0 ? ESRCH : -got);
	const char *field = strstr(text, "\nNSpid:");
	for (const char *at = field == NULL ? "" : field + 7;
	     *at != '\n' && sscanf(at, " %d%n", &inner, &used) == 1; at += used)
		;
	if (inner <= 0)
		return status_errorf(STATUS_INTERNAL, "cannot understand %s", path);
	*ret_pid = inner;
	return NULL;
}

status *proc_tracer(pid_t pid, pid_t *ret_tracer)
{
	char path[64], text[4096];
	int tracer = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	int got = read_small(path, text, sizeof(text));
	if (got <= 0)
		return no_such_process(pid, got == 0 ? ESRCH : -got);
	const char *field = strstr(text, "\nTracerPid:");
	if (field == NULL || sscanf(field, "\nTracerPid: %d", &tracer) != 1)
		return status_errorf(STATUS_INTERNAL, "cannot understand %s", path);
	*ret_tracer = tracer;
	return NULL;
}

status *proc_boot_id(char ret_id[40])
{
	char text[64];
	int got = read_small("/proc/sys/kernel/random/boot_id", text, sizeof(text));

	if (got < 0)
		return status_errnof(-got, "cannot read the kernel's boot id");
	size_t length = strcspn(text, "\n");
	if (length == 0 || length >= 40)
		return status_errorf(STATUS_INTERNAL, "the kernel's boot id is not one: %s", text);
	memcpy(ret_id, text, length);
	ret_id[length] = '\0';
	return NULL;
}
