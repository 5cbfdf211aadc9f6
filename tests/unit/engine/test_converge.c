/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/converge.h"

#include <math.h>
#include <string.h>

#include "tests/unit/test.h"

enum { ROUNDS = 100, PAGE = 4096 };

static const struct converge_limits usual = {.max_downtime_ms = 300, .max_rounds = 8};

/* Rounds, one after the other, each of so many pages and milliseconds. */
struct told {
	struct converge_round rounds[ROUNDS];
	struct converge_history history;
};

static void tell(struct told *told, uint64_t pages, double ms, bool is_link_full)
{
	unsigned count = told->history.count;
	double begun = count > 0 ? told->rounds[count - 1].ended_ms : 1000;
	told->rounds[count] = (struct converge_round){
	    .pages = pages,
	    .bytes = pages * PAGE,
	    .begun_ms = begun,
	    .ended_ms = begun + ms,
	    .blocked_ms = is_link_full ? ms : 0,
	};
	told->history = (struct converge_history){told->rounds, count + 1};
}

static struct converge_prediction predict(const struct told *told, double pages)
{
	const struct converge_costs costs = {.size = {pages, 1}};
	return converge_predict(&told->history, &costs);
}

static enum converge_verdict decide(const struct converge_limits *limits, const struct told *told,
				    double downtime_ms)
{
	const struct converge_prediction prediction = {.downtime_ms = downtime_ms,
						       .transfer_ms = downtime_ms};
	const char *why = NULL;
	enum converge_verdict verdict = converge_decide(limits, &told->history, &prediction, &why);
	assert_non_null(why);
	return verdict;
}

static void each_reason_decides_in_its_case(void **state)
{
	(void)state;
	enum { PLAIN, PROMISE, SLOW, SLOWED, SLOWEST, PROMISED_SLOWEST };
	static const struct converge_limits limits[] = {
	    [PLAIN] = {300, 8, false, 0},   [PROMISE] = {300, 8, true, 0},
	    [SLOW] = {300, 8, false, 100},  [SLOWED] = {300, 8, false, 25},
	    [SLOWEST] = {300, 8, false, 1}, [PROMISED_SLOWEST] = {300, 8, true, 1},
	};
	static const struct {
		const char *when;
		int limits;
		unsigned count;
		uint64_t pages[3];
		double predicted_ms;
		enum converge_verdict want;
	} cases[] = {
	    {"nothing copied", PLAIN, 0, {0}, 10, CONVERGE_AGAIN},
	    {"one round, even if it fits", PLAIN, 1, {1000}, 10, CONVERGE_AGAIN},
	    {"fits", PLAIN, 2, {1000, 100}, 300, CONVERGE_FREEZE},
	    {"does not fit, shrinks", PLAIN, 2, {1000, 899}, 301, CONVERGE_AGAIN},
	    {"does not fit, hardly shrinks", PLAIN, 2, {1000, 900}, 301, CONVERGE_FREEZE},
	    {"grows", PLAIN, 2, {1000, 5000}, 9000, CONVERGE_FREEZE},
	    {"only the last two count", PLAIN, 3, {10, 1000, 500}, 301, CONVERGE_AGAIN},
	    {"nothing dirty twice", PLAIN, 2, {0, 0}, 9000, CONVERGE_FREEZE},
	    {"promised, fits", PROMISE, 2, {1000, 900}, 300, CONVERGE_FREEZE},
	    {"promised, hardly shrinks", PROMISE, 2, {1000, 900}, 301, CONVERGE_AGAIN},
	    {"promised, grows", PROMISE, 3, {1, 2, 3}, 301, CONVERGE_AGAIN},
	    {"may be slowed, shrinks", SLOW, 2, {1000, 800}, 301, CONVERGE_AGAIN},
	    {"may be slowed, hardly shrinks", SLOW, 2, {1000, 900}, 301, CONVERGE_SLOWER},
	    {"is slowed, shrinks", SLOWED, 2, {1000, 10}, 301, CONVERGE_SLOWER},
	    {"is slowed, fits", SLOWED, 2, {1000, 10}, 300, CONVERGE_FREEZE},
	    {"cannot be slower, shrinks", SLOWEST, 2, {1000, 10}, 301, CONVERGE_AGAIN},
	    {"cannot be slower", SLOWEST, 2, {1000, 1000}, 301, CONVERGE_FREEZE},
	    {"cannot be slower, promised", PROMISED_SLOWEST, 2, {9, 9}, 301, CONVERGE_AGAIN},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct told told = {0};
		for (unsigned r = 0; r < cases[i].count; r++)
			tell(&told, cases[i].pages[r], 10, false);
		enum converge_verdict got =
		    decide(&limits[cases[i].limits], &told, cases[i].predicted_ms);
		if (got != cases[i].want)
			fail_msg("%s: %d", cases[i].when, got);
	}
}

static void rounds_that_are_used_up_end_it(void **state)
{
	(void)state;
	struct told told = {0};
	struct converge_limits promised = usual, one = {300, 1, false, 0};
	promised.is_promise = true;
	tell(&told, 1 << 20, 100, false);
	assert_int_equal(decide(&one, &told, 1e9), CONVERGE_FREEZE);
	one.is_promise = true;
	assert_int_equal(decide(&one, &told, 1e9), CONVERGE_GIVE_UP);
	/* Nobody knows yet what would be dirty. */
	assert_int_equal(decide(&one, &told, 1), CONVERGE_GIVE_UP);
	for (unsigned i = 1; i < 8; i++) {
		tell(&told, (1 << 20) >> i, 100, false);
		if (i < 7)
			assert_int_equal(decide(&promised, &told, 1e9), CONVERGE_AGAIN);
	}
	assert_int_equal(decide(&usual, &told, 1e9), CONVERGE_FREEZE);
	assert_int_equal(decide(&promised, &told, 1e9), CONVERGE_GIVE_UP);
	assert_int_equal(decide(&promised, &told, 300), CONVERGE_FREEZE);
}

static void a_promise_that_no_round_could_keep_is_given_up_at_once(void **state)
{
	(void)state;
	struct told told = {0};
	struct converge_limits promised = usual;
	const struct converge_prediction prediction = {.transfer_ms = 5,
						       .restore_ms = 301,
						       .downtime_ms = 306};
	const char *why = NULL;
	tell(&told, 1000, 100, false);
	tell(&told, 10, 100, false);
	promised.is_promise = true;
	assert_int_equal(converge_decide(&promised, &told.history, &prediction, &why),
			 CONVERGE_GIVE_UP);
	assert_non_null(strstr(why, "restore"));
	/* Without a promise as good as it gets. */
	assert_int_equal(converge_decide(&usual, &told.history, &prediction, &why), CONVERGE_AGAIN);
}

/* Whatever a workload does, the loop ends, and with a promise only where it fits. */
static void pre_copy_always_ends(void **state)
{
	(void)state;
	uint64_t seed = 1;
	for (unsigned run = 0; run < 4000; run++) {
		struct told told = {0};
		struct converge_limits some = {.max_downtime_ms = run % 7 == 0 ? 1000 : 1,
					       .max_rounds = 1 + run % 99,
					       .is_promise = run % 2 == 0,
					       .share = run % 3 == 0 ? 100 : 0};
		enum converge_verdict verdict = CONVERGE_AGAIN;
		for (; told.history.count < ROUNDS;) {
			struct converge_prediction predicted = predict(&told, 100000);
			const char *why;
			verdict = converge_decide(&some, &told.history, &predicted, &why);
			assert_true(isfinite(predicted.downtime_ms));
			if (verdict == CONVERGE_FREEZE && some.is_promise)
				assert_true(predicted.downtime_ms <= some.max_downtime_ms);
			if (verdict == CONVERGE_FREEZE || verdict == CONVERGE_GIVE_UP)
				break;
			if (verdict == CONVERGE_SLOWER)
				some.share = converge_next_share(some.share);
			seed = seed * 6364136223846793005U + 1442695040888963407U;
			tell(&told, seed >> 40, (double)(seed >> 50), run % 2 == 0);
		}
		assert_true(verdict == CONVERGE_FREEZE ||
			    (verdict == CONVERGE_GIVE_UP && some.is_promise));
		assert_true(told.history.count >= 1 && told.history.count <= some.max_rounds);
	}
}

static void a_tree_is_slowed_down_step_by_step_and_not_to_nothing(void **state)
{
	(void)state;
	static const unsigned steps[] = {50, 25, 12, 6, 3, 1, 1};
	unsigned share = 100;
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		share = converge_next_share(share);
		assert_int_equal(share, steps[i]);
	}
}

static void all_parts_are_in_the_prediction(void **state)
{
	(void)state;
	struct told told = {0};
	const struct converge_costs costs = {
	    .size = {1000, 3},
	    .dump = {.fixed_ms = 10, .page_ms = 0.01, .process_ms = 1},
	    .restore = {.fixed_ms = 20, .page_ms = 0.02, .process_ms = 2},
	    .calls_ms = 7,
	};
	struct converge_prediction none = converge_predict(&told.history, &costs);
	assert_true(fabs(none.downtime_ms - (23 + 46 + 7)) < 0.001);
	tell(&told, 1000, 100, true);
	tell(&told, 100, 10, true); /* 10 pages a millisecond */
	struct converge_prediction two = converge_predict(&told.history, &costs);
	assert_true(fabs(two.transfer_ms - 10) < 0.001);
	assert_true(fabs(two.downtime_ms - (none.downtime_ms + 10)) < 0.001);
}

/* 10 pages are written in a millisecond, ever others. */
static void what_is_written_in_less_time_is_less(void **state)
{
	(void)state;
	struct told told = {0};
	tell(&told, 10000, 1000, true);
	tell(&told, 1000, 100, true); /* of 1000 ms */
	/* Two rounds do not show whether the same pages are written again and again. */
	assert_true(fabs(predict(&told, 10000).dirty_pages - 1000) < 1);
	tell(&told, 100, 10, true);
	assert_true(predict(&told, 10000).dirty_pages < 15);
}

/* 500 pages are written all the time, whatever time they are given. */
static void a_hot_set_does_not_get_smaller(void **state)
{
	(void)state;
	struct told told = {0};
	tell(&told, 10000, 1000, true);
	tell(&told, 500, 50, true);
	assert_true(fabs(predict(&told, 10000).dirty_pages - 500) < 1);
	tell(&told, 500, 50, true);
	assert_true(fabs(predict(&told, 10000).dirty_pages - 500) < 1);
	tell(&told, 500, 5, true); /* the link became faster */
	assert_true(predict(&told, 10000).dirty_pages > 450);
}

static void more_time_makes_more_pages_but_not_more_than_there_are(void **state)
{
	(void)state;
	struct told told = {0};
	tell(&told, 1000, 100, true);
	tell(&told, 100, 200, true);
	assert_true(fabs(predict(&told, 1000).dirty_pages - 200) < 1);
	tell(&told, 900, 20000, true);
	assert_true(fabs(predict(&told, 1000).dirty_pages - 1000) < 1);
}

/* Reading all memory takes most of a round that has little to send. */
static void a_round_that_did_not_fill_the_link_says_nothing_against_it(void **state)
{
	(void)state;
	struct told told = {0};
	tell(&told, 100000, 1000, true); /* 100 pages a millisecond */
	tell(&told, 100, 500, false);
	double fast = predict(&told, 100000).transfer_ms;
	assert_true(fast < 2);
	/* One that did, does. */
	tell(&told, 1000, 500, true);
	tell(&told, 1000, 500, true);
	assert_true(predict(&told, 100000).transfer_ms > 400);
	/* Nor does one of a few pages. */
	tell(&told, 3, 200, true);
	assert_true(predict(&told, 100000).transfer_ms < 5);
}

static void zero_and_packed_pages_count_by_what_they_take_on_the_wire(void **state)
{
	(void)state;
	struct told told = {0};
	tell(&told, 10000, 100, true);
	tell(&told, 1000, 10, true);
	double plain = predict(&told, 10000).transfer_ms;
	told.rounds[1].bytes /= 8;
	told.rounds[1].ended_ms = told.rounds[1].begun_ms + 10.0 / 8;
	double packed = predict(&told, 10000).transfer_ms;
	assert_true(packed < plain / 4);
	assert_true(converge_transfer_ms(&told.history, 0) < 0.001);
}

static void the_rounds_left_are_spread_over_the_time_left(void **state)
{
	(void)state;
	struct told told = {0};
	struct converge_limits promised = usual;
	promised.is_promise = true;
	assert_int_equal(converge_pause_ms(&promised, &told.history, 5000), 0);
	tell(&told, 1000, 10, false);
	assert_int_equal(converge_pause_ms(&promised, &told.history, 5000), 0);
	tell(&told, 100, 10, false); /* shrinks: at once */
	assert_int_equal(converge_pause_ms(&promised, &told.history, 5000), 0);
	tell(&told, 100, 10, false);
	assert_int_equal(converge_pause_ms(&promised, &told.history, 5000), 1000);
	assert_int_equal(converge_pause_ms(&promised, &told.history, 500000), 2000);
	assert_int_equal(converge_pause_ms(&promised, &told.history, 0), 0);
	assert_int_equal(converge_pause_ms(&promised, &told.history, -5), 0);
	assert_int_equal(converge_pause_ms(&usual, &told.history, 5000), 0);
	for (unsigned i = 0; i < 5; i++)
		tell(&told, 100, 10, false);
	assert_int_equal(converge_pause_ms(&promised, &told.history, 5000), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_reason_decides_in_its_case),
	    cmocka_unit_test(rounds_that_are_used_up_end_it),
	    cmocka_unit_test(a_promise_that_no_round_could_keep_is_given_up_at_once),
	    cmocka_unit_test(pre_copy_always_ends),
	    cmocka_unit_test(a_tree_is_slowed_down_step_by_step_and_not_to_nothing),
	    cmocka_unit_test(all_parts_are_in_the_prediction),
	    cmocka_unit_test(what_is_written_in_less_time_is_less),
	    cmocka_unit_test(a_hot_set_does_not_get_smaller),
	    cmocka_unit_test(more_time_makes_more_pages_but_not_more_than_there_are),
	    cmocka_unit_test(a_round_that_did_not_fill_the_link_says_nothing_against_it),
	    cmocka_unit_test(zero_and_packed_pages_count_by_what_they_take_on_the_wire),
	    cmocka_unit_test(the_rounds_left_are_spread_over_the_time_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
