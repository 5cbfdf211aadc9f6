/* SPDX-License-Identifier: Apache-2.0 */
/* A socket is given to nng when the other side has said something: nng gives a connection ten
 * seconds to begin, and who hands sockets over may begin when it likes. */
#include "rpc/handover.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/clock.h"
#include "rpc/nng_error.h"

enum {
	UNUSED_MS = 10 * 60 * 1000,
	SHOWN_MS = 15000, /* longer than nng waits for the other side's header */
};

struct handed {
	bool is_used;
	int sockets[RPC_SOCKETS]; /* -1 once they are taken */
	int64_t since_ms;	  /* that it waits, or that nng has it */
	nng_listener listener;	  /* from when nng has the calls' socket */
	int pipe_id;		  /* nng's, 0 until it is proven */
	struct identity identity;
};

struct handovers {
	pthread_mutex_t lock;
	nng_socket socket;
	bool has_socket;
	struct handed table[LIMIT_HANDOVERS];
};

status *handovers_new(struct handovers **ret_handovers)
{
	struct handovers *handovers = calloc(1, sizeof(*handovers));
	if (handovers == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for handovers");
	(void)pthread_mutex_init(&handovers->lock, NULL);
	*ret_handovers = handovers;
	return NULL;
}

void handovers_set_socket(struct handovers *handovers, nng_socket socket)
{
	(void)pthread_mutex_lock(&handovers->lock);
	handovers->socket = socket;
	handovers->has_socket = true;
	(void)pthread_mutex_unlock(&handovers->lock);
}

static void close_sockets(int sockets[RPC_SOCKETS])
{
	for (size_t i = 0; i < RPC_SOCKETS; i++) {
		if (sockets[i] >= 0)
			(void)close(sockets[i]);
		sockets[i] = -1;
	}
}

/* Caller holds the lock. The listener that a used one has must be closed by the caller. */
static void forget(struct handed *handed)
{
	close_sockets(handed->sockets);
	*handed = (struct handed){0};
}

void handovers_free(struct handovers *handovers)
{
	if (handovers == NULL)
		return;
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++)
		if (handovers->table[i].is_used)
			forget(&handovers->table[i]);
	(void)pthread_mutex_destroy(&handovers->lock);
	free(handovers);
}

const char *handovers_identify(void *self, nng_pipe pipe, struct identity *ret_identity)
{
	struct handovers *handovers = self;
	int listener = nng_listener_id(nng_pipe_listener(pipe));
	const char *why = "nobody has handed it over";
	(void)pthread_mutex_lock(&handovers->lock);
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++) {
		struct handed *handed = &handovers->table[i];
		if (!handed->is_used || nng_listener_id(handed->listener) != listener ||
		    handed->pipe_id != 0)
			continue;
		handed->pipe_id = nng_pipe_id(pipe);
		*ret_identity = handed->identity;
		why = NULL;
	}
	(void)pthread_mutex_unlock(&handovers->lock);
	return why;
}

/* What the other side has said, without taking it: 1 something, 0 nothing yet, -1 that it is gone.
 */
static int look(int fd)
{
	char byte;
	ssize_t got = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (got > 0)
		return 1;
	return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

int handover_to_nng(nng_socket socket, int *fd, nng_listener *ret_listener)
{
	int rv = nng_listener_create(ret_listener, socket, "socket://");
	if (rv != 0)
		return rv;
	rv = nng_listener_start(*ret_listener, 0);
	if (rv == 0)
		rv = nng_listener_set_int(*ret_listener, NNG_OPT_SOCKET_FD, *fd);
	if (rv == 0)
		*fd = -1;
	return rv;
}

/* What look says of those that wait. Nobody else closes them meanwhile. */
static void look_at_all(struct handovers *handovers, int ret_said[LIMIT_HANDOVERS])
{
	int fds[LIMIT_HANDOVERS];
	(void)pthread_mutex_lock(&handovers->lock);
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++)
		fds[i] = handovers->table[i].is_used ? handovers->table[i].sockets[RPC_SOCKET_CALLS]
						     : -1;
	(void)pthread_mutex_unlock(&handovers->lock);
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++)
		ret_said[i] = fds[i] >= 0 ? look(fds[i]) : 0;
}

/* Caller holds the lock. False: it is of no use any more. */
static bool tend(struct handovers *handovers, struct handed *handed,
		 struct connections *connections, int said)
{
	int64_t now_ms = clock_monotonic_ms();
	int *calls = &handed->sockets[RPC_SOCKET_CALLS];
	if (handed->pipe_id != 0)
		return connections_has(connections, handed->pipe_id);
	if (*calls < 0) /* nng has it, and has not shown it yet */
		return now_ms - handed->since_ms < SHOWN_MS;
	if (said == 0)
		return now_ms - handed->since_ms < UNUSED_MS;
	handed->since_ms = now_ms;
	return said > 0 && handover_to_nng(handovers->socket, calls, &handed->listener) == 0;
}

void handovers_tend(struct handovers *handovers, struct connections *connections)
{
	nng_listener over[LIMIT_HANDOVERS];
	size_t count = 0;
	int said[LIMIT_HANDOVERS];
	look_at_all(handovers, said);
	(void)pthread_mutex_lock(&handovers->lock);
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++) {
		struct handed *handed = &handovers->table[i];
		if (!handed->is_used || tend(handovers, handed, connections, said[i]))
			continue;
		if (nng_listener_id(handed->listener) > 0)
			over[count++] = handed->listener;
		forget(handed);
	}
	(void)pthread_mutex_unlock(&handovers->lock);
	for (size_t i = 0; i < count; i++)
		(void)nng_listener_close(over[i]);
}

/* Caller holds the lock. */
static struct handed *vacant(struct handovers *handovers)
{
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++)
		if (!handovers->table[i].is_used)
			return &handovers->table[i];
	return NULL;
}

static status *check_name(const char *name)
{
	if (name[0] == '\0' || strlen(name) > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "say who is at the other end: a name of 1 to %d characters",
				     LIMIT_NAME);
	return NULL;
}

status *rpc_call_hand_over(const struct rpc_call *call, const char *name, int sockets[RPC_SOCKETS])
{
	struct handovers *handovers = call->handovers;
	status *st = check_name(name);
	if (st == NULL && handovers == NULL)
		st = status_errorf(STATUS_UNIMPLEMENTED, "this server takes no sockets");
	if (st != NULL) {
		close_sockets(sockets);
		return st;
	}
	(void)pthread_mutex_lock(&handovers->lock);
	struct handed *handed = handovers->has_socket ? vacant(handovers) : NULL;
	if (handed != NULL) {
		*handed = (struct handed){.is_used = true, .since_ms = clock_monotonic_ms()};
		memcpy(handed->sockets, sockets, sizeof(handed->sockets));
		handed->identity.is_authenticated = true;
		(void)snprintf(handed->identity.name, sizeof(handed->identity.name), "%s", name);
		(void)snprintf(handed->identity.names[0], sizeof(handed->identity.names[0]), "%s",
			       name);
		handed->identity.name_count = 1;
	}
	(void)pthread_mutex_unlock(&handovers->lock);
	if (handed != NULL)
		return NULL;
	close_sockets(sockets);
	return status_errorf(STATUS_RESOURCE_EXHAUSTED,
			     "%d connections that were handed over are open already",
			     LIMIT_HANDOVERS);
}

bool rpc_call_came_by_handover(const struct rpc_call *call)
{
	struct handovers *handovers = call->handovers;
	bool found = false;
	if (handovers == NULL || call->connection_id <= 0)
		return false;
	(void)pthread_mutex_lock(&handovers->lock);
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++)
		found = found || (handovers->table[i].is_used &&
				  handovers->table[i].pipe_id == call->connection_id);
	(void)pthread_mutex_unlock(&handovers->lock);
	return found;
}

int rpc_call_take_socket(const struct rpc_call *call, enum rpc_socket which)
{
	struct handovers *handovers = call->handovers;
	int fd = -1;
	if (handovers == NULL || call->connection_id <= 0)
		return -1;
	(void)pthread_mutex_lock(&handovers->lock);
	for (size_t i = 0; i < LIMIT_HANDOVERS; i++) {
		struct handed *handed = &handovers->table[i];
		if (!handed->is_used || handed->pipe_id != call->connection_id)
			continue;
		fd = handed->sockets[which];
		handed->sockets[which] = -1;
	}
	(void)pthread_mutex_unlock(&handovers->lock);
	return fd;
}

static status *check_socket(int fd, int number)
{
	int type = 0, domain = 0;
	socklen_t size = sizeof(type);
	struct sockaddr_storage peer;
	socklen_t peer_size = sizeof(peer);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM ||
	    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "descriptor %d is not a stream socket", number);
	if (getpeername(fd, (struct sockaddr *)&peer, &peer_size) != 0)
		return status_errorf(STATUS_INVALID_ARGUMENT, "descriptor %d is not connected",
				     number);
	return NULL;
}

status *rpc_call_fetch_socket(const struct rpc_call *call, int number, int *ret_fd)
{
	if (!call->caller->is_local || call->peer_pid <= 0)
		return status_errorf(STATUS_PERMISSION_DENIED,
				     "sockets can be handed over by the local socket only");
	scoped(fd) int pidfd = pidfd_open((pid_t)call->peer_pid, 0);
	if (pidfd < 0)
		return status_errnof(errno, "cannot look at the caller, process %d",
				     call->peer_pid);
	scoped(fd) int fd = pidfd_getfd(pidfd, number, 0);
	if (fd < 0 && errno == EBADF)
		return status_errorf(STATUS_INVALID_ARGUMENT, "descriptor %d is not open", number);
	if (fd < 0)
		return status_errnof(errno, "cannot take descriptor %d of process %d", number,
				     call->peer_pid);
	/* The number was the caller's as long as its connection is there. */
	if (call->connections == NULL || !connections_has(call->connections, call->connection_id))
		return status_errorf(STATUS_CANCELLED, "the caller is gone");
	status *st = check_socket(fd, number);
	if (st == NULL)
		*ret_fd = TAKE_FD(fd);
	return st;
}
