/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers at the listeners: whatever they send, the next honest call is answered. */
#include "proto/clock.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "rpc/nng_error.h"
#include "tests/unit/rpc/echo.h"
#include "tests/unit/rpc/pki.h"

enum { PLENTY_MS = 60000, SILENT_CLIENTS = 200, RESET_CLIENTS = 300 };

/* From another address of the loopback than our own client: a host of its own. */
static int connect_from(const char *source, const char *url)
{
	struct sockaddr_in own = {.sin_family = AF_INET};
	struct sockaddr_in address = {.sin_family = AF_INET};
	assert_int_equal(inet_pton(AF_INET, source, &own.sin_addr), 1);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10));
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&own, sizeof(own)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static int connect_raw(const char *url)
{
	if (strncmp(url, "ipc://", 6) == 0) {
		struct sockaddr_un un = {.sun_family = AF_UNIX};
		(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", url + 6);
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
		return fd;
	}
	return connect_from("127.0.0.1", url);
}

/* Sends and closes; errors are the point. */
static void throw_at(const char *url, const void *data, size_t size)
{
	int fd = connect_raw(url);
	(void)send(fd, data, size, MSG_NOSIGNAL);
	(void)close(fd);
}

static void reset_at(const char *url)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};
	int fd = connect_raw(url);
	(void)shutdown(fd, SHUT_WR);
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	(void)close(fd);
}

/* nng's header of a REQ peer, then frames of all kinds of wrongness. */
static void throw_frames_at(const char *url)
{
	static const struct {
		const char *bytes;
		size_t size;
	} frames[] = {
	    {"\0SP\0\0\x30\0\0"
	     "\0\0\0\0\0\0\0\0",
	     16}, /* empty message */
	    {"\0SP\0\0\x30\0\0"
	     "\0\0\0\0\0\0\0\x04"
	     "\x80\0\0\x01",
	     20}, /* id, no body */
	    {"\0SP\0\0\x30\0\0"
	     "\0\0\0\0\0\0\0\x08"
	     "\x80\0\0\x01\xFF\xFF\xFF\xFF",
	     24},
	    {"\0SP\0\0\x30\0\0"
	     "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
	     16}, /* over every limit */
	    {"\0SP\0\0\x30\0\0"
	     "\0\0\0\0\0\x7F\0\0"
	     "\x80\0",
	     18}, /* large, then cut */
	    {"\0SP\0\0\x30\0\0"
	     "\0\0\0",
	     11}, /* cut length */
	    {"\0SP\0\0\x10\0\0"
	     "\0\0\0\0\0\0\0\x04"
	     "abcd",
	     20}, /* another protocol */
	    {"\0SP\0\0\x30", 6},
	    {"GET / HTTP/1.0\r\n\r\n", 18},
	    /* ipc's framing has a byte before the length */
	    {"\0SP\0\0\x30\0\0"
	     "\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
	     17},
	    {"\0SP\0\0\x30\0\0"
	     "\x01\0\0\0\0\0\0\0\x08"
	     "\x80\0\0\x01\xFF\xFF\xFF\xFF",
	     25},
	    {"\0SP\0\0\x30\0\0"
	     "\x02\0\0\0\0\0\0\0\x08"
	     "\x80\0\0\x01\xFF\xFF\xFF\xFF",
	     25},
	    {"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03", 11}, /* the start of a ClientHello */
	};
	for (int round = 0; round < 4; round++)
		for (size_t i = 0; i < array_len(frames); i++)
			throw_at(url, frames[i].bytes, frames[i].size);
}

struct fixture {
	struct pki *pki;
	struct credentials *server;
	struct credentials *client;
	struct echo echo;
};

static void fixture_start(struct fixture *fixture)
{
	fixture->pki = pki_new();
	fixture->server = pki_credentials(fixture->pki, "server", "DNS:localhost,IP:127.0.0.1");
	fixture->client = pki_credentials(fixture->pki, "client", "DNS:client");
	echo_start(&fixture->echo);
}

static void fixture_stop(struct fixture *fixture)
{
	echo_stop(&fixture->echo);
	credentials_free(fixture->server);
	credentials_free(fixture->client);
	pki_free(fixture->pki);
}

static int set_up(void **state)
{
	static struct fixture fixture;
	fixture_start(&fixture);
	*state = &fixture;
	return 0;
}

static int tear_down(void **state)
{
	fixture_stop(*state);
	return 0;
}

static void assert_answers(struct fixture *fixture)
{
	scoped(rpc_client) struct rpc_client *client = NULL;
	assert_ok(rpc_client_new(fixture->echo.url, fixture->client, &client));
	assert_ok(echo_hello(client, "", PLENTY_MS, NULL));
}

static void garbage_does_not_stop(struct fixture *fixture, const char *transport)
{
	echo_listen(&fixture->echo, transport, fixture->server, 2);
	throw_frames_at(fixture->echo.url);
	assert_answers(fixture);
}

static void garbage_does_not_stop_tcp(void **state)
{
	garbage_does_not_stop(*state, "tcp");
}

static void garbage_does_not_stop_tls(void **state)
{
	garbage_does_not_stop(*state, "tls");
}

static void garbage_does_not_stop_the_local_socket(void **state)
{
	garbage_does_not_stop(*state, "ipc");
}

static void resets_do_not_stop(struct fixture *fixture, const char *transport)
{
	echo_listen(&fixture->echo, transport, fixture->server, 2);
	for (int i = 0; i < RESET_CLIENTS; i++)
		reset_at(fixture->echo.url);
	assert_answers(fixture);
}

static void resets_do_not_stop_tcp(void **state)
{
	resets_do_not_stop(*state, "tcp");
}

static void resets_do_not_stop_tls(void **state)
{
	resets_do_not_stop(*state, "tls");
}

/* How many of these connections does the server leave open until the deadline? */
static size_t still_open(struct pollfd *polls, size_t count, int64_t deadline_ms)
{
	size_t open = count;
	char waste[256];
	while (open > 0 && left_ms(deadline_ms) > 0) {
		(void)poll(polls, count, left_ms(deadline_ms));
		for (size_t i = 0; i < count; i++) {
			if (polls[i].fd < 0 || polls[i].revents == 0)
				continue;
			ssize_t got = recv(polls[i].fd, waste, sizeof(waste), MSG_DONTWAIT);
			if (got > 0 || (got < 0 && errno == EAGAIN))
				continue;
			(void)close(polls[i].fd);
			polls[i].fd = -1;
			open--;
		}
	}
	return open;
}

/* What takes as long as silence may last goes on, each at a server of its own, while the other
 * tests run: the first test begins it, the last one has its results. */
struct silent_clients {
	const char *transport;
	size_t count;
	const char *start; /* what they say before they fall silent */
	size_t start_size;
	struct fixture fixture;
	struct pollfd polls[SILENT_CLIENTS];
	int64_t deadline_ms;
	size_t open;
	pthread_t thread;
};

static struct silent_clients silent_clients[] = {
    {.transport = "tls", .count = SILENT_CLIENTS},
    /* in the TLS handshake */
    {.transport = "tls", .count = 50, .start = "\x16\x03\x01\x02\0\x01", .start_size = 6},
    {.transport = "tcp", .count = 50},
    /* before the first call */
    {.transport = "tcp", .count = 50, .start = "\0SP\0\0\x30\0\0", .start_size = 8},
};

static struct {
	struct fixture fixture;
	status *st;
	pthread_t thread;
} long_call;

static void *await_their_end(void *self)
{
	struct silent_clients *silent = self;
	silent->open = still_open(silent->polls, silent->count, silent->deadline_ms);
	return NULL;
}

static void silence_begins(struct silent_clients *silent)
{
	fixture_start(&silent->fixture);
	echo_listen(&silent->fixture.echo, silent->transport, silent->fixture.server, 2);
	for (size_t i = 0; i < silent->count; i++) {
		silent->polls[i] =
		    (struct pollfd){.fd = connect_raw(silent->fixture.echo.url), .events = POLLIN};
		(void)send(silent->polls[i].fd, silent->start, silent->start_size, MSG_NOSIGNAL);
	}
	silent->deadline_ms = clock_monotonic_ms() + 15000;
	assert_int_equal(pthread_create(&silent->thread, NULL, await_their_end, silent), 0);
	assert_answers(&silent->fixture);
}

static void *call_for_long(void *self)
{
	struct rpc_client *client = NULL;
	(void)self;
	long_call.st =
	    rpc_client_new(long_call.fixture.echo.url, long_call.fixture.client, &client);
	if (long_call.st == NULL)
		long_call.st = echo_hello(client, "block", LIMIT_SILENT_MS + 3000, NULL);
	rpc_client_free(client);
	return NULL;
}

static void silent_clients_and_a_long_call_begin(void **state)
{
	(void)state;
	for (size_t i = 0; i < array_len(silent_clients); i++)
		silence_begins(&silent_clients[i]);
	fixture_start(&long_call.fixture);
	echo_listen(&long_call.fixture.echo, "tls", long_call.fixture.server, 2);
	assert_int_equal(pthread_create(&long_call.thread, NULL, call_for_long, NULL), 0);
}

static void silent_clients_were_dropped_in_time(void **state)
{
	(void)state;
	for (size_t i = 0; i < array_len(silent_clients); i++) {
		struct silent_clients *silent = &silent_clients[i];
		assert_int_equal(pthread_join(silent->thread, NULL), 0);
		assert_int_equal(silent->open, 0);
		assert_answers(&silent->fixture);
		fixture_stop(&silent->fixture);
	}
}

static void the_long_call_was_not_taken_for_silence(void **state)
{
	(void)state;
	assert_int_equal(pthread_join(long_call.thread, NULL), 0);
	assert_code(long_call.st, STATUS_DEADLINE_EXCEEDED);
	fixture_stop(&long_call.fixture);
}

static void open_many(const char *source, const char *url, const void *start, size_t start_size,
		      int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		fds[i] = connect_from(source, url);
		(void)send(fds[i], start, start_size, MSG_NOSIGNAL);
	}
}

static void close_many(const int *fds, size_t count)
{
	for (size_t i = 0; i < count; i++)
		(void)close(fds[i]);
}

static void connections_over_the_limit_are_refused_and_told(void **state)
{
	struct fixture *fixture = *state;
	int fds[2 * LIMIT_HOST_CONNECTIONS + 8];
	static const char header[] = "\0SP\0\0\x30\0";
	echo_listen(&fixture->echo, "tcp", fixture->server, 2);
	open_many("127.0.0.2", fixture->echo.url, header, sizeof(header), fds,
		  LIMIT_HOST_CONNECTIONS);
	open_many("127.0.0.3", fixture->echo.url, header, sizeof(header),
		  fds + LIMIT_HOST_CONNECTIONS, LIMIT_HOST_CONNECTIONS);
	assert_int_equal(2 * LIMIT_HOST_CONNECTIONS, LIMIT_CONNECTIONS);
	open_many("127.0.0.4", fixture->echo.url, header, sizeof(header), fds + LIMIT_CONNECTIONS,
		  8);
	assert_true(is_at_least(&fixture->echo.refused, 1, 20000));
	assert_true(echo_was_refused_for(&fixture->echo, "", ": too many connections"));
	assert_false(echo_was_refused_for(&fixture->echo, "", "from one host"));
	close_many(fds, array_len(fds));
	assert_answers(fixture);
}

/* While they all are there, others get in. */
static void one_host_cannot_take_all(struct fixture *fixture, const char *transport,
				     const void *start, size_t start_size)
{
	int fds[LIMIT_HOST_CONNECTIONS + 8];
	echo_listen(&fixture->echo, transport, fixture->server, 2);
	open_many("127.0.0.2", fixture->echo.url, start, start_size, fds, array_len(fds));
	assert_true(is_at_least(&fixture->echo.refused, 1, 20000));
	assert_true(
	    echo_was_refused_for(&fixture->echo, "", ": too many connections from one host"));
	assert_answers(fixture);
	close_many(fds, array_len(fds));
}

static void one_host_cannot_take_all_connections_of_tcp(void **state)
{
	one_host_cannot_take_all(*state, "tcp", "\0SP\0\0\x30\0\0", 8);
}

static void one_host_cannot_take_all_handshakes_of_tls(void **state)
{
	one_host_cannot_take_all(*state, "tls", NULL, 0);
}

/* Until the server says so of one of them. */
static bool are_refused_at_once(struct fixture *fixture, const char *from)
{
	static const char garbage[] = "GET / HTTP/1.0\r\n\r\n";
	int64_t until_ms = clock_monotonic_ms() + 20000;
	while (clock_monotonic_ms() < until_ms) {
		scoped(fd) int fd = connect_from(from, fixture->echo.url);
		(void)send(fd, garbage, sizeof(garbage) - 1, MSG_NOSIGNAL);
		if (echo_was_refused_for(&fixture->echo, from,
					 ": too many handshakes of this host have failed"))
			return true;
		(void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return false;
}

/* Their connections cost no arithmetic any more; others, and soon that host, are served as ever. */
static void strangers_of_one_host_are_refused_before_their_handshakes(void **state)
{
	struct fixture *fixture = *state;
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	assert_true(are_refused_at_once(fixture, "127.0.0.2"));
	assert_answers(fixture);
	assert_true(are_refused_at_once(fixture, "127.0.0.1"));
	assert_answers(fixture);
}

/* Peers that say a byte now and then: a third each in front of TLS, in its handshake, and behind
 * it, in nng's header. */
struct slow_peers {
	pthread_t thread;
	atomic_bool is_over;
	SSL_CTX *ctx;
	struct {
		int fd;
		SSL *ssl;
		size_t said;
	} peers[SILENT_CLIENTS];
};

static void say_a_byte(struct slow_peers *slow, size_t i)
{
	static const char hello[] = "\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03";
	static const char header[] = "\0SP\0\0\x30\0\0\0\0\0\0\0\0\0\x20";
	size_t said = slow->peers[i].said++;
	if (i % 3 == 1 && said < sizeof(hello) - 1)
		(void)send(slow->peers[i].fd, hello + said, 1, MSG_NOSIGNAL);
	else if (i % 3 == 2 && said < sizeof(header) - 1)
		(void)SSL_write(slow->peers[i].ssl, header + said, 1);
}

static void *be_slow(void *self)
{
	struct slow_peers *slow = self;
	for (size_t i = 0; !atomic_load(&slow->is_over); i = (i + 1) % SILENT_CLIENTS) {
		say_a_byte(slow, i);
		(void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	return NULL;
}

static void slow_peers_start(struct fixture *fixture, struct slow_peers *slow)
{
	slow->ctx = SSL_CTX_new(TLS_client_method());
	assert_int_equal(SSL_CTX_use_certificate_file(slow->ctx,
						      pki_path(fixture->pki, "client.pem"),
						      SSL_FILETYPE_PEM),
			 1);
	assert_int_equal(SSL_CTX_use_PrivateKey_file(slow->ctx,
						     pki_path(fixture->pki, "client.key"),
						     SSL_FILETYPE_PEM),
			 1);
	for (size_t i = 0; i < SILENT_CLIENTS; i++) {
		slow->peers[i].fd = connect_from("127.0.0.2", fixture->echo.url);
		slow->peers[i].ssl = i % 3 == 2 ? SSL_new(slow->ctx) : NULL;
		if (slow->peers[i].ssl == NULL)
			continue;
		(void)SSL_set_fd(slow->peers[i].ssl, slow->peers[i].fd);
		assert_int_equal(SSL_connect(slow->peers[i].ssl), 1);
	}
	assert_int_equal(pthread_create(&slow->thread, NULL, be_slow, slow), 0);
}

static void slow_peers_stop(struct slow_peers *slow)
{
	atomic_store(&slow->is_over, true);
	(void)pthread_join(slow->thread, NULL);
	for (size_t i = 0; i < SILENT_CLIENTS; i++) {
		SSL_free(slow->peers[i].ssl);
		(void)close(slow->peers[i].fd);
	}
	SSL_CTX_free(slow->ctx);
}

/* The longest of some calls, half of them on new connections. */
static int64_t longest_call_ms(struct fixture *fixture)
{
	scoped(rpc_client) struct rpc_client *client = NULL;
	int64_t longest = 0;
	assert_ok(rpc_client_new(fixture->echo.url, fixture->client, &client));
	for (int i = 0; i < 20; i++) {
		int64_t begin = clock_monotonic_ms();
		if (i % 2 == 0)
			assert_ok(echo_hello(client, "", PLENTY_MS, NULL));
		else
			assert_answers(fixture);
		int64_t took = clock_monotonic_ms() - begin;
		longest = took > longest ? took : longest;
	}
	return longest;
}

/* One that had to wait for a slow one would wait for seconds. */
static void slow_peers_do_not_slow_others_down(void **state)
{
	struct fixture *fixture = *state;
	static struct slow_peers slow;
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	int64_t alone = longest_call_ms(fixture);
	slow_peers_start(fixture, &slow);
	int64_t among_slow = longest_call_ms(fixture);
	slow_peers_stop(&slow);
	print_message("a call took at most %lld ms, among %d slow peers %lld ms\n",
		      (long long)alone, SILENT_CLIENTS, (long long)among_slow);
	assert_true(among_slow < 10 * alone + 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(silent_clients_and_a_long_call_begin),
	    cmocka_unit_test_setup_teardown(garbage_does_not_stop_tcp, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(garbage_does_not_stop_tls, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(garbage_does_not_stop_the_local_socket, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(resets_do_not_stop_tcp, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(resets_do_not_stop_tls, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(connections_over_the_limit_are_refused_and_told, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(one_host_cannot_take_all_connections_of_tcp, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(one_host_cannot_take_all_handshakes_of_tls, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(
		strangers_of_one_host_are_refused_before_their_handshakes, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(slow_peers_do_not_slow_others_down, set_up, tear_down),
	    cmocka_unit_test(silent_clients_were_dropped_in_time),
	    cmocka_unit_test(the_long_call_was_not_taken_for_silence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
