/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/reason.h"

static const char *const names[] = {
#define X(name) #name,
    STATUS_REASONS(X)
#undef X
};

static void an_error_has_the_reason_it_was_given_first(void **state)
{
	(void)state;
	scoped(status) status *st = status_errorf(STATUS_ABORTED, "x");
	assert_null(status_reason(st));
	st = status_because(st, REASON_CRIU_FAILED);
	st = status_because(status_wrapf(st, "outer"), REASON_NOT_CONNECTED);
	assert_string_equal(status_reason(st), "CRIU_FAILED");
	st = status_retry_after(st, 1500);
	assert_string_equal(status_detail_find(st, RETRY_LABEL), "1500");
	assert_null(status_reason(NULL));
}

static void reasons_are_words_of_their_own(void **state)
{
	(void)state;
	for (size_t i = 0; i < array_len(names); i++) {
		assert_string_equal(reason_name((enum status_reason)i), names[i]);
		assert_true(strspn(names[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") == strlen(names[i]));
		for (size_t j = 0; j < i; j++)
			assert_string_not_equal(names[i], names[j]);
	}
}

/* A row of the table begins with | `NAME` |. */
static bool row_name(const char *line, char name[64])
{
	return sscanf(line, "| `%63[A-Z_]` |", name) == 1 && strstr(line, "` |") != NULL;
}

static void the_manual_lists_the_reasons_and_no_others(void **state)
{
	char line[2048], name[64];
	bool is_listed[array_len(names)] = {false};
	FILE *file = fopen(ERRORS_MD, "re");
	(void)state;
	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL) {
		if (!row_name(line, name))
			continue;
		size_t i = 0;
		while (i < array_len(names) && strcmp(names[i], name) != 0)
			i++;
		if (i == array_len(names))
			fail_msg("docs/errors.md has a reason that is none: %s", name);
		is_listed[i] = true;
	}
	assert_int_equal(fclose(file), 0);
	for (size_t i = 0; i < array_len(names); i++)
		if (!is_listed[i])
			fail_msg("docs/errors.md does not list %s", names[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(an_error_has_the_reason_it_was_given_first),
	    cmocka_unit_test(reasons_are_words_of_their_own),
	    cmocka_unit_test(the_manual_lists_the_reasons_and_no_others),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
