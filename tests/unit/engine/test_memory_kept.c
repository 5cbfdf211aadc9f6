/* SPDX-License-Identifier: Apache-2.0 */
/* This process' own memory, with a CRIU that is played. */
#include <string.h>
#include <sys/mman.h>

#include "engine/host/proc.h"
#include "tests/unit/engine/memory_scene.h"

enum { BLOCK = 2 * 1024 * 1024 };

static void add_pages_of(struct scene *scene, uint64_t image, uint32_t flags, uint8_t *area)
{
	const struct page_header header = {PAGE_ADD, flags, 10, (uintptr_t)area, image};

	say(scene, &header, (flags & PAGE_PRESENT) != 0 ? area : NULL);
}

/* Two with page tables of their own, at a multiple of BLOCK. */
static uint8_t *map_blocks(void)
{
	uint8_t *room =
	    mmap(NULL, 3 * BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(room, MAP_FAILED);
	uint8_t *area = (uint8_t *)(((uintptr_t)room + BLOCK - 1) / BLOCK * BLOCK);
	(void)madvise(area, 2 * BLOCK, MADV_NOHUGEPAGE);
	return area;
}

/* CRIU asks about the task, resets its dirty bits, and begins to send. */
static void begin_own(struct scene *scene, unsigned round, const struct memory_feed *feed,
		      uint64_t image)
{
	begin_fed(scene, round, feed);
	(void)ask_of(scene, image, PAGE_PARENT, 4);
	assert_ok(proc_reset_dirty(getpid()));
	assert_int_equal(ask_of(scene, image, PAGE_OPEN, 1), round > 1);
}

static void move(uint8_t *from, uint8_t *to)
{
	assert_ptr_equal(mremap(from, BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED, to), to);
}

/* Clean, says the kernel: but it was never sent, or is another page now. What cannot be read any
 * more ends the last round, after which nobody would send it. */
static void what_is_clean_but_was_not_sent_is_read(void **state)
{
	struct scene *scene = *state;
	struct memory_feed feed = tracked;
	const uint64_t image = (uint64_t)getpid() << 8 | PAGE_TASK;
	scoped(frames) struct frames *frames = NULL;
	struct memory_round sent;

	uint8_t *area = map_blocks(), *other = area + BLOCK;
	memset(area, 1, BLOCK);
	memset(other, 2, BLOCK);
	assert_ok(frames_new(getpid(), false, &frames));
	feed.frames = frames;
	for (unsigned round = 1; round <= 3; round++) {
		const uint32_t flags = round == 1 ? PAGE_PRESENT : PAGE_IN_PARENT;
		begin_own(scene, round, &feed, image);
		if (round < 3)
			add_pages_of(scene, image, flags, area);
		if (round == 2) /* nobody knew these */
			add_pages_of(scene, image, flags, area + 10 * PAGE_BYTES);
		add_pages_of(scene, image, flags, other);
		close_round(scene);
		sent = finish(scene);
		assert_int_equal(sent.pages_sent, round == 1 ? 20 : 10);
		assert_int_equal(sent.pages_skipped, round == 2 ? 20 : 0);
		if (round > 1)
			expect_pages(scene, round, area, 10);
		if (round == 2)
			move(area, other);
		area = round == 2 ? other : area;
	}
	feed.is_last = true;
	assert_int_equal(munmap(other, BLOCK), 0);
	assert_ok(memory_sender_begin(scene->sender, 4, &feed));
	(void)ask_of(scene, image, PAGE_OPEN, 1);
	add_pages_of(scene, image, PAGE_IN_PARENT, other);
	assert_code(memory_sender_end(scene->sender, PLENTY_MS, &sent), STATUS_DATA_LOSS);
}

/* A page that was named is fetched from where it is; one that was sent is not what lies there now.
 */
static void what_was_named_and_moved_is_named_anew(void **state)
{
	struct scene *scene = *state;
	const uint64_t image = (uint64_t)getpid() << 8 | PAGE_TASK;
	scoped(frames) struct frames *frames = NULL;
	uint8_t *area = map_blocks(), *other = area + BLOCK;

	page_store_allow_late(scene->store);
	memset(area, 1, BLOCK);
	memset(other, 2, BLOCK);
	assert_ok(frames_new(getpid(), false, &frames));
	struct memory_feed feed = tracked;
	feed.frames = frames;
	feed.late = LATE_ALL;
	feed.was_named = true;
	for (unsigned round = 1; round <= 3; round++) {
		const uint32_t flags = round == 1 ? PAGE_PRESENT : PAGE_IN_PARENT;
		begin_own(scene, round, &feed, image);
		if (round < 3)
			add_pages_of(scene, image, flags, area);
		add_pages_of(scene, image, flags, other);
		close_round(scene);
		struct memory_round sent = finish(scene);
		assert_int_equal(sent.pages_late, round == 1 ? 20 : round == 2 ? 0 : 10);
		assert_int_equal(sent.pages_sent, sent.pages_late);
		assert_int_equal(sent.pages_skipped, round == 2 ? 20 : 0);
		if (round == 2)
			move(area, other);
	}
	assert_int_equal(munmap(other, BLOCK), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_is_clean_but_was_not_sent_is_read,
					    memory_scene_make, memory_scene_end),
	    cmocka_unit_test_setup_teardown(what_was_named_and_moved_is_named_anew,
					    memory_scene_make, memory_scene_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
