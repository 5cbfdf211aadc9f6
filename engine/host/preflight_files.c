/* SPDX-License-Identifier: Apache-2.0 */
/* The files that a tree needs where it goes: executables, libraries, mappings, working directories.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/host/files.h"
#include "engine/host/preflight_parts.h"

static int compare_number(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

static status *add_mounts_of(struct inspection *in, pid_t pid)
{
	char path[64], *line = NULL;
	size_t room = 0;
	status *st = NULL;

	(void)snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return NULL;
	while (st == NULL && getline(&line, &room, file) > 0) {
		void *array = in->mounts;
		st = grow(&array, in->mount_count, sizeof(*in->mounts));
		in->mounts = array;
		if (st == NULL)
			in->mounts[in->mount_count++] = strtoull(line, NULL, 10);
	}
	free(line);
	(void)fclose(file);
	return st;
}

status *preflight_mounts(struct inspection *in)
{
	const struct tree_survey *survey = in->survey;
	status *st = NULL;

	for (size_t i = 0; st == NULL && i < survey->pid_count; i++)
		if (i == 0 || !same_namespace(survey->pids[i], survey->pids[i - 1], "mnt"))
			st = add_mounts_of(in, survey->pids[i]);
	/* A process after chroot sees few of its namespace's mounts: we see them all. */
	if (st == NULL && same_namespace(survey->pids[0], 0, "mnt"))
		st = add_mounts_of(in, getpid());
	if (in->mounts != NULL)
		qsort(in->mounts, in->mount_count, sizeof(*in->mounts), compare_number);
	return st;
}

/* First place whose path is not less than `path`. */
static size_t file_place(const struct tree_survey *survey, const char *path)
{
	size_t low = 0, high = survey->file_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcmp(survey->files[middle].path, path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

status *survey_add_file(struct inspection *in, const char *path, uint64_t size, bool check_size)
{
	struct tree_survey *survey = in->survey;
	size_t at = file_place(survey, path);

	if (at < survey->file_count && strcmp(survey->files[at].path, path) == 0) {
		survey->files[at].check_size |= check_size;
		survey->files[at].size = size;
		return NULL;
	}
	void *array = survey->files;
	status *st = grow(&array, survey->file_count, sizeof(*survey->files));
	survey->files = array;
	if (st != NULL)
		return st;
	char *copy = strdup(path);
	if (copy == NULL)
		return status_errnof(ENOMEM, "cannot survey the process tree");
	memmove(&survey->files[at + 1], &survey->files[at],
		(survey->file_count - at) * sizeof(*survey->files));
	survey->files[at] =
	    (struct survey_file){.path = copy, .size = size, .check_size = check_size};
	survey->file_count++;
	return NULL;
}

static void note_lock(Haul__V1__Lock *strongest, bool is_write)
{
	Haul__V1__Lock lock =
	    is_write ? HAUL__V1__LOCK__LOCK_EXCLUSIVE : HAUL__V1__LOCK__LOCK_SHARED;

	if (lock > *strongest)
		*strongest = lock;
}

/* "lock:	1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF"; leases are no locks. */
void survey_add_locks(struct inspection *in, const char *path, const char *info)
{
	char line[512], kind[16], mode[16];
	size_t at = file_place(in->survey, path);
	FILE *file = fopen(info, "re");

	if (file == NULL)
		return;
	while (fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "lock: %*d: %15s %*s %15s", kind, mode) != 2)
			continue;
		bool is_write = strcmp(mode, "WRITE") == 0;
		if (strcmp(kind, "FLOCK") == 0)
			note_lock(&in->survey->files[at].flock, is_write);
		else if (strcmp(kind, "POSIX") == 0 || strcmp(kind, "OFDLCK") == 0)
			note_lock(&in->survey->files[at].record_lock, is_write);
	}
	(void)fclose(file);
}

/* Target of a link of /proc; false for what has no path any more or never had one. */
static bool linked_path(int dir, const char *name, char *path, size_t room)
{
	static const char deleted[] = " (deleted)";
	ssize_t length = readlinkat(dir, name, path, room - 1);

	if (length <= 0 || path[0] != '/')
		return false;
	path[length] = '\0';
	return (size_t)length < sizeof(deleted) ||
	       strcmp(path + (size_t)length - (sizeof(deleted) - 1), deleted) != 0;
}

static status *add_linked(struct inspection *in, int dir, const char *name)
{
	char path[FILES_PATH];
	struct stat info;

	/* A working directory in /proc names a pid of the tree: it cannot be there yet. */
	if (!linked_path(dir, name, path, sizeof(path)) || strncmp(path, "/proc/", 6) == 0 ||
	    fstatat(dir, name, &info, 0) != 0)
		return NULL;
	if (S_ISREG(info.st_mode))
		return survey_add_file(in, path, (uint64_t)info.st_size, true);
	return S_ISDIR(info.st_mode) ? survey_add_file(in, path, 0, false) : NULL;
}

/* Each mapping of a file has a link named by its addresses here. */
static status *add_mappings(struct inspection *in, int process)
{
	int fd = openat(process, "map_files", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *mappings = fd >= 0 ? fdopendir(fd) : NULL;
	status *st = NULL;

	if (mappings == NULL) {
		close_if_open(fd);
		return NULL;
	}
	for (struct dirent *entry; st == NULL && (entry = readdir(mappings)) != NULL;)
		if (entry->d_name[0] != '.')
			st = add_linked(in, dirfd(mappings), entry->d_name);
	(void)closedir(mappings);
	return st;
}

status *preflight_mapped(struct inspection *in)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d", (int)in->who.pid);
	scoped(fd) int process = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (process < 0)
		return NULL;
	status *st = add_linked(in, process, "exe");
	if (st == NULL)
		st = add_linked(in, process, "cwd");
	return st != NULL ? st : add_mappings(in, process);
}
