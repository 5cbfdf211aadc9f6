/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "tests/unit/rpc/proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { LINKS = 64, PIECE = 2048, POLL_MS = 20 };

/* One connection through the proxy; fd 0 is the client's side. */
struct link {
	int fds[2];
	long budget; /* bytes until it is dropped; -1 = none */
};

struct proxy {
	struct proxy_config config;
	int listener;
	unsigned port;
	unsigned dice;
	pthread_t thread;
	atomic_bool is_over;
	atomic_bool is_stalled;
	atomic_int dropped;
	struct link links[LINKS];
	size_t count;
};

static unsigned roll(struct proxy *proxy, unsigned below)
{
	proxy->dice = proxy->dice * 1103515245U + 12345U;
	return below == 0 ? 0 : (proxy->dice >> 8) % below;
}

static void cut(struct proxy *proxy, size_t i)
{
	/* A reset, half of the time: what is on its way is lost, too. */
	const struct linger hard = {.l_onoff = 1, .l_linger = 0};
	bool is_hard = roll(proxy, 2) == 0;
	for (int side = 0; side < 2; side++) {
		if (is_hard)
			(void)setsockopt(proxy->links[i].fds[side], SOL_SOCKET, SO_LINGER, &hard,
					 sizeof(hard));
		(void)close(proxy->links[i].fds[side]);
	}
	proxy->links[i] = proxy->links[--proxy->count];
}

static void accept_one(struct proxy *proxy)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)proxy->config.to_port)};
	int client = accept4(proxy->listener, NULL, NULL, SOCK_CLOEXEC);
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (client < 0 || server < 0 || proxy->count == LINKS ||
	    connect(server, (struct sockaddr *)&to, sizeof(to)) != 0) {
		close_if_open(client);
		close_if_open(server);
		return;
	}
	struct link *made = &proxy->links[proxy->count++];
	*made = (struct link){.fds = {client, server}, .budget = -1};
	if (proxy->config.drop_after > 0)
		made->budget = 1 + (long)roll(proxy, proxy->config.drop_after);
}

/* False when the link is over. */
static bool pass(struct proxy *proxy, struct link *link, int from)
{
	char piece[PIECE];
	size_t size = sizeof(piece);
	if (link->budget >= 0 && (size_t)link->budget < size)
		size = (size_t)link->budget;
	ssize_t got = size > 0 ? recv(link->fds[from], piece, size, MSG_DONTWAIT) : 0;
	if (got <= 0)
		return false;
	if (proxy->config.delay_us > 0)
		(void)nanosleep(&(struct timespec){.tv_nsec =
						       roll(proxy, proxy->config.delay_us) * 1000L},
				NULL);
	if (send(link->fds[1 - from], piece, (size_t)got, MSG_NOSIGNAL) != got)
		return false;
	link->budget -= link->budget >= 0 ? got : 0;
	if (link->budget != 0)
		return true;
	(void)atomic_fetch_add(&proxy->dropped, 1);
	return false;
}

static void pass_all(struct proxy *proxy, const struct pollfd *fds, size_t count)
{
	/* From the end: a link that is cut is replaced by the last one. */
	for (size_t i = count; i-- > 0;)
		for (int side = 0; side < 2; side++)
			if (fds[1 + 2 * i + (size_t)side].revents != 0 &&
			    !pass(proxy, &proxy->links[i], side)) {
				cut(proxy, i);
				break;
			}
}

static void *run(void *argument)
{
	struct proxy *proxy = argument;
	while (!atomic_load(&proxy->is_over)) {
		struct pollfd fds[1 + 2 * LINKS] = {{.fd = proxy->listener, .events = POLLIN}};
		size_t count = proxy->count;
		bool is_stalled = atomic_load(&proxy->is_stalled);
		for (size_t i = 0; i < 2 * count; i++)
			fds[1 + i] =
			    (struct pollfd){.fd = is_stalled ? -1 : proxy->links[i / 2].fds[i % 2],
					    .events = POLLIN};
		if (poll(fds, (nfds_t)(1 + 2 * count), POLL_MS) <= 0)
			continue;
		pass_all(proxy, fds, count);
		if (fds[0].revents != 0)
			accept_one(proxy);
	}
	return NULL;
}

struct proxy *proxy_start(const struct proxy_config *config)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof(address);
	struct proxy *proxy = calloc(1, sizeof(*proxy));
	assert_non_null(proxy);
	proxy->config = *config;
	proxy->dice = config->seed;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(proxy->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(proxy->listener, 64), 0);
	assert_int_equal(getsockname(proxy->listener, (struct sockaddr *)&address, &size), 0);
	proxy->port = ntohs(address.sin_port);
	assert_int_equal(pthread_create(&proxy->thread, NULL, run, proxy), 0);
	return proxy;
}

unsigned proxy_port(const struct proxy *proxy)
{
	return proxy->port;
}

void proxy_stall(struct proxy *proxy, bool is_stalled)
{
	atomic_store(&proxy->is_stalled, is_stalled);
}

int proxy_dropped(struct proxy *proxy)
{
	return atomic_load(&proxy->dropped);
}

void proxy_stop(struct proxy *proxy)
{
	atomic_store(&proxy->is_over, true);
	assert_int_equal(pthread_join(proxy->thread, NULL), 0);
	while (proxy->count > 0)
		cut(proxy, 0);
	(void)close(proxy->listener);
	free(proxy);
}
