/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/unit/rpc/pki.h"

static void addresses_are_taken_apart(void **state)
{
	static const struct {
		const char *url;
		enum transport transport;
		const char *host;
		uint16_t port;
	} cases[] = {
	    {"tls+tcp://node-b.example.org:7800", TRANSPORT_TLS, "node-b.example.org", 7800},
	    {"tcp://10.0.0.1:1", TRANSPORT_TCP, "10.0.0.1", 1},
	    {"tls+tcp://[fe80::1]:65535", TRANSPORT_TLS, "fe80::1", 65535},
	    {"ipc:///run/haul/hauld.sock", TRANSPORT_IPC, "/run/haul/hauld.sock", 0},
	};
	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		struct endpoint endpoint;
		assert_ok(endpoint_parse(cases[i].url, &endpoint));
		assert_int_equal(endpoint.transport, cases[i].transport);
		assert_string_equal(endpoint.host, cases[i].host);
		assert_string_equal(endpoint.url, cases[i].url);
		assert_int_equal(endpoint.port, cases[i].port);
	}
}

static void what_is_no_address_is_refused(void **state)
{
	static const char *const urls[] = {
	    "",
	    "node-b",
	    "node-b:7800",
	    "http://a:1",
	    "tcp://",
	    "tcp://a",
	    "tcp://:1",
	    "tcp://a:",
	    "tcp://a:x",
	    "tcp://a:65536",
	    "tcp://a:-1",
	    "tcp://a:1/x",
	    "tcp://::1:1",
	    "tcp://[::1]",
	    "tcp://a b:1",
	    "ipc://relative",
	    "ipc:///tmp/x/0123456789012345678901234567890123456789012345678901234567"
	    "8901234567890123456789012345678901234567890",
	};
	char longer[LIMIT_URL + 32];
	struct endpoint endpoint;
	(void)state;
	for (size_t i = 0; i < array_len(urls); i++) {
		status *st = endpoint_parse(urls[i], &endpoint);
		if (st == NULL)
			fail_msg("accepted: %s", urls[i]);
		assert_code(st, STATUS_INVALID_ARGUMENT);
	}
	(void)snprintf(longer, sizeof(longer), "tcp://%0*d:1", LIMIT_URL, 0);
	assert_code(endpoint_parse(longer, &endpoint), STATUS_INVALID_ARGUMENT);
	assert_code(endpoint_parse(NULL, &endpoint), STATUS_INVALID_ARGUMENT);
}

static void starting_twice_is_starting_once(void **state)
{
	(void)state;
	assert_ok(rpc_start());
	assert_ok(rpc_start());
	assert_int_equal(strncmp(rpc_nng_version(), "1.1", 3), 0);
	assert_int_equal(strncmp(rpc_openssl_version(), "3.", 2), 0);
}

static void good_credentials_say_who_we_are(void **state)
{
	(void)state;
	struct pki *pki = pki_new();
	scoped(credentials) struct credentials *by_uri =
	    pki_credentials(pki, "a", "IP:10.0.0.1,DNS:a.example.org,URI:haul://a");
	scoped(credentials) struct credentials *by_cn = pki_credentials(pki, "b", NULL);
	scoped(credentials) struct credentials *by_ip = pki_credentials(pki, "c", "IP:10.0.0.1");
	struct credentials_info info;
	credentials_describe(by_cn, &info);
	assert_string_equal(info.identity, "b");
	credentials_describe(by_ip, &info);
	assert_string_equal(info.identity, "10.0.0.1");
	credentials_describe(by_uri, &info);
	assert_string_equal(info.identity, "a.example.org");
	assert_true(info.crl_expire_unix_ms == 0);
	int64_t left_s = info.expire_unix_ms / 1000 - (int64_t)time(NULL);
	assert_true(left_s > 3000 && left_s <= 3600);
	pki_free(pki);
}

static void bad_credentials_are_refused_with_the_file_at_fault(void **state)
{
	(void)state;
	struct pki *pki = pki_new();
	struct credentials *none = NULL;
	const struct pki_request expired = {.cn = "x", .valid_from = -100, .valid_to = -10};
	const struct pki_request early = {.cn = "x", .valid_from = 1000, .valid_to = 2000};
	const struct pki_request good = {.cn = "x", .valid_from = -100, .valid_to = 2000};
	const struct pki_request nameless = {.valid_from = -100, .valid_to = 2000};
	pki_issue(pki, "expired", &expired);
	pki_issue(pki, "early", &early);
	pki_issue(pki, "good", &good);
	pki_issue(pki, "nameless", &nameless);
	static const struct {
		const char *ca;
		const char *certificate;
		const char *key;
		enum status_code code;
		const char *at_fault;
	} cases[] = {
	    {"missing", "good.pem", "good.key", STATUS_INVALID_ARGUMENT, "missing"},
	    {"ca.pem", "missing", "good.key", STATUS_INVALID_ARGUMENT, "missing"},
	    {"ca.pem", "good.pem", "missing", STATUS_INVALID_ARGUMENT, "missing"},
	    {"ca.pem", "good.key", "good.key", STATUS_INVALID_ARGUMENT, "good.key"},
	    {"ca.pem", "good.pem", "early.key", STATUS_INVALID_ARGUMENT, "early.key"},
	    {"ca.pem", "expired.pem", "expired.key", STATUS_FAILED_PRECONDITION, "expired.pem"},
	    {"ca.pem", "early.pem", "early.key", STATUS_FAILED_PRECONDITION, "early.pem"},
	    {"ca.pem", "nameless.pem", "nameless.key", STATUS_INVALID_ARGUMENT, "nameless.pem"},
	};
	for (size_t i = 0; i < array_len(cases); i++) {
		const struct credentials_files files = {.ca = pki_path(pki, cases[i].ca),
							.cert = pki_path(pki, cases[i].certificate),
							.key = pki_path(pki, cases[i].key)};
		status *st = credentials_load(&files, &none);
		assert_non_null(st);
		assert_non_null(strstr(status_message(st), cases[i].at_fault));
		if (strcmp(cases[i].at_fault, "expired.pem") == 0)
			assert_string_equal(status_detail_find(st, "reason"),
					    "CERTIFICATE_EXPIRED");
		assert_code(st, cases[i].code);
		assert_null(none);
	}
	pki_free(pki);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(addresses_are_taken_apart),
	    cmocka_unit_test(what_is_no_address_is_refused),
	    cmocka_unit_test(starting_twice_is_starting_once),
	    cmocka_unit_test(good_credentials_say_who_we_are),
	    cmocka_unit_test(bad_credentials_are_refused_with_the_file_at_fault),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
