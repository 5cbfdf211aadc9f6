/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "cmd/shared/rate.h"

static void rates_are_read_by_their_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
	    {"none", 0},    {"1kbit", 125},	 {"800mbit", 100000000}, {"10gbit", 1250000000},
	    {"1KiB", 1024}, {"50MiB", 52428800}, {"2GiB", 2147483648}};
	uint64_t bytes;
	(void)state;

	for (unsigned i = 0; i < array_len(good); i++) {
		bytes = 1;
		assert_ok(rate_parse(good[i].text, &bytes));
		assert_true(bytes == good[i].bytes);
	}
}

static void what_is_no_rate_is_refused(void **state)
{
	static const char *const bad[] = {"",	   "0",	  "0MiB",   "10",     "MiB", "-1MiB",
					  "1 MiB", "1MB", "1.5MiB", "1mbits", "None"};
	uint64_t bytes;
	(void)state;

	for (unsigned i = 0; i < array_len(bad); i++)
		assert_code(rate_parse(bad[i], &bytes), STATUS_INVALID_ARGUMENT);
	assert_code(rate_parse("99999999999999GiB", &bytes), STATUS_OUT_OF_RANGE);
	assert_code(rate_parse("99999999999999999999999KiB", &bytes), STATUS_OUT_OF_RANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(rates_are_read_by_their_unit),
	    cmocka_unit_test(what_is_no_rate_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
