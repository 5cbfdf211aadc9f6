/* SPDX-License-Identifier: Apache-2.0 */
/* tcp: holds an open TCP connection (to itself, over the loopback) and passes numbers over it.
 *
 * usage: tcp STATUS
 *
 * When the connection is gone it says "closed" and lives on. */
#include "tests/lab/workloads/heartbeat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static void connect_self(int *ret_client, int *ret_server)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof(address);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 ||
	    listen(listener, 1) != 0 ||
	    getsockname(listener, (struct sockaddr *)&address, &length) != 0)
		heartbeat_die("listen");
	*ret_client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*ret_client < 0 || connect(*ret_client, (struct sockaddr *)&address, length) != 0)
		heartbeat_die("connect");
	*ret_server = accept(listener, NULL, NULL);
	if (*ret_server < 0)
		heartbeat_die("accept");
	close(listener);
}

static bool pass(int from, int to, uint64_t number)
{
	uint64_t got = 0;
	ssize_t n;
	if (send(from, &number, sizeof(number), MSG_NOSIGNAL) != (ssize_t)sizeof(number))
		return false;
	do
		n = recv(to, &got, sizeof(got), MSG_WAITALL);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(got))
		return false;
	if (got != number)
		heartbeat_corrupt("%llu arrived instead of %llu", (unsigned long long)got,
				  (unsigned long long)number);
	return true;
}

int main(int argc, char **argv)
{
	int client;
	int server;
	bool open = true;
	if (argc != 2) {
		fprintf(stderr, "usage: tcp STATUS\n");
		return 2;
	}
	heartbeat_open(argv[1]);
	connect_self(&client, &server);
	for (uint64_t number = 0;; number++) {
		open = open && pass(client, server, number) && pass(server, client, ~number);
		heartbeat_beat(open ? "ok" : "closed", "");
		heartbeat_sleep(10);
	}
}
