/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lazy/late_store.h"

#include <sys/mman.h>

#include "tests/unit/engine/late_scene.h"
#include "tests/unit/test.h"

enum { BASE = 0x10000000, NOW_MS = 0 };

static int make(void **state)
{
	struct late_scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	late_scene_make(scene, BASE);
	*state = scene;
	return 0;
}

static int end(void **state)
{
	late_scene_end(*state);
	free(*state);
	return 0;
}

static struct late_counts counts_of(const struct late_scene *scene)
{
	struct late_counts counts;

	late_store_counts(scene->store, &counts);
	return counts;
}

static void what_has_not_been_sent_is_asked_for_once_in_its_order(void **state)
{
	const struct late_scene *scene = *state;
	struct late_range range;
	uint64_t next = late_scene_address(scene, LATE_SENT), asked = 0;

	while (late_store_next(scene->store, true, NOW_MS, &range)) {
		assert_int_equal(range.pid, LAZY_PID);
		assert_true(range.pages > 0 && range.pages <= LATE_RANGE_PAGES);
		assert_false(range.is_urgent);
		assert_int_equal(range.address, next);
		next += range.pages * (uint64_t)PAGE_BYTES;
		asked += range.pages;
	}
	assert_int_equal(asked, LATE_MISSING);
	assert_false(late_store_next(scene->store, true, NOW_MS, &range));
	late_store_restart(scene->store);
	assert_true(late_store_next(scene->store, true, NOW_MS, &range));
	assert_int_equal(range.address, late_scene_address(scene, LATE_SENT));
}

static void what_is_waited_for_goes_first_also_when_nothing_else_may(void **state)
{
	const struct late_scene *scene = *state;
	const struct late_range wanted = {.pid = LAZY_PID,
					  .address = late_scene_address(scene, 150),
					  .pages = 16};
	struct late_range range;

	assert_true(late_store_next(scene->store, true, NOW_MS, &range));
	late_store_want(scene->store, &wanted);
	assert_true(late_store_next(scene->store, false, NOW_MS, &range));
	assert_true(range.is_urgent);
	assert_int_equal(range.address, wanted.address);
	assert_int_equal(range.pages, 16);
	assert_int_equal(counts_of(scene).faults, 16);
	assert_false(late_store_next(scene->store, false, NOW_MS, &range));
}

static void what_has_come_meanwhile_is_not_asked_for(void **state)
{
	const struct late_scene *scene = *state;
	const struct late_range wanted = {.pid = LAZY_PID,
					  .address = late_scene_address(scene, 150),
					  .pages = 16};
	struct late_range range;

	late_store_want(scene->store, &wanted);
	late_scene_put(scene, 150, 16);
	assert_false(late_store_next(scene->store, false, NOW_MS, &range));
	late_store_want(scene->store, &wanted);
	late_scene_put(scene, LATE_SENT, 50);
	assert_true(late_store_next(scene->store, true, NOW_MS, &range));
	assert_int_equal(range.address, late_scene_address(scene, LATE_SENT + 50));
}

static void what_comes_is_in_its_place_before_it_counts_as_there(void **state)
{
	const struct late_scene *scene = *state;
	const struct lazy_task *task = lazy_map_task(&scene->map, LAZY_PID);

	assert_int_equal(counts_of(scene).pages, LATE_MISSING);
	assert_int_equal(counts_of(scene).missing, LATE_MISSING);
	for (size_t page = 0; page < LATE_PAGES; page++)
		assert_true(lazy_map_is_there(&scene->map, task, page) == (page < LATE_SENT));
	assert_int_equal(late_scene_content(scene, 90), 0);
	late_scene_put(scene, 90, 10);
	assert_int_equal(counts_of(scene).missing, LATE_MISSING - 10);
	for (size_t page = 90; page < 100; page++)
		assert_int_equal(late_scene_content(scene, page),
				 lazy_word(late_scene_address(scene, page), LATE_ROUND));
	assert_false(lazy_map_is_there(&scene->map, task, 89));
	assert_int_equal(lazy_map_there(&scene->map, task, 90, LATE_PAGES), 10);
	/* A second time, after a link that was lost, it counts no more. */
	late_scene_put(scene, 90, 10);
	assert_int_equal(counts_of(scene).missing, LATE_MISSING - 10);
}

static void the_newest_name_of_a_page_is_its_place(void **state)
{
	const struct late_scene *scene = *state;

	late_scene_put(scene, LATE_AGAIN, LATE_AGAIN_PAGES);
	assert_int_equal(late_scene_content(scene, LATE_AGAIN),
			 lazy_word(late_scene_address(scene, LATE_AGAIN), LATE_ROUND));
	assert_int_equal(counts_of(scene).missing, LATE_MISSING - LATE_AGAIN_PAGES);
}

static void zeros_stay_a_hole_and_are_there(void **state)
{
	const struct late_scene *scene = *state;
	const struct late_range range = {.pid = LAZY_PID,
					 .address = late_scene_address(scene, 20),
					 .pages = 2};

	assert_ok(late_store_put(scene->store, &range, NULL));
	assert_int_equal(late_scene_content(scene, 20), 0);
	assert_int_equal(counts_of(scene).missing, LATE_MISSING - 2);
}

static void what_was_not_to_come_is_refused_and_changes_nothing(void **state)
{
	const struct late_scene *scene = *state;
	static const uint8_t data[4 * PAGE_BYTES];
	const struct late_range bad[] = {
	    {.pid = LAZY_PID, .address = late_scene_address(scene, 0), .pages = 1},
	    {.pid = LAZY_PID, .address = late_scene_address(scene, LATE_SENT - 1), .pages = 2},
	    {.pid = LAZY_PID, .address = late_scene_address(scene, LATE_PAGES), .pages = 1},
	    {.pid = LAZY_PID, .address = late_scene_address(scene, LATE_PAGES - 1), .pages = 2},
	    {.pid = LAZY_PID, .address = late_scene_address(scene, 50) + 8, .pages = 1},
	    {.pid = LAZY_PID + 1, .address = late_scene_address(scene, 50), .pages = 1},
	};

	for (size_t i = 0; i < array_len(bad); i++)
		assert_code(late_store_put(scene->store, &bad[i], data), STATUS_DATA_LOSS);
	assert_int_equal(counts_of(scene).missing, LATE_MISSING);
	assert_int_equal(late_scene_content(scene, 0), lazy_word(late_scene_address(scene, 0), 1));
}

static void another_process_sees_what_has_come(void **state)
{
	struct late_scene *scene = *state;
	struct late_store *other;

	assert_ok(late_store_new(scene->shared, &other));
	late_scene_put(scene, 30, 5);
	struct late_counts counts;
	late_store_counts(other, &counts);
	assert_int_equal(counts.missing, LATE_MISSING - 5);
	assert_false(counts.is_lost);
	late_store_lose(scene->store);
	late_store_counts(other, &counts);
	assert_true(counts.is_lost);
	late_store_free(other);
}

/* mlock between the round that named them and the dump: CRIU would restore the hole as zeros. */
static void late_pages_that_cannot_come_later_end_the_restore(void **state)
{
	struct lazy_rounds rounds;
	struct lazy_index *index;
	struct lazy_map map = {0};
	const struct lazy_vma locked = {BASE, 16, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED};

	(void)state;
	lazy_rounds_make(&rounds);
	page_store_allow_late(rounds.store);
	assert_ok(lazy_index_new(rounds.dir, &index));
	lazy_round_begin(&rounds);
	lazy_round_add(&rounds, PAGE_PRESENT | PAGE_LATE, BASE, 16);
	lazy_round_mappings(&rounds, &locked, 1);
	lazy_round_end(&rounds);
	assert_ok(lazy_index_add(index, 1));
	assert_code(lazy_index_finish(index, &map), STATUS_DATA_LOSS);
	lazy_index_free(index);
	lazy_rounds_remove(&rounds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_has_not_been_sent_is_asked_for_once_in_its_order,
					    make, end),
	    cmocka_unit_test_setup_teardown(
		what_is_waited_for_goes_first_also_when_nothing_else_may, make, end),
	    cmocka_unit_test_setup_teardown(what_has_come_meanwhile_is_not_asked_for, make, end),
	    cmocka_unit_test_setup_teardown(what_comes_is_in_its_place_before_it_counts_as_there,
					    make, end),
	    cmocka_unit_test_setup_teardown(the_newest_name_of_a_page_is_its_place, make, end),
	    cmocka_unit_test_setup_teardown(zeros_stay_a_hole_and_are_there, make, end),
	    cmocka_unit_test_setup_teardown(what_was_not_to_come_is_refused_and_changes_nothing,
					    make, end),
	    cmocka_unit_test_setup_teardown(another_process_sees_what_has_come, make, end),
	    cmocka_unit_test(late_pages_that_cannot_come_later_end_the_restore),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
