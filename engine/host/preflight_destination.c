/* SPDX-License-Identifier: Apache-2.0 */
/* Can this host take the tree? */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/types.h>

#include "engine/host/files.h"
#include "engine/host/preflight_parts.h"
#include "proto/reason.h"

enum { MEBIBYTE = 1024 * 1024 };

/* Every failure is a detail; what is beyond their number is counted. */
struct failures {
	char texts[TROUBLES_TOLD][LIMIT_STATUS_TEXT];
	const char *labels[TROUBLES_TOLD];
	size_t count;
	size_t pids; /* how many of them are about pids */
};

static void fail(struct failures *failures, const char *label, const char *fmt, ...)
    format_like(3, 4);

static void fail(struct failures *failures, const char *label, const char *fmt, ...)
{
	va_list args;

	if (failures->count < array_len(failures->texts)) {
		va_start(args, fmt);
		(void)vsnprintf(failures->texts[failures->count],
				sizeof(failures->texts[failures->count]), fmt, args);
		va_end(args);
		failures->labels[failures->count] = label;
	}
	failures->count++;
}

static void check_pid(struct failures *failures, pid_t pid)
{
	struct proc_stat who, parent = {.name = "?"};
	char path[64];
	uint64_t group = 0;

	/* /proc/N is there for threads too: their ids are not free either. */
	status *st = proc_stat(pid, &who);
	if (st != NULL) {
		status_free(st);
		return;
	}
	failures->pids++;
	if (who.state == 'Z') {
		status_free(proc_stat(who.parent, &parent));
		fail(failures, VIOLATION_PREFIX "pid",
		     "pid %d is held by a zombie (%s) until its parent, process %d (%s), reaps it",
		     (int)pid, who.name, (int)who.parent, parent.name);
		return;
	}
	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (proc_field(path, "Tgid:", 10, &group) && group != (uint64_t)pid)
		fail(failures, VIOLATION_PREFIX "pid",
		     "pid %d is used by a thread of process %" PRIu64 " (%s)", (int)pid, group,
		     who.name);
	else
		fail(failures, VIOLATION_PREFIX "pid", "pid %d is used by %s", (int)pid, who.name);
}

static status *check_pids(struct failures *failures, const Haul__V1__PrepareRequest *request)
{
	scoped(fd) int fd = open("/proc/sys/kernel/pid_max", O_RDONLY | O_CLOEXEC);
	char text[32] = "";
	long most = INT32_MAX;

	if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0)
		most = strtol(text, NULL, 10);
	for (size_t i = 0; i < request->n_pids; i++) {
		if (request->pids[i] <= 0)
			return status_errorf(STATUS_INVALID_ARGUMENT, "%d is not a pid",
					     request->pids[i]);
		if (request->pids[i] >= most)
			fail(failures, VIOLATION_PREFIX "pid",
			     "pid %d is above this host's kernel.pid_max (%ld): raise it with "
			     "sysctl",
			     request->pids[i], most);
		else
			check_pid(failures, request->pids[i]);
	}
	return NULL;
}

/* Looks below `root` as the restored tree will: its links cannot lead out of it. */
static int open_below(int root, const char *path)
{
	const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

static bool flock_is_held(int fd, Haul__V1__Lock wanted)
{
	int how = wanted == HAUL__V1__LOCK__LOCK_EXCLUSIVE ? LOCK_EX : LOCK_SH;

	/* Given back at once, by the close. */
	return flock(fd, how | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

static bool record_is_held(int fd, Haul__V1__Lock wanted)
{
	struct flock lock = {.l_type = wanted == HAUL__V1__LOCK__LOCK_EXCLUSIVE ? F_WRLCK : F_RDLCK,
			     .l_whence = SEEK_SET};

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* Restoring a lock waits for it for ever. Mostly its holder is the tree itself, on storage that
 * both hosts share. */
static void check_locks(struct failures *failures, int place, const Haul__V1__OpenFile *file)
{
	char path[64];

	if (file->flock == HAUL__V1__LOCK__LOCK_NONE &&
	    file->record_lock == HAUL__V1__LOCK__LOCK_NONE)
		return;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", place);
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return;
	if ((file->flock != HAUL__V1__LOCK__LOCK_NONE && flock_is_held(fd, file->flock)) ||
	    (file->record_lock != HAUL__V1__LOCK__LOCK_NONE &&
	     record_is_held(fd, file->record_lock)))
		fail(failures, "lock",
		     "the tree holds a lock on %s, which cannot be had here: if both hosts share "
		     "the file, it is the tree's own; release it before the migration",
		     file->path);
}

static void check_file(struct failures *failures, int root, const Haul__V1__OpenFile *file)
{
	struct stat info;
	scoped(fd) int fd = open_below(root, file->path);

	if (fd < 0 || fstat(fd, &info) != 0) {
		fail(failures, VIOLATION_PREFIX "file", "%s: %s", file->path, strerror(errno));
		return;
	}
	if (S_ISREG(info.st_mode))
		check_locks(failures, fd, file);
	if (!file->check_size)
		return;
	if (!S_ISREG(info.st_mode))
		fail(failures, VIOLATION_PREFIX "file", "%s is not a regular file here",
		     file->path);
	else if ((uint64_t)info.st_size != file->size)
		fail(failures, VIOLATION_PREFIX "file",
		     "%s has %" PRIu64 " bytes here and %" PRIu64 " at the source", file->path,
		     (uint64_t)info.st_size, file->size);
}

static status *check_files(struct failures *failures, const Haul__V1__PrepareRequest *request)
{
	const char *place = request->root[0] != '\0' ? request->root : "/";

	if (place[0] != '/')
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the destination's root \"%.200s\" is not an absolute path",
				     place);
	scoped(fd) int root = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0) {
		fail(failures, VIOLATION_PREFIX "root", "the destination's root %s: %s", place,
		     strerror(errno));
		return NULL;
	}
	for (size_t i = 0; i < request->n_files; i++) {
		if (request->files[i]->path[0] != '/')
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "\"%.200s\" is not an absolute path",
					     request->files[i]->path);
		check_file(failures, root, request->files[i]);
	}
	return NULL;
}

uint64_t preflight_available_bytes(void)
{
	uint64_t available = 0, swap = 0;

	if (!proc_field("/proc/meminfo", "MemAvailable:", 10, &available))
		return 0;
	(void)proc_field("/proc/meminfo", "SwapFree:", 10, &swap);
	return (available + swap) * 1024;
}

static void check_room(struct failures *failures, uint64_t needed, const char *images_dir)
{
	struct statfs fs;

	if (statfs(images_dir, &fs) != 0) {
		fail(failures, VIOLATION_PREFIX "disk", "%s: %s", images_dir, strerror(errno));
		return;
	}
	uint64_t space = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	bool is_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
	if (fs.f_type != RAMFS_MAGIC && space < needed)
		fail(failures, VIOLATION_PREFIX "disk",
		     "%s has %" PRIu64 " MiB free, the images need %" PRIu64 " MiB", images_dir,
		     space / MEBIBYTE, needed / MEBIBYTE + 1);
	uint64_t available = preflight_available_bytes();
	if (available == 0)
		return;
	/* Images in memory and the restored tree are there at the same time. */
	uint64_t memory = is_memory && needed <= UINT64_MAX / 2 ? needed * 2 : needed;
	if (available < memory)
		fail(failures, VIOLATION_PREFIX "memory",
		     "%" PRIu64 " MiB are available, the tree needs %" PRIu64 " MiB%s",
		     available / MEBIBYTE, memory / MEBIBYTE + 1,
		     is_memory ? " (its images are kept in memory too)" : "");
}

static status *verdict(const struct failures *failures)
{
	size_t kept = failures->count < array_len(failures->texts) ? failures->count
								   : array_len(failures->texts);
	status *st;

	if (failures->count == 0)
		return NULL;
	if (failures->pids == failures->count)
		st = status_errorf(STATUS_ALREADY_EXISTS,
				   "pids of the tree are in use at the destination: %s%s",
				   failures->texts[0], failures->count > 1 ? " …" : "");
	else
		st = status_errorf(STATUS_FAILED_PRECONDITION,
				   "the destination cannot take the tree: %s%s", failures->texts[0],
				   failures->count > 1 ? " …" : "");
	st = status_because(st, failures->pids == failures->count ? REASON_PIDS_IN_USE
								  : REASON_DESTINATION_UNFIT);
	for (size_t i = 0; i < kept; i++)
		st = status_detailf(st, failures->labels[i], "%s", failures->texts[i]);
	if (failures->count > kept)
		st = status_detailf(st, "more", "and %zu more", failures->count - kept);
	return st;
}

status *preflight_destination(const Haul__V1__PrepareRequest *request, const char *images_dir)
{
	struct failures *failures = calloc(1, sizeof(*failures));

	if (failures == NULL)
		return status_errnof(ENOMEM, "cannot check this host");
	status *st = check_pids(failures, request);
	if (st == NULL)
		st = check_files(failures, request);
	if (st == NULL) {
		check_room(failures, request->memory_bytes, images_dir);
		st = verdict(failures);
	}
	free(failures);
	return st;
}
