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
	uint64_t inode;
	uint32_t backlog;
	uint32_t address_size;
	struct sockaddr_storage address;
};

struct listeners {
	struct listener *of;
	size_t count;
};

struct walk;

/* What is done with each TCP socket of the processes. */
typedef status *(*on_socket)(struct walk *walk, int fd, const struct tcp_info *info);

struct walk {
	on_socket visit;
	struct listeners *listeners;
	pid_t pid;
	int process;	/* its pidfd */
	uint64_t inode; /* the socket's */
	status *error;
};

/* --- every TCP socket of the processes --- */

/* What a descriptor's link says: "socket:[inode]". */
static bool is_socket(const char *path, uint64_t *ret_inode)
{
	static const char kind[] = "socket:[";
	char target[LINK_BYTES];
	ssize_t length = readlink(path, target, sizeof(target) - 1);

	target[length > 0 ? length : 0] = '\0';
	if (strncmp(target, kind, sizeof(kind) - 1) != 0)
		return false;
	*ret_inode = strtoull(target + sizeof(kind) - 1, NULL, 10);
	return true;
}

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
	char path[LINK_BYTES];
	struct tcp_info info;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%.16s", (int)walk->pid, name);
	if (!is_socket(path, &walk->inode))
		return;
	scoped(fd) int fd = pidfd_getfd(walk->process, (int)strtol(name, NULL, 10), 0);
	if (fd < 0) {
		walk->error =
		    status_first(walk->error, status_errnof(errno, "cannot take %s", path));
		return;
	}
	if (is_tcp(fd, &info))
		walk->error = status_first(walk->error, walk->visit(walk, fd, &info));
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

/* --- what listens --- */

/* Linux tells of a listener how many connections may wait in place of what it tells of others. */
static status *note_listener(struct walk *walk, int fd, const struct tcp_info *info)
{
	struct listeners *listeners = walk->listeners;
	struct listener listener = {.backlog = info->tcpi_sacked, .inode = walk->inode};
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

/* --- of others, too --- */

/* What a process that is none of the tree's has as well. */
struct others {
	const pid_t *pids;
	size_t count;
	struct listeners *listeners;
	char process[LINK_BYTES];
};

static void leave_to_other(void *self, const char *name)
{
	struct others *others = self;
	struct listeners *listeners = others->listeners;
	char path[LINK_BYTES * 2];
	uint64_t inode = 0;

	(void)snprintf(path, sizeof(path), "%s/%.16s", others->process, name);
	if (!is_socket(path, &inode))
		return;
	for (size_t i = listeners->count; i > 0; i--)
		if (listeners->of[i - 1].inode == inode)
			listeners->of[i - 1] = listeners->of[--listeners->count];
}

static void leave_to_process(void *self, const char *name)
{
	struct others *others = self;
	long pid = strtol(name, NULL, 10);

	for (size_t i = 0; i < others->count; i++)
		if (others->pids[i] == pid)
			return;
	(void)snprintf(others->process, sizeof(others->process), "/proc/%ld/fd", pid);
	/* Ourselves only for a moment, for another migration. */
	if (pid > 0 && pid != getpid())
		status_free(files_each(others->process, leave_to_other, others));
}

/* Whoever started the tree may have given it a listener, and have it still: systemd has those of
 * its socket units, and takes one that is shut for broken. It stays as it is. */
static status *leave_to_others(const pid_t *pids, size_t count, struct listeners *listeners)
{
	struct others others = {.pids = pids, .count = count, .listeners = listeners};

	return listeners->count > 0 ? files_each("/proc", leave_to_process, &others) : NULL;
}

/* --- shut --- */

/* One whose way back is not known stays as it is. */
static status *shut_socket(struct walk *walk, int fd, const struct tcp_info *info)
{
	if (info->tcpi_state == TCP_CLOSE || info->tcpi_state == TCP_TIME_WAIT ||
	    (info->tcpi_state == TCP_LISTEN && recorded(walk->listeners, fd) == NULL))
		return NULL;
	return shutdown(fd, SHUT_RDWR) == 0 || errno == ENOTCONN
		   ? NULL
		   : status_errnof(errno, "cannot shut a socket");
}

static status *append(struct listeners *listeners, const struct listeners *more)
{
	struct listener *grown =
	    reallocarray(listeners->of, listeners->count + more->count + 1, sizeof(*grown));

	if (grown == NULL)
		return status_errnof(ENOMEM, "the record of listeners");
	for (size_t i = 0; i < more->count; i++)
		grown[listeners->count++] = more->of[i];
	listeners->of = grown;
	return NULL;
}

/* What is in the record is shut already, or about to be when its writer ended: it stays in there.
 */
static status *record_listeners(const pid_t *pids, size_t count, const char *record,
				struct listeners *ret_listeners)
{
	struct listeners found = {0};
	status *st = read_record(record, ret_listeners);

	st = status_first(st, each_socket(pids, count, note_listener, &found));
	st = status_first(st, leave_to_others(pids, count, &found));
	if (st == NULL)
		st = append(ret_listeners, &found);
	if (st == NULL && found.count > 0)
		st = files_replace(record, ret_listeners->of,
				   ret_listeners->count * sizeof(*ret_listeners->of));
	free(found.of);
	return st;
}

status *tree_sockets_shut(const pid_t *pids, size_t count, const char *record)
{
	struct listeners listeners = {0};
	status *st = record_listeners(pids, count, record, &listeners);

	if (st != NULL)
		listeners.count = 0; /* the connections at least */
	st = status_first(st, each_socket(pids, count, shut_socket, &listeners));
	free(listeners.of);
	return st;
}

/* --- reopen --- */

/* A port that was asked for is still the socket's, which is then not bound again (EINVAL); one that
 * the kernel chose is not. */
static status *listen_again(struct walk *walk, int fd, const struct tcp_info *info)
{
	const struct listener *listener = recorded(walk->listeners, fd);

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
