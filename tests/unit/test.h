/* SPDX-License-Identifier: Apache-2.0 */
/* cmocka and the order of includes it insists on. */
#ifndef HAUL_TESTS_UNIT_TEST_H
#define HAUL_TESTS_UNIT_TEST_H

/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "proto/status.h"

/* Fails with the status's own sentence. */
#define assert_ok(expression)                                                                      \
	do {                                                                                       \
		status *assert_ok_st_ = (expression);                                              \
		if (assert_ok_st_ != NULL)                                                         \
			fail_msg("%s: %s", #expression, status_message(assert_ok_st_));            \
	} while (0)

/* Fails unless the expression yields an error of this code; frees it. */
#define assert_code(expression, want)                                                              \
	do {                                                                                       \
		status *assert_code_st_ = (expression);                                            \
		if (status_code_of(assert_code_st_) != (want))                                     \
			fail_msg("%s: %s, not %s: %s", #expression,                                \
				 status_code_name(status_code_of(assert_code_st_)),                \
				 status_code_name(want),                                           \
				 assert_code_st_ ? status_message(assert_code_st_) : "OK");        \
		status_free(assert_code_st_);                                                      \
	} while (0)

/* The same, and the error's reason is this word. */
#define assert_reason(expression, want, word)                                                      \
	do {                                                                                       \
		status *assert_reason_st_ = (expression);                                          \
		const char *assert_reason_ = status_detail_find(assert_reason_st_, "reason");      \
		if (assert_reason_ == NULL || strcmp(assert_reason_, word) != 0)                   \
			fail_msg("%s: %s, not %s", #expression,                                    \
				 assert_reason_ ? assert_reason_ : "no reason", word);             \
		assert_code(assert_reason_st_, want);                                              \
	} while (0)

#endif
