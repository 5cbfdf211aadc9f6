/* SPDX-License-Identifier: Apache-2.0 */
/* Revocation lists, and credentials that are replaced under a listener that serves. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "rpc/nng_error.h"
#include "tests/unit/rpc/echo.h"
#include "tests/unit/rpc/pki.h"

enum { PLENTY_MS = 60000, HOUR_S = 3600 };

struct fixture {
	struct pki *pki;
	struct credentials *server, *good, *bad;
	long good_serial, bad_serial, server_serial;
	struct echo echo;
};

static int set_up(void **state)
{
	static struct fixture fixture;
	assert_ok(rpc_start());
	fixture.pki = pki_new();
	fixture.server = pki_credentials(fixture.pki, "server", "DNS:localhost,IP:127.0.0.1");
	fixture.server_serial = pki_serial(fixture.pki);
	fixture.good = pki_credentials(fixture.pki, "good", "DNS:good");
	fixture.good_serial = pki_serial(fixture.pki);
	fixture.bad = pki_credentials(fixture.pki, "bad", "DNS:bad");
	fixture.bad_serial = pki_serial(fixture.pki);
	echo_start(&fixture.echo);
	echo_listen(&fixture.echo, "tls", fixture.server, 4);
	*state = &fixture;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *fixture = *state;
	echo_stop(&fixture->echo);
	credentials_free(fixture->server);
	credentials_free(fixture->good);
	credentials_free(fixture->bad);
	pki_free(fixture->pki);
	return 0;
}

static status *call_with(const struct fixture *fixture, const struct credentials *credentials)
{
	scoped(rpc_client) struct rpc_client *client = NULL;
	assert_ok(rpc_client_new(fixture->echo.url, credentials, &client));
	return echo_hello(client, "", PLENTY_MS, NULL);
}

static void replace(const struct fixture *fixture, struct credentials *old, const char *stem,
		    const char *crl)
{
	struct credentials *new = NULL;
	assert_ok(pki_load(fixture->pki, stem, crl, &new));
	credentials_replace(old, new);
}

static void assert_refused(status *st, const char *word)
{
	if (strstr(status_message(st), word) == NULL)
		fail_msg("%s: %s (wanted: %s)", status_code_name(status_code_of(st)),
			 status_message(st), word);
	assert_reason(st, STATUS_UNAUTHENTICATED, "CERTIFICATE_REFUSED");
}

static void a_revoked_client_is_refused_and_told(void **state)
{
	struct fixture *fixture = *state;
	pki_revoke(fixture->pki, "crl.pem", fixture->bad_serial, -10, HOUR_S);
	replace(fixture, fixture->server, "server", "crl.pem");
	assert_refused(call_with(fixture, fixture->bad), "revoked");
	assert_true(is_at_least(&fixture->echo.refused, 1, 20000));
	assert_true(echo_was_refused_for(&fixture->echo, "", "revoked"));
	assert_ok(call_with(fixture, fixture->good));
	assert_int_equal(atomic_load(&fixture->echo.runs), 1);
}

static void a_revoked_server_is_refused(void **state)
{
	struct fixture *fixture = *state;
	pki_revoke(fixture->pki, "crl.pem", fixture->server_serial, -10, HOUR_S);
	replace(fixture, fixture->good, "good", "crl.pem");
	assert_refused(call_with(fixture, fixture->good), "revoked");
	assert_ok(call_with(fixture, fixture->bad));
}

static void a_list_that_ends_lets_nobody_in(void **state)
{
	struct fixture *fixture = *state;
	struct credentials_info info;
	pki_revoke(fixture->pki, "crl.pem", 0, -10, 3);
	replace(fixture, fixture->server, "server", "crl.pem");
	assert_ok(call_with(fixture, fixture->good));
	credentials_describe(fixture->server, &info);
	assert_true(info.crl_expire_unix_ms > (int64_t)time(NULL) * 1000);
	while ((int64_t)time(NULL) * 1000 <= info.crl_expire_unix_ms)
		(void)nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	status_free(call_with(fixture, fixture->good));
	assert_true(is_at_least(&fixture->echo.refused, 1, 20000));
	assert_true(echo_was_refused_for(&fixture->echo, "", "CRL has expired"));
	pki_revoke(fixture->pki, "crl.pem", 0, -10, HOUR_S);
	replace(fixture, fixture->server, "server", "crl.pem");
	assert_ok(call_with(fixture, fixture->good));
}

static void bad_lists_are_refused_with_what_is_wrong(void **state)
{
	struct fixture *fixture = *state;
	struct credentials *none = NULL;
	struct pki *other = pki_new();
	char theirs[128];
	char command[300];
	pki_revoke(fixture->pki, "ended.pem", 0, -100, -10);
	pki_revoke(fixture->pki, "early.pem", 0, 100, 200);
	pki_revoke(other, "theirs.pem", 0, -10, HOUR_S);
	(void)snprintf(theirs, sizeof(theirs), "%s", pki_path(other, "theirs.pem"));
	(void)snprintf(command, sizeof(command), "cp %s %s", theirs,
		       pki_path(fixture->pki, "theirs.pem"));
	assert_int_equal(system(command), 0);
	static const struct {
		const char *file;
		enum status_code code;
		const char *word;
	} cases[] = {
	    {"missing.pem", STATUS_NOT_FOUND, "missing.pem"},
	    {"ca.pem", STATUS_INVALID_ARGUMENT, "not a PEM file of revocation lists"},
	    {"ended.pem", STATUS_FAILED_PRECONDITION, "has ended"},
	    {"early.pem", STATUS_FAILED_PRECONDITION, "not valid yet"},
	    {"theirs.pem", STATUS_INVALID_ARGUMENT, "has no revocation list that the authority"},
	};
	for (size_t i = 0; i < array_len(cases); i++) {
		status *st = pki_load(fixture->pki, "good", cases[i].file, &none);
		assert_non_null(st);
		if (strstr(status_message(st), cases[i].word) == NULL)
			fail_msg("%s: %s", cases[i].file, status_message(st));
		assert_int_equal(strcmp(cases[i].file, "ended.pem") == 0,
				 status_detail_find(st, "reason") != NULL &&
				     strcmp(status_detail_find(st, "reason"), "CRL_EXPIRED") == 0);
		assert_code(st, cases[i].code);
		assert_null(none);
	}
	pki_free(other);
}

/* A call that is being carried out until it is released. */
struct open_call {
	struct rpc_client *client;
	pthread_t thread;
	status *result;
};

static void *run_call(void *self)
{
	struct open_call *call = self;
	call->result = echo_hello(call->client, "block", PLENTY_MS, NULL);
	return NULL;
}

static void begin_call(struct fixture *fixture, const struct credentials *credentials,
		       struct open_call *call)
{
	int before = atomic_load(&fixture->echo.runs);
	assert_ok(rpc_client_new(fixture->echo.url, credentials, &call->client));
	assert_int_equal(pthread_create(&call->thread, NULL, run_call, call), 0);
	assert_true(is_at_least(&fixture->echo.runs, before + 1, 20000));
}

static status *end_call(struct open_call *call)
{
	(void)pthread_join(call->thread, NULL);
	rpc_client_free(call->client);
	return call->result;
}

/* A request is never sent twice, so a call that ends well after it all had its connection
 * throughout. */
static void a_replacement_ends_the_connections_of_the_revoked_and_no_others(void **state)
{
	struct fixture *fixture = *state;
	struct open_call good, bad;
	begin_call(fixture, fixture->good, &good);
	begin_call(fixture, fixture->bad, &bad);
	pki_revoke(fixture->pki, "crl.pem", fixture->bad_serial, -10, HOUR_S);
	replace(fixture, fixture->server, "server", "crl.pem");
	status *st = end_call(&bad);
	assert_true(rpc_client_may_have_run(st));
	assert_code(st, STATUS_UNAVAILABLE);
	assert_true(is_at_least(&fixture->echo.refused, 1, 20000));
	assert_true(echo_was_refused_for(&fixture->echo, "", "no longer accepted"));
	atomic_store(&fixture->echo.is_released, true);
	assert_ok(end_call(&good));
}

/* The common name of the certificate that a new connection is shown. */
static void shown_name(const char *url, char name[64])
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address.sin_port = htons((uint16_t)strtoul(strrchr(url, ':') + 1, NULL, 10));
	scoped(fd) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);
	(void)SSL_set_fd(ssl, fd);
	/* In TLS 1.3 a client is through before its own certificate is missed. */
	assert_int_equal(SSL_connect(ssl), 1);
	(void)X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(ssl)),
					NID_commonName, name, 64);
	SSL_free(ssl);
	SSL_CTX_free(ctx);
}

static void a_new_certificate_is_shown_to_new_connections_while_calls_run_on(void **state)
{
	struct fixture *fixture = *state;
	struct open_call call;
	struct credentials_info info;
	char name[64] = "";
	const struct pki_request request = {.cn = "second",
					    .sans = "DNS:second,IP:127.0.0.1",
					    .valid_from = -60,
					    .valid_to = 2 * HOUR_S};
	begin_call(fixture, fixture->good, &call);
	shown_name(fixture->echo.url, name);
	assert_string_equal(name, "server");
	pki_issue(fixture->pki, "second", &request);
	replace(fixture, fixture->server, "second", NULL);
	credentials_describe(fixture->server, &info);
	assert_string_equal(info.identity, "second");
	assert_true(info.expire_unix_ms / 1000 - (int64_t)time(NULL) > HOUR_S);
	shown_name(fixture->echo.url, name);
	assert_string_equal(name, "second");
	assert_ok(call_with(fixture, fixture->bad));
	atomic_store(&fixture->echo.is_released, true);
	assert_ok(end_call(&call));
}

static void a_caller_has_so_many_calls_open_and_no_more(void **state)
{
	struct fixture *fixture = *state;
	struct open_call first, second;
	atomic_store(&fixture->echo.calls_most, 2);
	begin_call(fixture, fixture->good, &first);
	begin_call(fixture, fixture->good, &second);
	status *st = call_with(fixture, fixture->good);
	assert_non_null(strstr(status_message(st), "'good' has 2 calls open already"));
	assert_string_equal(status_detail_find(st, "retry_after_ms"), "1000");
	assert_reason(st, STATUS_RESOURCE_EXHAUSTED, "TOO_MANY_CALLS");
	/* Others have their own. */
	assert_ok(call_with(fixture, fixture->bad));
	atomic_store(&fixture->echo.is_released, true);
	assert_ok(end_call(&first));
	assert_ok(end_call(&second));
	assert_ok(call_with(fixture, fixture->good));
}

static void who_observes_is_told_the_migration_and_where_the_caller_is(void **state)
{
	struct fixture *fixture = *state;
	scoped(rpc_client) struct rpc_client *client = NULL;
	assert_ok(rpc_client_new(fixture->echo.url, fixture->good, &client));
	assert_ok(echo_hello(client, "m-4711", PLENTY_MS, NULL));
	assert_true(is_at_least(&fixture->echo.called, 1, 20000));
	assert_string_equal(fixture->echo.last_id, "m-4711");
	assert_memory_equal(fixture->echo.last_peer, "127.0.0.1:", strlen("127.0.0.1:"));
}

/* With handshakes all the time: what ThreadSanitizer and AddressSanitizer have to say. */
static void replacing_while_others_connect_is_safe(void **state)
{
	struct fixture *fixture = *state;
	for (int i = 0; i < 20; i++) {
		struct open_call call;
		atomic_store(&fixture->echo.is_released, true);
		begin_call(fixture, fixture->good, &call);
		replace(fixture, fixture->server, "server", NULL);
		replace(fixture, fixture->good, "good", NULL);
		assert_ok(end_call(&call));
		assert_ok(call_with(fixture, fixture->good));
	}
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_revoked_client_is_refused_and_told),
	    TEST(a_revoked_server_is_refused),
	    TEST(a_list_that_ends_lets_nobody_in),
	    TEST(bad_lists_are_refused_with_what_is_wrong),
	    TEST(a_replacement_ends_the_connections_of_the_revoked_and_no_others),
	    TEST(a_new_certificate_is_shown_to_new_connections_while_calls_run_on),
	    TEST(a_caller_has_so_many_calls_open_and_no_more),
	    TEST(who_observes_is_told_the_migration_and_where_the_caller_is),
	    TEST(replacing_while_others_connect_is_safe),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
