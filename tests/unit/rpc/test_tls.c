/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets through TLS, who does not, and what both sides are told. */
#include "proto/clock.h"
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "rpc/nng_error.h"
#include "tests/unit/rpc/echo.h"
#include "tests/unit/rpc/pki.h"

enum { PLENTY_MS = 60000 };

struct fixture {
	struct pki *pki;
	struct pki *other;
	struct credentials *server;
	struct credentials *client;
	struct credentials *stranger;
	struct echo echo;
};

static int set_up(void **state)
{
	static struct fixture fixture;
	assert_ok(rpc_start());
	fixture.pki = pki_new();
	fixture.other = pki_new();
	fixture.server = pki_credentials(fixture.pki, "server", "DNS:localhost,IP:127.0.0.1");
	fixture.client =
	    pki_credentials(fixture.pki, "client", "URI:haul://node-a,DNS:a.example.org");
	fixture.stranger = pki_credentials(fixture.other, "stranger", "DNS:localhost,IP:127.0.0.1");
	echo_start(&fixture.echo);
	*state = &fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	echo_stop(&fixture->echo);
	credentials_free(fixture->server);
	credentials_free(fixture->client);
	credentials_free(fixture->stranger);
	pki_free(fixture->pki);
	pki_free(fixture->other);
	return 0;
}

static status *call_with(const char *url, const struct credentials *credentials, char **ret_node)
{
	scoped(rpc_client) struct rpc_client *client = NULL;
	assert_ok(rpc_client_new(url, credentials, &client));
	return echo_hello(client, "", PLENTY_MS, ret_node);
}

static void the_right_certificates_work_and_say_who_calls(void **state)
{
	struct fixture *fixture = *state;
	scoped(str) char *node = NULL;
	scoped(str) char *by_name = NULL;
	char url[128];
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	assert_ok(call_with(fixture->echo.url, fixture->client, &node));
	assert_string_equal(node, "haul://node-a");
	(void)snprintf(url, sizeof(url), "tls+tcp://localhost:%s",
		       strrchr(fixture->echo.url, ':') + 1);
	assert_ok(call_with(url, fixture->client, &by_name));
}

static void calls_of_every_size_come_through(void **state)
{
	struct fixture *fixture = *state;
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	scoped(rpc_client) struct rpc_client *client = NULL;
	assert_ok(rpc_client_new(fixture->echo.url, fixture->client, &client));
	scoped(str) char *text = calloc(1, LIMIT_UNARY_BYTES);
	for (size_t size = 1; size < LIMIT_UNARY_BYTES - 300; size = size * 3 + 1) {
		memset(text, 'x', size);
		text[size] = '\0';
		assert_ok(echo_hello(client, text, PLENTY_MS, NULL));
	}
}

static void assert_refused(status *st, const char *word)
{
	assert_false(rpc_client_may_have_run(st));
	if (status_code_of(st) != STATUS_UNAUTHENTICATED ||
	    strstr(status_message(st), word) == NULL)
		fail_msg("%s: %s (wanted: %s)", status_code_name(status_code_of(st)),
			 status_message(st), word);
	status_free(st);
}

static void a_client_of_another_authority_is_refused_and_told(void **state)
{
	struct fixture *fixture = *state;
	struct credentials *mixed = NULL;
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	/* It trusts our authority, but shows a certificate of its own. */
	const struct credentials_files files = {.ca = pki_path(fixture->pki, "ca.pem"),
						.cert = pki_path(fixture->other, "stranger.pem"),
						.key = pki_path(fixture->other, "stranger.key")};
	assert_ok(credentials_load(&files, &mixed));
	int64_t begin_ms = clock_monotonic_ms();
	assert_refused(call_with(fixture->echo.url, mixed, NULL), "unknown ca");
	assert_true(clock_monotonic_ms() - begin_ms < PLENTY_MS);
	credentials_free(mixed);
	assert_true(is_at_least(&fixture->echo.refused, 1, 20000));
	assert_ok(call_with(fixture->echo.url, fixture->client, NULL));
	assert_int_equal(atomic_load(&fixture->echo.runs), 1);
}

static void a_server_of_another_authority_is_refused(void **state)
{
	struct fixture *fixture = *state;
	echo_listen(&fixture->echo, "tls", fixture->stranger, 2);
	assert_refused(call_with(fixture->echo.url, fixture->client, NULL), "certificate");
	assert_int_equal(atomic_load(&fixture->echo.runs), 0);
}

static void a_server_with_another_name_is_refused(void **state)
{
	struct fixture *fixture = *state;
	struct credentials *elsewhere =
	    pki_credentials(fixture->pki, "elsewhere", "DNS:b.example.org,IP:127.0.0.2");
	echo_listen(&fixture->echo, "tls", elsewhere, 2);
	assert_refused(call_with(fixture->echo.url, fixture->client, NULL), "mismatch");
	credentials_free(elsewhere);
	assert_int_equal(atomic_load(&fixture->echo.runs), 0);
}

static void a_common_name_does_not_make_a_server(void **state)
{
	struct fixture *fixture = *state;
	struct credentials *named = pki_credentials(fixture->pki, "localhost", NULL);
	char url[128];
	struct credentials_info info;
	credentials_describe(named, &info);
	assert_string_equal(info.identity, "localhost");
	echo_listen(&fixture->echo, "tls", named, 2);
	(void)snprintf(url, sizeof(url), "tls+tcp://localhost:%s",
		       strrchr(fixture->echo.url, ':') + 1);
	assert_refused(call_with(url, fixture->client, NULL), "mismatch");
	credentials_free(named);
}

static void credentials_are_needed(void **state)
{
	struct fixture *fixture = *state;
	struct rpc_client *client = NULL;
	assert_code(rpc_client_new("tls+tcp://127.0.0.1:1", NULL, &client),
		    STATUS_FAILED_PRECONDITION);
	assert_code(rpc_server_listen(fixture->echo.server, "tls+tcp://127.0.0.1:1", NULL, 1),
		    STATUS_FAILED_PRECONDITION);
}

/* A raw OpenSSL client. Returns whether the server ever answered with data. */
static bool raw_tls_gets_data(const char *url, const char *ca_file, int version)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	struct timeval patience = {.tv_sec = 20};
	char byte = 0;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10));
	scoped(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	(void)SSL_CTX_set_max_proto_version(ctx, version);
	(void)SSL_CTX_load_verify_file(ctx, ca_file);
	SSL *ssl = SSL_new(ctx);
	(void)SSL_set_fd(ssl, fd);
	bool got = SSL_connect(ssl) == 1 && SSL_read(ssl, &byte, 1) == 1;
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	return got;
}

static void tls_1_2_and_clients_without_certificate_get_nothing(void **state)
{
	struct fixture *fixture = *state;
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	const char *ca_file = pki_path(fixture->pki, "ca.pem");
	assert_false(raw_tls_gets_data(fixture->echo.url, ca_file, TLS1_2_VERSION));
	assert_false(raw_tls_gets_data(fixture->echo.url, ca_file, TLS1_3_VERSION));
	assert_true(is_at_least(&fixture->echo.refused, 2, 20000));
	assert_ok(call_with(fixture->echo.url, fixture->client, NULL));
}

static void a_call_after_a_long_silence_is_answered(void **state)
{
	/* A client that was silent for longer than the server waits still gets its answer. */
	struct fixture *fixture = *state;
	scoped(rpc_client) struct rpc_client *client = NULL;
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	assert_ok(rpc_client_new(fixture->echo.url, fixture->client, &client));
	assert_ok(echo_hello(client, "", PLENTY_MS, NULL));
	(void)sleep(LIMIT_SILENT_MS / 1000 + 2);
	assert_ok(echo_hello(client, "", PLENTY_MS, NULL));
}

static void reset_at(uint16_t port)
{
	struct linger linger = {.l_onoff = 1, .l_linger = 0};
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons(port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
	(void)close(fd);
}

/* nng alone would lose some of them for good: nobody may use up the descriptors of an engine by
 * that. */
static void connections_that_reset_at_once_leave_no_descriptor(void **state)
{
	struct fixture *fixture = *state;
	struct endpoint endpoint;
	scoped(str) char *node = NULL;
	echo_listen(&fixture->echo, "tls", fixture->server, 2);
	assert_ok(endpoint_parse(fixture->echo.url, &endpoint));
	int before = count_fds();
	for (int i = 0; i < 50; i++)
		reset_at(endpoint.port);
	int64_t until = clock_monotonic_ms() + PLENTY_MS;
	while (count_fds() > before && clock_monotonic_ms() < until)
		(void)nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	assert_true(count_fds() <= before);
	assert_ok(call_with(fixture->echo.url, fixture->client, &node));
}

struct resetting {
	int fd; /* listens */
	uint16_t port;
	atomic_bool is_over;
};

/* Ends each connection with a reset, at another moment of its handshake each time. */
static void *reset_all(void *self)
{
	struct resetting *server = self;
	const struct linger linger = {.l_onoff = 1, .l_linger = 0};
	for (int i = 0; !server->is_over; i++) {
		uint8_t hello[4096];
		int fd = accept(server->fd, NULL, NULL);
		if (fd < 0)
			break;
		if (i % 3 > 0)
			(void)!read(fd, hello, i % 3 == 1 ? sizeof(hello) : 100);
		(void)nanosleep(&(struct timespec){.tv_nsec = i % 7 * 100000}, NULL);
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
		(void)close(fd);
	}
	return NULL;
}

static void listen_anywhere(struct resetting *server)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof(address);
	server->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(server->fd >= 0);
	assert_int_equal(bind(server->fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(listen(server->fd, 64), 0);
	assert_int_equal(getsockname(server->fd, (struct sockaddr *)&address, &size), 0);
	server->port = ntohs(address.sin_port);
}

/* The other way round: an engine that calls such a server. That nothing of it stays in memory is
 * what the leak sanitizer says at the end. */
static void a_server_that_resets_costs_its_client_no_descriptor(void **state)
{
	struct fixture *fixture = *state;
	struct resetting server = {0};
	char url[64];
	pthread_t thread;
	listen_anywhere(&server);
	(void)snprintf(url, sizeof(url), "tls+tcp://127.0.0.1:%u", server.port);
	assert_int_equal(pthread_create(&thread, NULL, reset_all, &server), 0);
	assert_ok(rpc_start());
	int before = count_fds();
	for (int i = 0; i < 60; i++) {
		scoped(rpc_client) struct rpc_client *client = NULL;
		assert_ok(rpc_client_new(url, fixture->client, &client));
		assert_code(echo_hello(client, "", 5 + i % 40, NULL), STATUS_UNAVAILABLE);
	}
	server.is_over = true;
	(void)shutdown(server.fd, SHUT_RDWR);
	assert_int_equal(pthread_join(thread, NULL), 0);
	int64_t until = clock_monotonic_ms() + PLENTY_MS;
	while (count_fds() > before && clock_monotonic_ms() < until)
		(void)nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
	(void)close(server.fd);
	assert_true(count_fds() < before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(the_right_certificates_work_and_say_who_calls, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(calls_of_every_size_come_through, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_client_of_another_authority_is_refused_and_told,
					    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_server_of_another_authority_is_refused, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(a_server_with_another_name_is_refused, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(a_common_name_does_not_make_a_server, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(connections_that_reset_at_once_leave_no_descriptor,
					    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_server_that_resets_costs_its_client_no_descriptor,
					    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(credentials_are_needed, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(tls_1_2_and_clients_without_certificate_get_nothing,
					    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_call_after_a_long_silence_is_answered, set_up,
					    tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
