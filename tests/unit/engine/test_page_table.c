/* SPDX-License-Identifier: Apache-2.0 */
/* The page table against a plain array of what each page held. */
#include "tests/unit/test.h"

#include <string.h>

#include "engine/criu/page_stream.h"
#include "engine/pipe/page_table.h"

enum { PAGES = 20000, IMAGE = 5 << 8 | PAGE_TASK, OTHER = 6 << 8 | PAGE_TASK };

static int make(void **state)
{
	struct page_table *table;

	assert_ok(page_table_new(&table));
	*state = table;
	return 0;
}

static int end(void **state)
{
	page_table_free(*state);
	return 0;
}

/* A page that is told by its number, at a place that no short-cut would look at. */
static void fill(uint8_t page[PAGE_BYTES], uint32_t content)
{
	memset(page, 0x5a, PAGE_BYTES);
	memcpy(page + 4000, &content, sizeof(content));
}

static bool note(struct page_table *table, uint64_t page, uint32_t content)
{
	uint8_t data[PAGE_BYTES];
	bool is_same = true;

	fill(data, content);
	assert_ok(page_table_note(table, page * PAGE_BYTES, data, &is_same));
	return is_same;
}

static void only_the_same_content_at_the_same_address_is_the_same(void **state)
{
	struct page_table *table = *state;

	assert_ok(page_table_open(table, IMAGE));
	assert_false(page_table_has_image(table, IMAGE));
	assert_false(note(table, 1, 10));
	assert_false(note(table, 2, 20));
	assert_false(note(table, 9, 90));
	page_table_next_round(table, false);
	assert_true(page_table_has_image(table, IMAGE));
	assert_ok(page_table_open(table, IMAGE));
	assert_false(note(table, 0, 10));
	assert_true(note(table, 1, 10));
	assert_false(note(table, 2, 21));
	assert_false(note(table, 3, 90));
	assert_true(note(table, 9, 90));
	assert_false(note(table, 10, 90));
	page_table_next_round(table, false);
	assert_ok(page_table_open(table, IMAGE));
	assert_true(note(table, 2, 21));
	assert_true(note(table, 10, 90));
}

static void another_process_s_page_is_another_page(void **state)
{
	struct page_table *table = *state;

	assert_ok(page_table_open(table, IMAGE));
	assert_false(note(table, 1, 10));
	assert_ok(page_table_open(table, OTHER));
	assert_false(note(table, 1, 11));
	page_table_next_round(table, false);
	/* Whatever the order. */
	assert_ok(page_table_open(table, OTHER));
	assert_false(note(table, 1, 10));
	assert_ok(page_table_open(table, IMAGE));
	assert_true(note(table, 1, 10));
}

static void a_page_that_one_round_did_not_have_is_forgotten(void **state)
{
	struct page_table *table = *state;

	assert_ok(page_table_open(table, IMAGE));
	assert_false(note(table, 1, 10));
	page_table_next_round(table, false);
	assert_ok(page_table_open(table, IMAGE));
	page_table_next_round(table, false);
	assert_ok(page_table_open(table, IMAGE));
	assert_false(note(table, 1, 10));
	page_table_next_round(table, false);
	page_table_next_round(table, false);
	assert_false(page_table_has_image(table, IMAGE));
}

/* Says that these are as they were, and how many of them the table knows of the round before. */
static uint64_t keep(struct page_table *table, unsigned page, uint64_t pages)
{
	uint64_t alike = 0, known = 0;
	bool is_known = false;

	for (; pages > 0; pages -= alike, page += (unsigned)alike) {
		assert_ok(
		    page_table_keep(table, (uint64_t)page * PAGE_BYTES, pages, &alike, &is_known));
		assert_true(alike > 0 && alike <= pages);
		known += is_known ? alike : 0;
	}
	return known;
}

static void clean_pages_are_carried_on(void **state)
{
	struct page_table *table = *state;

	assert_ok(page_table_open(table, IMAGE));
	for (unsigned page = 0; page < 100; page++)
		assert_false(note(table, page, page));
	page_table_next_round(table, false);
	assert_ok(page_table_open(table, IMAGE));
	assert_int_equal(keep(table, 10, 50), 50);
	assert_int_equal(keep(table, 90, 500), 10);
	page_table_next_round(table, true);
	assert_ok(page_table_open(table, IMAGE));
	for (unsigned page = 0; page < 110; page++)
		assert_int_equal(note(table, page, page),
				 (page >= 10 && page < 60) || (page >= 90 && page < 100));
}

static void clean_pages_that_were_never_sent_are_told_apart(void **state)
{
	struct page_table *table = *state;
	uint64_t alike = 0;
	bool is_known = true;

	assert_ok(page_table_open(table, IMAGE));
	for (unsigned page = 0; page < 100; page++)
		if (page < 20 || page >= 30)
			assert_false(note(table, page, page));
	page_table_next_round(table, false);
	assert_ok(page_table_open(table, IMAGE));
	assert_ok(page_table_keep(table, 0, 120, &alike, &is_known));
	assert_true(is_known);
	assert_int_equal(alike, 20);
	assert_ok(page_table_keep(table, 20L * PAGE_BYTES, 100, &alike, &is_known));
	assert_false(is_known);
	assert_int_equal(alike, 10);
	assert_ok(page_table_keep(table, 30L * PAGE_BYTES, 90, &alike, &is_known));
	assert_true(is_known);
	assert_int_equal(alike, 70);
	assert_ok(page_table_keep(table, 100L * PAGE_BYTES, 20, &alike, &is_known));
	assert_false(is_known);
	assert_int_equal(alike, 20);
}

static void pages_before_any_image_are_refused(void **state)
{
	struct page_table *table = *state;
	uint8_t page[PAGE_BYTES] = {0};
	bool is_same;

	assert_code(page_table_note(table, 0, page, &is_same), STATUS_DATA_LOSS);
}

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 16;
}

/* What a page may do in a round: be absent, clean, dirty with the old or with new content. */
static void one_random_round(struct page_table *table, uint32_t *before, uint32_t *seed)
{
	uint32_t density = next_random(seed) % 8;

	assert_ok(page_table_open(table, IMAGE));
	for (unsigned page = 0; page < PAGES; page++) {
		uint32_t act = next_random(seed) % 8, content = before[page];
		if (act < density / 2) {
			before[page] = 0;
			continue;
		}
		if (act < 4 && content != 0) {
			assert_int_equal(keep(table, page, 1), 1);
			continue;
		}
		if (act == 7 || content == 0)
			content = next_random(seed) % 3 + 1;
		assert_int_equal(note(table, page, content), content == before[page]);
		before[page] = content;
	}
	page_table_next_round(table, false);
}

static void random_rounds_agree_with_a_plain_array(void **state)
{
	uint32_t *before = calloc(PAGES, sizeof(*before));
	uint32_t seed = 7;

	assert_non_null(before);
	for (unsigned round = 0; round < 12; round++)
		one_random_round(*state, before, &seed);
	free(before);
}

static void the_table_takes_half_a_percent_of_the_memory(void **state)
{
	struct page_table *table = *state;
	size_t most = 0;

	for (unsigned round = 0; round < 3; round++) {
		assert_ok(page_table_open(table, IMAGE));
		for (unsigned page = 0; page < PAGES; page++) {
			(void)note(table, page, page + round);
			size_t now = page_table_bytes(table);
			most = now > most ? now : most;
		}
		page_table_next_round(table, false);
	}
	assert_true(most < (size_t)PAGES * PAGE_BYTES / 200 + 3 * 65536);
}

/* A round that ends at each of its places: what the table knows then is what the destination has,
 * or less. */
static void a_round_that_is_cut_knows_its_beginning_and_the_rest_of_the_one_before(void **state)
{
	(void)state;
	enum { FEW = 9000, STEP = 613 };
	for (unsigned cut = 0; cut <= FEW; cut += STEP) {
		scoped(page_table) struct page_table *table = NULL;
		struct page_table_mark mark = {0};
		assert_ok(page_table_new(&table));
		for (uint64_t image = IMAGE; image <= OTHER; image += OTHER - IMAGE) {
			assert_ok(page_table_open(table, image));
			for (uint64_t page = 0; page < FEW; page++)
				(void)note(table, page + page / 100 * 7, (uint32_t)page);
		}
		page_table_next_round(table, false);
		assert_ok(page_table_open(table, IMAGE));
		for (uint64_t page = 0; page < FEW; page++) {
			if (page == cut)
				mark = page_table_mark(table);
			(void)note(table, page + page / 100 * 7, (uint32_t)page + 100000);
		}
		if (cut == FEW)
			mark = page_table_mark(table);
		/* That far the table had come; it is to go back. */
		assert_ok(page_table_open(table, OTHER));
		(void)note(table, 0, 77);
		assert_ok(page_table_cut(table, &mark));
		page_table_next_round(table, false);
		assert_ok(page_table_open(table, IMAGE));
		unsigned same = 0;
		for (uint64_t page = 0; page < FEW; page++) {
			bool is_new = page < cut;
			/* What the destination has not got is never taken for the same. */
			bool is_same = note(table, page + page / 100 * 7,
					    (uint32_t)page + (is_new ? 100000 : 0));
			assert_true(is_same || !is_new);
			same += is_same ? 1 : 0;
		}
		assert_true(same >= cut);
		assert_ok(page_table_open(table, OTHER));
		same = 0;
		for (uint64_t page = 0; page < FEW; page++)
			same += note(table, page + page / 100 * 7, (uint32_t)page) ? 1 : 0;
		assert_true(same >= FEW - 1);
	}
}

static void content_behind_a_cut_is_not_taken_for_sent(void **state)
{
	struct page_table *table = *state;
	struct page_table_mark mark;

	assert_ok(page_table_open(table, IMAGE));
	for (uint64_t page = 0; page < 100; page++)
		(void)note(table, page, 1);
	page_table_next_round(table, false);
	assert_ok(page_table_open(table, IMAGE));
	for (uint64_t page = 0; page < 50; page++)
		(void)note(table, page, 2);
	mark = page_table_mark(table);
	for (uint64_t page = 50; page < 100; page++)
		(void)note(table, page, 2);
	assert_ok(page_table_cut(table, &mark));
	page_table_next_round(table, false);
	assert_ok(page_table_open(table, IMAGE));
	for (uint64_t page = 0; page < 100; page++)
		assert_int_equal(note(table, page, 2), page < 50);
}

int main(void)
{
#define TABLE_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    TABLE_TEST(only_the_same_content_at_the_same_address_is_the_same),
	    TABLE_TEST(another_process_s_page_is_another_page),
	    TABLE_TEST(a_page_that_one_round_did_not_have_is_forgotten),
	    TABLE_TEST(clean_pages_are_carried_on),
	    TABLE_TEST(clean_pages_that_were_never_sent_are_told_apart),
	    TABLE_TEST(pages_before_any_image_are_refused),
	    TABLE_TEST(random_rounds_agree_with_a_plain_array),
	    TABLE_TEST(the_table_takes_half_a_percent_of_the_memory),
	    TABLE_TEST(a_round_that_is_cut_knows_its_beginning_and_the_rest_of_the_one_before),
	    TABLE_TEST(content_behind_a_cut_is_not_taken_for_sent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
