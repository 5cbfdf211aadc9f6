/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/clock.h"
#include "tests/unit/test.h"

#include "rpc/nng_error.h"
#include "rpc/service.h"

/* With a deadline that is so far away. */
static int64_t budget(int64_t left_ms_of_caller, int64_t most_ms)
{
	const struct rpc_call call = {.deadline_ms = clock_monotonic_ms() + left_ms_of_caller};

	return rpc_call_budget_ms(&call, most_ms);
}

static void what_is_passed_on_is_less_than_what_is_left(void **state)
{
	const struct rpc_call endless = {.deadline_ms = 0};
	(void)state;

	assert_int_equal(rpc_call_budget_ms(&endless, 700), 700);
	/* A twentieth is kept for the way back, at least 20 ms and at most half a second. */
	assert_true(budget(100000, 100000) <= 99500);
	assert_true(budget(100000, 100000) > 90000);
	assert_true(budget(1000, 100000) <= 950);
	assert_true(budget(100, 100000) <= 80);
	assert_int_equal(budget(100000, 300), 300);
}

static void nothing_is_passed_on_when_nothing_is_left(void **state)
{
	(void)state;
	assert_int_equal(budget(10, 1000), 0);
	assert_int_equal(budget(-50, 1000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_passed_on_is_less_than_what_is_left),
	    cmocka_unit_test(nothing_is_passed_on_when_nothing_is_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
