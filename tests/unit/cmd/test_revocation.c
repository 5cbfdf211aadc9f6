/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/revocation.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/unit/test.h"

static char directory[64];

static void issue(const char *where, const char *name)
{
	struct pki_files files;
	const struct pki_request request = {.directory = where,
					    .name = name,
					    .days = PKI_LEAF_DAYS};

	assert_ok(pki_issue(&request, &files));
}

static int set_up(void **state)
{
	struct pki_files files;
	(void)state;

	(void)snprintf(directory, sizeof(directory), "/tmp/haul-pki-XXXXXX");
	assert_non_null(mkdtemp(directory));
	assert_ok(pki_init(directory, &files));
	issue(directory, "a");
	issue(directory, "b");
	return 0;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	return system(command);
}

static status *revoke_one(const char *name, struct pki_revoked *ret_revoked)
{
	const struct pki_revocation request = {.directory = directory,
					       .name = name,
					       .days = PKI_CRL_DAYS};

	return pki_revoke(&request, ret_revoked);
}

static FILE *open_file(const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	return file;
}

static X509 *load(const char *name)
{
	FILE *file = open_file(name);
	X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);

	(void)fclose(file);
	assert_non_null(certificate);
	return certificate;
}

/* What a verifier says who has ca.pem and crl.pem and looks up all of the chain. */
static int verify(const char *name)
{
	X509 *ca = load("ca.pem");
	X509 *leaf = load(name);
	FILE *file = open_file("crl.pem");
	X509_CRL *crl = PEM_read_X509_CRL(file, NULL, NULL, NULL);
	X509_STORE *store = X509_STORE_new();
	X509_STORE_CTX *context = X509_STORE_CTX_new();

	(void)fclose(file);
	assert_non_null(crl);
	assert_int_equal(X509_STORE_add_cert(store, ca), 1);
	assert_int_equal(X509_STORE_add_crl(store, crl), 1);
	(void)X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL |
					      X509_V_FLAG_X509_STRICT);
	assert_int_equal(X509_STORE_CTX_init(context, store, leaf, NULL), 1);
	(void)X509_verify_cert(context);
	int error = X509_STORE_CTX_get_error(context);
	X509_STORE_CTX_free(context);
	X509_STORE_free(store);
	X509_CRL_free(crl);
	X509_free(leaf);
	X509_free(ca);
	return error;
}

static void who_is_revoked_stays_on_the_list(void **state)
{
	struct pki_revoked revoked;
	(void)state;

	assert_ok(revoke_one(NULL, &revoked));
	assert_int_equal(revoked.count, 0);
	assert_string_equal(revoked.serial, "");
	assert_int_equal(verify("a.pem"), X509_V_OK);
	assert_ok(revoke_one("b", &revoked));
	assert_int_equal(verify("a.pem"), X509_V_OK);
	assert_int_equal(verify("b.pem"), X509_V_ERR_CERT_REVOKED);
	assert_ok(revoke_one("a", &revoked));
	assert_int_equal(revoked.count, 2);
	assert_int_equal(verify("a.pem"), X509_V_ERR_CERT_REVOKED);
	assert_int_equal(verify("b.pem"), X509_V_ERR_CERT_REVOKED);
	assert_ok(revoke_one(NULL, &revoked));
	assert_int_equal(revoked.count, 2);
	assert_int_equal(verify("b.pem"), X509_V_ERR_CERT_REVOKED);
	assert_code(revoke_one("b", &revoked), STATUS_ALREADY_EXISTS);
}

static void a_lost_certificate_is_revoked_by_its_number(void **state)
{
	struct pki_revoked revoked;
	scoped(pki_list) struct pki_list before = {0};
	char name[PKI_SERIAL + 8], path[128];
	(void)state;

	assert_ok(pki_list(directory, &before));
	assert_int_equal(before.count, 2);
	(void)snprintf(name, sizeof(name), "serial:%s", before.entries[1].serial);
	(void)snprintf(path, sizeof(path), "%s/b.pem", directory);
	assert_ok(revoke_one(name, &revoked));
	assert_string_equal(revoked.serial, before.entries[1].serial);
	assert_int_equal(verify("b.pem"), X509_V_ERR_CERT_REVOKED);
	assert_int_equal(unlink(path), 0);
	status *st = revoke_one("b", &revoked);
	assert_non_null(strstr(status_detail_find(st, "next"), "serial:HEX"));
	assert_code(st, STATUS_NOT_FOUND);
	assert_code(revoke_one("serial:xyz", &revoked), STATUS_INVALID_ARGUMENT);
	assert_code(revoke_one("serial:", &revoked), STATUS_INVALID_ARGUMENT);
	assert_code(revoke_one("../b", &revoked), STATUS_INVALID_ARGUMENT);
	assert_code(revoke_one("ca", &revoked), STATUS_INVALID_ARGUMENT);
}

static void the_list_of_certificates_tells_their_state(void **state)
{
	struct pki_revoked revoked;
	scoped(pki_list) struct pki_list certificates = {0};
	int64_t year_ms = (int64_t)PKI_LEAF_DAYS * 24 * 3600 * 1000;
	(void)state;

	assert_ok(revoke_one("b", &revoked));
	assert_ok(revoke_one("serial:0123ABCD", &revoked));
	assert_ok(pki_list(directory, &certificates));
	assert_int_equal(certificates.count, 3);
	assert_string_equal(certificates.entries[0].name, "a");
	assert_false(certificates.entries[0].is_revoked);
	int64_t left_ms = certificates.entries[0].expire_unix_ms - (int64_t)time(NULL) * 1000;
	assert_true(left_ms > year_ms - 100000 && left_ms <= year_ms);
	assert_string_equal(certificates.entries[1].name, "b");
	assert_true(certificates.entries[1].is_revoked);
	assert_string_equal(certificates.entries[2].name, "");
	assert_string_equal(certificates.entries[2].serial, "0123ABCD");
	assert_true(certificates.entries[2].is_revoked);
}

static void write_crl(const char *text)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/crl.pem", directory);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

/* It is all that remembers what was revoked. */
static void a_list_that_is_not_ours_is_never_written_over(void **state)
{
	struct pki_revoked revoked;
	struct pki_files files;
	char other[128], command[512];
	(void)state;

	write_crl("not a list\n");
	assert_code(revoke_one("b", &revoked), STATUS_FAILED_PRECONDITION);
	(void)snprintf(other, sizeof(other), "%s/other", directory);
	assert_ok(pki_init(other, &files));
	const struct pki_revocation theirs = {.directory = other, .days = 1};
	assert_ok(pki_revoke(&theirs, &revoked));
	(void)snprintf(command, sizeof(command), "cp %s/crl.pem %s/", other, directory);
	assert_int_equal(system(command), 0);
	assert_code(revoke_one("b", &revoked), STATUS_FAILED_PRECONDITION);
	struct pki_list none = {0};
	assert_code(pki_list(directory, &none), STATUS_FAILED_PRECONDITION);
}

static void a_certificate_of_another_authority_is_not_revoked(void **state)
{
	struct pki_revoked revoked;
	struct pki_files files;
	char other[128], command[512];
	(void)state;

	(void)snprintf(other, sizeof(other), "%s/other", directory);
	assert_ok(pki_init(other, &files));
	issue(other, "c");
	(void)snprintf(command, sizeof(command), "cp %s/c.pem %s/", other, directory);
	assert_int_equal(system(command), 0);
	assert_code(revoke_one("c", &revoked), STATUS_FAILED_PRECONDITION);
}

static void two_writers_do_not_forget_each_others_entries(void **state)
{
	struct pki_revoked revoked;
	char path[128];
	(void)state;

	(void)snprintf(path, sizeof(path), "%s/crl.pem.new", directory);
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	(void)fclose(file);
	assert_code(revoke_one("b", &revoked), STATUS_ALREADY_EXISTS);
	assert_int_equal(unlink(path), 0);
	assert_ok(revoke_one("b", &revoked));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(who_is_revoked_stays_on_the_list),
	    TEST(a_lost_certificate_is_revoked_by_its_number),
	    TEST(the_list_of_certificates_tells_their_state),
	    TEST(a_list_that_is_not_ours_is_never_written_over),
	    TEST(a_certificate_of_another_authority_is_not_revoked),
	    TEST(two_writers_do_not_forget_each_others_entries),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
