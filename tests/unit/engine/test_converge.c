/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/converge.h"

#include "tests/unit/test.h"

static const struct converge_limits limits = {.max_downtime_ms = 300, .max_rounds = 8};

static void each_reason_decides_in_its_case(void **state)
{
	(void)state;
	static const struct {
		const char *when;
		unsigned count;
		uint64_t pages[3];
		double predicted_ms;
		enum converge_verdict want;
	} cases[] = {
	    {"nothing copied", 0, {0}, 10, CONVERGE_AGAIN},
	    {"one round, even if it fits", 1, {1000}, 10, CONVERGE_AGAIN},
	    {"fits", 2, {1000, 100}, 300, CONVERGE_FREEZE},
	    {"does not fit, shrinks", 2, {1000, 899}, 301, CONVERGE_AGAIN},
	    {"does not fit, hardly shrinks", 2, {1000, 900}, 301, CONVERGE_FREEZE},
	    {"grows", 2, {1000, 5000}, 9000, CONVERGE_FREEZE},
	    {"only the last two count", 3, {10, 1000, 500}, 301, CONVERGE_AGAIN},
	    {"nothing dirty twice", 2, {0, 0}, 9000, CONVERGE_FREEZE},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct converge_round rounds[3];
		for (unsigned r = 0; r < 3; r++)
			rounds[r] = (struct converge_round){cases[i].pages[r], 10};
		const char *why = NULL;
		enum converge_verdict got =
		    converge_decide(&limits, rounds, cases[i].count, cases[i].predicted_ms, &why);
		if (got != cases[i].want)
			fail_msg("%s: %d (%s)", cases[i].when, got, why);
		assert_non_null(why);
	}
}

static void rounds_that_are_used_up_end_it_whatever_is_predicted(void **state)
{
	(void)state;
	struct converge_round rounds[8];
	const char *why;
	for (unsigned i = 0; i < 8; i++)
		rounds[i] = (struct converge_round){1000000 >> i, 100};
	for (unsigned count = 2; count < 8; count++)
		assert_int_equal(converge_decide(&limits, rounds, count, 1e9, &why),
				 CONVERGE_AGAIN);
	assert_int_equal(converge_decide(&limits, rounds, 8, 1e9, &why), CONVERGE_FREEZE);
	struct converge_limits one = {300, 1};
	assert_int_equal(converge_decide(&one, rounds, 1, 1e9, &why), CONVERGE_FREEZE);
}

/* Whatever a workload does, the loop ends. */
static void pre_copy_always_ends(void **state)
{
	(void)state;
	uint64_t seed = 1;
	for (unsigned run = 0; run < 2000; run++) {
		struct converge_round rounds[100] = {{0}};
		struct converge_limits some = {.max_downtime_ms = 1, .max_rounds = 1 + run % 99};
		unsigned count = 0;
		const char *why;
		for (; count < 100; count++) {
			double predicted = converge_predict_ms(rounds, count, 100000, false);
			if (converge_decide(&some, rounds, count, predicted, &why) ==
			    CONVERGE_FREEZE)
				break;
			seed = seed * 6364136223846793005U + 1442695040888963407U;
			rounds[count] = (struct converge_round){seed >> 40, (double)(seed >> 50)};
		}
		assert_true(count >= 1 && count <= some.max_rounds);
	}
}

static void the_prediction_grows_with_what_is_left_and_what_is_resident(void **state)
{
	(void)state;
	struct converge_round few[] = {{1000, 100}, {100, 10}}, many[] = {{1000, 100}, {900, 90}};
	double none = converge_predict_ms(NULL, 0, 0, false);
	assert_true(none > 0);
	assert_true(converge_predict_ms(NULL, 0, 262144, false) >
		    none + 500); /* 1 GiB to fill in */
	assert_true(converge_predict_ms(NULL, 0, 262144, true) >
		    converge_predict_ms(NULL, 0, 262144, false) + 300); /* and to read */
	assert_true(converge_predict_ms(few, 2, 1000, false) <
		    converge_predict_ms(many, 2, 1000, false));
	/* 100 pages at 10 pages a millisecond. */
	double left = converge_predict_ms(few, 2, 0, false) - none;
	assert_true(left > 9.9 && left < 10.1);
	struct converge_round idle[] = {{0, 50}, {0, 50}};
	assert_true(converge_predict_ms(idle, 2, 0, false) <= none + 0.001);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_reason_decides_in_its_case),
	    cmocka_unit_test(rounds_that_are_used_up_end_it_whatever_is_predicted),
	    cmocka_unit_test(pre_copy_always_ends),
	    cmocka_unit_test(the_prediction_grows_with_what_is_left_and_what_is_resident),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
