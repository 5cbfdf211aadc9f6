/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that stay at the source: CRIU is played at a socket, the rest is real. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/criu/pagemap.h"
#include "tests/unit/engine/memory_scene.h"

enum { PAGES = 200, OTHERS = 5 };

/* What CRIU sends. */
static uint8_t data[PAGES * PAGE_BYTES];

static int make(void **state)
{
	int failed = memory_scene_make(state);
	struct scene *scene = *state;

	page_store_allow_late(scene->store);
	for (size_t page = 0; page < PAGES; page++)
		memset(data + page * PAGE_BYTES, (int)page + 1, PAGE_BYTES);
	return failed;
}

/* A round as CRIU sends it: the first pages are of a file, the others private and anonymous. */
static struct memory_round copy(struct scene *scene, enum memory_late late, bool is_last)
{
	const struct memory_feed feed = {.live_fd = -1,
					 .is_criu = true,
					 .is_last = is_last,
					 .late = late};
	const struct page_header others = {PAGE_ADD, PAGE_PRESENT, OTHERS, 0, IMAGE};
	const struct page_header lazy = {PAGE_ADD, PAGE_PRESENT | PAGE_LAZY, PAGES - OTHERS,
					 (uint64_t)OTHERS * PAGE_BYTES, IMAGE};

	begin_fed(scene, scene->round + 1, &feed);
	(void)ask_of(scene, IMAGE, PAGE_OPEN, 1);
	say(scene, &others, data);
	say(scene, &lazy, data + (size_t)OTHERS * PAGE_BYTES);
	close_round(scene);
	struct memory_round sent = finish(scene);
	assert_int_equal(scene->received.pages_late, sent.pages_late);
	return sent;
}

static void read_map(const struct scene *scene, struct pagemap *ret_map)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%u/pagemap-7.img", scene->dir, scene->round);
	assert_ok(pagemap_read(path, ret_map));
}

static void all_that_may_come_later_is_named_and_none_of_it_sent(void **state)
{
	struct scene *scene = *state;
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	struct memory_round sent = copy(scene, LATE_ALL, true);

	assert_int_equal(sent.pages_sent, PAGES);
	assert_int_equal(sent.pages_late, PAGES - OTHERS);
	assert_true(sent.bytes < (OTHERS + 1) * (uint64_t)PAGE_BYTES);
	read_map(scene, &map);
	assert_int_equal(map.count, 2);
	assert_int_equal(map.runs[0].flags, PAGE_PRESENT);
	assert_int_equal(map.runs[0].pages, OTHERS);
	assert_int_equal(map.runs[1].flags, PAGE_PRESENT | PAGE_LATE);
	assert_int_equal(map.runs[1].pages, PAGES - OTHERS);
}

static void only_what_has_changed_stays_behind_after_rounds_of_copying(void **state)
{
	struct scene *scene = *state;
	struct memory_round first = copy(scene, LATE_NONE, false);

	assert_int_equal(first.pages_late, 0);
	data[(size_t)50 * PAGE_BYTES] ^= 1;
	data[(size_t)51 * PAGE_BYTES] ^= 1;
	memset(data + (size_t)60 * PAGE_BYTES, 0, PAGE_BYTES);
	data[PAGE_BYTES] ^= 1; /* of the file */
	struct memory_round last = copy(scene, LATE_CHANGED, true);
	assert_int_equal(last.pages_late, 2);
	assert_int_equal(last.pages_zero, 1);
	assert_int_equal(last.pages_sent, 4);
	assert_int_equal(last.pages_same, PAGES - 4);
}

/* A run of pages of which CRIU does not say that they may stay behind, over private memory and a
 * file's. */
static struct memory_round copy_own(struct scene *scene, struct frames *frames, const uint8_t *area)
{
	const struct memory_feed feed = {.live_fd = -1,
					 .is_criu = true,
					 .late = LATE_ALL,
					 .frames = frames};
	const uint64_t image = (uint64_t)getpid() << 8 | PAGE_TASK;
	const struct page_header run = {PAGE_ADD, PAGE_PRESENT, 4 * OTHERS, (uintptr_t)area, image};

	begin_fed(scene, scene->round + 1, &feed);
	(void)ask_of(scene, image, PAGE_OPEN, 1);
	say(scene, &run, data);
	close_round(scene);
	return finish(scene);
}

static void what_criu_takes_for_stack_stays_behind_by_its_area(void **state)
{
	enum { LENGTH = OTHERS * PAGE_BYTES };
	struct scene *scene = *state;
	scoped(frames) struct frames *frames = NULL;
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	scoped(fd) int file = memfd_create("file", MFD_CLOEXEC);
	char path[128];

	assert_int_equal(ftruncate(file, LENGTH), 0);
	uint8_t *room = mmap(NULL, (size_t)4 * LENGTH, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(room, MAP_FAILED);
	assert_ptr_equal(mmap(room + LENGTH, LENGTH, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_FIXED, file, 0),
			 room + LENGTH);
	assert_ok(frames_new(getpid(), false, &frames));
	struct memory_round sent = copy_own(scene, frames, room);
	assert_int_equal(sent.pages_sent, 4 * OTHERS);
	assert_int_equal(sent.pages_late, 3 * OTHERS);
	(void)snprintf(path, sizeof(path), "%s/%u/pagemap-%d.img", scene->dir, scene->round,
		       (int)getpid());
	assert_ok(pagemap_read(path, &map));
	assert_int_equal(map.count, 3);
	assert_int_equal(map.runs[0].flags, PAGE_PRESENT | PAGE_LATE);
	assert_int_equal(map.runs[1].flags, PAGE_PRESENT);
	assert_true(map.runs[1].address == (uintptr_t)room + LENGTH && map.runs[1].pages == OTHERS);
	assert_int_equal(map.runs[2].flags, PAGE_PRESENT | PAGE_LATE);
	/* Which of it is locked is not known here. */
	assert_int_equal(syscall(SYS_mlock, room, PAGE_BYTES), 0); /* sanitizers play mlock() */
	sent = copy_own(scene, frames, room);
	assert_int_equal(sent.pages_late, 0);
	assert_int_equal(munmap(room, (size_t)4 * LENGTH), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(all_that_may_come_later_is_named_and_none_of_it_sent,
					    make, memory_scene_end),
	    cmocka_unit_test_setup_teardown(
		only_what_has_changed_stays_behind_after_rounds_of_copying, make, memory_scene_end),
	    cmocka_unit_test_setup_teardown(what_criu_takes_for_stack_stays_behind_by_its_area,
					    make, memory_scene_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
