/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/criu/criu_error.h"
#include "engine/host/files.h"
#include "tests/unit/engine/pipe_pair.h"

#define NOISE                                                                                      \
	"(00.000100) Error (criu/util.c:1450): Unable to restore TCP_CORK (1): Operation not "     \
	"supported\n"                                                                              \
	"(00.000200) Warn  (criu/kerndat.c:1): something\n"                                        \
	"(00.000300) Error (criu/x.c:9): Can't setup RLIMIT_NOFILE for 7: Operation not "          \
	"permitted\n"
#define TAIL "(00.200000) Error (criu/cr-dump.c:2093): Dumping FAILED.\n"

static void expect_cause(const char *log, const char *want)
{
	size_t length = 0;
	const char *line = criu_error_cause(log, strlen(log), &length);

	assert_int_equal(length, strlen(want));
	assert_memory_equal(line, want, length);
}

static void the_cause_is_the_first_line_that_is_no_noise(void **state)
{
	(void)state;
	expect_cause(
	    NOISE
	    "(00.1) Error (criu/tty.c:1): Found dangling tty\n(00.2) Error (a.c:1): more\n" TAIL,
	    "(00.1) Error (criu/tty.c:1): Found dangling tty");
}

static void without_a_better_line_the_general_one_is_the_cause(void **state)
{
	(void)state;
	expect_cause(NOISE TAIL, "(00.200000) Error (criu/cr-dump.c:2093): Dumping FAILED.");
}

static void a_log_without_errors_has_no_cause(void **state)
{
	(void)state;
	expect_cause("", "");
	expect_cause("(00.1) Warn  (a.c:1): Error is a word\n\n\n", "");
	expect_cause(NOISE, "");
}

static status *explain(const char *log, const char *early, const CriuResp *response)
{
	char dir[64], path[128];

	scratch_make(dir);
	if (log != NULL) {
		(void)snprintf(path, sizeof(path), "%s/dump.log", dir);
		assert_ok(files_write(path, log, strlen(log)));
	}
	(void)snprintf(path, sizeof(path), "%s/swrk.err", dir);
	assert_ok(files_write(path, early, strlen(early)));
	status *st = criu_error("dump the tree", response, dir, "dump.log");
	scratch_remove(dir);
	return st;
}

static void known_causes_are_explained_with_what_to_do(void **state)
{
	(void)state;
	scoped(status) status *st =
	    explain(NOISE "(00.1) Error (criu/tty.c:1): Found dangling tty\n" TAIL, "", NULL);

	assert_int_equal(status_code_of(st), STATUS_FAILED_PRECONDITION);
	assert_string_equal(status_message(st),
			    "CRIU could not dump the tree: the tree is attached to a terminal");
	assert_string_equal(status_detail_find(st, "criu"),
			    "Error (criu/tty.c:1): Found dangling tty");
	assert_non_null(strstr(status_detail_find(st, "next"), "--shell-job"));
}

/* Of a long log the last twenty lines, and never more than fits into a detail. */
static void the_end_of_the_log_is_told_for_debugging(void **state)
{
	char log[64 * 1024] = "";
	size_t used = 0;
	(void)state;

	for (int i = 0; i < 1000; i++)
		used += (size_t)snprintf(log + used, sizeof(log) - used,
					 "(00.%03d) Warn  (a.c:1): line\t%d\n", i, i);
	scoped(status) status *st = explain(log, "", NULL);
	assert_string_equal(status_detail_find(st, "reason"), "CRIU_FAILED");
	const char *tail = status_detail_find(st, "debug");
	assert_non_null(tail);
	assert_memory_equal(tail, "(00.980) Warn  (a.c:1): line 980\n", 33);
	assert_non_null(strstr(tail, "line 999\n"));
	memset(log, 'x', sizeof(log) - 1);
	log[sizeof(log) - 1] = '\0';
	scoped(status) status *of_one_line = explain(log, "", NULL);
	assert_in_range(strlen(status_detail_find(of_one_line, "debug")), 1000, 4000);
	scoped(status) status *of_none = explain(NULL, "", NULL);
	assert_null(status_detail_find(of_none, "debug"));
}

static void each_kind_of_cause_has_its_code(void **state)
{
	(void)state;
	static const struct {
		const char *line;
		enum status_code code;
	} cases[] = {
	    {"Can't fork for 3201: File exists", STATUS_ALREADY_EXISTS},
	    {"File usr/bin/x has bad size 10 (expect 20)", STATUS_FAILED_PRECONDITION},
	    {"Can't open file tmp/x on restore: No such file or directory",
	     STATUS_FAILED_PRECONDITION},
	    {"Unexpected EOF on (empty-image)", STATUS_DATA_LOSS},
	    {"write: No space left on device", STATUS_RESOURCE_EXHAUSTED},
	    {"Can't dump file 5 of that type [20600] (chr 10:229)", STATUS_FAILED_PRECONDITION},
	    {"Unable to interrupt task: 77 (Operation not permitted)", STATUS_FAILED_PRECONDITION},
	    {"Unable to interrupt task: 77 (No such process)", STATUS_NOT_FOUND},
	    {"Something nobody has seen", STATUS_ABORTED},
	};

	for (size_t i = 0; i < array_len(cases); i++) {
		char log[512];
		(void)snprintf(log, sizeof(log), NOISE "(00.1) Error (a.c:1): %s\n" TAIL,
			       cases[i].line);
		scoped(status) status *st = explain(log, "", NULL);
		assert_int_equal(status_code_of(st), cases[i].code);
		assert_non_null(strstr(status_detail_find(st, "criu"), cases[i].line));
	}
}

static void an_unknown_cause_is_told_in_criu_s_words(void **state)
{
	(void)state;
	scoped(status) status *st = explain("Error (a.c:1): Strange \x1b[31mthings\n", "", NULL);

	assert_string_equal(status_message(st),
			    "CRIU could not dump the tree: Strange  [31mthings");
}

static void what_went_wrong_before_the_log_is_on_stderr(void **state)
{
	(void)state;
	scoped(status) status *st =
	    explain(NULL, "Error (criu/cr-service.c:1): Can't open images directory\n", NULL);

	assert_string_equal(status_message(st),
			    "CRIU could not dump the tree: Can't open images directory");
}

static void without_any_line_the_response_s_errno_must_do(void **state)
{
	(void)state;
	CriuResp response = CRIU_RESP__INIT;

	response.has_cr_errno = 1;
	response.cr_errno = EEXIST;
	scoped(status) status *st = explain(NULL, "", &response);
	assert_int_equal(status_code_of(st), STATUS_ALREADY_EXISTS);
	scoped(status) status *nothing = explain(NULL, "", NULL);
	assert_int_equal(status_code_of(nothing), STATUS_ABORTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_cause_is_the_first_line_that_is_no_noise),
	    cmocka_unit_test(without_a_better_line_the_general_one_is_the_cause),
	    cmocka_unit_test(a_log_without_errors_has_no_cause),
	    cmocka_unit_test(known_causes_are_explained_with_what_to_do),
	    cmocka_unit_test(each_kind_of_cause_has_its_code),
	    cmocka_unit_test(the_end_of_the_log_is_told_for_debugging),
	    cmocka_unit_test(an_unknown_cause_is_told_in_criu_s_words),
	    cmocka_unit_test(what_went_wrong_before_the_log_is_on_stderr),
	    cmocka_unit_test(without_any_line_the_response_s_errno_must_do),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
