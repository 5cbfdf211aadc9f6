/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "engine/pipe/pace.h"

static bool near(double a, double b)
{
	return a > b - 0.001 && a < b + 0.001;
}

static void the_rate_is_kept_and_idle_time_is_no_credit(void **state)
{
	struct pace pace = {0};
	double now = 1000;
	(void)state;

	for (unsigned i = 0; i < 100; i++) /* 100 x 1000 bytes at 10 000 a second take 10 s */
		now += pace_wait_ms(&pace, 1000, 10000, now);
	assert_true(near(now, 1000 + 10000));
	now += 60000;
	assert_true(near(pace_wait_ms(&pace, 1000, 10000, now), 100));
	/* What the sending itself took is part of the time. */
	assert_true(near(pace_wait_ms(&pace, 1000, 10000, now + 50), 150));
}

static void no_limit_never_waits_and_a_new_one_counts_at_once(void **state)
{
	struct pace pace = {0};
	(void)state;

	assert_true(near(pace_wait_ms(&pace, 1000000, 1, 0), 1e9));
	assert_true(near(pace_wait_ms(&pace, 1000000, 0, 0), 0));
	assert_true(near(pace_wait_ms(&pace, 500, 1000, 10), 500));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_rate_is_kept_and_idle_time_is_no_credit),
	    cmocka_unit_test(no_limit_never_waits_and_a_new_one_counts_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
