/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/resolve.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "proto/clock.h"
#include "proto/limits.h"

/* What the asker and the thread that looks share; who is the last to leave frees it. */
struct lookup {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned users;
	bool is_over;
	int error; /* of getaddrinfo */
	struct addrinfo *list;
	char host[LIMIT_NAME + 1];
	char port[8];
};

static int look_up(const char *host, const char *port, int flags, struct addrinfo **ret_list)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags};

	return getaddrinfo(host, port, &hints, ret_list);
}

/* Caller holds the lock, and gives it back so. */
static void leave(struct lookup *lookup)
{
	bool is_last = --lookup->users == 0;

	(void)pthread_mutex_unlock(&lookup->lock);
	if (!is_last)
		return;
	if (lookup->list != NULL)
		freeaddrinfo(lookup->list);
	(void)pthread_cond_destroy(&lookup->changed);
	(void)pthread_mutex_destroy(&lookup->lock);
	free(lookup);
}

static void *run(void *self)
{
	struct lookup *lookup = self;
	struct addrinfo *list = NULL;
	int error = look_up(lookup->host, lookup->port, 0, &list);

	(void)pthread_mutex_lock(&lookup->lock);
	lookup->error = error;
	lookup->list = error == 0 ? list : NULL;
	lookup->is_over = true;
	(void)pthread_cond_broadcast(&lookup->changed);
	leave(lookup);
	return NULL;
}

static status *start(const char *host, const char *port, struct lookup **ret_lookup)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	pthread_attr_t attributes;
	pthread_t thread;

	if (lookup == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory to look up a host");
	(void)snprintf(lookup->host, sizeof(lookup->host), "%s", host);
	(void)snprintf(lookup->port, sizeof(lookup->port), "%s", port);
	(void)pthread_mutex_init(&lookup->lock, NULL);
	clock_cond_init(&lookup->changed);
	lookup->users = 2;
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int error = pthread_create(&thread, &attributes, run, lookup);
	(void)pthread_attr_destroy(&attributes);
	if (error == 0) {
		*ret_lookup = lookup;
		return NULL;
	}
	(void)pthread_mutex_lock(&lookup->lock);
	lookup->users = 1;
	leave(lookup);
	return status_errnof(error, "cannot start a thread to look up %s", host);
}

static status *finish(struct lookup *lookup, int64_t deadline_ms, struct addrinfo **ret_list)
{
	const struct timespec until = clock_at(deadline_ms);
	status *st = NULL;
	int rv = 0;

	(void)pthread_mutex_lock(&lookup->lock);
	while (!lookup->is_over && rv == 0)
		rv = pthread_cond_timedwait(&lookup->changed, &lookup->lock, &until);
	if (!lookup->is_over)
		st = status_errorf(STATUS_DEADLINE_EXCEEDED,
				   "no name server told in time where %s is", lookup->host);
	else if (lookup->error != 0)
		st = status_errorf(STATUS_UNAVAILABLE, "nobody knows where %s is: %s", lookup->host,
				   gai_strerror(lookup->error));
	else
		*ret_list = TAKE(lookup->list);
	leave(lookup);
	return st;
}

status *resolve_host(const char *host, uint16_t port, int64_t timeout_ms,
		     struct addrinfo **ret_list)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	struct lookup *lookup = NULL;
	char text[8];

	(void)snprintf(text, sizeof(text), "%u", port);
	if (look_up(host, text, AI_NUMERICHOST | AI_NUMERICSERV, ret_list) == 0)
		return NULL;
	status *st = start(host, text, &lookup);
	return st == NULL ? finish(lookup, deadline_ms, ret_list) : st;
}

int connect_address(const struct sockaddr *address, socklen_t size, int64_t deadline_ms,
		    int *ret_fd)
{
	scoped(fd) int fd =
	    socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int error = ETIMEDOUT;
	socklen_t length = sizeof(error);

	if (fd < 0)
		return errno;
	if (connect(fd, address, size) != 0) {
		struct pollfd polled = {.fd = fd, .events = POLLOUT};
		int64_t left = clock_left_ms(deadline_ms);
		if (errno != EINPROGRESS)
			return errno;
		if (poll(&polled, 1, left > INT32_MAX ? INT32_MAX : (int)left) == 1)
			(void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error != 0)
			return error;
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}
