/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptors of a process: which of them CRIU can dump. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "engine/host/files.h"
#include "engine/host/preflight_parts.h"

enum {
	MAJOR_MEMORY = 1, /* null, zero, full, random … */
	MAJOR_TTY = 4,
	MAJOR_TTY_AUX = 5, /* tty, console, ptmx */
	MAJOR_MISC = 10,
	MINOR_PTMX = 2,
	MINOR_TUN = 200,
	MINOR_AUTOFS = 235,
	MAJOR_PTS_FIRST = 136,
	MAJOR_PTS_LAST = 143,
};

/* What of an open descriptor is looked at. */
struct descriptor {
	int number;
	int directory; /* /proc/PID/fd */
	const char *name;
	char target[FILES_PATH];
	char info[64]; /* path of its fdinfo */
	struct stat stat;
};

struct anonymous_kind {
	const char *target; /* what the link says, after "anon_inode:", brackets left out */
	bool can_dump;
	const char *what;
};
static const struct anonymous_kind *anonymous_kind(const char *kind);

#define CLOSE_IT "close it before the migration, or end what uses it"

static void cannot_dump(struct inspection *in, int fd, const char *next, const char *what)
{
	trouble_add(&in->troubles, next, "process %d (%s): descriptor %d is %s", (int)in->who.pid,
		    in->who.name, fd, what);
}

/* CRIU writes the counter as 32 bits: a larger one would be cut without a word. */
static void check_eventfd(struct troubles *troubles, const struct proc_stat *who,
			  const struct descriptor *fd)
{
	uint64_t count = 0;

	if (proc_field(fd->info, "eventfd-count:", 16, &count) && count > UINT32_MAX)
		trouble_add(troubles, "read the eventfd before the migration",
			    "process %d (%s): descriptor %d is an eventfd whose counter (%" PRIu64
			    ") has more than 32 bits, which CRIU would cut",
			    (int)who->pid, who->name, fd->number, count);
}

static void check_anonymous(struct inspection *in, const struct descriptor *fd)
{
	char kind[64], what[128];
	const char *name = fd->target + strlen("anon_inode:");
	const struct anonymous_kind *known;

	(void)snprintf(kind, sizeof(kind), "%s", name + (*name == '['));
	kind[strcspn(kind, "]")] = '\0';
	known = anonymous_kind(kind);
	if (known == NULL) {
		(void)snprintf(what, sizeof(what), "a %s, which CRIU cannot dump", kind);
		cannot_dump(in, fd->number, CLOSE_IT, what);
		return;
	}
	if (!known->can_dump)
		cannot_dump(in, fd->number, CLOSE_IT, known->what);
	if (strcmp(kind, "eventfd") == 0)
		check_eventfd(&in->troubles, &in->who, fd);
}

static bool is_tty(unsigned major_number)
{
	return major_number == MAJOR_TTY || major_number == MAJOR_TTY_AUX ||
	       (major_number >= MAJOR_PTS_FIRST && major_number <= MAJOR_PTS_LAST);
}

static bool tree_holds_master(const struct inspection *in, unsigned index)
{
	for (size_t i = 0; i < in->pty_master_count; i++)
		if (in->pty_masters[i] == index)
			return true;
	return false;
}

/* A terminal goes along when its master does: the pty is inside the tree then. */
static void check_terminal(struct inspection *in, const struct descriptor *fd)
{
	unsigned major_number = major(fd->stat.st_rdev), minor_number = minor(fd->stat.st_rdev);
	char what[FILES_PATH + 64];

	if (in->options->shell_job || (major_number == MAJOR_TTY_AUX && minor_number == MINOR_PTMX))
		return;
	if (major_number >= MAJOR_PTS_FIRST &&
	    tree_holds_master(in, (major_number - MAJOR_PTS_FIRST) * 256 + minor_number))
		return;
	(void)snprintf(what, sizeof(what), "the terminal %s, which stays here", fd->target);
	cannot_dump(in, fd->number,
		    "start it without a terminal (setsid … </dev/null >log 2>&1), or pass "
		    "--shell-job",
		    what);
}

static void check_device(struct inspection *in, const struct descriptor *fd)
{
	unsigned major_number = major(fd->stat.st_rdev), minor_number = minor(fd->stat.st_rdev);
	char what[FILES_PATH + 64];

	if (S_ISCHR(fd->stat.st_mode)) {
		if (is_tty(major_number)) {
			check_terminal(in, fd);
			return;
		}
		if (major_number == MAJOR_MEMORY ||
		    (major_number == MAJOR_MISC &&
		     (minor_number == MINOR_TUN || minor_number == MINOR_AUTOFS)))
			return;
	}
	(void)snprintf(what, sizeof(what), "the device %s (%s %u:%u), which CRIU cannot dump",
		       fd->target, S_ISCHR(fd->stat.st_mode) ? "character" : "block", major_number,
		       minor_number);
	cannot_dump(in, fd->number, CLOSE_IT, what);
}

/* CRIU finds a file by its mount; one of a mount that the tree cannot see was inherited from
 * outside. */
static void check_mount(struct inspection *in, const struct descriptor *fd)
{
	uint64_t mount = 0;
	size_t low = 0, high = in->mount_count;
	char what[FILES_PATH + 64];

	if (in->mount_count == 0 || !proc_field(fd->info, "mnt_id:", 10, &mount))
		return;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (in->mounts[middle] < mount)
			low = middle + 1;
		else
			high = middle;
	}
	if (low < in->mount_count && in->mounts[low] == mount)
		return;
	(void)snprintf(what, sizeof(what), "%s on a mount outside of the tree's mount namespace",
		       fd->target);
	cannot_dump(in, fd->number,
		    "start the workload with that descriptor closed or redirected to a file "
		    "inside",
		    what);
}

static status *check_path(struct inspection *in, const struct descriptor *fd)
{
	static const char deleted[] = " (deleted)";
	size_t length = strlen(fd->target);
	uint64_t flags = 0;
	struct statfs fs;
	char link[64];

	if (fd->target[0] != '/' ||
	    (length >= sizeof(deleted) &&
	     strcmp(fd->target + length - (sizeof(deleted) - 1), deleted) == 0))
		return NULL;
	check_mount(in, fd);
	if (S_ISCHR(fd->stat.st_mode) || S_ISBLK(fd->stat.st_mode))
		return NULL;
	/* What of /proc is open names this tree's pids: it cannot be there yet. */
	(void)snprintf(link, sizeof(link), "/proc/%d/fd/%d", (int)in->who.pid, fd->number);
	if (statfs(link, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC)
		return NULL;
	/* A file that is being written may grow before the destination looks at it: on shared
	 * storage its size would be told wrong. */
	(void)proc_field(fd->info, "flags:", 8, &flags);
	bool is_fixed = S_ISREG(fd->stat.st_mode) && (flags & O_ACCMODE) == O_RDONLY;
	status *st =
	    survey_add_file(in, fd->target,
			    S_ISREG(fd->stat.st_mode) ? (uint64_t)fd->stat.st_size : 0, is_fixed);
	if (st == NULL && S_ISREG(fd->stat.st_mode))
		survey_add_locks(in, fd->target, fd->info);
	return st;
}

static status *note_socket(struct inspection *in, const struct descriptor *fd)
{
	void *array = in->sockets;
	status *st = grow(&array, in->socket_count, sizeof(*in->sockets));

	in->sockets = array;
	if (st == NULL)
		in->sockets[in->socket_count++] = (struct seen_socket){.inode = fd->stat.st_ino,
								       .pid = in->who.pid,
								       .fd = fd->number};
	return st;
}

static status *check_descriptor(struct inspection *in, const struct descriptor *fd)
{
	if (strncmp(fd->target, "anon_inode:", strlen("anon_inode:")) == 0) {
		check_anonymous(in, fd);
		return NULL;
	}
	if (strncmp(fd->target, "pidfd:", strlen("pidfd:")) == 0) {
		cannot_dump(in, fd->number, CLOSE_IT, anonymous_kind("pidfd")->what);
		return NULL;
	}
	switch (fd->stat.st_mode & S_IFMT) {
	case S_IFSOCK:
		return note_socket(in, fd);
	case S_IFCHR:
	case S_IFBLK:
		check_device(in, fd);
		return check_path(in, fd);
	case S_IFREG:
	case S_IFDIR:
	case S_IFIFO:
		return check_path(in, fd);
	default:
		return NULL;
	}
}

static status *note_pty_master(struct inspection *in, const struct descriptor *fd)
{
	uint64_t index = 0;

	if (!S_ISCHR(fd->stat.st_mode) || fd->stat.st_rdev != makedev(MAJOR_TTY_AUX, MINOR_PTMX) ||
	    !proc_field(fd->info, "tty-index:", 10, &index))
		return NULL;
	void *array = in->pty_masters;
	status *st = grow(&array, in->pty_master_count, sizeof(*in->pty_masters));
	in->pty_masters = array;
	if (st == NULL)
		in->pty_masters[in->pty_master_count++] = (unsigned)index;
	return st;
}

/* Calls visit for each open descriptor of the process. One that closes meanwhile is skipped. */
static status *each_descriptor(struct inspection *in, pid_t pid,
			       status *(*visit)(struct inspection *in, const struct descriptor *fd))
{
	char path[64];
	status *st = NULL;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *directory = opendir(path);
	if (directory == NULL && errno == EACCES)
		return status_errorf(
		    STATUS_PERMISSION_DENIED,
		    "cannot look at the descriptors of process %d: the engine must run as root",
		    (int)pid);
	if (directory == NULL)
		return NULL;
	for (struct dirent *entry; st == NULL && (entry = readdir(directory)) != NULL;) {
		struct descriptor fd = {.directory = dirfd(directory), .name = entry->d_name};
		if (entry->d_name[0] == '.')
			continue;
		fd.number = (int)strtol(entry->d_name, NULL, 10);
		ssize_t length =
		    readlinkat(fd.directory, fd.name, fd.target, sizeof(fd.target) - 1);
		if (length <= 0 || fstatat(fd.directory, fd.name, &fd.stat, 0) != 0)
			continue;
		(void)snprintf(fd.info, sizeof(fd.info), "/proc/%d/fdinfo/%d", (int)pid, fd.number);
		st = visit(in, &fd);
	}
	(void)closedir(directory);
	return st;
}

status *preflight_fds(struct inspection *in)
{
	/* The tree's masters first: a child's terminal may be its parent's pty. */
	if (in->who.pid == in->survey->pids[0])
		for (size_t i = 0; i < in->survey->pid_count; i++) {
			status *st = each_descriptor(in, in->survey->pids[i], note_pty_master);
			if (st != NULL)
				return st;
		}
	return each_descriptor(in, in->who.pid, check_descriptor);
}

static status *check_frozen(struct inspection *in, const struct descriptor *fd)
{
	if (strcmp(fd->target, "anon_inode:[eventfd]") == 0)
		check_eventfd(&in->troubles, &in->who, fd);
	return NULL;
}

status *preflight_frozen(const struct tree_survey *survey)
{
	struct inspection in = {0};
	status *st = NULL;

	for (size_t i = 0; st == NULL && i < survey->pid_count; i++) {
		/* A child may have ended since the survey; the dump knows, we do not care. */
		status *gone = proc_stat(survey->pids[i], &in.who);
		if (gone == NULL)
			st = each_descriptor(&in, survey->pids[i], check_frozen);
		status_free(gone);
	}
	return status_first(st, in.troubles.st);
}

static const struct anonymous_kind anonymous_kinds[] = {
    {"eventfd", true, NULL},
    {"eventpoll", true, NULL},
    {"signalfd", true, NULL},
    {"inotify", true, NULL},
    {"fanotify", true, NULL},
    {"timerfd", true, NULL},
    {"perf_event", false, "a perf event, which CRIU cannot dump"},
    {"io_uring", false, "an io_uring, which CRIU cannot dump"},
    {"userfaultfd", false, "a userfaultfd, which CRIU cannot dump"},
    {"pidfd", false, "a pidfd, which CRIU cannot dump"},
    {"bpf-map", false, "a bpf map, which CRIU cannot restore faithfully"},
    {"bpf-prog", false, "a bpf program, which CRIU cannot dump"},
    {"bpf_link", false, "a bpf link, which CRIU cannot dump"},
};

static const struct anonymous_kind *anonymous_kind(const char *kind)
{
	for (size_t i = 0; i < array_len(anonymous_kinds); i++)
		if (strcmp(anonymous_kinds[i].target, kind) == 0)
			return &anonymous_kinds[i];
	return NULL;
}
