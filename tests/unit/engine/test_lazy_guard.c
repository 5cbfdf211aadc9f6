/* SPDX-License-Identifier: Apache-2.0 */
/* The guard is this program, started again; what it guards is memory of this process, which plays
 * hauld and the restored tree. */
#include "engine/lazy/lazy_guard.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "engine/host/files.h"
#include "engine/lazy/lazy_fill.h"
#include "engine/lazy/lazy_shared.h"
#include "tests/unit/engine/lazy_scene.h"
#include "tests/unit/test.h"

enum { PAGES = 100, WORDS = PAGE_BYTES / 8, END_MS = 20000 };

struct scene {
	struct lazy_rounds rounds;
	struct lazy_guard guard;
	struct lazy_shared *shared;
	uint64_t *words;
	int uffd;
};

static uint64_t address_of(const struct scene *scene, size_t page)
{
	return (uint64_t)(uintptr_t)(scene->words + page * WORDS);
}

static void dump(struct scene *scene, struct lazy_map *map)
{
	struct lazy_index *index;
	const struct lazy_vma all = {address_of(scene, 0), PAGES, MAP_PRIVATE | MAP_ANONYMOUS};

	lazy_rounds_make(&scene->rounds);
	assert_ok(lazy_index_new(scene->rounds.dir, &index));
	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, address_of(scene, 0), PAGES);
	lazy_round_mappings(&scene->rounds, &all, 1);
	lazy_round_end(&scene->rounds);
	assert_ok(lazy_index_add(index, 1));
	assert_ok(lazy_index_finish(index, map));
	lazy_index_free(index);
}

/* A guard that holds all. */
static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	struct lazy_map map = {0};
	int fd = -1;

	assert_non_null(scene);
	assert_true(lazy_memory_make(PAGES, &scene->words, &scene->uffd));
	dump(scene, &map);
	assert_ok(lazy_shared_new(&map, &fd, &scene->shared));
	lazy_map_free(&map);
	(void)snprintf(scene->shared->images, sizeof(scene->shared->images), "%s",
		       scene->rounds.dir);
	(void)snprintf(scene->shared->marker, sizeof(scene->shared->marker), "%s/unfilled",
		       scene->rounds.dir);
	(void)snprintf(scene->shared->group, sizeof(scene->shared->group), "%s/no-group",
		       scene->rounds.dir);
	assert_ok(files_write(scene->shared->marker, "", 0));
	assert_ok(lazy_guard_start("/proc/self/exe", NULL, &scene->guard));
	assert_ok(lazy_guard_share(&scene->guard, fd));
	(void)close(fd);
	assert_ok(lazy_guard_hold(&scene->guard, LAZY_PID, scene->uffd));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	child_kill(&scene->guard.child);
	close_if_open(scene->guard.socket);
	close_if_open(scene->uffd);
	lazy_shared_free(scene->shared);
	lazy_memory_remove(scene->words, PAGES);
	lazy_rounds_remove(&scene->rounds);
	free(scene);
	return 0;
}

/* hauld dies: what it held is the guard's alone. Returns how the guard ended. */
static int hauld_dies(struct scene *scene)
{
	int ended = 0;

	(void)close(TAKE_FD(scene->uffd));
	lazy_guard_leave(&scene->guard, false);
	assert_ok(child_wait(&scene->guard.child, END_MS, &ended));
	assert_true(WIFEXITED(ended));
	return WEXITSTATUS(ended);
}

static bool has_marker(const struct scene *scene)
{
	return access(scene->shared->marker, F_OK) == 0;
}

static size_t right_pages(const struct scene *scene)
{
	size_t right = 0;

	for (size_t page = 0; page < PAGES; page++)
		right += scene->words[page * WORDS + 5] == lazy_word(address_of(scene, page), 1);
	return right;
}

static void it_fills_all_when_hauld_dies(void **state)
{
	struct scene *scene = *state;

	atomic_store(&scene->shared->phase, LAZY_FILLING);
	assert_int_equal(hauld_dies(scene), 0);
	assert_int_equal(scene->shared->phase, LAZY_FILLED);
	assert_false(has_marker(scene));
	assert_int_equal(right_pages(scene), PAGES);
}

static void it_fills_what_is_left_of_a_fill_that_was_begun(void **state)
{
	struct scene *scene = *state;
	struct lazy_map map;
	struct lazy_fill *fill;
	enum lazy_step step;

	lazy_shared_map(scene->shared, &map);
	assert_ok(lazy_fill_new(&map, scene->rounds.dir, &fill));
	assert_ok(lazy_fill_add(fill, LAZY_PID, dup(scene->uffd)));
	assert_ok(lazy_fill_some(fill, &step));
	assert_int_equal(step, LAZY_MORE);
	lazy_fill_free(fill);
	atomic_store(&scene->shared->phase, LAZY_FILLING);
	assert_int_equal(hauld_dies(scene), 0);
	assert_int_equal(right_pages(scene), PAGES);
}

static void events_that_it_was_told_of_are_taken_into_account(void **state)
{
	struct scene *scene = *state;
	const struct uffd_msg event = {
	    .event = UFFD_EVENT_REMOVE,
	    .arg.remove = {address_of(scene, 10), address_of(scene, 30)},
	};

	atomic_store(&scene->shared->phase, LAZY_SETTLING);
	assert_ok(lazy_guard_tell(&scene->guard, 0, &event));
	assert_int_equal(hauld_dies(scene), 0);
	assert_int_equal(right_pages(scene), PAGES - 20);
	for (size_t page = 10; page < 30; page++)
		assert_int_equal(scene->words[page * WORDS], 0);
}

static void what_it_cannot_know_is_never_guessed(void **state)
{
	struct scene *scene = *state;

	atomic_store(&scene->shared->phase, LAZY_SETTLING);
	atomic_store(&scene->shared->is_reading, true);
	assert_int_not_equal(hauld_dies(scene), 0);
	assert_int_equal(scene->shared->phase, LAZY_BROKEN);
	assert_true(has_marker(scene));
}

static void a_restore_that_was_not_over_is_left_alone(void **state)
{
	struct scene *scene = *state;

	atomic_store(&scene->shared->phase, LAZY_RESTORING);
	assert_int_equal(hauld_dies(scene), 0);
	assert_int_equal(scene->shared->phase, LAZY_RESTORING);
	assert_true(has_marker(scene));
}

static void images_that_are_gone_are_no_reason_for_zeros(void **state)
{
	struct scene *scene = *state;
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/1/pages-1.img", scene->rounds.dir);
	assert_int_equal(truncate(path, 10 * PAGE_BYTES), 0);
	atomic_store(&scene->shared->phase, LAZY_FILLING);
	assert_int_not_equal(hauld_dies(scene), 0);
	assert_int_equal(scene->shared->phase, LAZY_BROKEN);
	assert_true(has_marker(scene));
}

static void it_goes_when_it_is_dismissed_also_when_it_is_stopped(void **state)
{
	struct scene *scene = *state;
	pid_t pid = scene->guard.child.pid;

	assert_int_equal(kill(pid, SIGSTOP), 0);
	lazy_guard_leave(&scene->guard, true);
	assert_int_equal(kill(pid, 0), -1);
	assert_true(has_marker(scene));
}

static void signals_that_end_hauld_do_not_end_it(void **state)
{
	struct scene *scene = *state;
	char comm[64], name[32] = "";

	(void)snprintf(comm, sizeof(comm), "/proc/%d/comm", scene->guard.child.pid);
	for (int i = 0; i < 1000 && strcmp(name, "haul-guard\n") != 0; i++) {
		struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
		(void)poll(NULL, 0, 10);
		assert_ok(files_read(comm, sizeof(name) - 1, &content));
		memset(name, 0, sizeof(name));
		memcpy(name, content.data, content.size);
	}
	assert_int_equal(kill(scene->guard.child.pid, SIGTERM), 0);
	assert_int_equal(kill(scene->guard.child.pid, SIGINT), 0);
	assert_int_equal(kill(scene->guard.child.pid, SIGHUP), 0);
	atomic_store(&scene->shared->phase, LAZY_FILLING);
	assert_int_equal(hauld_dies(scene), 0);
	assert_int_equal(right_pages(scene), PAGES);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(it_fills_all_when_hauld_dies, make, end),
	    cmocka_unit_test_setup_teardown(it_fills_what_is_left_of_a_fill_that_was_begun, make,
					    end),
	    cmocka_unit_test_setup_teardown(events_that_it_was_told_of_are_taken_into_account, make,
					    end),
	    cmocka_unit_test_setup_teardown(what_it_cannot_know_is_never_guessed, make, end),
	    cmocka_unit_test_setup_teardown(a_restore_that_was_not_over_is_left_alone, make, end),
	    cmocka_unit_test_setup_teardown(images_that_are_gone_are_no_reason_for_zeros, make,
					    end),
	    cmocka_unit_test_setup_teardown(it_goes_when_it_is_dismissed_also_when_it_is_stopped,
					    make, end),
	    cmocka_unit_test_setup_teardown(signals_that_end_hauld_do_not_end_it, make, end),
	};
	uint64_t *words;
	int uffd;

	if (argc > 1 && strcmp(argv[1], LAZY_GUARD_VERB) == 0)
		return lazy_guard_main(LAZY_GUARD_FD);
	if (!lazy_memory_make(1, &words, &uffd))
		return 77;
	close_if_open(uffd);
	lazy_memory_remove(words, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
