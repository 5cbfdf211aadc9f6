/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/certificates.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "tests/unit/test.h"

static char directory[64];

static int set_up(void **state)
{
	struct pki_files files;
	(void)state;

	(void)snprintf(directory, sizeof(directory), "/tmp/haul-pki-XXXXXX");
	if (mkdtemp(directory) == NULL)
		return -1;
	status *st = pki_init(directory, &files);
	int failed = st != NULL;
	status_free(st);
	return -failed;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	return system(command);
}

static X509 *load(const char *path)
{
	BIO *file = BIO_new_file(path, "r");

	assert_non_null(file);
	X509 *certificate = PEM_read_bio_X509(file, NULL, NULL, NULL);
	BIO_free_all(file);
	assert_non_null(certificate);
	return certificate;
}

static X509 *load_ca(void)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/ca.pem", directory);
	return load(path);
}

/* Would a verifier whose clock is at `now` accept the leaf for this purpose and host? */
static int verify_at(X509 *ca, X509 *leaf, int purpose, const char *host, time_t now)
{
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();

	assert_int_equal(X509_STORE_add_cert(store, ca), 1);
	assert_int_equal(X509_STORE_CTX_init(context, store, leaf, NULL), 1);
	X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(context);
	(void)X509_VERIFY_PARAM_set_purpose(param, purpose);
	(void)X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_X509_STRICT);
	X509_VERIFY_PARAM_set_time(param, now);
	if (host != NULL)
		(void)X509_VERIFY_PARAM_set1_host(param, host, 0);
	int result = X509_verify_cert(context);
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	return result;
}

static int verify(X509 *ca, X509 *leaf, int purpose, const char *host)
{
	return verify_at(ca, leaf, purpose, host, time(NULL));
}

static status *issue(const char *name, const char *san, uint32_t days, struct pki_files *files)
{
	const struct pki_request request = {.directory = directory,
					    .name = name,
					    .sans = &san,
					    .san_count = san != NULL,
					    .days = days};

	return pki_issue(&request, files);
}

static void a_leaf_verifies_as_server_and_client_for_its_name(void **state)
{
	struct pki_files files;
	(void)state;

	assert_ok(issue("node-a", NULL, PKI_LEAF_DAYS, &files));
	X509 *ca = load_ca(), *leaf = load(files.certificate);
	EVP_PKEY *ca_key = X509_get_pubkey(ca);
	assert_int_equal(X509_verify(leaf, ca_key), 1);
	assert_int_equal(verify(ca, leaf, X509_PURPOSE_SSL_SERVER, "node-a"), 1);
	assert_int_equal(verify(ca, leaf, X509_PURPOSE_SSL_CLIENT, NULL), 1);
	assert_int_equal(verify(ca, leaf, X509_PURPOSE_SSL_SERVER, "node-b"), 0);
	assert_int_equal(X509_check_ca(leaf), 0);
	assert_int_equal(X509_check_ca(ca), 1);
	EVP_PKEY_free(ca_key);
	X509_free(leaf);
	X509_free(ca);
}

static void a_fresh_certificate_is_valid_where_the_clock_is_hours_behind(void **state)
{
	enum { HOUR_S = 3600 };
	struct pki_files files;
	time_t now = time(NULL);
	(void)state;

	assert_ok(issue("early", NULL, 1, &files));
	X509 *ca = load_ca(), *leaf = load(files.certificate);
	assert_int_equal(verify_at(ca, leaf, X509_PURPOSE_SSL_SERVER, NULL, now - HOUR_S), 1);
	assert_int_equal(verify_at(ca, leaf, X509_PURPOSE_SSL_SERVER, NULL, now - 23 * HOUR_S), 1);
	assert_int_equal(verify_at(ca, leaf, X509_PURPOSE_SSL_SERVER, NULL, now - 25 * HOUR_S), 0);
	assert_int_equal(verify_at(ca, leaf, X509_PURPOSE_SSL_SERVER, NULL, now + 23 * HOUR_S), 1);
	assert_int_equal(verify_at(ca, leaf, X509_PURPOSE_SSL_SERVER, NULL, now + 25 * HOUR_S), 0);
	X509_free(leaf);
	X509_free(ca);
}

static void key_files_are_private_and_fit_their_certificate(void **state)
{
	struct pki_files files;
	struct stat info;
	(void)state;

	assert_ok(issue("private", NULL, 1, &files));
	assert_int_equal(stat(files.key, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	BIO *file = BIO_new_file(files.key, "r");
	assert_non_null(file);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(file, NULL, NULL, NULL);
	X509 *leaf = load(files.certificate);
	assert_int_equal(X509_check_private_key(leaf, key), 1);
	X509_free(leaf);
	EVP_PKEY_free(key);
	BIO_free_all(file);
}

static void addresses_and_uris_become_names(void **state)
{
	struct pki_files by_address, by_uri, by_default;
	(void)state;

	assert_ok(issue("addressed", "IP:10.1.2.3", 1, &by_address));
	X509 *leaf = load(by_address.certificate);
	assert_int_equal(X509_check_ip_asc(leaf, "10.1.2.3", 0), 1);
	assert_int_equal(X509_check_ip_asc(leaf, "10.1.2.4", 0), 0);
	X509_free(leaf);
	assert_ok(issue("uri", "URI:haul://node/a", 1, &by_uri));
	assert_ok(issue("10.9.8.7", NULL, 1, &by_default));
	leaf = load(by_default.certificate);
	assert_int_equal(X509_check_ip_asc(leaf, "10.9.8.7", 0), 1);
	X509_free(leaf);
}

static void bad_names_and_sans_are_refused_without_a_trace(void **state)
{
	static const char *const names[] = {"", "ca", "../x", ".x", "-x", "a b", "a/b"};
	static const char *const sans[] = {"x",	      "DNS:",  "IP:1.2.3", "IP:x",     "URI:x",
					   "DNS:a,b", "dns:x", "DNS:a b",  "EMAIL:a@b"};
	struct pki_files files;
	char path[128];
	(void)state;

	for (size_t i = 0; i < array_len(names); i++)
		assert_code(issue(names[i], NULL, 1, &files), STATUS_INVALID_ARGUMENT);
	for (size_t i = 0; i < array_len(sans); i++)
		assert_code(issue("bad", sans[i], 1, &files), STATUS_INVALID_ARGUMENT);
	assert_code(issue("bad", NULL, 0, &files), STATUS_INVALID_ARGUMENT);
	assert_code(issue("bad", NULL, PKI_CA_DAYS + 1, &files), STATUS_INVALID_ARGUMENT);
	(void)snprintf(path, sizeof(path), "%s/bad.key", directory);
	assert_int_equal(access(path, F_OK), -1);
}

static void nothing_is_ever_replaced(void **state)
{
	struct pki_files files;
	(void)state;

	assert_code(pki_init(directory, &files), STATUS_ALREADY_EXISTS);
	assert_ok(issue("twice", NULL, 1, &files));
	assert_code(issue("twice", NULL, 1, &files), STATUS_ALREADY_EXISTS);
	assert_int_equal(unlink(files.key), 0);
	assert_code(issue("twice", NULL, 1, &files), STATUS_ALREADY_EXISTS);
}

static void without_an_authority_nothing_is_issued(void **state)
{
	struct pki_files files;
	const struct pki_request request = {.directory = "/nowhere/at/all", .name = "x", .days = 1};
	(void)state;

	assert_code(pki_issue(&request, &files), STATUS_NOT_FOUND);
	assert_code(pki_init("/nowhere/at/all", &files), STATUS_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_leaf_verifies_as_server_and_client_for_its_name),
	    cmocka_unit_test(a_fresh_certificate_is_valid_where_the_clock_is_hours_behind),
	    cmocka_unit_test(key_files_are_private_and_fit_their_certificate),
	    cmocka_unit_test(addresses_and_uris_become_names),
	    cmocka_unit_test(bad_names_and_sans_are_refused_without_a_trace),
	    cmocka_unit_test(nothing_is_ever_replaced),
	    cmocka_unit_test(without_an_authority_nothing_is_issued),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
