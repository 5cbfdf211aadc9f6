/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/hauld/notify.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

status *notify_manager(const char *state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *path = getenv("NOTIFY_SOCKET");
	size_t length = path != NULL ? strlen(path) : 0;

	if (length == 0)
		return NULL;
	if ((path[0] != '/' && path[0] != '@') || length >= sizeof(address.sun_path))
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "NOTIFY_SOCKET (%.120s) is neither a path nor an abstract name", path);
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	scoped(fd) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	if (fd < 0 ||
	    sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0)
		return status_errnof(errno, "cannot tell the service manager \"%s\"", state);
	return NULL;
}
