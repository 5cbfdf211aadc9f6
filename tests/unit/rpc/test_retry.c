/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "rpc/retry.h"

static void pauses_grow_to_a_limit_and_differ(void **state)
{
	static const int64_t middle[] = {100, 200, 400, 800, 1600, 2000, 2000};
	int64_t least = INT64_MAX, most = 0;
	(void)state;
	for (unsigned i = 0; i < array_len(middle); i++) {
		for (int n = 0; n < 200; n++) {
			int64_t pause_ms = retry_backoff_ms(i + 1);
			assert_true(pause_ms >= middle[i] * 8 / 10);
			assert_true(pause_ms <= middle[i] * 12 / 10);
			if (i == 0) {
				least = pause_ms < least ? pause_ms : least;
				most = pause_ms > most ? pause_ms : most;
			}
		}
	}
	assert_true(most - least > 10);
}

static void failures_in_a_row_use_the_budget_up_and_answers_fill_it(void **state)
{
	struct retry_budget budget;
	unsigned allowed = 0;
	(void)state;
	retry_budget_init(&budget);
	while (retry_budget_failed(&budget))
		allowed++;
	/* Nine, eight, seven and six of ten tokens are more than half. */
	assert_int_equal(allowed, 4);
	/* Two tenths are missing for more than half after one more failure. */
	for (int i = 0; i < 10; i++)
		retry_budget_succeeded(&budget);
	assert_false(retry_budget_failed(&budget));
	for (int i = 0; i < 11; i++)
		retry_budget_succeeded(&budget);
	assert_true(budget.tenths > RETRY_TOKENS * 10 / 2);
	for (int i = 0; i < 1000; i++)
		retry_budget_succeeded(&budget);
	assert_int_equal(budget.tenths, RETRY_TOKENS * 10);
	for (int i = 0; i < 1000; i++)
		(void)retry_budget_failed(&budget);
	assert_int_equal(budget.tenths, 0);
	retry_budget_fini(&budget);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(pauses_grow_to_a_limit_and_differ),
	    cmocka_unit_test(failures_in_a_row_use_the_budget_up_and_answers_fill_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
