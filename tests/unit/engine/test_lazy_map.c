/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lazy/lazy_map.h"

#include <stdio.h>
#include <sys/mman.h>

#include "engine/criu/pagemap.h"
#include "engine/host/files.h"
#include "tests/unit/engine/lazy_scene.h"
#include "tests/unit/test.h"

enum { PRIVATE = MAP_PRIVATE | MAP_ANONYMOUS, AT = 0x10000 };

static uint64_t page(uint64_t number)
{
	return AT + number * PAGE_BYTES;
}

struct scene {
	struct lazy_rounds rounds;
	struct lazy_index *index;
	struct lazy_map map;
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	lazy_rounds_make(&scene->rounds);
	assert_ok(lazy_index_new(scene->rounds.dir, &scene->index));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	lazy_map_free(&scene->map);
	lazy_index_free(scene->index);
	lazy_rounds_remove(&scene->rounds);
	free(scene);
	return 0;
}

static void round_is_over(struct scene *scene)
{
	lazy_round_end(&scene->rounds);
	assert_ok(lazy_index_add(scene->index, scene->rounds.round));
}

/* The content that the map gives the page, read from the file that it names. */
static uint64_t word_at(const struct scene *scene, uint64_t address)
{
	const struct lazy_run *run = lazy_map_find(&scene->map, &scene->map.tasks[0], address);
	char path[128];
	uint64_t word = 0;

	assert_non_null(run);
	const struct lazy_file *file = &scene->map.files[run->file];
	(void)snprintf(path, sizeof(path), "%s/%u/pages-%u.img", scene->rounds.dir, file->round,
		       file->pages_id);
	FILE *pages = fopen(path, "rbe");
	assert_non_null(pages);
	assert_int_equal(fseek(pages, (long)(run->offset + (address - run->address)), SEEK_SET), 0);
	assert_int_equal(fread(&word, sizeof(word), 1, pages), 1);
	(void)fclose(pages);
	return word;
}

static void each_page_is_found_where_it_came_last(void **state)
{
	struct scene *scene = *state;
	const struct lazy_vma all = {page(0), 16, PRIVATE};

	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(0), 8);
	round_is_over(scene);
	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, page(0), 3);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(3), 2);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, page(5), 3);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(9), 1);
	round_is_over(scene);
	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, page(0), 4);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(4), 1);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, page(5), 2);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, page(9), 1);
	lazy_round_mappings(&scene->rounds, &all, 1);
	round_is_over(scene);
	assert_ok(lazy_index_finish(scene->index, &scene->map));
	static const unsigned rounds[] = {1, 1, 1, 2, 3, 1, 1, 0, 0, 2};
	uint64_t count = 0;
	for (unsigned i = 0; i < 10; i++) {
		if (rounds[i] == 0) {
			assert_null(lazy_map_find(&scene->map, &scene->map.tasks[0], page(i)));
			continue;
		}
		assert_int_equal(word_at(scene, page(i)), lazy_word(page(i), rounds[i]));
		count++;
	}
	assert_int_equal(scene->map.task_count, 1);
	assert_int_equal(scene->map.tasks[0].pid, LAZY_PID);
	assert_int_equal(scene->map.pages, count);
}

static void only_private_anonymous_memory_that_is_not_locked_is_lazy(void **state)
{
	struct scene *scene = *state;
	const struct lazy_vma mappings[] = {
	    {page(0), 2, PRIVATE},
	    {page(2), 2, PRIVATE | MAP_LOCKED},
	    {page(4), 2, PRIVATE | MAP_HUGETLB},
	    {page(6), 2, MAP_PRIVATE},
	    {page(8), 2, MAP_SHARED | MAP_ANONYMOUS},
	    {page(10), 2, PRIVATE | MAP_GROWSDOWN},
	};
	struct pagemap marked __attribute__((cleanup(scope_pagemap))) = {0};
	char path[128];

	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(0), 12);
	round_is_over(scene);
	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, page(0), 11);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(11), 1);
	lazy_round_mappings(&scene->rounds, mappings, array_len(mappings));
	round_is_over(scene);
	assert_ok(lazy_index_finish(scene->index, &scene->map));
	assert_int_equal(scene->map.pages, 4);
	for (unsigned i = 0; i < 12; i++)
		assert_true((lazy_map_find(&scene->map, &scene->map.tasks[0], page(i)) != NULL) ==
			    (i < 2 || i >= 10));
	/* CRIU leaves out what is marked, and restores the rest as before. */
	assert_ok(lazy_index_mark(scene->index));
	(void)snprintf(path, sizeof(path), "%s/2/pagemap-%d.img", scene->rounds.dir, LAZY_PID);
	assert_ok(pagemap_read(path, &marked));
	assert_int_equal(marked.count, 4);
	assert_int_equal(marked.runs[0].flags, PAGE_LAZY);
	assert_int_equal(marked.runs[0].pages, 2);
	assert_int_equal(marked.runs[1].flags, PAGE_IN_PARENT);
	assert_int_equal(marked.runs[1].pages, 8);
	assert_int_equal(marked.runs[2].flags, PAGE_LAZY);
	assert_int_equal(marked.runs[3].flags, PAGE_PRESENT | PAGE_LAZY);
	assert_int_equal(marked.pages_id, 1);
}

static void a_run_ends_with_its_mapping(void **state)
{
	struct scene *scene = *state;
	const struct lazy_vma mappings[] = {{page(0), 3, PRIVATE}, {page(3), 5, PRIVATE}};

	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(1), 7);
	lazy_round_mappings(&scene->rounds, mappings, 2);
	round_is_over(scene);
	assert_ok(lazy_index_finish(scene->index, &scene->map));
	assert_int_equal(scene->map.run_count, 2);
	assert_int_equal(scene->map.runs[0].pages, 2);
	assert_int_equal(scene->map.runs[1].address, page(3));
	assert_int_equal(scene->map.runs[1].first, 2);
	assert_int_equal(word_at(scene, page(7)), lazy_word(page(7), 1));
}

static void a_page_that_no_round_has_is_data_loss(void **state)
{
	struct scene *scene = *state;
	char path[128];
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	const struct pagemap_run run = {page(1), 2, PAGE_IN_PARENT};

	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(0), 2);
	round_is_over(scene);
	/* The page store would not write it. */
	lazy_round_begin(&scene->rounds);
	lazy_round_end(&scene->rounds);
	(void)snprintf(path, sizeof(path), "%s/2/pagemap-%d.img", scene->rounds.dir, LAZY_PID);
	assert_ok(pagemap_add(&map, &run));
	assert_ok(pagemap_write(path, &map));
	assert_code(lazy_index_add(scene->index, 2), STATUS_DATA_LOSS);
}

static void a_task_that_has_ended_is_forgotten(void **state)
{
	struct scene *scene = *state;

	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(0), 2);
	round_is_over(scene);
	assert_ok(page_store_begin(scene->rounds.store, 2));
	assert_ok(lazy_index_add(scene->index, 2));
	assert_ok(lazy_index_finish(scene->index, &scene->map));
	assert_int_equal(scene->map.task_count, 0);
	assert_int_equal(scene->map.pages, 0);
}

static void an_mm_image_that_is_none_is_refused(void **state)
{
	struct scene *scene = *state;
	const struct lazy_vma mappings[] = {{page(4), 2, PRIVATE}, {page(3), 2, PRIVATE}};
	char path[128];

	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, page(3), 1);
	lazy_round_mappings(&scene->rounds, mappings, 2);
	round_is_over(scene);
	assert_code(lazy_index_finish(scene->index, &scene->map), STATUS_DATA_LOSS);
	(void)snprintf(path, sizeof(path), "%s/1/mm-%d.img", scene->rounds.dir, LAZY_PID);
	assert_ok(files_write(path, "nothing", 7));
	assert_code(lazy_index_finish(scene->index, &scene->map), STATUS_DATA_LOSS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(each_page_is_found_where_it_came_last, make, end),
	    cmocka_unit_test_setup_teardown(
		only_private_anonymous_memory_that_is_not_locked_is_lazy, make, end),
	    cmocka_unit_test_setup_teardown(a_run_ends_with_its_mapping, make, end),
	    cmocka_unit_test_setup_teardown(a_page_that_no_round_has_is_data_loss, make, end),
	    cmocka_unit_test_setup_teardown(a_task_that_has_ended_is_forgotten, make, end),
	    cmocka_unit_test_setup_teardown(an_mm_image_that_is_none_is_refused, make, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
