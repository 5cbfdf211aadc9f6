/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "engine/host/files.h"
#include "proto/clock.h"
#include "proto/pack.h"

enum { POLL_MS = 5, FREEZE_POLL_MS = 1, FILE_LIMIT = 1024 * 1024 };

static status *write_file(const char *path, const char *name, const char *text)
{
	char file[CGROUP_PATH + 64];

	(void)snprintf(file, sizeof(file), "%s/%s", path, name);
	scoped(fd) int fd = open(file, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return status_errnof(errno, "cannot open %s", file);
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		int failed = errno;
		/* The kernel's word for "no such process". */
		return failed == ESRCH
			   ? status_errorf(STATUS_NOT_FOUND, "no such process: %s", text)
			   : status_errnof(failed, "cannot write %s to %s", text, file);
	}
	return NULL;
}

/* The number behind "key " in a flat keyed file. */
static status *read_key(const char *path, const char *name, const char *key, bool *ret_value)
{
	char file[CGROUP_PATH + 64];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(file, sizeof(file), "%s/%s", path, name);
	status *st = files_read(file, FILE_LIMIT, &content);
	if (st != NULL)
		return st;
	const char *text = (const char *)content.data;
	size_t length = strlen(key);
	for (size_t at = 0; at + length + 1 < content.size; at++) {
		if ((at == 0 || text[at - 1] == '\n') && memcmp(text + at, key, length) == 0 &&
		    text[at + length] == ' ') {
			*ret_value = text[at + length + 1] == '1';
			return NULL;
		}
	}
	return status_errorf(STATUS_INTERNAL, "%s has no %s", file, key);
}

/* First cgroup2 mount in mountinfo: "… - cgroup2 …", field 5 is where. */
static status *find_mount(char ret_path[CGROUP_PATH])
{
	char line[4096];
	FILE *file = fopen("/proc/self/mountinfo", "re");
	bool found = false;

	if (file == NULL)
		return status_errnof(errno, "cannot read /proc/self/mountinfo");
	while (!found && fgets(line, sizeof(line), file) != NULL) {
		char where[CGROUP_PATH];
		found = strstr(line, " - cgroup2 ") != NULL &&
			sscanf(line, "%*s %*s %*s %*s %511s", where) == 1;
		if (found)
			(void)snprintf(ret_path, CGROUP_PATH, "%s", where);
	}
	(void)fclose(file);
	if (!found)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup");
	return NULL;
}

status *cgroup_base(char ret_path[CGROUP_PATH])
{
	char mount[CGROUP_PATH], path[CGROUP_PATH], file[CGROUP_PATH + 64];
	status *st = find_mount(mount);

	if (st != NULL)
		return st;
	if (strlen(mount) + sizeof("/haul") > sizeof(path))
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "cgroup v2 is mounted too deep: %s", mount);
	(void)snprintf(path, sizeof(path), "%.*s/haul", CGROUP_PATH - 16, mount);
	st = cgroup_make(path);
	if (st != NULL)
		return st;
	(void)snprintf(file, sizeof(file), "%s/cgroup.kill", path);
	if (access(file, W_OK) != 0)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "%s is missing: this kernel is too old (5.14 or newer is needed)", file);
	(void)snprintf(ret_path, CGROUP_PATH, "%s", path);
	return NULL;
}

void cgroup_path(const char *base, const char *kind, const char *id, char ret_path[CGROUP_PATH])
{
	(void)snprintf(ret_path, CGROUP_PATH, "%.400s/%.8s-%.64s", base, kind, id);
}

status *cgroup_make(const char *path)
{
	if (mkdir(path, 0755) != 0 && errno != EEXIST)
		return status_errnof(errno, "cannot make the cgroup %s", path);
	return NULL;
}

bool cgroup_exists(const char *path)
{
	struct stat info;

	return path[0] == '/' && stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

status *cgroup_add(const char *path, pid_t pid)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%d", pid);
	return write_file(path, "cgroup.procs", text);
}

status *cgroup_of(pid_t pid, const char *mount_base, char ret_path[CGROUP_PATH])
{
	char file[64];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(file, sizeof(file), "/proc/%d/cgroup", pid);
	status *st = files_read(file, FILE_LIMIT, &content);
	if (st != NULL)
		return st;
	const char *text = (const char *)content.data;
	for (size_t at = 0; at + 3 < content.size; at++) {
		if ((at != 0 && text[at - 1] != '\n') || memcmp(text + at, "0::", 3) != 0)
			continue;
		const char *begin = text + at + 3;
		const char *end = memchr(begin, '\n', content.size - at - 3);
		size_t length = end != NULL ? (size_t)(end - begin) : content.size - at - 3;
		if (length + strlen(mount_base) >= CGROUP_PATH)
			break;
		(void)snprintf(ret_path, CGROUP_PATH, "%s%.*s", mount_base, (int)length, begin);
		return NULL;
	}
	return status_errorf(STATUS_FAILED_PRECONDITION, "process %d is in no cgroup v2", pid);
}

static status *await_frozen(const char *path, bool wanted, int64_t timeout_ms)
{
	int64_t until = clock_monotonic_ms() + timeout_ms;

	for (;;) {
		bool is_frozen = false;
		status *st = read_key(path, "cgroup.events", "frozen", &is_frozen);
		if (st != NULL || is_frozen == wanted)
			return st;
		if (clock_monotonic_ms() >= until)
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "%s did not %s within %lld ms", path,
					     wanted ? "freeze" : "thaw", (long long)timeout_ms);
		(void)poll(NULL, 0, FREEZE_POLL_MS);
	}
}

status *cgroup_freeze(const char *path, int64_t timeout_ms)
{
	status *st = write_file(path, "cgroup.freeze", "1");

	return st == NULL ? await_frozen(path, true, timeout_ms) : st;
}

status *cgroup_thaw(const char *path, int64_t timeout_ms)
{
	status *st = write_file(path, "cgroup.freeze", "0");

	return st == NULL ? await_frozen(path, false, timeout_ms) : st;
}

status *cgroup_is_frozen(const char *path, bool *ret_frozen)
{
	char file[CGROUP_PATH + 64];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(file, sizeof(file), "%s/cgroup.freeze", path);
	status *st = files_read(file, FILE_LIMIT, &content);
	if (st == NULL)
		*ret_frozen = content.size > 0 && content.data[0] == '1';
	return st;
}

status *cgroup_is_populated(const char *path, bool *ret_populated)
{
	return read_key(path, "cgroup.events", "populated", ret_populated);
}

/* Is this one of the words of the file? */
static status *has_word(const char *path, const char *name, const char *word, bool *ret_has)
{
	char file[CGROUP_PATH + 64];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(file, sizeof(file), "%s/%s", path, name);
	status *st = files_read(file, FILE_LIMIT, &content);
	if (st != NULL)
		return st;
	scoped(str) char *text = strndup((const char *)content.data, content.size);
	char *rest = NULL;
	*ret_has = false;
	for (char *one = text != NULL ? strtok_r(text, " \n", &rest) : NULL; one != NULL;
	     one = strtok_r(NULL, " \n", &rest))
		*ret_has = *ret_has || strcmp(one, word) == 0;
	return NULL;
}

status *cgroup_check_cpu(const char *base)
{
	bool has = false;
	status *st = has_word(base, "cgroup.controllers", "cpu", &has);

	if (st != NULL || has)
		return st;
	return status_detailf(
	    status_errorf(
		STATUS_FAILED_PRECONDITION,
		"this host's cgroup v2 has no cpu controller for %s: processor time cannot "
		"be limited there",
		base),
	    "next",
	    "add cpu to cgroup.subtree_control above it (systemd does), or boot without "
	    "cgroup v1's cpu");
}

status *cgroup_enable_cpu(const char *base)
{
	bool has = false;
	status *st = has_word(base, "cgroup.subtree_control", "cpu", &has);

	return st != NULL || has ? st : write_file(base, "cgroup.subtree_control", "+cpu");
}

status *cgroup_limit_cpu(const char *path, unsigned quota_us, unsigned period_us)
{
	char text[32];

	if (quota_us == 0)
		return write_file(path, "cpu.max", "max");
	(void)snprintf(text, sizeof(text), "%u %u", quota_us, period_us);
	return write_file(path, "cpu.max", text);
}

/* Appends the numbers of one cgroup.procs. */
static status *read_pids(const char *path, pid_t **pids, size_t *count)
{
	char file[CGROUP_PATH + 64];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(file, sizeof(file), "%s/cgroup.procs", path);
	status *st = files_read(file, FILE_LIMIT, &content);
	if (st != NULL)
		return st;
	size_t lines = 0;
	for (size_t i = 0; i < content.size; i++)
		lines += content.data[i] == '\n' ? 1 : 0;
	pid_t *grown = realloc(*pids, (*count + lines + 1) * sizeof(pid_t));
	if (grown == NULL)
		return status_errnof(ENOMEM, "cannot list %s", path);
	*pids = grown;
	for (size_t at = 0; at < content.size;) {
		pid_t pid = 0;
		for (; at < content.size && content.data[at] != '\n'; at++)
			pid = pid * 10 + (content.data[at] - '0');
		at++;
		if (pid > 0)
			grown[(*count)++] = pid;
	}
	return NULL;
}

struct pid_list {
	const char *path;
	pid_t *pids;
	size_t count;
	status *st;
};

static void visit_below(void *self, const char *name)
{
	struct pid_list *list = self;
	char below[CGROUP_PATH + 256];
	struct stat info;

	(void)snprintf(below, sizeof(below), "%s/%s", list->path, name);
	if (list->st != NULL || strlen(below) >= CGROUP_PATH || lstat(below, &info) != 0 ||
	    !S_ISDIR(info.st_mode))
		return;
	pid_t *pids = NULL;
	size_t count = 0;
	list->st = cgroup_pids(below, &pids, &count);
	pid_t *grown = realloc(list->pids, (list->count + count + 1) * sizeof(pid_t));
	if (grown == NULL)
		abort();
	if (count > 0)
		memcpy(grown + list->count, pids, count * sizeof(pid_t));
	list->pids = grown;
	list->count += count;
	free(pids);
}

status *cgroup_pids(const char *path, pid_t **ret_pids, size_t *ret_count)
{
	struct pid_list list = {.path = path};
	status *st = read_pids(path, &list.pids, &list.count);

	if (st == NULL)
		st = files_each(path, visit_below, &list);
	st = status_first(st, list.st);
	if (st != NULL) {
		free(list.pids);
		return st;
	}
	*ret_pids = list.pids;
	*ret_count = list.count;
	return NULL;
}

status *cgroup_kill(const char *path, int64_t timeout_ms)
{
	int64_t until = clock_monotonic_ms() + timeout_ms;

	if (!cgroup_exists(path))
		return NULL;
	status *st = write_file(path, "cgroup.kill", "1");
	while (st == NULL) {
		bool is_populated = false;
		st = cgroup_is_populated(path, &is_populated);
		if (st == NULL && !is_populated)
			return cgroup_remove(path);
		if (st == NULL && clock_monotonic_ms() >= until)
			st = status_errorf(STATUS_DEADLINE_EXCEEDED,
					   "%s still has processes after cgroup.kill", path);
		(void)poll(NULL, 0, POLL_MS);
	}
	return st;
}

static void remove_below(void *self, const char *name)
{
	char below[CGROUP_PATH + 256];
	struct stat info;

	(void)snprintf(below, sizeof(below), "%s/%s", (const char *)self, name);
	if (strlen(below) < CGROUP_PATH && lstat(below, &info) == 0 && S_ISDIR(info.st_mode))
		status_free(cgroup_remove(below));
}

status *cgroup_remove(const char *path)
{
	/* A group whose last process just ended stays busy for a moment. */
	for (int tries = 0;; tries++) {
		status_free(files_each(path, remove_below, (void *)path));
		if (rmdir(path) == 0 || errno == ENOENT)
			return NULL;
		if (errno != EBUSY || tries == 20)
			return errno == EBUSY ? status_errorf(STATUS_FAILED_PRECONDITION,
							      "%s has processes", path)
					      : status_errnof(errno, "cannot remove %s", path);
		(void)poll(NULL, 0, POLL_MS);
	}
}

struct each {
	const char *prefix;
	void (*visit)(void *self, const char *id);
	void *self;
};

static void visit_group(void *self, const char *name)
{
	const struct each *each = self;
	size_t length = strlen(each->prefix);

	if (strncmp(name, each->prefix, length) == 0 && name[length] == '-')
		each->visit(each->self, name + length + 1);
}

status *cgroup_each(const char *base, const char *kind, void (*visit)(void *self, const char *id),
		    void *self)
{
	struct each each = {kind, visit, self};

	return files_each(base, visit_group, &each);
}
