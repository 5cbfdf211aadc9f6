/* SPDX-License-Identifier: Apache-2.0 */
/* The listener of a pipe. Whoever connects may wait for a second to say HELLO, WAITING_MOST at a
 * time; the first who says it with the right key has the pipe, and nobody is let in any more. */
#include "rpc/pipe_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "proto/clock.h"
#include "rpc/resolve.h"

enum {
	WAITING_MOST = 16,
	BACKLOG = 16,
	/* So long may a connection keep a place without saying HELLO. */
	HELLO_MS = 1000,
	RESOLVE_MS = 5000,
	SLICE_MS = 50, /* an interrupt is seen after this */
	FULL_MS = 10,  /* when there is no descriptor left for who comes */
};

/* Somebody who has not said HELLO yet. */
struct stranger {
	int fd;
	int64_t since_ms;
	size_t have;
	uint8_t said[GREETING_MOST];
};

struct waiting {
	int fd; /* listens; -1: the only connection was handed over */
	bool is_ipc;
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)]; /* to be removed */
	unsigned count;
	struct stranger strangers[WAITING_MOST];
};

void pipe_stop_waiting(struct pipe *pipe)
{
	struct waiting *waiting = TAKE(pipe->waiting);

	if (waiting == NULL)
		return;
	close_if_open(waiting->fd);
	if (waiting->path[0] != '\0')
		(void)unlink(waiting->path);
	for (unsigned i = 0; i < waiting->count; i++)
		close_if_open(waiting->strangers[i].fd);
	free(waiting);
}

/* --- to listen --- */

static status *random_bytes(size_t size, ProtobufCBinaryData *ret_data)
{
	uint8_t *data = malloc(size);
	if (data == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a key");
	if (getrandom(data, size, 0) != (ssize_t)size) {
		free(data);
		return status_errorf(STATUS_UNAVAILABLE, "the kernel gives no random numbers");
	}
	*ret_data = (ProtobufCBinaryData){.len = size, .data = data};
	return NULL;
}

static void free_address(Haul__V1__PipeAddress *address)
{
	if (address != NULL)
		haul__v1__pipe_address__free_unpacked(address, NULL);
}
DEFINE_SCOPE(address, Haul__V1__PipeAddress *, free_address);

static status *new_address(Haul__V1__Seal seal, Haul__V1__PipeAddress **ret_address)
{
	scoped(address) Haul__V1__PipeAddress *address = malloc(sizeof(*address));
	if (address == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for an address");
	haul__v1__pipe_address__init(address);
	address->seal = seal;
	status *st = random_bytes(SEAL_ID_BYTES, &address->pipe_id);
	if (st == NULL)
		st = random_bytes(SEAL_KEY_BYTES, &address->key_to_listener);
	if (st == NULL)
		st = random_bytes(SEAL_KEY_BYTES, &address->key_to_dialer);
	if (st == NULL)
		*ret_address = TAKE(address);
	return st;
}

/* 0, or an errno. */
static int listen_at(const struct sockaddr *address, socklen_t size, int *ret_fd)
{
	const int on = 1;
	scoped(fd) int fd =
	    socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return errno;
	if (address->sa_family != AF_UNIX)
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, address, size) != 0)
		return errno;
	/* Nobody can connect before it listens. */
	if (address->sa_family == AF_UNIX &&
	    chmod(((const struct sockaddr_un *)address)->sun_path, 0600) != 0)
		return errno;
	if (listen(fd, BACKLOG) != 0)
		return errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static void set_port(struct sockaddr *address, uint16_t port)
{
	if (address->sa_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)address)->sin_port = htons(port);
}

static status *listen_tcp(struct pipe *pipe, const struct pipe_place *place, char *url, size_t size)
{
	struct addrinfo *list = NULL;
	status *st = resolve_host(place->host, 0, RESOLVE_MS, &list);
	if (st != NULL)
		return st;
	/* From anywhere on: with a thousand open, looking from the first one would take as many
	 * tries. */
	unsigned ports = (unsigned)place->port_high - place->port_low + 1;
	unsigned first = (unsigned)pipe->pipe_id[0] << 8 | pipe->pipe_id[1];
	int error = EADDRINUSE;
	for (unsigned i = 0; i < ports && error == EADDRINUSE; i++) {
		unsigned port = place->port_low + (first + i) % ports;
		(void)snprintf(url, size,
			       strchr(place->host, ':') != NULL ? "tcp://[%s]:%u" : "tcp://%s:%u",
			       place->host, port);
		set_port(list->ai_addr, (uint16_t)port);
		error = listen_at(list->ai_addr, list->ai_addrlen, &pipe->waiting->fd);
	}
	freeaddrinfo(list);
	if (error == EADDRINUSE)
		return status_errorf(
		    STATUS_RESOURCE_EXHAUSTED,
		    "no port from %u to %u is free for a pipe; widen the range or wait until "
		    "another migration is over",
		    place->port_low, place->port_high);
	return error == 0 ? NULL : status_errnof(error, "cannot listen for a pipe at %s", url);
}

static status *listen_ipc(struct pipe *pipe, const struct pipe_place *place, char *url, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char hex[2 * SEAL_ID_BYTES + 1];
	for (size_t i = 0; i < SEAL_ID_BYTES; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", pipe->pipe_id[i]);
	(void)snprintf(url, size, "ipc://%s/pipe-%s.sock", place->directory, hex);
	struct endpoint endpoint;
	status *st = endpoint_parse(url, &endpoint);
	if (st != NULL)
		return st;
	pipe->waiting->is_ipc = true;
	memcpy(address.sun_path, endpoint.host, strlen(endpoint.host) + 1);
	int error =
	    listen_at((const struct sockaddr *)&address, sizeof(address), &pipe->waiting->fd);
	if (error != 0)
		return status_errnof(error, "cannot listen for a pipe at %s", url);
	memcpy(pipe->waiting->path, address.sun_path, sizeof(address.sun_path));
	return NULL;
}

/* Somebody new has a place, and is told that this is PAIR. */
static void welcome(struct waiting *waiting, int fd)
{
	scoped(fd) int connection = fd;

	pipe_tune(connection);
	if (send(connection, pair_header, PAIR_HEADER_BYTES, MSG_DONTWAIT | MSG_NOSIGNAL) !=
	    PAIR_HEADER_BYTES)
		return;
	waiting->strangers[waiting->count++] =
	    (struct stranger){.fd = TAKE_FD(connection), .since_ms = clock_monotonic_ms()};
}

status *pipe_listen(const struct pipe_place *place, struct pipe **ret_pipe,
		    Haul__V1__PipeAddress **ret_address)
{
	char url[LIMIT_URL + 1] = "socket://";
	scoped(fd) int socket = place->socket > 0 ? place->socket : -1;
	scoped(pipe) struct pipe *pipe = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	status *st = new_address(place->seal, &address);
	if (st == NULL)
		st = pipe_new(address, true, &pipe);
	if (st != NULL)
		return st;
	pipe->waiting = calloc(1, sizeof(*pipe->waiting));
	if (pipe->waiting == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a pipe");
	pipe->waiting->fd = -1;
	if (socket > 0)
		welcome(pipe->waiting, TAKE_FD(socket));
	else
		st = place->host != NULL ? listen_tcp(pipe, place, url, sizeof(url))
					 : listen_ipc(pipe, place, url, sizeof(url));
	if (st != NULL)
		return st;
	address->url = text_copy(url);
	*ret_pipe = TAKE(pipe);
	*ret_address = TAKE(address);
	return NULL;
}

/* --- who comes --- */

static void dismiss(struct waiting *waiting, unsigned i)
{
	close_if_open(waiting->strangers[i].fd);
	waiting->strangers[i] = waiting->strangers[--waiting->count];
}

/* Takes what this one says. True: it is the peer, who has the pipe now. One whose connection has
 * gone meanwhile is passed over, its HELLO is not opened: the same one is good again when it comes
 * back. */
static bool listen_to(struct pipe *pipe, unsigned i)
{
	struct waiting *waiting = pipe->waiting;
	struct stranger *stranger = &waiting->strangers[i];
	size_t want = pipe_greeting_bytes(waiting->is_ipc);
	ssize_t got = recv(stranger->fd, stranger->said + stranger->have, want - stranger->have,
			   MSG_DONTWAIT);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	stranger->have += got > 0 ? (size_t)got : 0;
	enum greeted greeted =
	    got <= 0 || (stranger->have == want && pair_is_gone(stranger->fd))
		? GREETED_ILL
		: pipe_greeted(pipe, waiting->is_ipc, stranger->said, stranger->have);
	if (greeted == GREETED_WELL)
		pipe_attach(pipe, TAKE_FD(stranger->fd), waiting->is_ipc);
	else if (greeted == GREETED_ILL)
		dismiss(waiting, i);
	return greeted == GREETED_WELL;
}

/* Not the one whose connection was handed over: there will be no other. */
static void dismiss_silent(struct waiting *waiting)
{
	int64_t now_ms = clock_monotonic_ms();

	for (unsigned i = waiting->count; waiting->fd >= 0 && i-- > 0;)
		if (now_ms - waiting->strangers[i].since_ms > HELLO_MS)
			dismiss(waiting, i);
}

/* Waits for what happens next, at most that long. True: the peer has the pipe. */
static bool attend(struct pipe *pipe, int timeout_ms)
{
	struct waiting *waiting = pipe->waiting;
	struct pollfd polled[WAITING_MOST + 1];
	unsigned count = waiting->count;

	for (unsigned i = 0; i < count; i++)
		polled[i] = (struct pollfd){.fd = waiting->strangers[i].fd, .events = POLLIN};
	polled[count] =
	    (struct pollfd){.fd = count < WAITING_MOST ? waiting->fd : -1, .events = POLLIN};
	if (poll(polled, count + 1, timeout_ms) <= 0)
		return false;
	/* From the last one on: one that is dismissed gives its place to the last. */
	for (unsigned i = count; i-- > 0;)
		if (polled[i].revents != 0 && listen_to(pipe, i))
			return true;
	if (polled[count].revents != 0) {
		int fd = accept4(waiting->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			welcome(waiting, fd);
		else
			(void)poll(NULL, 0, FULL_MS);
	}
	return false;
}

static status *nobody_came(const struct pipe *pipe)
{
	if (pipe->is_interrupted)
		return status_errorf(STATUS_CANCELLED, "the pipe was interrupted");
	if (pipe->waiting->fd < 0 && pipe->waiting->count == 0)
		return status_errorf(STATUS_UNAVAILABLE,
				     "the socket that was handed over for a pipe was closed, or is "
				     "not connected to the one who is to use it");
	return status_errorf(STATUS_DEADLINE_EXCEEDED,
			     "the other side did not connect to the pipe in time; is the "
			     "port open in the firewall?");
}

/* Our HELLO; the header has been said. */
static status *answer(struct pipe *pipe, int64_t timeout_ms)
{
	struct greeting greeting;
	status *st = pipe_greeting(pipe, pipe->pair.is_ipc, &greeting);
	if (st != NULL)
		return st;
	if (pair_write(pipe->pair.fd, greeting.bytes + PAIR_HEADER_BYTES,
		       greeting.size - PAIR_HEADER_BYTES, timeout_ms, &pipe->waited_ms) != 0)
		st = status_errorf(STATUS_UNAVAILABLE,
				   "the connection broke when the pipe was to begin");
	else
		atomic_fetch_add(&pipe->bytes_sent, HELLO_BYTES);
	if (st != NULL && pipe->send_error == NULL)
		pipe->send_error = status_copy(st);
	return st;
}

status *pipe_accept(struct pipe *pipe, int64_t timeout_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	bool is_attached = false;
	while (!is_attached) {
		int64_t left = clock_left_ms(deadline_ms);
		if (left == 0 || pipe->is_interrupted ||
		    (pipe->waiting->fd < 0 && pipe->waiting->count == 0))
			return nobody_came(pipe);
		is_attached = attend(pipe, left < SLICE_MS ? (int)left : SLICE_MS);
		if (!is_attached)
			dismiss_silent(pipe->waiting);
	}
	pipe_stop_waiting(pipe);
	return answer(pipe, clock_left_ms(deadline_ms));
}
