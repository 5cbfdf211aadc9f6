/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/pagemap.h"

#include "engine/criu/page_stream.h"
#include "tests/unit/test.h"

enum { RUNS = 200 };

static struct pagemap_run run_at(uint64_t page, uint64_t pages, uint32_t flags)
{
	return (struct pagemap_run){page * PAGE_BYTES, pages, flags};
}

static void add(struct pagemap *map, uint64_t page, uint64_t pages, uint32_t flags)
{
	const struct pagemap_run run = run_at(page, pages, flags);

	assert_ok(pagemap_add(map, &run));
}

static void what_is_written_is_read_back(void **state)
{
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {.pages_id = 7};
	struct pagemap again __attribute__((cleanup(scope_pagemap))) = {0};
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	(void)state;

	for (uint64_t i = 0; i < RUNS; i++)
		add(&map, 1 + 3 * i, 1 + i % 2, i % 3 == 0 ? PAGE_IN_PARENT : PAGE_PRESENT);
	assert_int_equal(map.count, RUNS);
	assert_ok(pagemap_encode(&map, &image));
	assert_ok(pagemap_decode(image.data, image.size, &again));
	assert_int_equal(again.pages_id, 7);
	assert_int_equal(again.count, RUNS);
	for (size_t i = 0; i < RUNS; i++) {
		assert_int_equal(again.runs[i].address, map.runs[i].address);
		assert_int_equal(again.runs[i].pages, map.runs[i].pages);
		assert_int_equal(again.runs[i].flags, map.runs[i].flags);
	}
}

static void runs_that_go_on_are_one(void **state)
{
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	(void)state;

	add(&map, 1, 2, PAGE_PRESENT);
	add(&map, 3, 4, PAGE_PRESENT);
	add(&map, 7, 1, PAGE_PRESENT | PAGE_LAZY);
	add(&map, 9, 1, PAGE_PRESENT | PAGE_LAZY);
	assert_int_equal(map.count, 3);
	assert_int_equal(map.runs[0].pages, 6);
	assert_int_equal(map.runs[1].flags, PAGE_PRESENT | PAGE_LAZY);
}

static void an_image_that_is_cut_anywhere_but_between_entries_is_refused(void **state)
{
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {.pages_id = 1};
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	size_t whole = 0;
	(void)state;

	add(&map, 1, 1, PAGE_PRESENT);
	add(&map, 3, 1, PAGE_PRESENT);
	assert_ok(pagemap_encode(&map, &image));
	for (size_t size = 0; size < image.size; size++) {
		struct pagemap cut = {0};
		status *st = pagemap_decode(image.data, size, &cut);
		assert_true(st == NULL || status_code_of(st) == STATUS_DATA_LOSS);
		whole += st == NULL ? 1 : 0;
		status_free(st);
		pagemap_free(&cut);
	}
	assert_int_equal(whole, 2); /* without entries, and with the first */
}

static void expect_damaged(const struct pagemap_run *runs, size_t count)
{
	const struct pagemap map = {.pages_id = 1,
				    .runs = (struct pagemap_run *)runs,
				    .count = count};
	struct pagemap again = {0};
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};

	assert_ok(pagemap_encode(&map, &image));
	assert_code(pagemap_decode(image.data, image.size, &again), STATUS_DATA_LOSS);
}

static void runs_over_each_other_and_impossible_ones_are_refused(void **state)
{
	const struct pagemap_run over[] = {run_at(1, 3, PAGE_PRESENT), run_at(3, 1, PAGE_PRESENT)};
	const struct pagemap_run back[] = {run_at(5, 1, PAGE_PRESENT), run_at(1, 1, PAGE_PRESENT)};
	const struct pagemap_run none[] = {run_at(1, 0, PAGE_PRESENT)};
	const struct pagemap_run half[] = {{4097, 1, PAGE_PRESENT}};
	const struct pagemap_run wraps[] = {{UINT64_MAX - PAGE_BYTES + 1, 2, PAGE_PRESENT}};
	(void)state;

	expect_damaged(over, 2);
	expect_damaged(back, 2);
	expect_damaged(none, 1);
	expect_damaged(half, 1);
	expect_damaged(wraps, 1);
}

static void a_missing_one_is_told_apart(void **state)
{
	struct pagemap map = {0};
	(void)state;

	assert_code(pagemap_read("/nonexistent/pagemap-1.img", &map), STATUS_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_is_written_is_read_back),
	    cmocka_unit_test(runs_that_go_on_are_one),
	    cmocka_unit_test(an_image_that_is_cut_anywhere_but_between_entries_is_refused),
	    cmocka_unit_test(runs_over_each_other_and_impossible_ones_are_refused),
	    cmocka_unit_test(a_missing_one_is_told_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
