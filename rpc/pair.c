/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/pair.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "proto/clock.h"

/* https://nanomsg.org: "SP", version 0, the protocol's number (PAIR: 1.0), and two bytes more. */
const uint8_t pair_header[PAIR_HEADER_BYTES] = {0, 'S', 'P', 0, 0, 0x10, 0, 0};

enum { LENGTH_BYTES = 8, IPC_MESSAGE = 1 };

size_t pair_prefix_bytes(bool is_ipc)
{
	return is_ipc ? LENGTH_BYTES + 1 : LENGTH_BYTES;
}

void pair_put_prefix(bool is_ipc, uint8_t *message, uint64_t size)
{
	for (unsigned i = 1; i <= LENGTH_BYTES; i++, size >>= 8)
		message[-(int)i] = (uint8_t)size;
	if (is_ipc)
		message[-(LENGTH_BYTES + 1)] = IPC_MESSAGE;
}

bool pair_get_prefix(bool is_ipc, const uint8_t *prefix, uint64_t *ret_size)
{
	uint64_t size = 0;

	if (is_ipc && *prefix++ != IPC_MESSAGE)
		return false;
	for (unsigned i = 0; i < LENGTH_BYTES; i++)
		size = size << 8 | prefix[i];
	*ret_size = size;
	return true;
}

/* Why the connection is over; ETIMEDOUT is for our own patience. */
static int end_of(int error)
{
	return error == ETIMEDOUT ? ECONNABORTED : error;
}

/* Until the socket is ready for that, or the connection is over. 0, ETIMEDOUT, or an errno. */
static int await(int fd, short events, int64_t deadline_ms, short *ret_events)
{
	for (;;) {
		struct pollfd polled = {.fd = fd, .events = (short)(events | POLLRDHUP)};
		int64_t left = clock_left_ms(deadline_ms);
		int count = poll(&polled, 1, left > INT32_MAX ? INT32_MAX : (int)left);
		if (count > 0) {
			*ret_events = polled.revents;
			return 0;
		}
		if (count == 0 && clock_left_ms(deadline_ms) == 0)
			return ETIMEDOUT;
		if (count < 0 && errno != EINTR)
			return errno;
	}
}

int pair_write(int fd, const uint8_t *data, size_t size, int64_t timeout_ms, double *waited_ms)
{
	int64_t deadline_ms = 0; /* most often there is no wait */

	for (size_t done = 0; done < size;) {
		ssize_t sent = send(fd, data + done, size - done, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (sent >= 0) {
			done += (size_t)sent;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return end_of(errno);
		short events = 0;
		double begun = clock_monotonic_fine_ms();
		if (deadline_ms == 0)
			deadline_ms = clock_monotonic_ms() + timeout_ms;
		int error = await(fd, POLLOUT, deadline_ms, &events);
		*waited_ms += clock_monotonic_fine_ms() - begun;
		if (error != 0)
			return error;
		/* Nobody will read it. */
		if ((events & (POLLRDHUP | POLLHUP | POLLERR)) != 0)
			return EPIPE;
	}
	return 0;
}

/* What is missing next, the prefix or the message; NULL when nothing is. */
static uint8_t *missing(struct pair *pair, size_t *ret_size)
{
	size_t prefix = pair_prefix_bytes(pair->is_ipc);

	if (pair->prefix_have < prefix) {
		*ret_size = prefix - pair->prefix_have;
		return pair->prefix + pair->prefix_have;
	}
	*ret_size = pair->size - pair->have;
	return *ret_size > 0 ? pair->message + pair->have : NULL;
}

/* The prefix is whole: makes room for its message. */
static int begin_message(struct pair *pair, size_t limit)
{
	uint64_t size = 0;

	if (!pair_get_prefix(pair->is_ipc, pair->prefix, &size) || size > limit)
		return EMSGSIZE;
	pair->message = malloc(size > 0 ? size : 1);
	if (pair->message == NULL)
		return ENOMEM;
	pair->size = size;
	pair->have = 0;
	return 0;
}

static int receive_some(struct pair *pair, uint8_t *at, size_t size, int64_t timeout_ms)
{
	int64_t deadline_ms = 0;

	for (;;) {
		ssize_t got = recv(pair->fd, at, size, MSG_DONTWAIT);
		if (got > 0) {
			*(pair->message == NULL ? &pair->prefix_have : &pair->have) += (size_t)got;
			return 0;
		}
		if (got == 0)
			return EPIPE;
		if (errno != EAGAIN && errno != EINTR)
			return end_of(errno);
		short events = 0;
		if (deadline_ms == 0)
			deadline_ms = clock_monotonic_ms() + timeout_ms;
		int error = await(pair->fd, POLLIN, deadline_ms, &events);
		if (error != 0)
			return error;
	}
}

int pair_receive(struct pair *pair, size_t limit, int64_t timeout_ms, uint8_t **ret_message,
		 size_t *ret_size)
{
	size_t size = 0;
	uint8_t *at = NULL;

	while ((at = missing(pair, &size)) != NULL || pair->message == NULL) {
		int error = at != NULL ? receive_some(pair, at, size, timeout_ms)
				       : begin_message(pair, limit);
		if (error != 0)
			return error;
	}
	*ret_message = TAKE(pair->message);
	*ret_size = pair->size;
	pair->prefix_have = pair->size = pair->have = 0;
	return 0;
}

bool pair_is_gone(int fd)
{
	struct pollfd polled = {.fd = fd, .events = POLLRDHUP};

	return poll(&polled, 1, 0) != 0;
}
