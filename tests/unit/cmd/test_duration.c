/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/shared/duration.h"

#include "tests/unit/test.h"

static void each_unit_is_understood(void **state)
{
	int64_t ms = -1;
	(void)state;

	assert_ok(duration_parse("300ms", &ms));
	assert_int_equal(ms, 300);
	assert_ok(duration_parse("10s", &ms));
	assert_int_equal(ms, 10000);
	assert_ok(duration_parse("5m", &ms));
	assert_int_equal(ms, 300000);
	assert_ok(duration_parse("2h", &ms));
	assert_int_equal(ms, 7200000);
	assert_ok(duration_parse("0", &ms));
	assert_int_equal(ms, 0);
}

static void what_is_no_duration_is_refused_and_changes_nothing(void **state)
{
	static const char *const bad[] = {"",	 "5",	"s",	"-5s", "+5s",  "1.5s",
					  " 5s", "5 s", "5sec", "5ss", "0x5s", "5S"};
	int64_t ms = 7;
	(void)state;

	for (size_t i = 0; i < array_len(bad); i++)
		assert_code(duration_parse(bad[i], &ms), STATUS_INVALID_ARGUMENT);
	assert_int_equal(ms, 7);
}

static void too_long_durations_are_out_of_range(void **state)
{
	int64_t ms = 7;
	(void)state;

	assert_code(duration_parse("9999999h", &ms), STATUS_OUT_OF_RANGE);
	assert_code(duration_parse("2147483648ms", &ms), STATUS_OUT_OF_RANGE);
	assert_code(duration_parse("99999999999999999999s", &ms), STATUS_INVALID_ARGUMENT);
	assert_int_equal(ms, 7);
	assert_ok(duration_parse("2147483647ms", &ms));
	assert_int_equal(ms, INT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_unit_is_understood),
	    cmocka_unit_test(what_is_no_duration_is_refused_and_changes_nothing),
	    cmocka_unit_test(too_long_durations_are_out_of_range),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
