/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "rpc/host_failures.h"

static const struct peer_address unknown = {.text = "unknown"};
static const struct peer_address a = {.text = "a", .net = 1};
static const struct peer_address b = {.text = "b", .net = 2};

static void fail_often(struct host_failures *failures, const struct peer_address *from, int64_t now)
{
	for (int i = 0; i < LIMIT_HOST_FAILURES; i++)
		host_failures_add(failures, from, now);
}

static void a_host_that_fails_too_often_is_refused_and_no_other(void **state)
{
	struct host_failures failures = {0};
	(void)state;
	for (int i = 0; i < LIMIT_HOST_FAILURES; i++) {
		assert_false(host_failures_is_over(&failures, &a, 1000));
		host_failures_add(&failures, &a, 1000);
	}
	assert_true(host_failures_is_over(&failures, &a, 1000));
	assert_false(host_failures_is_over(&failures, &b, 1000));
}

static void one_more_is_let_in_every_so_often(void **state)
{
	struct host_failures failures = {0};
	unsigned tried = 0;
	(void)state;
	for (int64_t now = 1000; now < 1000 + 100 * LIMIT_HOST_FAILURE_MS; now++) {
		if (host_failures_is_over(&failures, &a, now))
			continue;
		host_failures_add(&failures, &a, now);
		tried++;
	}
	assert_in_range(tried, LIMIT_HOST_FAILURES + 98, LIMIT_HOST_FAILURES + 100);
}

static void all_is_forgiven_after_a_while(void **state)
{
	const int64_t later = 1000 + LIMIT_HOST_FAILURES * LIMIT_HOST_FAILURE_MS;
	struct host_failures failures = {0};
	(void)state;
	fail_often(&failures, &a, 1000);
	fail_often(&failures, &a, 1000); /* those that were on their way count no more than that */
	for (int i = 0; i < LIMIT_HOST_FAILURES; i++) {
		assert_false(host_failures_is_over(&failures, &a, later));
		host_failures_add(&failures, &a, later);
	}
	assert_true(host_failures_is_over(&failures, &a, later));
}

static void one_that_succeeds_makes_up_for_all(void **state)
{
	struct host_failures failures = {0};
	(void)state;
	fail_often(&failures, &a, 1000);
	host_failures_forgive(&failures, &b);
	assert_true(host_failures_is_over(&failures, &a, 1000));
	host_failures_forgive(&failures, &a);
	assert_false(host_failures_is_over(&failures, &a, 1000));
}

static void what_is_not_from_the_network_is_not_counted(void **state)
{
	struct host_failures failures = {0};
	(void)state;
	fail_often(&failures, &unknown, 1000);
	host_failures_forgive(&failures, &unknown);
	assert_false(host_failures_is_over(&failures, &unknown, 1000));
}

/* Whoever fails most is remembered, however many others fail once. */
static void many_hosts_do_not_hide_one(void **state)
{
	struct host_failures failures = {0};
	(void)state;
	fail_often(&failures, &a, 1000);
	for (uint64_t net = 100; net < 100 + 3 * LIMIT_FAILING_HOSTS; net++) {
		const struct peer_address other = {.text = "other", .net = net};
		host_failures_add(&failures, &other, 1000);
		assert_false(host_failures_is_over(&failures, &other, 1000));
	}
	assert_true(host_failures_is_over(&failures, &a, 1000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_host_that_fails_too_often_is_refused_and_no_other),
	    cmocka_unit_test(one_more_is_let_in_every_so_often),
	    cmocka_unit_test(all_is_forgiven_after_a_while),
	    cmocka_unit_test(one_that_succeeds_makes_up_for_all),
	    cmocka_unit_test(what_is_not_from_the_network_is_not_counted),
	    cmocka_unit_test(many_hosts_do_not_hide_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
