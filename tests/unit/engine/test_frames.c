/* SPDX-License-Identifier: Apache-2.0 */
/* This process' own page tables. */
#include "engine/criu/frames.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/criu/page_stream.h"
#include "engine/host/proc.h"
#include "tests/unit/test.h"

enum { BLOCK = 2 * 1024 * 1024, BLOCKS = 8, PAGES = BLOCK / PAGE_BYTES };

struct scene {
	uint8_t *room; /* BLOCKS, at a multiple of BLOCK */
	struct frames *frames;
	uint64_t task;
};

static uint8_t *block(const struct scene *scene, unsigned number)
{
	return scene->room + (size_t)number * BLOCK;
}

static uint64_t address(const struct scene *scene, unsigned number)
{
	return (uintptr_t)block(scene, number);
}

static void map(const struct scene *scene, unsigned number)
{
	assert_ptr_equal(mmap(block(scene, number), BLOCK, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 block(scene, number));
	assert_int_equal(madvise(block(scene, number), BLOCK, MADV_NOHUGEPAGE), 0);
}

/* Every second page of it. */
static void fill(const struct scene *scene, unsigned number)
{
	map(scene, number);
	for (size_t page = 0; page < PAGES; page += 2)
		memset(block(scene, number) + page * PAGE_BYTES, (int)(number + page + 1),
		       PAGE_BYTES);
}

static void move(const struct scene *scene, unsigned from, unsigned to)
{
	assert_ptr_equal(mremap(block(scene, from), BLOCK, BLOCK, MREMAP_MAYMOVE | MREMAP_FIXED,
				block(scene, to)),
			 block(scene, to));
}

static void look(const struct scene *scene, unsigned round)
{
	assert_ok(frames_look(scene->frames, scene->task, round, false));
	assert_ok(proc_reset_dirty(getpid()));
}

static bool has_stayed(const struct scene *scene, unsigned round, unsigned number)
{
	uint64_t alike = 0;
	bool answer = frames_have_stayed(scene->frames, scene->task, round, address(scene, number),
					 4 * PAGES, &alike);

	assert_int_equal(alike, PAGES);
	return answer;
}

static int begin(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	uint8_t *room =
	    mmap(NULL, (BLOCKS + 1) * (size_t)BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(room, MAP_FAILED);
	scene->room = (uint8_t *)(((uintptr_t)room + BLOCK - 1) / BLOCK * BLOCK);
	scene->task = (uint64_t)getpid();
	for (unsigned i = 0; i < 4; i++)
		fill(scene, i);
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	(void)munmap(scene->room, BLOCKS * (size_t)BLOCK);
	frames_free(scene->frames);
	free(scene);
	return 0;
}

/* Each test with the kernel's search and without. */
static void each_way(void **state, void (*test)(const struct scene *scene))
{
	struct scene *scene = *state;

	for (int old = 0; old < 2; old++) {
		for (unsigned i = 0; i < 4; i++)
			fill(scene, i);
		map(scene, 5); /* a kernel without dirty bits could take new pages for old ones */
		assert_ok(frames_new(getpid(), old == 1, &scene->frames));
		test(scene);
		frames_free(TAKE(scene->frames));
	}
}

static void check_moved(const struct scene *scene)
{
	look(scene, 1);
	assert_false(has_stayed(scene, 1, 0)); /* since when? */
	move(scene, 0, 1);
	fill(scene, 5);
	look(scene, 2);
	assert_false(has_stayed(scene, 2, 1));
	assert_true(has_stayed(scene, 2, 2));
	assert_true(has_stayed(scene, 2, 3));
	assert_false(has_stayed(scene, 2, 5)); /* new */
	look(scene, 3);
	assert_true(has_stayed(scene, 3, 1));
	assert_true(has_stayed(scene, 3, 2));
	assert_true(has_stayed(scene, 3, 5));
	assert_false(has_stayed(scene, 2, 5)); /* that is over */
	assert_ok(frames_look(scene->frames, scene->task, 4, true));
	assert_true(has_stayed(scene, 4, 1));
}

static void what_is_moved_has_not_stayed(void **state)
{
	each_way(state, check_moved);
}

static void check_witness(const struct scene *scene)
{
	scoped(fd) int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	for (unsigned round = 1; round <= 3; round++) {
		look(scene, round);
		if (round > 1) {
			assert_int_equal(has_stayed(scene, round, 0), round == 3);
			assert_int_equal(has_stayed(scene, round, 1), round == 3);
			assert_true(has_stayed(scene, round, 2));
		}
		move(scene, 0, 6);
		move(scene, 1, 0);
		/* Somebody reads the other one's content here, and nobody does: in round 2. */
		if (round == 1)
			frames_witness(scene->frames, scene->task, pagemap,
				       address(scene, 0) + BLOCK - PAGE_BYTES, 2);
		move(scene, 0, 1);
		move(scene, 6, 0);
		frames_witness(scene->frames, scene->task, pagemap, address(scene, 2), PAGES);
		if (round == 1)
			frames_witness(scene->frames, scene->task, pagemap, address(scene, 0),
				       2 * PAGES);
	}
}

/* Block 1 was not there when it was read from the end of block 0 on. */
static void what_was_elsewhere_when_it_was_read_has_not_stayed(void **state)
{
	each_way(state, check_witness);
}

static void check_first_look(const struct scene *scene)
{
	look(scene, 1);
	look(scene, 2);
	move(scene, 0, 1);
	look(scene, 2);
	assert_true(has_stayed(scene, 2, 1)); /* as it was when it counted */
	look(scene, 3);
	assert_false(has_stayed(scene, 3, 1));
	frames_forget(scene->frames);
	look(scene, 4);
	assert_false(has_stayed(scene, 4, 2));
	look(scene, 5);
	assert_true(has_stayed(scene, 5, 2));
}

static void the_first_look_of_a_round_counts(void **state)
{
	each_way(state, check_first_look);
}

static void memory_is_read(void **state)
{
	struct scene *scene = *state;
	uint8_t data[4 * PAGE_BYTES];

	assert_ok(frames_new(getpid(), false, &scene->frames));
	assert_int_equal(frames_read(scene->frames, scene->task, address(scene, 3), 4, data), 4);
	assert_memory_equal(data, block(scene, 3), sizeof(data));
	/* Nobody can read an empty file's pages; a hole could be filled by somebody else. */
	scoped(fd) int empty = memfd_create("empty", MFD_CLOEXEC);
	assert_ptr_equal(mmap(block(scene, 4), BLOCK, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0),
			 block(scene, 4));
	assert_int_equal(frames_read(scene->frames, scene->task, address(scene, 4) - PAGE_BYTES, 4,
				     data),
			 1);
	assert_int_equal(frames_read(scene->frames, scene->task, address(scene, 4), 4, data), 0);
}

static void who_is_not_there_has_not_stayed(void **state)
{
	struct scene *scene = *state;
	uint64_t alike;
	uint8_t data[PAGE_BYTES];
	const uint64_t nobody = 1 << 30;

	assert_ok(frames_new(getpid(), false, &scene->frames));
	assert_ok(frames_look(scene->frames, nobody, 1, false));
	assert_ok(frames_look(scene->frames, nobody, 2, true));
	assert_false(frames_have_stayed(scene->frames, nobody, 2, address(scene, 0), 1, &alike));
	assert_int_equal(alike, 1);
	assert_int_equal(frames_read(scene->frames, nobody, address(scene, 0), 1, data), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_is_moved_has_not_stayed, begin, end),
	    cmocka_unit_test_setup_teardown(what_was_elsewhere_when_it_was_read_has_not_stayed,
					    begin, end),
	    cmocka_unit_test_setup_teardown(the_first_look_of_a_round_counts, begin, end),
	    cmocka_unit_test_setup_teardown(memory_is_read, begin, end),
	    cmocka_unit_test_setup_teardown(who_is_not_there_has_not_stayed, begin, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
