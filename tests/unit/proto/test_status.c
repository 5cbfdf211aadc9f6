/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>

#include "proto/limits.h"

static void null_is_ok_everywhere(void **state)
{
	(void)state;
	assert_int_equal(status_code_of(NULL), STATUS_OK);
	assert_string_equal(status_message(NULL), "OK");
	assert_int_equal(status_detail_count(NULL), 0);
	assert_null(status_detail_find(NULL, "cause"));
	assert_null(status_copy(NULL));
	assert_null(status_wrapf(NULL, "outer"));
	assert_null(status_recode(NULL, STATUS_ABORTED));
	assert_null(status_detailf(NULL, "next", "nothing"));
	status_free(NULL);
}

static void wrapping_puts_context_before_and_keeps_the_code(void **state)
{
	(void)state;
	scoped(status) status *st = status_errorf(STATUS_NOT_FOUND, "no %s", "file");
	st = status_wrapf(st, "round %d", 3);
	assert_string_equal(status_message(st), "round 3: no file");
	assert_int_equal(status_code_of(st), STATUS_NOT_FOUND);
	st = status_recode(st, STATUS_ABORTED);
	assert_int_equal(status_code_of(st), STATUS_ABORTED);
}

static void an_errno_becomes_its_code_and_its_text(void **state)
{
	static const struct {
		int err;
		enum status_code code;
	} cases[] = {
	    {ENOENT, STATUS_NOT_FOUND},
	    {EACCES, STATUS_PERMISSION_DENIED},
	    {EADDRINUSE, STATUS_ALREADY_EXISTS},
	    {ENOSPC, STATUS_RESOURCE_EXHAUSTED},
	    {ECONNREFUSED, STATUS_UNAVAILABLE},
	    {ETIMEDOUT, STATUS_DEADLINE_EXCEEDED},
	    {EXFULL, STATUS_UNKNOWN},
	};
	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		scoped(status) status *st = status_errnof(cases[i].err, "open");
		assert_int_equal(status_code_of(st), cases[i].code);
		assert_non_null(strstr(status_message(st), strerror(cases[i].err)));
	}
}

static void details_are_kept_up_to_their_limits(void **state)
{
	(void)state;
	char text[2 * LIMIT_STATUS_TEXT];
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	scoped(status) status *st = status_errorf(STATUS_INTERNAL, "%s", text);
	assert_int_equal(strlen(status_message(st)), LIMIT_STATUS_TEXT);
	for (int i = 0; i < LIMIT_STATUS_DETAILS + 3; i++)
		st = status_detailf(st, i == 5 ? "five" : "other", "%s", text);
	assert_int_equal(status_detail_count(st), LIMIT_STATUS_DETAILS);
	assert_int_equal(strlen(status_detail_find(st, "five")), LIMIT_STATUS_TEXT);
	assert_null(status_detail_find(st, "six"));
}

static void a_text_is_not_cut_inside_a_character(void **state)
{
	(void)state;
	char text[LIMIT_STATUS_TEXT + 8];
	memset(text, 'x', sizeof(text));
	memcpy(text + LIMIT_STATUS_TEXT - 1, "\xE2\x82\xAC", 4);
	scoped(status) status *st = status_errorf(STATUS_INTERNAL, "%s", text);
	assert_int_equal(strlen(status_message(st)), LIMIT_STATUS_TEXT - 1);
}

static void a_copy_is_whole_and_independent(void **state)
{
	(void)state;
	status *st = status_detailf(status_errorf(STATUS_ABORTED, "why"), "next", "retry");
	scoped(status) status *copy = status_copy(st);
	status_free(st);
	assert_string_equal(status_message(copy), "why");
	assert_string_equal(status_detail_at(copy, 0).label, "next");
	assert_string_equal(status_detail_at(copy, 0).text, "retry");
}

static void the_first_of_two_wins(void **state)
{
	(void)state;
	scoped(status) status *st = status_first(NULL, status_errorf(STATUS_ABORTED, "second"));
	st = status_first(st, status_errorf(STATUS_INTERNAL, "third"));
	assert_string_equal(status_message(st), "second");
}

static void codes_have_names_and_unknown_numbers_are_unknown(void **state)
{
	(void)state;
	assert_string_equal(status_code_name(STATUS_DATA_LOSS), "DATA_LOSS");
	assert_int_equal(status_code_from_wire(16), STATUS_UNAUTHENTICATED);
	assert_int_equal(status_code_from_wire(17), STATUS_UNKNOWN);
	assert_int_equal(status_code_from_wire(UINT32_MAX), STATUS_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(null_is_ok_everywhere),
	    cmocka_unit_test(wrapping_puts_context_before_and_keeps_the_code),
	    cmocka_unit_test(an_errno_becomes_its_code_and_its_text),
	    cmocka_unit_test(details_are_kept_up_to_their_limits),
	    cmocka_unit_test(a_text_is_not_cut_inside_a_character),
	    cmocka_unit_test(a_copy_is_whole_and_independent),
	    cmocka_unit_test(the_first_of_two_wins),
	    cmocka_unit_test(codes_have_names_and_unknown_numbers_are_unknown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
