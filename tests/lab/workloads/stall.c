/* SPDX-License-Identifier: Apache-2.0 */
/* stall: preloaded into hauld, it stops the process at one exact moment, so that a test can do its
 * worst just then and go on (SIGCONT) or kill. No test has to hit a moment by sleeping.
 *
 * HAUL_STALL names a file that says the moment; it is removed when the moment has come, so one
 * hauld can be stopped again and again. Its one line is one of:
 * - "record EVENT before" or "after": the journal record of that number (journal.proto) is about to
 *   be written, or is durable;
 * - "freeze KIND before" or "after": the group haul/KIND-<id> is frozen (KIND: out or in);
 * - "thaw KIND before" or "after";
 * - "fill N running": the Nth piece of memory from now on is about to be filled into a lazily
 *   restored tree that has been thawed. "fill N restored": thawed or not.
 *
 * The journal's file, lock and format are not touched: what is stalled is hauld as it ships. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINE = 64, PATH = 4096, RECORD_HEADER = 8, FIELD_EVENT = 0x08 };

/* Of the record that this thread wrote last. */
static _Thread_local unsigned last_event;
static bool is_on;
static atomic_bool has_thawed;

/* In hauld only, and not in what it starts. */
__attribute__((constructor)) static void choose_process(void)
{
	is_on = strcmp(program_invocation_short_name, "hauld") == 0 && getenv("HAUL_STALL") != NULL;
	if (is_on)
		(void)unsetenv("LD_PRELOAD");
}

/* Is this the moment? Then there will be no second one. */
static bool is_moment(const char *what, const char *which, const char *when)
{
	char line[LINE] = "", wanted[LINE];
	const char *path = getenv("HAUL_STALL");
	int fd = is_on ? open(path, O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0)
		return false;
	ssize_t got = read(fd, line, sizeof(line) - 1);
	(void)close(fd);
	(void)snprintf(wanted, sizeof(wanted), "%s %s %s\n", what, which, when);
	return got > 0 && strcmp(line, wanted) == 0 && unlink(path) == 0;
}

static void stall(const char *what, const char *which, const char *when)
{
	if (is_moment(what, which, when))
		(void)raise(SIGSTOP);
}

static void path_of(int fd, char path[PATH])
{
	char link[64];

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(link, path, PATH - 1);
	path[length > 0 ? length : 0] = '\0';
}

static bool is_journal(int fd)
{
	char path[PATH];

	path_of(fd, path);
	const char *name = strrchr(path, '/');
	return name != NULL && strcmp(name, "/journal") == 0;
}

/* --- the journal --- */

static void stall_at_record(const char *when)
{
	char event[16];

	(void)snprintf(event, sizeof(event), "%u", last_event);
	stall("record", event, when);
}

/* With 64-bit offsets this is libc's pwrite64. The real ones are system calls and no more. */
ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
	const uint8_t *record = data;

	if (is_on && size > RECORD_HEADER + 2 && record[RECORD_HEADER] == FIELD_EVENT &&
	    is_journal(fd)) {
		last_event = record[RECORD_HEADER + 1];
		stall_at_record("before");
	}
	return syscall(SYS_pwrite64, fd, data, size, at);
}

int fdatasync(int fd)
{
	int failed = (int)syscall(SYS_fdatasync, fd);
	int saved = errno;

	if (is_on && is_journal(fd))
		stall_at_record("after");
	errno = saved;
	return failed;
}

/* --- fences --- */

/* "out" or "in" when fd is the cgroup.freeze of such a group. */
static const char *fence_of(int fd)
{
	char path[PATH];

	path_of(fd, path);
	char *name = strrchr(path, '/');
	if (name == NULL || strcmp(name, "/cgroup.freeze") != 0)
		return NULL;
	*name = '\0';
	name = strrchr(path, '/');
	if (name != NULL && strncmp(name, "/out-", 5) == 0)
		return "out";
	return name != NULL && strncmp(name, "/in-", 4) == 0 ? "in" : NULL;
}

ssize_t write(int fd, const void *data, size_t size)
{
	const char *kind = is_on && size == 1 ? fence_of(fd) : NULL;

	if (kind == NULL)
		return syscall(SYS_write, fd, data, size);
	const char *what = *(const char *)data == '1' ? "freeze" : "thaw";
	stall(what, kind, "before");
	ssize_t wrote = syscall(SYS_write, fd, data, size);
	int saved = errno;
	stall(what, kind, "after");
	if (strcmp(kind, "in") == 0)
		atomic_store(&has_thawed, strcmp(what, "thaw") == 0);
	errno = saved;
	return wrote;
}

/* --- memory that comes later --- */

/* Counts down in the file. */
static void count_fill(FILE *file)
{
	unsigned left = 0;
	char when[LINE] = "";

	if (fscanf(file, "fill %u %60s", &left, when) != 2 ||
	    (strcmp(when, "running") == 0 && !atomic_load(&has_thawed)))
		return;
	(void)fseek(file, 0, SEEK_SET);
	(void)fprintf(file, "fill %u %s          \n", left - 1, when);
	if (left > 1)
		return;
	(void)fflush(file);
	(void)unlink(getenv("HAUL_STALL"));
	(void)raise(SIGSTOP);
}

static void stall_at_fill(int fd)
{
	char path[PATH];

	path_of(fd, path);
	const char *name = strrchr(path, '/');
	if (name == NULL || strncmp(name, "/pages-", strlen("/pages-")) != 0)
		return;
	FILE *file = fopen(getenv("HAUL_STALL"), "r+e");
	if (file == NULL)
		return;
	count_fill(file);
	(void)fclose(file);
}

ssize_t pread(int fd, void *data, size_t size, off_t at)
{
	if (is_on && size >= PATH)
		stall_at_fill(fd);
	return syscall(SYS_pread64, fd, data, size, at);
}
