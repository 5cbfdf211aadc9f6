/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { READ_FIRST = 4096 }; /* then twice as much, and so on */

status *files_make_directory(const char *path)
{
	char partial[FILES_PATH];

	if (path[0] != '/' || strlen(path) >= sizeof(partial))
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s is not an absolute path", path);
	(void)snprintf(partial, sizeof(partial), "%s", path);
	for (char *slash = strchr(partial + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash != NULL)
			*slash = '\0';
		if (mkdir(partial, 0700) != 0 && errno != EEXIST)
			return status_errnof(errno, "cannot make directory %s", partial);
		if (slash == NULL)
			return NULL;
		*slash = '/';
	}
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
	(void)info;
	(void)where;
	int failed = type == FTW_DP ? rmdir(path) : unlink(path);
	return failed != 0 && errno != ENOENT ? errno : 0;
}

status *files_remove_tree(const char *path)
{
	int failed = nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);

	if (failed == 0 || (failed == -1 && errno == ENOENT))
		return NULL;
	return status_errnof(failed == -1 ? errno : failed, "cannot remove %s", path);
}

/* Room for at least one byte more, and never for more than `most`. */
static status *grow(struct buffer *content, size_t *room, size_t most)
{
	size_t wanted = *room == 0 ? READ_FIRST : *room * 2;

	if (wanted > most)
		wanted = most;
	uint8_t *grown = realloc(content->data, wanted);
	if (grown == NULL)
		return status_errnof(ENOMEM, "a file of more than %zu bytes", content->size);
	content->data = grown;
	*room = wanted;
	return NULL;
}

/* The limit is no measure of what is there: on a small machine there may not be as much memory. */
static status *read_all(int fd, size_t limit, struct buffer *content)
{
	size_t room = 0;

	for (;;) {
		status *st = content->size == room ? grow(content, &room, limit + 1) : NULL;
		if (st != NULL)
			return st;
		ssize_t got = read(fd, content->data + content->size, room - content->size);
		if (got == 0)
			return NULL;
		if (got < 0 && errno != EINTR)
			return status_errnof(errno, "it cannot be read");
		content->size += got > 0 ? (size_t)got : 0;
		if (content->size > limit)
			return status_errorf(STATUS_RESOURCE_EXHAUSTED,
					     "it is longer than %zu bytes", limit);
	}
}

status *files_read(const char *path, size_t limit, struct buffer *ret_content)
{
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return status_errnof(errno, "cannot open %s", path);
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	status *st = read_all(fd, limit, &content);
	if (st != NULL)
		return status_wrapf(st, "%s", path);
	*ret_content = content;
	content = (struct buffer){0};
	return NULL;
}

status *files_write(const char *path, const void *data, size_t size)
{
	scoped(fd) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return status_errnof(errno, "cannot create %s", path);
	for (size_t done = 0; done < size;) {
		ssize_t wrote = write(fd, (const uint8_t *)data + done, size - done);
		if (wrote < 0 && errno != EINTR)
			return status_errnof(errno, "cannot write %s", path);
		done += wrote > 0 ? (size_t)wrote : 0;
	}
	return NULL;
}

status *files_replace(const char *path, const void *data, size_t size)
{
	char fresh[FILES_PATH];

	if ((size_t)snprintf(fresh, sizeof(fresh), "%s.new", path) >= sizeof(fresh))
		return status_errnof(ENAMETOOLONG, "cannot replace %s", path);
	(void)unlink(fresh);
	status *st = files_write(fresh, data, size);
	if (st == NULL && rename(fresh, path) != 0)
		st = status_errnof(errno, "cannot replace %s", path);
	if (st != NULL)
		(void)unlink(fresh);
	return st;
}

status *files_each(const char *directory, void (*visit)(void *self, const char *name), void *self)
{
	DIR *dir = opendir(directory);

	if (dir == NULL && errno == ENOENT)
		return NULL;
	if (dir == NULL)
		return status_errnof(errno, "cannot list %s", directory);
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			visit(self, entry->d_name);
	}
	(void)closedir(dir);
	return NULL;
}
