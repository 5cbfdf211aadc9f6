/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets of local pipes are files; a server that is killed leaves them behind. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "rpc/pipe.h"
#include "rpc/seal.h"

/* "pipe-", the pipe's id in hexadecimal digits, ".sock". */
static bool is_name_of_ours(const char *name)
{
	static const char begin[] = "pipe-", end[] = ".sock";
	const char *at = name + sizeof(begin) - 1;

	if (strncmp(name, begin, sizeof(begin) - 1) != 0)
		return false;
	for (size_t i = 0; i < 2UL * SEAL_ID_BYTES; i++, at++)
		if (!isxdigit((unsigned char)*at) || isupper((unsigned char)*at))
			return false;
	return strcmp(at, end) == 0;
}

/* Asked only of what this network namespace does not list: whoever listens would have to deal with
 * the connection. */
static bool is_deserted(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	scoped(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0 || strlen(path) >= sizeof(address.sun_path))
		return false;
	memcpy(address.sun_path, path, strlen(path) + 1);
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 &&
	       errno == ECONNREFUSED;
}

/* Has any process of this network namespace a socket of that path? Not being able to look is yes.
 */
static bool is_listed(const char *path)
{
	char line[512];
	bool is_found = false;
	FILE *file = fopen("/proc/net/unix", "re");

	if (file == NULL)
		return true;
	while (!is_found && fgets(line, sizeof(line), file) != NULL) {
		const char *at = strchr(line, '/');
		size_t size = at != NULL ? strcspn(at, "\n") : 0;
		is_found = at != NULL && size == strlen(path) && strncmp(at, path, size) == 0;
	}
	(void)fclose(file);
	return is_found;
}

unsigned pipe_sweep(const char *directory)
{
	unsigned count = 0;
	DIR *entries = opendir(directory);
	const struct dirent *entry = NULL;

	if (entries == NULL)
		return 0;
	while ((entry = readdir(entries)) != NULL) {
		char path[sizeof(entry->d_name) + LIMIT_URL + 1];
		struct stat info;
		if (!is_name_of_ours(entry->d_name) ||
		    fstatat(dirfd(entries), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
		    !S_ISSOCK(info.st_mode) || info.st_uid != geteuid())
			continue;
		int length = snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		if (length < 0 || (size_t)length >= sizeof(path) || is_listed(path) ||
		    !is_deserted(path))
			continue;
		count += unlinkat(dirfd(entries), entry->d_name, 0) == 0 ? 1 : 0;
	}
	(void)closedir(entries);
	return count;
}
