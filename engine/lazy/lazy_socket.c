/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lazy/lazy_socket.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define SOCKET_NAME "lazy-pages.socket"

enum {
	RESTORE_FINISHED = 0x52535446,
	PID_MOST = 1 << 22, /* the kernel's own bound */
	SECOND_HALF_S = 10,
};

status *lazy_socket_listen(const char *work_dir, int *ret_fd)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	scoped(fd) int dir = open(work_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scoped(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (dir < 0 || fd < 0)
		return status_errnof(errno, "a socket for a lazy restore");
	/* The directory's own path may be longer than an address. */
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", dir,
		       SOCKET_NAME);
	(void)unlinkat(dir, SOCKET_NAME, 0);
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 1) != 0)
		return status_errnof(errno, "a socket for a lazy restore");
	*ret_fd = TAKE_FD(fd);
	return NULL;
}

static status *cut_off(ssize_t got)
{
	if (got == 0)
		return status_errorf(STATUS_ABORTED, "CRIU closed its lazy pages' socket");
	if (got > 0)
		return status_errorf(STATUS_DATA_LOSS, "CRIU sent half a word about lazy pages");
	return status_errnof(errno, "cannot hear CRIU about lazy pages");
}

static status *hear_descriptor(int fd, int *ret_uffd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, dummy;
	struct iovec data = {&dummy, 1};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

	if (got != 1)
		return cut_off(got);
	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS ||
	    header->cmsg_len != CMSG_LEN(sizeof(int)) || (message.msg_flags & MSG_CTRUNC) != 0)
		return status_errorf(STATUS_DATA_LOSS,
				     "CRIU sent no descriptor for a task's memory");
	memcpy(ret_uffd, CMSG_DATA(header), sizeof(*ret_uffd));
	return NULL;
}

status *lazy_socket_hear(int fd, struct lazy_said *ret_said)
{
	const struct timeval patience = {.tv_sec = SECOND_HALF_S};
	int32_t word = 0;

	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	ssize_t got = recv(fd, &word, sizeof(word), MSG_WAITALL);
	if (got != (ssize_t)sizeof(word))
		return cut_off(got);
	*ret_said = (struct lazy_said){word == RESTORE_FINISHED, word, -1};
	if (ret_said->is_end || word < 0)
		return NULL;
	if (word == 0 || word > PID_MOST)
		return status_errorf(STATUS_DATA_LOSS,
				     "CRIU sent an impossible pid about lazy pages: %d", word);
	return hear_descriptor(fd, &ret_said->uffd);
}
