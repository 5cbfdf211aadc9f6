/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/criu/page_store.h"
#include "engine/host/files.h"
#include "tests/unit/engine/pipe_pair.h"

enum { FIRST = 1 << 8 | PAGE_TASK, SECOND = 2 << 8 | PAGE_SHMEM, LIMIT = 1024 * 1024 };

struct scene {
	char dir[64];
	struct page_store *store;
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	scratch_make(scene->dir);
	assert_ok(page_store_new(scene->dir, &scene->store));
	assert_ok(page_store_begin(scene->store, 1));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	page_store_free(scene->store);
	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

static status *open_image(struct scene *scene, uint64_t image)
{
	const struct page_header header = {.command = PAGE_OPEN, .image = image};

	return page_store_record(scene->store, &header, NULL);
}

/* Pages filled with the number of the first. */
static status *add(struct scene *scene, uint32_t flags, uint64_t page, uint32_t pages)
{
	const struct page_header header = {PAGE_ADD, flags, pages, page * PAGE_BYTES, FIRST};
	uint8_t data[8 * PAGE_BYTES];

	assert_true(pages <= 8);
	memset(data, (int)page, sizeof(data));
	return page_store_record(scene->store, &header, data);
}

static void read_file(const struct scene *scene, const char *name, struct buffer *ret_content)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", scene->dir, name);
	assert_ok(files_read(path, LIMIT, ret_content));
}

static void expect_file(const struct scene *scene, const char *name, const void *want, size_t size)
{
	struct buffer got __attribute__((cleanup(scope_buffer))) = {0};

	read_file(scene, name, &got);
	assert_int_equal(got.size, size);
	assert_memory_equal(got.data, want, size);
}

static void images_are_laid_out_as_criu_reads_them(void **state)
{
	struct scene *scene = *state;
	uint64_t pages = 0;
	/* Magics; pages_id 1; pages 1 to 3 (2 and 3 zero) as one entry; page 5. */
	static const uint8_t pagemap[] = {0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56, 2, 0,
					  0,	0,    8,    1,	  7,	0,    0,    0,	  8, 0x80,
					  0x20, 16,   3,    32,	  4,	8,    0,    0,	  0, 8,
					  0x80, 0xa0, 0x01, 16,	  1,	32,   4};
	static uint8_t content[4 * PAGE_BYTES];

	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_PRESENT, 1, 1));
	assert_ok(add(scene, PAGE_PRESENT | PAGE_ZERO, 2, 2));
	assert_ok(add(scene, PAGE_PRESENT, 5, 1));
	assert_ok(open_image(scene, SECOND));
	assert_ok(page_store_end(scene->store, &pages));
	assert_int_equal(pages, 4);
	memset(content, 1, PAGE_BYTES);
	memset(content + 3 * PAGE_BYTES, 5, PAGE_BYTES);
	expect_file(scene, "1/pagemap-1.img", pagemap, sizeof(pagemap));
	expect_file(scene, "1/pages-1.img", content, sizeof(content));
	expect_file(scene, "1/pagemap-shmem-2.img",
		    "\x19\x43\x56\x54\x25\x40\x08\x56\x02\0\0\0\x08\x02", 14);
	expect_file(scene, "1/pages-2.img", "", 0);
}

static void late_pages_are_a_hole_and_only_where_they_are_allowed(void **state)
{
	struct scene *scene = *state;
	uint64_t pages = 0;
	static uint8_t content[4 * PAGE_BYTES];
	const struct page_header shared = {PAGE_ADD, PAGE_PRESENT | PAGE_LATE, 1, PAGE_BYTES,
					   SECOND};

	assert_ok(open_image(scene, FIRST));
	assert_code(add(scene, PAGE_PRESENT | PAGE_LATE, 1, 2), STATUS_DATA_LOSS);
	page_store_allow_late(scene->store);
	assert_ok(add(scene, PAGE_PRESENT | PAGE_LATE, 1, 2));
	assert_ok(add(scene, PAGE_PRESENT, 3, 1));
	assert_ok(add(scene, PAGE_PRESENT | PAGE_LATE, 4, 1));
	assert_ok(open_image(scene, SECOND));
	assert_code(page_store_record(scene->store, &shared, NULL), STATUS_DATA_LOSS);
	assert_ok(page_store_end(scene->store, &pages));
	assert_int_equal(pages, 4);
	memset(content + 2 * PAGE_BYTES, 3, PAGE_BYTES);
	expect_file(scene, "1/pages-1.img", content, sizeof(content));
}

static void zeros_at_the_end_count_in_the_size_but_take_no_room(void **state)
{
	struct scene *scene = *state;
	uint64_t pages = 0;
	struct stat info;
	char path[128];

	assert_ok(open_image(scene, FIRST));
	const struct page_header zeros = {PAGE_ADD, PAGE_PRESENT | PAGE_ZERO, 1000, 0, FIRST};
	assert_ok(page_store_record(scene->store, &zeros, NULL));
	assert_ok(page_store_end(scene->store, &pages));
	(void)snprintf(path, sizeof(path), "%s/1/pages-1.img", scene->dir);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_size, 1000 * PAGE_BYTES);
	assert_true(info.st_blocks * 512 < 100 * PAGE_BYTES);
}

static void what_the_round_before_has_may_be_left_out(void **state)
{
	struct scene *scene = *state;
	uint64_t pages = 0;
	char target[32] = "";
	char path[128];

	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_PRESENT, 1, 4));
	assert_ok(add(scene, PAGE_PRESENT, 7, 2));
	assert_ok(page_store_end(scene->store, &pages));
	assert_ok(page_store_begin(scene->store, 2));
	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_IN_PARENT, 1, 2));
	assert_ok(add(scene, PAGE_PRESENT, 3, 1));
	assert_ok(add(scene, PAGE_IN_PARENT, 4, 1));
	assert_ok(add(scene, PAGE_IN_PARENT, 7, 2));
	assert_ok(page_store_end(scene->store, &pages));
	assert_int_equal(pages, 1);
	(void)snprintf(path, sizeof(path), "%s/2/parent", scene->dir);
	assert_int_equal(readlink(path, target, sizeof(target) - 1), 4);
	assert_string_equal(target, "../1");
	/* A third round may point at what the second itself left out. */
	assert_ok(page_store_begin(scene->store, 3));
	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_IN_PARENT, 1, 4));
	assert_ok(page_store_end(scene->store, &pages));
	assert_int_equal(pages, 0);
}

static void what_no_round_has_sent_may_not_be_left_out(void **state)
{
	struct scene *scene = *state;
	uint64_t pages = 0;

	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_PRESENT, 1, 4));
	assert_ok(add(scene, PAGE_PRESENT, 6, 1));
	assert_ok(page_store_end(scene->store, &pages));
	assert_ok(page_store_begin(scene->store, 2));
	assert_ok(open_image(scene, FIRST));
	assert_code(add(scene, PAGE_IN_PARENT, 3, 4), STATUS_DATA_LOSS); /* 5 is missing */
}

static void nothing_can_be_in_the_parent_of_the_first_round(void **state)
{
	struct scene *scene = *state;

	assert_ok(open_image(scene, FIRST));
	assert_code(add(scene, PAGE_IN_PARENT, 1, 1), STATUS_DATA_LOSS);
}

static void pages_without_an_open_image_are_refused(void **state)
{
	struct scene *scene = *state;

	assert_code(add(scene, PAGE_PRESENT, 1, 1), STATUS_DATA_LOSS);
	assert_ok(open_image(scene, SECOND));
	assert_code(add(scene, PAGE_PRESENT, 1, 1), STATUS_DATA_LOSS);
}

static void pages_out_of_order_are_refused(void **state)
{
	struct scene *scene = *state;

	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_PRESENT, 4, 2));
	assert_code(add(scene, PAGE_PRESENT, 5, 1), STATUS_DATA_LOSS);
}

static void an_image_does_not_come_twice_in_a_round(void **state)
{
	struct scene *scene = *state;

	assert_ok(open_image(scene, FIRST));
	assert_ok(open_image(scene, SECOND));
	assert_code(open_image(scene, FIRST), STATUS_DATA_LOSS);
}

/* What a round that was cut leaves is a whole one: the next may refer to all that either had. */
static void a_round_that_is_cut_has_the_rest_of_the_one_before(void **state)
{
	struct scene *scene = *state;
	uint64_t pages = 0;

	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_PRESENT, 4, 8));
	assert_ok(add(scene, PAGE_PRESENT, 20, 4));
	assert_ok(open_image(scene, SECOND));
	assert_ok(page_store_end(scene->store, &pages));
	assert_ok(page_store_begin(scene->store, 2));
	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_PRESENT, 2, 4)); /* over the beginning of the first run */
	assert_ok(page_store_cut(scene->store, &pages));
	assert_int_equal(pages, 4);
	assert_ok(page_store_begin(scene->store, 3));
	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_IN_PARENT, 2, 8));
	assert_ok(add(scene, PAGE_IN_PARENT, 10, 2));
	assert_ok(add(scene, PAGE_IN_PARENT, 20, 4));
	assert_code(add(scene, PAGE_IN_PARENT, 24, 1), STATUS_DATA_LOSS);
}

static void a_round_that_is_cut_at_once_is_the_one_before(void **state)
{
	struct scene *scene = *state;
	uint64_t pages = 9;

	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_PRESENT, 4, 8));
	assert_ok(open_image(scene, SECOND));
	assert_ok(page_store_end(scene->store, &pages));
	for (unsigned round = 2; round < 5; round++) {
		assert_ok(page_store_begin(scene->store, round));
		assert_ok(page_store_cut(scene->store, &pages));
		assert_int_equal(pages, 0);
	}
	assert_ok(page_store_begin(scene->store, 5));
	assert_ok(open_image(scene, FIRST));
	assert_ok(add(scene, PAGE_IN_PARENT, 4, 8));
	/* Of the first round nothing is before it. */
	scoped(page_store) struct page_store *fresh = NULL;
	char below[80];
	(void)snprintf(below, sizeof(below), "%s/fresh", scene->dir);
	assert_ok(files_make_directory(below));
	assert_ok(page_store_new(below, &fresh));
	assert_ok(page_store_begin(fresh, 1));
	assert_ok(page_store_cut(fresh, &pages));
	assert_int_equal(pages, 0);
}

int main(void)
{
#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    STORE_TEST(late_pages_are_a_hole_and_only_where_they_are_allowed),
	    STORE_TEST(images_are_laid_out_as_criu_reads_them),
	    STORE_TEST(zeros_at_the_end_count_in_the_size_but_take_no_room),
	    STORE_TEST(what_the_round_before_has_may_be_left_out),
	    STORE_TEST(what_no_round_has_sent_may_not_be_left_out),
	    STORE_TEST(nothing_can_be_in_the_parent_of_the_first_round),
	    STORE_TEST(pages_without_an_open_image_are_refused),
	    STORE_TEST(pages_out_of_order_are_refused),
	    STORE_TEST(an_image_does_not_come_twice_in_a_round),
	    STORE_TEST(a_round_that_is_cut_has_the_rest_of_the_one_before),
	    STORE_TEST(a_round_that_is_cut_at_once_is_the_one_before),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
