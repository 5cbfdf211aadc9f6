/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/tree_sockets.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/host/files.h"

enum {
	RECORD_MOST = 16 * 1024 * 1024, /* bytes */
	LINK_BYTES = 64,
};

/* One listener, in the record as it is in memory: nobody but this host reads it. */
struct listener {
	uint64_t cookie; /* the kernel's name of the socket, as long as it runs */
	uint32_t backlog;
	uint32_t address_size;
	struct sockaddr_storage address;
};

struct listeners {
	struct listener *of;
	size_t count;
};

/* What is done with each TCP socket of the processes. */
typedef status *(*on_socket)(struct listeners *listeners, int fd, const struct tcp_info *info);

struct walk {
	on_socket visit;
	struct listeners *listeners;
	pid_t pid;
	int process; /* its pidfd */
	status *error;
};

/* --- every TCP socket of the processes --- */

static bool is_tcp(int fd, struct tcp_info *ret_info)
{
	int protocol = -1;
	socklen_t size = sizeof(protocol), info_size = sizeof(*ret_info);

	memset(ret_info, 0, sizeof(*ret_info));
	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
	       protocol == IPPROTO_TCP &&
	       getsockopt(fd, IPPROTO_TCP, TCP_INFO, ret_info, &info_size) == 0;
}

static void visit_descriptor(void *self, const char *name)
{
	struct walk *walk = self;
	char path[LINK_BYTES], target[LINK_BYTES];
	struct tcp_info info;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%.16s", (int)walk->pid, name);
	ssize_t length = readlink(path, target, sizeof(target));
	if (length < 8 || strncmp(target, "socket:[", 8) != 0)
		return;
	scoped(fd) int fd = pidfd_getfd(walk->process, (int)strtol(name, NULL, 10), 0);
	if (fd < 0) {
		walk->error =
		    status_first(walk->error, status_errnof(errno, "cannot take %s", path));
		return;
	}
	if (is_tcp(fd, &info))
		walk->error = status_first(walk->error, walk->visit(walk->listeners, fd, &info));
}

/* A process may end meanwhile: its sockets have, too. */
static status *each_socket(const pid_t *pids, size_t count, on_socket visit,
			   struct listeners *listeners)
{
	struct walk walk = {.visit = visit, .listeners = listeners};

	for (size_t i = 0; i < count; i++) {
		char path[LINK_BYTES];
		scoped(fd) int process = pidfd_open(pids[i], 0);
		if (process < 0)
			continue;
		walk.pid = pids[i];
		walk.process = process;
		(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pids[i]);
		walk.error = status_first(walk.error, files_each(path, visit_descriptor, &walk));
	}
	return walk.error;
}

/* --- the record --- */

static status *read_record(const char *record, struct listeners *ret_listeners)
{
	scoped(buffer) struct buffer content = {0};

	if (access(record, F_OK) != 0 && errno == ENOENT)
		return NULL;
	status *st = files_read(record, RECORD_MOST, &content);
	size_t count = content.size / sizeof(struct listener);
	if (st == NULL && content.size % sizeof(struct listener) != 0)
		st = status_errorf(STATUS_DATA_LOSS, "%s is damaged", record);
	if (st == NULL && count > 0) {
		ret_listeners->of = calloc(count, sizeof(*ret_listeners->of));
		if (ret_listeners->of == NULL)
			st = status_errnof(ENOMEM, "the record of listeners");
	}
	if (st == NULL && count > 0) {
		memcpy(ret_listeners->of, content.data, content.size);
		ret_listeners->count = count;
	}
	return st;
}

static const struct listener *recorded(const struct listeners *listeners, int fd)
{
	uint64_t cookie = 0;
	socklen_t size = sizeof(cookie);

	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) != 0)
		return NULL;
	for (size_t i = 0; i < listeners->count; i++)
		if (listeners->of[i].cookie == cookie)
			return &listeners->of[i];
	return NULL;
}

/* --- shut --- */

/* Linux tells of a listener how many connections may wait in place of what it tells of others. */
static status *note_listener(struct listeners *listeners, int fd, const struct tcp_info *info)
{
	struct listener listener = {.backlog = info->tcpi_sacked};
	socklen_t size = sizeof(listener.cookie), address_size = sizeof(listener.address);

	if (info->tcpi_state != TCP_LISTEN || recorded(listeners, fd) != NULL)
		return NULL;
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &listener.cookie, &size) != 0 ||
	    getsockname(fd, (struct sockaddr *)&listener.address, &address_size) != 0)
		return status_errnof(errno, "a listener");
	listener.address_size = address_size;
	struct listener *grown = reallocarray(listeners->of, listeners->count + 1, sizeof(*grown));
	if (grown == NULL)
		return status_errnof(ENOMEM, "the record of listeners");
	grown[listeners->count++] = listener;
	listeners->of = grown;
	return NULL;
}

/* One whose way back is not known stays as it is. */
static status *shut_socket(struct listeners *listeners, int fd, const struct tcp_info *info)
{
	if (info->tcpi_state == TCP_CLOSE || info->tcpi_state == TCP_TIME_WAIT ||
	    (info->tcpi_state == TCP_LISTEN && recorded(listeners, fd) == NULL))
		return NULL;
	return shutdown(fd, SHUT_RDWR) == 0 || errno == ENOTCONN
		   ? NULL
		   : status_errnof(errno, "cannot shut a socket");
}

status *tree_sockets_shut(const pid_t *pids, size_t count, const char *record)
{
	struct listeners listeners = {0};
	status *st = read_record(record, &listeners);
	size_t known = listeners.count;

	st = status_first(st, each_socket(pids, count, note_listener, &listeners));
	if (st == NULL && listeners.count > known)
		st = files_replace(record, listeners.of, listeners.count * sizeof(*listeners.of));
	if (st != NULL)
		listeners.count = 0; /* the connections at least */
	st = status_first(st, each_socket(pids, count, shut_socket, &listeners));
	free(listeners.of);
	return st;
}

/* --- reopen --- */

/* A port that was asked for is still the socket's, which is then not bound again (EINVAL); one that
 * the kernel chose is not. */
static status *listen_again(struct listeners *listeners, int fd, const struct tcp_info *info)
{
	const struct listener *listener = recorded(listeners, fd);

	if (info->tcpi_state != TCP_CLOSE || listener == NULL ||
	    listener->address_size > sizeof(listener->address))
		return NULL;
	if (bind(fd, (const struct sockaddr *)&listener->address, listener->address_size) != 0 &&
	    errno != EINVAL)
		return status_errnof(errno, "cannot bind a listener again");
	return listen(fd, (int)listener->backlog) == 0
		   ? NULL
		   : status_errnof(errno, "cannot listen again");
}

status *tree_sockets_reopen(const pid_t *pids, size_t count, const char *record)
{
	struct listeners listeners = {0};
	status *st = read_record(record, &listeners);

	if (st == NULL && listeners.count > 0)
		st = each_socket(pids, count, listen_again, &listeners);
	free(listeners.of);
	return st;
}
