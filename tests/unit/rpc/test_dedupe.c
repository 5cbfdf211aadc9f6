/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/clock.h"
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "rpc/dedupe.h"
#include "rpc/nng_error.h"

static const struct identity alice = {.is_authenticated = true, .name = "alice"};
static const struct identity bob = {.is_authenticated = true, .name = "bob"};

struct ask {
	struct dedupe *dedupe;
	const struct identity *caller;
	uint32_t id;
	const char *body;
	int64_t deadline_ms;
	uint64_t ticket;
	char answer[32];
	enum dedupe_verdict verdict;
};

static enum dedupe_verdict ask(struct ask *ask)
{
	char method[] = "/a/B";
	uint8_t id[REQUEST_ID_BYTES] = {0};
	uint8_t body[32] = {0};
	scoped(buffer) struct buffer answer = {0};
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	memcpy(id, &ask->id, sizeof(ask->id));
	memcpy(body, ask->body, strlen(ask->body));
	request.method = method;
	request.request_id = (ProtobufCBinaryData){.len = sizeof(id), .data = id};
	request.payload = (ProtobufCBinaryData){.len = strlen(ask->body), .data = body};
	ask->verdict = dedupe_begin(ask->dedupe, ask->caller, &request, ask->deadline_ms,
				    &ask->ticket, &answer);
	if (ask->verdict == DEDUPE_ANSWERED)
		memcpy(ask->answer, answer.data, answer.size);
	return ask->verdict;
}

static void finish(const struct ask *ask, const char *answer)
{
	uint8_t data[32];
	memcpy(data, answer, strlen(answer));
	const struct buffer buffer = {.data = data, .size = strlen(answer)};
	dedupe_finish(ask->dedupe, ask->ticket, &buffer);
}

/* A small table on a clock that the tests turn. */
enum { REQUESTS = 64, BYTES = 1000, AGE_MS = 10000, MARGIN_MS = 1000 };

static int64_t now_ms;

static int64_t test_clock(void)
{
	return now_ms;
}

static int set_up(void **state)
{
	static const struct dedupe_limits limits = {REQUESTS, BYTES, AGE_MS, MARGIN_MS, test_clock};
	struct dedupe *dedupe = NULL;
	now_ms = 1;
	assert_ok(dedupe_new(&limits, &dedupe));
	*state = dedupe;
	return 0;
}

static int tear_down(void **state)
{
	dedupe_free(*state);
	return 0;
}

static void the_same_id_gets_the_same_answer(void **state)
{
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	struct ask again = first;
	assert_int_equal(ask(&first), DEDUPE_RUN);
	finish(&first, "done");
	assert_int_equal(ask(&again), DEDUPE_ANSWERED);
	assert_string_equal(again.answer, "done");
}

static void another_body_under_the_same_id_is_noticed(void **state)
{
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	struct ask other = {.dedupe = *state, .caller = &alice, .id = 1, .body = "y"};
	assert_int_equal(ask(&first), DEDUPE_RUN);
	assert_int_equal(ask(&other), DEDUPE_DIFFERENT);
	finish(&first, "done");
	assert_int_equal(ask(&other), DEDUPE_DIFFERENT);
}

static void ids_of_different_callers_do_not_meet(void **state)
{
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	struct ask other = {.dedupe = *state, .caller = &bob, .id = 1, .body = "x"};
	assert_int_equal(ask(&first), DEDUPE_RUN);
	assert_int_equal(ask(&other), DEDUPE_RUN);
	assert_int_not_equal(first.ticket, other.ticket);
}

static void *run_ask(void *argument)
{
	(void)ask(argument);
	return NULL;
}

static void a_duplicate_waits_for_the_first(void **state)
{
	pthread_t thread;
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	struct ask again = first;
	assert_int_equal(ask(&first), DEDUPE_RUN);
	assert_int_equal(pthread_create(&thread, NULL, run_ask, &again), 0);
	finish(&first, "done");
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(again.verdict, DEDUPE_ANSWERED);
	assert_string_equal(again.answer, "done");
}

static void a_duplicate_waits_no_longer_than_its_deadline(void **state)
{
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	struct ask again = first;
	assert_int_equal(ask(&first), DEDUPE_RUN);
	again.deadline_ms = clock_monotonic_ms() + 20;
	assert_int_equal(ask(&again), DEDUPE_TIMEOUT);
}

static void stopping_wakes_those_who_wait(void **state)
{
	pthread_t thread;
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	struct ask again = first;
	assert_int_equal(ask(&first), DEDUPE_RUN);
	assert_int_equal(pthread_create(&thread, NULL, run_ask, &again), 0);
	dedupe_stop(*state);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(again.verdict, DEDUPE_TIMEOUT);
}

/* Runs one that is over at once; deadline_ms from now. */
static enum dedupe_verdict run(struct dedupe *dedupe, const struct identity *caller, uint32_t id,
			       int64_t deadline_ms)
{
	struct ask one = {.dedupe = dedupe,
			  .caller = caller,
			  .id = id,
			  .body = "x",
			  .deadline_ms = clock_monotonic_ms() + deadline_ms};
	if (ask(&one) == DEDUPE_RUN)
		finish(&one, "done");
	return one.verdict;
}

static void a_busy_caller_does_not_push_out_anothers_answers(void **state)
{
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	assert_int_equal(ask(&first), DEDUPE_RUN);
	finish(&first, "kept");
	/* These need not be remembered: their time is over. */
	for (uint32_t id = 0; id < 1000; id++)
		assert_int_equal(run(*state, &bob, id, -MARGIN_MS), DEDUPE_RUN);
	struct ask again = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	assert_int_equal(ask(&again), DEDUPE_ANSWERED);
	assert_string_equal(again.answer, "kept");
}

static void what_may_be_asked_again_is_not_forgotten_but_new_ones_refused(void **state)
{
	/* A quarter of the table is one caller's. */
	for (uint32_t id = 0; id < REQUESTS / 4; id++)
		assert_int_equal(run(*state, &bob, id, 2000), DEDUPE_RUN);
	assert_int_equal(run(*state, &bob, 1000, 2000), DEDUPE_FULL);
	assert_int_equal(run(*state, &bob, 0, 2000), DEDUPE_ANSWERED);
	assert_int_equal(run(*state, &alice, 1000, 2000), DEDUPE_RUN);
	/* When nobody can ask again any more there is room, the oldest goes first. */
	now_ms += 2000 + MARGIN_MS + 1;
	assert_int_equal(run(*state, &bob, 1000, 2000), DEDUPE_RUN);
	assert_int_equal(run(*state, &bob, 1, 2000), DEDUPE_ANSWERED);
	assert_int_equal(run(*state, &bob, 0, 2000), DEDUPE_RUN);
}

static void nothing_is_remembered_for_ever(void **state)
{
	assert_int_equal(run(*state, &bob, 1, 1000000), DEDUPE_RUN);
	now_ms += AGE_MS - 1;
	assert_int_equal(run(*state, &bob, 1, 1000000), DEDUPE_ANSWERED);
	now_ms += 1;
	assert_int_equal(run(*state, &bob, 1, 1000000), DEDUPE_RUN);
}

static void a_full_table_forgets_what_is_old_whoever_it_was_of(void **state)
{
	for (uint32_t id = 0; id < REQUESTS * 10; id++) {
		struct identity caller = {.is_authenticated = true};
		(void)snprintf(caller.name, sizeof(caller.name), "caller-%u", id % 16);
		assert_int_equal(run(*state, &caller, id, 1), DEDUPE_RUN);
		now_ms += MARGIN_MS;
	}
}

static void answers_are_bounded_in_bytes_but_the_deed_is_remembered(void **state)
{
	static uint8_t data[BYTES / 4];
	const struct buffer answer = {.data = data, .size = sizeof(data)};
	for (uint32_t id = 0; id < 8; id++) {
		struct ask one = {.dedupe = *state, .caller = &bob, .id = id, .body = "x"};
		assert_int_equal(ask(&one), DEDUPE_RUN);
		dedupe_finish(*state, one.ticket, &answer);
	}
	assert_int_equal(run(*state, &bob, 0, 1000), DEDUPE_FORGOTTEN);
	assert_int_equal(run(*state, &bob, 3, 1000), DEDUPE_FORGOTTEN);
	uint8_t id[REQUEST_ID_BYTES] = {7};
	char method[] = "/a/B";
	scoped(buffer) struct buffer whole = {0};
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	uint64_t ticket = 0;
	request.method = method;
	request.request_id = (ProtobufCBinaryData){.len = sizeof(id), .data = id};
	request.payload = (ProtobufCBinaryData){.len = 1, .data = (uint8_t *)"x"};
	assert_int_equal(dedupe_begin(*state, &bob, &request, 0, &ticket, &whole), DEDUPE_ANSWERED);
	assert_int_equal(whole.size, sizeof(data));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(the_same_id_gets_the_same_answer, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(another_body_under_the_same_id_is_noticed, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(ids_of_different_callers_do_not_meet, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(a_duplicate_waits_for_the_first, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_duplicate_waits_no_longer_than_its_deadline, set_up,
					    tear_down),
	    cmocka_unit_test_setup_teardown(stopping_wakes_those_who_wait, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_busy_caller_does_not_push_out_anothers_answers,
					    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(
		what_may_be_asked_again_is_not_forgotten_but_new_ones_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(nothing_is_remembered_for_ever, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_full_table_forgets_what_is_old_whoever_it_was_of,
					    set_up, tear_down),
	    cmocka_unit_test_setup_teardown(answers_are_bounded_in_bytes_but_the_deed_is_remembered,
					    set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
