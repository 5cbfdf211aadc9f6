/* SPDX-License-Identifier: Apache-2.0 */
/* A real userfaultfd, on memory of this process; a thread plays the restored tree. */
#include "engine/lazy/lazy_fill.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "tests/unit/engine/lazy_scene.h"
#include "tests/unit/test.h"

enum {
	PAGES = 300,
	DUMPED = 256,
	NEW = 200, /* the newest round has NEW_PAGES from here on */
	NEW_PAGES = 8,
	WORDS = PAGE_BYTES / 8,
	DROPPED = 40,
	EVENTS_MOST = 16,
	QUIET_MS = 50,
};

struct scene {
	struct lazy_rounds rounds;
	struct lazy_map map;
	struct lazy_fill *fill;
	uint64_t *words, *moved;
	int uffd; /* another holder */
	/* The tree: */
	void (*act)(struct scene *scene);
	pthread_t thread;
	atomic_bool is_done;
	uint64_t seen;
	int child_status;
	/* Told: */
	struct uffd_msg events[EVENTS_MOST];
	size_t memories[EVENTS_MOST], event_count;
	atomic_bool is_reading;
};

static uint64_t address_of(const struct scene *scene, size_t page)
{
	return (uint64_t)(uintptr_t)(scene->words + page * WORDS);
}

static uint64_t word_of(const struct scene *scene, size_t page)
{
	bool is_new = page >= NEW && page < NEW + NEW_PAGES;

	return page < DUMPED ? lazy_word(address_of(scene, page), is_new ? 2 : 1) : 0;
}

static void dump(struct scene *scene)
{
	struct lazy_index *index;
	const struct lazy_vma all = {address_of(scene, 0), PAGES, MAP_PRIVATE | MAP_ANONYMOUS};

	lazy_rounds_make(&scene->rounds);
	assert_ok(lazy_index_new(scene->rounds.dir, &index));
	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, address_of(scene, 0), DUMPED);
	lazy_round_end(&scene->rounds);
	assert_ok(lazy_index_add(index, 1));
	lazy_round_begin(&scene->rounds);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, address_of(scene, 0), NEW);
	lazy_round_add(&scene->rounds, PAGE_PRESENT, address_of(scene, NEW), NEW_PAGES);
	lazy_round_add(&scene->rounds, PAGE_IN_PARENT, address_of(scene, NEW + NEW_PAGES),
		       DUMPED - NEW - NEW_PAGES);
	lazy_round_mappings(&scene->rounds, &all, 1);
	lazy_round_end(&scene->rounds);
	assert_ok(lazy_index_add(index, 2));
	assert_ok(lazy_index_finish(index, &scene->map));
	lazy_index_free(index);
}

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	assert_true(lazy_memory_make(PAGES, &scene->words, &scene->uffd));
	dump(scene);
	assert_ok(lazy_fill_new(&scene->map, scene->rounds.dir, &scene->fill));
	assert_false(lazy_fill_is_whole(scene->fill));
	assert_ok(lazy_fill_add(scene->fill, LAZY_PID, dup(scene->uffd)));
	assert_true(lazy_fill_is_whole(scene->fill));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	lazy_fill_free(scene->fill);
	close_if_open(scene->uffd);
	lazy_map_free(&scene->map);
	lazy_memory_remove(scene->words, PAGES);
	if (scene->moved != NULL)
		lazy_memory_remove(scene->moved, 1);
	lazy_rounds_remove(&scene->rounds);
	free(scene);
	return 0;
}

/* --- the tree --- */

static void *tree(void *self)
{
	struct scene *scene = self;

	scene->act(scene);
	atomic_store(&scene->is_done, true);
	return NULL;
}

static void tree_begins(struct scene *scene, void (*act)(struct scene *scene))
{
	scene->act = act;
	atomic_store(&scene->is_done, false);
	assert_int_equal(pthread_create(&scene->thread, NULL, tree, scene), 0);
}

static void tree_ends(struct scene *scene)
{
	assert_int_equal(pthread_join(scene->thread, NULL), 0);
	assert_true(scene->is_done);
}

static void await_question(const struct scene *scene)
{
	struct pollfd asked = {.fd = lazy_fill_fd(scene->fill), .events = POLLIN};

	assert_int_equal(poll(&asked, 1, 10000), 1);
}

/* Until the tree is done; pages are served one by one, nothing else is filled. */
static void serve_it(struct scene *scene)
{
	enum lazy_step step;

	while (!atomic_load(&scene->is_done)) {
		assert_ok(lazy_fill_serve(scene->fill, &step));
		assert_int_equal(step, LAZY_MORE);
	}
	tree_ends(scene);
}

static void fill_all(struct scene *scene)
{
	enum lazy_step step = LAZY_MORE;

	while (step == LAZY_MORE)
		assert_ok(lazy_fill_some(scene->fill, &step));
	assert_int_equal(step, LAZY_DONE);
}

static void let_go(struct scene *scene)
{
	lazy_fill_free(TAKE(scene->fill));
	close_if_open(TAKE_FD(scene->uffd));
}

/* All pages but `but` ones from `from` on. */
static void expect_content(const struct scene *scene, size_t from, size_t but)
{
	for (size_t page = 0; page < PAGES; page++)
		for (size_t word = 0; (page < from || page >= from + but) && word < WORDS; word++)
			if (scene->words[page * WORDS + word] != word_of(scene, page))
				fail_msg("page %zu word %zu is %#llx", page, word,
					 (unsigned long long)scene->words[page * WORDS + word]);
}

/* --- pages --- */

static void reads_a_page(struct scene *scene)
{
	scene->seen = scene->words[100 * WORDS + 7];
}

static void what_is_waited_for_comes_first(void **state)
{
	struct scene *scene = *state;
	struct lazy_counts counts;

	tree_begins(scene, reads_a_page);
	serve_it(scene);
	assert_int_equal(scene->seen, word_of(scene, 100));
	lazy_fill_counts(scene->fill, &counts);
	assert_int_equal(counts.faults, 1);
	assert_true(counts.pages >= 1 && counts.pages < DUMPED / 2);
	fill_all(scene);
	lazy_fill_counts(scene->fill, &counts);
	assert_int_equal(counts.pages, DUMPED);
	let_go(scene);
	expect_content(scene, 0, 0);
}

static bool is_mapped(const struct scene *scene, size_t page)
{
	unsigned char resident = 0;

	assert_int_equal(mincore(scene->words + page * WORDS, PAGE_BYTES, &resident), 0);
	return (resident & 1) != 0;
}

static void what_was_written_last_is_filled_first(void **state)
{
	struct scene *scene = *state;
	struct lazy_counts counts;
	enum lazy_step step;

	assert_ok(lazy_fill_some(scene->fill, &step));
	assert_int_equal(step, LAZY_MORE);
	lazy_fill_counts(scene->fill, &counts);
	assert_int_equal(counts.pages, NEW_PAGES);
	for (size_t page = 0; page < PAGES; page++)
		assert_int_equal(is_mapped(scene, page), page >= NEW && page < NEW + NEW_PAGES);
	fill_all(scene);
	let_go(scene);
	expect_content(scene, 0, 0);
}

/* How many pages are filled at once. */
static uint64_t fill_once(const struct scene *scene)
{
	struct lazy_counts before, after;
	enum lazy_step step;

	lazy_fill_counts(scene->fill, &before);
	assert_ok(lazy_fill_some(scene->fill, &step));
	lazy_fill_counts(scene->fill, &after);
	return after.pages - before.pages;
}

static void pieces_are_small_while_pages_are_waited_for(void **state)
{
	struct scene *scene = *state;

	(void)fill_once(scene); /* the newest */
	uint64_t calm = fill_once(scene);
	tree_begins(scene, reads_a_page);
	serve_it(scene);
	uint64_t asked = fill_once(scene);
	if (asked * 2 > calm)
		fail_msg("%llu pages at once, and %llu while pages are waited for",
			 (unsigned long long)calm, (unsigned long long)asked);
	(void)poll(NULL, 0, QUIET_MS);
	assert_true(fill_once(scene) > asked); /* up to the page that is there */
	fill_all(scene);
	let_go(scene);
	expect_content(scene, 0, 0);
}

static void reads_beyond(struct scene *scene)
{
	scene->seen = scene->words[DUMPED * WORDS];
	scene->words[DUMPED * WORDS] = 0;
}

static void what_was_never_used_is_zero(void **state)
{
	struct scene *scene = *state;

	scene->seen = 1;
	tree_begins(scene, reads_beyond);
	serve_it(scene);
	assert_int_equal(scene->seen, 0);
	fill_all(scene);
	let_go(scene);
	expect_content(scene, 0, 0);
}

static void writes_then_reads(struct scene *scene)
{
	for (size_t page = 0; page < DUMPED; page += 3)
		scene->words[page * WORDS] = page;
	for (size_t page = 0; page < DUMPED; page += 3)
		scene->seen += scene->words[page * WORDS] != page;
}

static void what_the_tree_writes_is_not_filled_over(void **state)
{
	struct scene *scene = *state;
	enum lazy_step step;

	tree_begins(scene, writes_then_reads);
	while (!atomic_load(&scene->is_done)) {
		assert_ok(lazy_fill_serve(scene->fill, &step));
		assert_ok(lazy_fill_some(scene->fill, &step));
	}
	tree_ends(scene);
	assert_int_equal(scene->seen, 0);
	fill_all(scene);
	let_go(scene);
	for (size_t page = 0; page < DUMPED; page++)
		assert_int_equal(scene->words[page * WORDS],
				 page % 3 == 0 ? page : word_of(scene, page));
}

static void a_page_that_came_from_elsewhere_is_data_loss(void **state)
{
	struct scene *scene = *state;
	struct uffdio_zeropage zero = {.range = {address_of(scene, 70), PAGE_BYTES}};
	enum lazy_step step = LAZY_MORE;
	status *st = NULL;

	assert_int_equal(ioctl(scene->uffd, UFFDIO_ZEROPAGE, &zero), 0);
	while (st == NULL && step == LAZY_MORE)
		st = lazy_fill_some(scene->fill, &step);
	assert_code(st, STATUS_DATA_LOSS);
}

static void a_pages_file_that_is_cut_is_data_loss(void **state)
{
	struct scene *scene = *state;
	char path[128];
	enum lazy_step step = LAZY_MORE;
	status *st = NULL;

	(void)snprintf(path, sizeof(path), "%s/1/pages-1.img", scene->rounds.dir);
	assert_int_equal(truncate(path, 100 * PAGE_BYTES), 0);
	while (st == NULL && step == LAZY_MORE)
		st = lazy_fill_some(scene->fill, &step);
	assert_code(st, STATUS_DATA_LOSS);
}

static void only_tasks_of_the_map_and_each_once(void **state)
{
	struct scene *scene = *state;

	assert_code(lazy_fill_add(scene->fill, LAZY_PID, dup(scene->uffd)), STATUS_DATA_LOSS);
	assert_code(lazy_fill_add(scene->fill, LAZY_PID + 1, dup(scene->uffd)), STATUS_DATA_LOSS);
}

/* --- events --- */

static status *note_event(void *self, size_t memory, const struct uffd_msg *event)
{
	struct scene *scene = self;

	assert_true(scene->event_count < EVENTS_MOST);
	scene->memories[scene->event_count] = memory;
	scene->events[scene->event_count++] = *event;
	return NULL;
}

/* The tree waits for an event to be read: it is told, and it waits on. */
static void expect_event(struct scene *scene)
{
	enum lazy_step step = LAZY_MORE;

	while (step == LAZY_MORE) {
		await_question(scene);
		assert_ok(lazy_fill_serve(scene->fill, &step));
	}
	assert_int_equal(step, LAZY_EVENT);
	(void)poll(NULL, 0, QUIET_MS);
	assert_false(scene->is_done);
	assert_int_equal(scene->event_count, 0);
}

static void complete(struct scene *scene)
{
	assert_ok(lazy_fill_complete(scene->fill, NULL));
	assert_false(scene->is_reading);
	let_go(scene);
	tree_ends(scene);
}

static void act_with_event(struct scene *scene, void (*act)(struct scene *scene))
{
	const struct lazy_watch watch = {.event = note_event,
					 .self = scene,
					 .is_reading = &scene->is_reading};

	lazy_fill_watch(scene->fill, &watch);
	tree_begins(scene, act);
	expect_event(scene);
}

static void drops(struct scene *scene)
{
	scene->seen = scene->words[DROPPED * WORDS];
	scene->child_status =
	    madvise(scene->words + DROPPED * WORDS, 30L * PAGE_BYTES, MADV_DONTNEED);
	scene->seen = scene->words[(DROPPED + 20) * WORDS];
}

static void what_is_dropped_stays_dropped(void **state)
{
	struct scene *scene = *state;

	act_with_event(scene, drops);
	complete(scene);
	assert_int_equal(scene->event_count, 1);
	assert_int_equal(scene->events[0].event, UFFD_EVENT_REMOVE);
	assert_int_equal(scene->seen, 0);
	expect_content(scene, DROPPED, 30);
	for (size_t page = DROPPED; page < DROPPED + 30; page++)
		assert_int_equal(scene->words[page * WORDS], 0);
}

static void moves(struct scene *scene)
{
	void *to =
	    mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	scene->moved = mremap(scene->words + DROPPED * WORDS, PAGE_BYTES, PAGE_BYTES,
			      MREMAP_MAYMOVE | MREMAP_FIXED, to);
	scene->seen = scene->moved[3];
}

static void what_is_moved_is_filled_where_it_is_now(void **state)
{
	struct scene *scene = *state;

	act_with_event(scene, moves);
	complete(scene);
	assert_int_equal(scene->seen, word_of(scene, DROPPED));
	expect_content(scene, DROPPED, 1);
}

static void unmaps(struct scene *scene)
{
	scene->child_status = munmap(scene->words + DROPPED * WORDS, 10L * PAGE_BYTES);
}

static void what_is_unmapped_is_not_missed(void **state)
{
	struct scene *scene = *state;

	act_with_event(scene, unmaps);
	complete(scene);
	assert_int_equal(scene->child_status, 0);
	expect_content(scene, DROPPED, 10);
}

static int count_wrong(const struct scene *scene)
{
	for (size_t page = 0; page < PAGES; page++)
		if (scene->words[page * WORDS + 1] != word_of(scene, page))
			return 1;
	return 0;
}

static void forks(struct scene *scene)
{
	pid_t child = fork();

	if (child == 0)
		_exit(count_wrong(scene));
	assert_int_equal(waitpid(child, &scene->child_status, 0), child);
}

static void a_child_has_all_as_well(void **state)
{
	struct scene *scene = *state;
	enum lazy_step step;

#ifdef __SANITIZE_THREAD__
	skip(); /* ThreadSanitizer does not let a process with threads fork */
#endif
	/* Some before, so that the rest is not all. */
	assert_ok(lazy_fill_some(scene->fill, &step));
	act_with_event(scene, forks);
	complete(scene);
	assert_int_equal(scene->child_status, 0);
	expect_content(scene, 0, 0);
}

/* The other holder was told of the events, and does not know what was filled. */
static void another_who_was_told_takes_over(void **state)
{
	struct scene *scene = *state;
	struct lazy_fill *other;
	enum lazy_step step;

	assert_ok(lazy_fill_some(scene->fill, &step));
	assert_ok(lazy_fill_new(&scene->map, scene->rounds.dir, &other));
	assert_ok(lazy_fill_add(other, LAZY_PID, dup(scene->uffd)));
	act_with_event(scene, drops);
	struct uffd_msg event;
	assert_int_equal(read(scene->uffd, &event, sizeof(event)), sizeof(event));
	assert_int_equal(event.event, UFFD_EVENT_REMOVE);
	assert_ok(lazy_fill_replay(other, 0, &event));
	assert_code(lazy_fill_replay(other, 1, &event), STATUS_DATA_LOSS);
	lazy_fill_free(TAKE(scene->fill));
	assert_ok(lazy_fill_complete(other, NULL));
	lazy_fill_free(other);
	let_go(scene);
	tree_ends(scene);
	assert_int_equal(scene->seen, 0);
	expect_content(scene, DROPPED, 30);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_is_waited_for_comes_first, make, end),
	    cmocka_unit_test_setup_teardown(what_was_written_last_is_filled_first, make, end),
	    cmocka_unit_test_setup_teardown(pieces_are_small_while_pages_are_waited_for, make, end),
	    cmocka_unit_test_setup_teardown(what_was_never_used_is_zero, make, end),
	    cmocka_unit_test_setup_teardown(what_the_tree_writes_is_not_filled_over, make, end),
	    cmocka_unit_test_setup_teardown(a_page_that_came_from_elsewhere_is_data_loss, make,
					    end),
	    cmocka_unit_test_setup_teardown(a_pages_file_that_is_cut_is_data_loss, make, end),
	    cmocka_unit_test_setup_teardown(only_tasks_of_the_map_and_each_once, make, end),
	    cmocka_unit_test_setup_teardown(what_is_dropped_stays_dropped, make, end),
	    cmocka_unit_test_setup_teardown(what_is_moved_is_filled_where_it_is_now, make, end),
	    cmocka_unit_test_setup_teardown(what_is_unmapped_is_not_missed, make, end),
	    cmocka_unit_test_setup_teardown(a_child_has_all_as_well, make, end),
	    cmocka_unit_test_setup_teardown(another_who_was_told_takes_over, make, end),
	};
	uint64_t *words;
	int uffd;

	if (!lazy_memory_make(1, &words, &uffd))
		return 77;
	close_if_open(uffd);
	lazy_memory_remove(words, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
