/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl as it is started by users, against an engine that only pretends. */
#include "tests/unit/cmd/pretend.h"

#include <cjson/cJSON.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static void arguments_that_are_wrong_are_named_with_a_hint(void **state)
{
	static const struct {
		const char *arguments[ARGUMENTS];
		const char *says;
	} cases[] = {
	    {{"migrat", "pid:1"}, "did you mean haulctl migrate?"},
	    {{"migrate", "pid:1", "--too", "x"}, "did you mean --to?"},
	    {{"migrate", "--to", "x"}, "an argument is missing"},
	    {{"migrate", "pid:1"}, "--to is missing"},
	    {{"migrate", "pid:1", "pid:2", "--to", "x"}, "one argument too many"},
	    {{"migrate", "pid:1", "--to", "x", "--max-downtime", "9"}, "not a duration"},
	    {{"migrate", "pid:1", "--to", "x", "--max-rounds", "101"}, "at most 100"},
	    {{"migrate", "pid:1", "--to", "x", "--dest-root", "a"}, "not an absolute path"},
	    {{"migrate", "pid:1", "--to", "x", "--tcp", "keep"}, "one of refuse|close"},
	    {{"list", "--all", "--active"}, "exclude each other"},
	    {{"resolve", "7f3a"}, "either --resume"},
	    {{"resolve", "7f3a", "--resume", "--kill"}, "either --resume"},
	    {{"pki", "isue", "a", "b"}, "did you mean haulctl pki issue?"},
	    {{"--server", "tls+tcp://a:1", "node"}, "exclude each other"},
	    {{"--timeout", "0", "node"}, "longer than 0"},
	};
	(void)state;

	engine = (struct engine){.url = "ipc:///nowhere/hauld.sock"};
	for (size_t i = 0; i < array_len(cases); i++) {
		struct outcome outcome = haulctl(cases[i].arguments);
		assert_int_equal(outcome.exit, 64 + STATUS_INVALID_ARGUMENT);
		says(outcome.err, "haulctl: INVALID_ARGUMENT: ");
		says(outcome.err, cases[i].says);
		assert_string_equal(outcome.out, "");
	}
}

static void an_engine_that_is_not_there_is_unavailable_in_text_and_json(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"list", "--json", "--timeout=200ms"};
	(void)state;

	engine = (struct engine){.url = "ipc:///nowhere/hauld.sock"};
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_UNAVAILABLE);
	says(outcome.err, "is hauld running");
	cJSON *json = cJSON_Parse(outcome.out);
	const cJSON *code = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "error"), "code");
	assert_string_equal(cJSON_GetStringValue(code), "UNAVAILABLE");
	cJSON_Delete(json);
}

static void a_migration_is_followed_to_its_report(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to",
							 "tls+tcp://b:7777"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 0);
	says(outcome.err, "pre-copy: round 0");
	says(outcome.out, "migration 7f3a: COMPLETED");
	says(outcome.out, "42 at the destination");
	engine_stop();
}

static void with_json_there_is_exactly_one_object(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to",
							 "tls+tcp://b:7777", "--json"};
	const char *end = NULL;
	(void)state;

	engine_start(END_ABORTED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_ALREADY_EXISTS);
	cJSON *json = cJSON_ParseWithOpts(outcome.out, &end, 0);
	assert_non_null(json);
	assert_string_equal(end, "\n");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "state")), "ABORTED");
	const cJSON *error = cJSON_GetObjectItem(json, "error");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(error, "code")),
			    "ALREADY_EXISTS");
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(error, "details")), 1);
	cJSON_Delete(json);
	engine_stop();
}

static void a_refused_start_is_an_error_with_its_details(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:43", "--to", "x"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_NOT_FOUND);
	assert_string_equal(outcome.err,
			    "haulctl: NOT_FOUND: there is no process\n  next: look again\n");
	engine_stop();
}

static void an_engine_that_dies_meanwhile_leaves_a_way_on(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"--timeout", "3s",   "migrate",
							 "pid:42",    "--to", "x"};
	(void)state;

	engine_start(END_DIES);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_UNAVAILABLE);
	says(outcome.err, "haulctl show 7f3a");
	engine_stop();
}

static void a_watch_that_breaks_goes_on_behind_what_was_seen(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"watch", "7f3a", "--json"};
	(void)state;

	engine_start(END_BREAKS);
	struct started started = haulctl_start(arguments);
	char first[1];
	/* The first change was shown: so it was seen. */
	assert_int_equal(read(started.out, first, 1), 1);
	atomic_store(&engine.may_break, true);
	struct outcome outcome = program_end(&started);
	assert_int_equal(outcome.exit, 0);
	assert_true(engine.seen == 1);
	assert_int_equal(atomic_load(&engine.watches), 2);
	says(outcome.out, "COMPLETED");
	engine_stop();
}

static void ctrl_c_cancels_and_waits_for_the_end(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to", "x"};
	(void)state;

	engine_start(END_WHEN_CANCELLED);
	struct started started = haulctl_start(arguments);
	await(&engine.is_watched);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	struct outcome outcome = program_end(&started);
	assert_int_equal(outcome.exit, 64 + STATUS_CANCELLED);
	says(outcome.out, "CANCELLED");
	says(outcome.err, "cancelling");
	assert_true(atomic_load(&engine.is_cancelled));
	engine_stop();
}

static void a_second_ctrl_c_leaves_it_to_itself(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to", "x"};
	(void)state;

	engine_start(END_NEVER);
	struct started started = haulctl_start(arguments);
	await(&engine.is_watched);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	await(&engine.is_cancelled);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	struct outcome outcome = program_end(&started);
	assert_int_equal(outcome.exit, 0);
	says(outcome.out, "haulctl watch 7f3a");
	engine_stop();
}

static void ctrl_c_ends_a_watch_but_not_the_migration(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"watch", "7f3a", "--json"};
	(void)state;

	engine_start(END_NEVER);
	struct started started = haulctl_start(arguments);
	await(&engine.is_watched);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	struct outcome outcome = program_end(&started);
	assert_int_equal(outcome.exit, 0);
	assert_false(atomic_load(&engine.is_cancelled));
	engine_stop();
}

static void detached_only_the_id_is_printed(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to", "x",
							 "--detach"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 0);
	assert_string_equal(outcome.out, "7f3a\n");
	assert_string_equal(outcome.err, "");
	engine_stop();
}

static void lists_are_json_for_programs(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"list", "--json"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 0);
	cJSON *json = cJSON_Parse(outcome.out);
	const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "migrations"), 0);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(first, "id")), "7f3a");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(first, "role")), "source");
	cJSON_Delete(json);
	engine_stop();
}

static void without_accepted_risk_nothing_is_resolved(void **state)
{
	static const char *const refused[ARGUMENTS] = {"resolve", "7f3a", "--kill"};
	static const char *const accepted[ARGUMENTS] = {"resolve",	 "7f3a",     "--kill",
							"--accept-risk", "--reason", "test"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(refused);
	assert_int_equal(outcome.exit, 64 + STATUS_FAILED_PRECONDITION);
	says(outcome.err, "memory is lost");
	says(outcome.err, "--accept-risk");
	outcome = haulctl(accepted);
	assert_int_equal(outcome.exit, 0);
	engine_stop();
}

static void list_reads_all_pages_or_as_many_as_wanted(void **state)
{
	(void)state;
	engine_start(END_NEVER);
	static const char *const counts[][2] = {{NULL, NULL}, {"--limit", "2"}};
	for (size_t i = 0; i < array_len(counts); i++) {
		const char *arguments[ARGUMENTS] = {"list", "--json", counts[i][0], counts[i][1]};
		struct outcome all = haulctl(arguments);
		assert_int_equal(all.exit, 0);
		cJSON *json = cJSON_Parse(all.out);
		assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "migrations")),
				 i == 0 ? 3 : 2);
		cJSON_Delete(json);
	}
	const char *good[ARGUMENTS] = {"list", "--state", "in-doubt", "--state", "LOST"};
	assert_int_equal(haulctl(good).exit, 0);
	const char *bad[ARGUMENTS] = {"list", "--state", "asleep"};
	struct outcome refused = haulctl(bad);
	assert_int_equal(refused.exit, 64 + STATUS_INVALID_ARGUMENT);
	assert_non_null(strstr(refused.err, "in-doubt"));
	engine_stop();
}

static void wait_asks_until_it_is_over(void **state)
{
	(void)state;
	engine_start(END_COMPLETED);
	const char *arguments[ARGUMENTS] = {"wait", "7f3a"};
	struct outcome over = haulctl(arguments);
	assert_int_equal(over.exit, 0);
	assert_non_null(strstr(over.out, "COMPLETED"));
	assert_int_equal(atomic_load(&engine.waits), 2);
	engine_stop();
	engine_start(END_NEVER);
	const char *limited[ARGUMENTS] = {"wait", "7f3a", "--timeout", "100ms"};
	struct outcome late = haulctl(limited);
	assert_int_equal(late.exit, 64 + STATUS_DEADLINE_EXCEEDED);
	engine_stop();
}

static void delete_says_whether_it_was_done(void **state)
{
	(void)state;
	engine_start(END_NEVER);
	const char *good[ARGUMENTS] = {"delete", "7f3a"};
	const char *bad[ARGUMENTS] = {"delete", "other"};
	assert_int_equal(haulctl(good).exit, 0);
	assert_int_equal(haulctl(bad).exit, 64 + STATUS_FAILED_PRECONDITION);
	engine_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(arguments_that_are_wrong_are_named_with_a_hint),
	    cmocka_unit_test(an_engine_that_is_not_there_is_unavailable_in_text_and_json),
	    cmocka_unit_test(a_migration_is_followed_to_its_report),
	    cmocka_unit_test(with_json_there_is_exactly_one_object),
	    cmocka_unit_test(a_refused_start_is_an_error_with_its_details),
	    cmocka_unit_test(an_engine_that_dies_meanwhile_leaves_a_way_on),
	    cmocka_unit_test(a_watch_that_breaks_goes_on_behind_what_was_seen),
	    cmocka_unit_test(ctrl_c_cancels_and_waits_for_the_end),
	    cmocka_unit_test(a_second_ctrl_c_leaves_it_to_itself),
	    cmocka_unit_test(ctrl_c_ends_a_watch_but_not_the_migration),
	    cmocka_unit_test(detached_only_the_id_is_printed),
	    cmocka_unit_test(lists_are_json_for_programs),
	    cmocka_unit_test(without_accepted_risk_nothing_is_resolved),
	    cmocka_unit_test(list_reads_all_pages_or_as_many_as_wanted),
	    cmocka_unit_test(wait_asks_until_it_is_over),
	    cmocka_unit_test(delete_says_whether_it_was_done),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
