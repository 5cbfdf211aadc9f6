/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/hauld/security.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cmd/haulctl/revocation.h"
#include "tests/unit/test.h"

static char directory[64];
static char paths[5][128];
static struct config config;

static void issue(const char *name, uint32_t days)
{
	struct pki_files files;
	const struct pki_request request = {.directory = directory, .name = name, .days = days};

	assert_ok(pki_issue(&request, &files));
}

static void write_policy(const char *text)
{
	FILE *file = fopen(config.policy, "we");

	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
}

static void copy(const char *from, const char *to)
{
	char command[300];

	(void)snprintf(command, sizeof(command), "cp '%s/%s' '%s'", directory, from, to);
	assert_int_equal(system(command), 0);
}

/* The files that hauld reads are copies, to be replaced. */
static int set_up(void **state)
{
	static const char *const names[] = {"now.ca", "now.cert", "now.key", "now.crl", "policy"};
	const struct pki_revocation nothing = {.directory = directory, .days = 1};
	struct pki_revoked revoked;
	struct pki_files files;
	(void)state;

	(void)snprintf(directory, sizeof(directory), "/tmp/haul-security-XXXXXX");
	assert_non_null(mkdtemp(directory));
	assert_ok(pki_init(directory, &files));
	issue("a", 20);
	assert_ok(pki_revoke(&nothing, &revoked));
	for (size_t i = 0; i < array_len(names); i++)
		(void)snprintf(paths[i], sizeof(paths[i]), "%s/%s", directory, names[i]);
	config = (struct config){
	    .ca = paths[0], .cert = paths[1], .key = paths[2], .crl = paths[3], .policy = paths[4]};
	copy("ca.pem", config.ca);
	copy("a.pem", config.cert);
	copy("a.key", config.key);
	copy("crl.pem", config.crl);
	write_policy("{\"rules\": []}");
	return 0;
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	return system(command);
}

static bool may_commit(const struct security *security)
{
	const struct identity node = {.is_authenticated = true, .name = "b"};
	scoped(status) status *st = policy_check(security->policy, &node, "/haul.v1.Peer/Commit");

	return st == NULL;
}

static int64_t days_left(const struct security *security)
{
	struct credentials_info info;

	credentials_describe(security->credentials, &info);
	/* The nearest number: an hour more or less is no matter. */
	return (info.expire_unix_ms / 1000 - (int64_t)time(NULL) + 12 * 60 * 60) / (24 * 60 * 60);
}

/* The name stays: the files of a, with other days. */
static void renew(uint32_t days)
{
	char command[300];

	(void)snprintf(command, sizeof(command), "rm '%s/a.pem' '%s/a.key'", directory, directory);
	assert_int_equal(system(command), 0);
	issue("a", days);
	copy("a.pem", config.cert);
	copy("a.key", config.key);
}

static void a_reload_puts_new_files_in_force(void **state)
{
	scoped(security) struct security security = {0};
	(void)state;

	assert_ok(security_load(&config, &security));
	assert_false(may_commit(&security));
	assert_int_equal(days_left(&security), 20);
	renew(200);
	write_policy("{\"rules\": [{\"identities\": [\"b\"], \"roles\": [\"partner\"]}]}");
	assert_false(may_commit(&security));
	assert_ok(security_reload(&security));
	assert_true(may_commit(&security));
	assert_int_equal(days_left(&security), 200);
}

static void assert_nothing_changes(struct security *security, const char *file)
{
	status *st = security_reload(security);

	assert_non_null(st);
	if (strstr(status_message(st), file) == NULL)
		fail_msg("%s: %s", file, status_message(st));
	status_free(st);
	assert_true(may_commit(security));
	assert_int_equal(days_left(security), 20);
}

static void a_bad_new_file_leaves_all_that_was_in_force(void **state)
{
	scoped(security) struct security security = {0};
	(void)state;

	write_policy("{\"rules\": [{\"identities\": [\"b\"], \"roles\": [\"partner\"]}]}");
	assert_ok(security_load(&config, &security));
	renew(200);
	write_policy("{\"rules\": [{\"identities\": [\"b\"]}");
	assert_nothing_changes(&security, "policy");
	write_policy("{\"rules\": []}");
	copy("ca.key", config.key);
	assert_nothing_changes(&security, "now.key");
	copy("a.key", config.key);
	copy("policy", config.crl);
	assert_nothing_changes(&security, "now.crl");
	copy("crl.pem", config.crl);
	assert_int_equal(unlink(config.ca), 0);
	assert_nothing_changes(&security, "now.ca");
	copy("ca.pem", config.ca);
	assert_ok(security_reload(&security));
	assert_false(may_commit(&security));
	assert_int_equal(days_left(&security), 200);
}

static void a_certificate_of_another_name_is_refused(void **state)
{
	scoped(security) struct security security = {0};
	(void)state;

	write_policy("{\"rules\": [{\"identities\": [\"b\"], \"roles\": [\"partner\"]}]}");
	assert_ok(security_load(&config, &security));
	issue("c", 200);
	copy("c.pem", config.cert);
	copy("c.key", config.key);
	assert_nothing_changes(&security, "c's");
}

static void without_certificates_the_policy_is_reloaded(void **state)
{
	scoped(security) struct security security = {0};
	const struct config local = {.policy = config.policy};
	(void)state;

	assert_ok(security_load(&local, &security));
	assert_null(security.credentials);
	write_policy("{\"rules\": [{\"identities\": [\"b\"], \"roles\": [\"partner\"]}]}");
	assert_ok(security_reload(&security));
	assert_true(may_commit(&security));
}

static void what_ends_soon_is_noticed_from_the_first_day_on(void **state)
{
	enum { DAY_MS = 24 * 60 * 60 * 1000 };
	const int64_t end = 1900000000000;
	char text[NOTICE_TEXT] = "";
	(void)state;

	assert_false(security_notice("the x", 0, end, 30, text));
	assert_false(security_notice("the x", end, end - 31 * (int64_t)DAY_MS, 30, text));
	assert_true(security_notice("the x", end, end - 30 * (int64_t)DAY_MS, 30, text));
	assert_non_null(strstr(text, "the x ends in 30 days, at 2030-03-17 17:46:40 UTC"));
	assert_true(security_notice("the x", end, end - 1000, 30, text));
	assert_non_null(strstr(text, "ends in 0 days"));
	assert_true(security_notice("the x", end, end, 30, text));
	assert_non_null(strstr(text, "ended at 2030-03-17"));
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(a_reload_puts_new_files_in_force),
	    TEST(a_bad_new_file_leaves_all_that_was_in_force),
	    TEST(a_certificate_of_another_name_is_refused),
	    TEST(without_certificates_the_policy_is_reloaded),
	    TEST(what_ends_soon_is_noticed_from_the_first_day_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
