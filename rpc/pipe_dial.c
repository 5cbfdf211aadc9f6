/* SPDX-License-Identifier: Apache-2.0 */
/* The dialer of a pipe: connects, says HELLO and waits for the listener's. A connection that is
 * closed before that is followed by another, until the time is over: the listener may be about to
 * listen, or have its places full of strangers. */
#include "rpc/pipe_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "proto/clock.h"
#include "rpc/resolve.h"

enum { RECONNECT_MS = 50 };

struct dialing {
	struct pipe *pipe;
	const char *url; /* for messages */
	bool is_ipc;
	struct greeting greeting;
	int64_t deadline_ms;
	bool was_there; /* somebody took our HELLO */
};

static int poll_until(int fd, short events, int64_t deadline_ms)
{
	struct pollfd polled = {.fd = fd, .events = events};
	int64_t left = clock_left_ms(deadline_ms);

	return poll(&polled, 1, left > INT32_MAX ? INT32_MAX : (int)left);
}

static int connect_to_file(const char *path, int64_t deadline_ms)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = -1;

	memcpy(address.sun_path, path, strlen(path) + 1); /* endpoint_parse has checked it */
	(void)connect_address((const struct sockaddr *)&address, sizeof(address), deadline_ms, &fd);
	return fd;
}

/* One that is silent must not take the time of the others. */
static int connect_to_any(const struct addrinfo *list, int64_t deadline_ms)
{
	int fd = -1;

	for (; list != NULL && fd < 0; list = list->ai_next) {
		int64_t left = clock_left_ms(deadline_ms);
		int64_t until_ms =
		    list->ai_next != NULL ? clock_monotonic_ms() + left / 2 : deadline_ms;
		(void)connect_address(list->ai_addr, list->ai_addrlen, until_ms, &fd);
	}
	if (fd >= 0)
		pipe_tune(fd);
	return fd;
}

/* Says HELLO and takes the answer; the connection is the pipe's then. Else it is closed. */
static bool greet(struct dialing *dialing, int fd)
{
	scoped(fd) int connection = fd;
	uint8_t answer[GREETING_MOST];
	size_t have = 0, want = pipe_greeting_bytes(dialing->is_ipc);
	enum greeted greeted = GREETED_NOT_YET;

	if (pair_write(connection, dialing->greeting.bytes, dialing->greeting.size,
		       clock_left_ms(dialing->deadline_ms), &dialing->pipe->waited_ms) != 0)
		return false;
	dialing->was_there = true;
	while (greeted == GREETED_NOT_YET) {
		ssize_t got = recv(connection, answer + have, want - have, MSG_DONTWAIT);
		if (got > 0) {
			have += (size_t)got;
			greeted = pipe_greeted(dialing->pipe, dialing->is_ipc, answer, have);
		} else if (got == 0 || (errno != EAGAIN && errno != EINTR) ||
			   poll_until(connection, POLLIN, dialing->deadline_ms) == 0) {
			return false;
		}
	}
	if (greeted == GREETED_ILL)
		return false;
	atomic_fetch_add(&dialing->pipe->bytes_sent, HELLO_BYTES);
	pipe_attach(dialing->pipe, TAKE_FD(connection), dialing->is_ipc);
	return true;
}

static status *nobody(const struct dialing *dialing)
{
	return status_errorf(STATUS_UNAVAILABLE,
			     dialing->was_there
				 ? "nobody at %s answered to the pipe's keys in time"
				 : "cannot connect to the pipe at %s in time; is the "
				   "port open in the firewall?",
			     dialing->url);
}

static status *dial(struct dialing *dialing, const struct endpoint *endpoint,
		    const struct addrinfo *list)
{
	for (;;) {
		int fd = dialing->is_ipc ? connect_to_file(endpoint->host, dialing->deadline_ms)
					 : connect_to_any(list, dialing->deadline_ms);
		if (fd >= 0 && greet(dialing, fd))
			return NULL;
		int64_t left = clock_left_ms(dialing->deadline_ms);
		if (left == 0)
			return nobody(dialing);
		(void)poll(NULL, 0, left < RECONNECT_MS ? (int)left : RECONNECT_MS);
	}
}

status *pipe_dial(const Haul__V1__PipeAddress *address, int64_t timeout_ms, struct pipe **ret_pipe)
{
	struct dialing dialing = {.deadline_ms = clock_monotonic_ms() + timeout_ms};
	scoped(pipe) struct pipe *pipe = NULL;
	struct addrinfo *list = NULL;
	struct endpoint endpoint;
	status *st = endpoint_parse(address->url, &endpoint);
	if (st == NULL && endpoint.transport == TRANSPORT_TLS)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "a pipe cannot be at %s", endpoint.url);
	if (st == NULL)
		st = pipe_new(address, false, &pipe);
	if (st != NULL)
		return st;
	dialing.pipe = pipe;
	dialing.url = endpoint.url;
	dialing.is_ipc = endpoint.transport == TRANSPORT_IPC;
	st = pipe_greeting(pipe, dialing.is_ipc, &dialing.greeting);
	if (st == NULL && !dialing.is_ipc)
		st = resolve_host(endpoint.host, endpoint.port, timeout_ms, &list);
	if (st == NULL)
		st = dial(&dialing, &endpoint, list);
	if (list != NULL)
		freeaddrinfo(list);
	if (st == NULL)
		*ret_pipe = TAKE(pipe);
	return st;
}

status *pipe_dial_socket(const Haul__V1__PipeAddress *address, int fd, int64_t timeout_ms,
			 struct pipe **ret_pipe)
{
	struct dialing dialing = {.url = "the socket that was handed over",
				  .deadline_ms = clock_monotonic_ms() + timeout_ms};
	scoped(fd) int socket = fd;
	scoped(pipe) struct pipe *pipe = NULL;
	status *st = pipe_new(address, false, &pipe);
	if (st != NULL)
		return st;
	dialing.pipe = pipe;
	pipe_tune(socket);
	st = pipe_greeting(pipe, false, &dialing.greeting);
	if (st == NULL && !greet(&dialing, TAKE_FD(socket)))
		st = nobody(&dialing);
	if (st == NULL)
		*ret_pipe = TAKE(pipe);
	return st;
}
