/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <pthread.h>
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

static int set_up(void **state)
{
	struct dedupe *dedupe = NULL;
	assert_ok(dedupe_new(&dedupe));
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
	again.deadline_ms = monotonic_ms() + 20;
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

static void a_busy_caller_does_not_push_out_anothers_answers(void **state)
{
	struct ask first = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	assert_int_equal(ask(&first), DEDUPE_RUN);
	finish(&first, "kept");
	for (uint32_t id = 0; id < 3000; id++) {
		struct ask flood = {.dedupe = *state, .caller = &bob, .id = id, .body = "x"};
		assert_int_equal(ask(&flood), DEDUPE_RUN);
		finish(&flood, "done");
	}
	struct ask again = {.dedupe = *state, .caller = &alice, .id = 1, .body = "x"};
	assert_int_equal(ask(&again), DEDUPE_ANSWERED);
	assert_string_equal(again.answer, "kept");
	struct ask forgotten = {.dedupe = *state, .caller = &bob, .id = 0, .body = "x"};
	assert_int_equal(ask(&forgotten), DEDUPE_RUN);
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
