/* SPDX-License-Identifier: Apache-2.0 */
/* Late pages and a real userfaultfd, on memory of this process; a thread plays the restored tree.
 */
#include "engine/lazy/lazy_fill.h"

#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/unit/engine/late_scene.h"
#include "tests/unit/test.h"

enum { WORDS = PAGE_BYTES / 8, DROPPED = 60, DROPPED_PAGES = 10, TURNS = 20000, EVENTS_MOST = 4 };

struct scene {
	struct late_scene late;
	struct lazy_fill *fill, *other;
	uint64_t *words;
	int uffd;
	/* The tree: */
	void (*act)(struct scene *scene);
	pthread_t thread;
	atomic_bool is_done;
	uint64_t seen;
	size_t page;
	/* Told: */
	struct late_range wanted;
	unsigned wants;
	struct uffd_msg events[EVENTS_MOST];
	size_t event_count;
	atomic_bool is_reading, is_stopping;
};

static void note_wanted(void *self, const struct late_range *range)
{
	struct scene *scene = self;

	scene->wanted = *range;
	scene->wants++;
}

static status *note_event(void *self, size_t memory, const struct uffd_msg *event)
{
	struct scene *scene = self;

	assert_int_equal(memory, 0);
	assert_true(scene->event_count < EVENTS_MOST);
	scene->events[scene->event_count++] = *event;
	return NULL;
}

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	assert_true(lazy_memory_make(LATE_PAGES, &scene->words, &scene->uffd));
	late_scene_make(&scene->late, (uint64_t)(uintptr_t)scene->words);
	assert_ok(lazy_fill_new(&scene->late.map, scene->late.rounds.dir, &scene->fill));
	assert_ok(lazy_fill_new(&scene->late.map, scene->late.rounds.dir, &scene->other));
	const struct lazy_watch watch = {.event = note_event,
					 .self = scene,
					 .is_reading = &scene->is_reading,
					 .wanted = note_wanted,
					 .is_stopping = &scene->is_stopping};
	lazy_fill_watch(scene->fill, &watch);
	assert_ok(lazy_fill_add(scene->fill, LAZY_PID, dup(scene->uffd)));
	assert_ok(lazy_fill_add(scene->other, LAZY_PID, dup(scene->uffd)));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	lazy_fill_free(scene->fill);
	lazy_fill_free(scene->other);
	close_if_open(scene->uffd);
	lazy_memory_remove(scene->words, LATE_PAGES);
	late_scene_end(&scene->late);
	free(scene);
	return 0;
}

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
}

static void read_page(struct scene *scene)
{
	scene->seen = *(volatile uint64_t *)(scene->words + scene->page * WORDS);
}

static void drop_pages(struct scene *scene)
{
	assert_int_equal(madvise(scene->words + (size_t)DROPPED * WORDS,
				 (size_t)DROPPED_PAGES * PAGE_BYTES, MADV_DONTNEED),
			 0);
}

static uint64_t late_word(const struct scene *scene, size_t page)
{
	return lazy_word(late_scene_address(&scene->late, page), LATE_ROUND);
}

static enum lazy_step serve_until(struct scene *scene, const unsigned *count)
{
	enum lazy_step step = LAZY_MORE;

	for (int turn = 0; turn < TURNS && step == LAZY_MORE; turn++) {
		assert_ok(lazy_fill_serve(scene->fill, &step));
		if (count != NULL ? *count > 0 : atomic_load(&scene->is_done))
			return step;
		(void)poll(NULL, 0, 1);
	}
	return step;
}

static enum lazy_step fill_up(struct scene *scene)
{
	enum lazy_step step = LAZY_MORE;

	while (step == LAZY_MORE)
		assert_ok(lazy_fill_some(scene->fill, &step));
	return step;
}

static void all_comes(const struct scene *scene)
{
	late_scene_put(&scene->late, LATE_SENT, LATE_MISSING);
}

/* Where nothing was dropped. */
static void expect_content(const struct scene *scene)
{
	for (size_t page = 0; page < LATE_PAGES; page++) {
		if (page >= DROPPED && page < DROPPED + DROPPED_PAGES)
			continue;
		assert_true(scene->words[page * WORDS] ==
			    (page < LATE_SENT ? lazy_word(late_scene_address(&scene->late, page), 1)
					      : late_word(scene, page)));
	}
}

/* --- tests --- */

static void a_missing_page_is_asked_for_and_its_reader_waits(void **state)
{
	struct scene *scene = *state;

	scene->page = 50;
	tree_begins(scene, read_page);
	assert_int_equal(serve_until(scene, &scene->wants), LAZY_MORE);
	assert_int_equal(scene->wanted.pid, LAZY_PID);
	assert_int_equal(scene->wanted.address, late_scene_address(&scene->late, 50));
	assert_true(scene->wanted.pages > 1);
	assert_int_equal(fill_up(scene), LAZY_WAIT);
	assert_false(atomic_load(&scene->is_done));
	late_scene_put(&scene->late, 50, 2);
	assert_int_equal(serve_until(scene, NULL), LAZY_MORE);
	tree_ends(scene);
	assert_true(scene->seen == late_word(scene, 50));
	assert_int_equal(scene->wants, 1);
}

static void what_is_there_is_filled_and_the_rest_is_waited_for(void **state)
{
	struct scene *scene = *state;
	struct lazy_counts counts;

	assert_int_equal(fill_up(scene), LAZY_WAIT);
	lazy_fill_counts(scene->fill, &counts);
	assert_int_equal(counts.pages, LATE_SENT);
	late_scene_put(&scene->late, 130, 70);
	assert_int_equal(fill_up(scene), LAZY_WAIT);
	lazy_fill_counts(scene->fill, &counts);
	assert_int_equal(counts.pages, LATE_SENT + 70);
	all_comes(scene);
	assert_int_equal(fill_up(scene), LAZY_DONE);
	lazy_fill_counts(scene->fill, &counts);
	assert_int_equal(counts.pages, LATE_PAGES);
	expect_content(scene);
}

/* An event while pages are missing: it is read, and filling goes on with what is left. */
static void drop_while_missing(struct scene *scene)
{
	late_scene_put(&scene->late, 20, 10);
	assert_int_equal(fill_up(scene), LAZY_WAIT);
	tree_begins(scene, drop_pages);
	assert_int_equal(serve_until(scene, NULL), LAZY_EVENT);
	assert_ok(lazy_fill_settle(scene->fill, NULL));
	tree_ends(scene);
	assert_int_equal(scene->event_count, 1);
	assert_int_equal(scene->events[0].event, UFFD_EVENT_REMOVE);
}

static void after_an_event_filling_goes_on_and_what_was_dropped_stays_zero(void **state)
{
	struct scene *scene = *state;

	drop_while_missing(scene);
	assert_int_equal(fill_up(scene), LAZY_WAIT);
	/* Dropped before it came: it reads as zeros, without the source. */
	scene->page = DROPPED + 3;
	tree_begins(scene, read_page);
	assert_int_equal(serve_until(scene, NULL), LAZY_MORE);
	tree_ends(scene);
	assert_int_equal(scene->seen, 0);
	assert_int_equal(scene->wants, 0);
	scene->page = 90;
	tree_begins(scene, read_page);
	assert_int_equal(serve_until(scene, &scene->wants), LAZY_MORE);
	assert_int_equal(scene->wanted.address, late_scene_address(&scene->late, 90));
	all_comes(scene);
	assert_int_equal(serve_until(scene, NULL), LAZY_MORE);
	tree_ends(scene);
	assert_true(scene->seen == late_word(scene, 90));
	assert_int_equal(fill_up(scene), LAZY_DONE);
	expect_content(scene);
	assert_int_equal(scene->words[(size_t)(DROPPED + 3) * WORDS], 0);
}

static void who_was_told_of_the_event_can_fill_the_rest(void **state)
{
	struct scene *scene = *state;

	drop_while_missing(scene);
	assert_ok(lazy_fill_replay(scene->other, 0, &scene->events[0]));
	all_comes(scene);
	assert_ok(lazy_fill_complete(scene->other, NULL));
	expect_content(scene);
	scene->page = DROPPED;
	tree_begins(scene, read_page);
	assert_int_equal(serve_until(scene, NULL), LAZY_MORE);
	tree_ends(scene);
	assert_int_equal(scene->seen, 0);
}

static void *come_later(void *self)
{
	struct scene *scene = self;

	(void)poll(NULL, 0, 50);
	all_comes(scene);
	return NULL;
}

static void filling_all_at_once_waits_for_what_is_missing(void **state)
{
	struct scene *scene = *state;
	pthread_t later;

	assert_int_equal(pthread_create(&later, NULL, come_later, scene), 0);
	assert_ok(lazy_fill_complete(scene->fill, NULL));
	assert_int_equal(pthread_join(later, NULL), 0);
	expect_content(scene);
}

static void who_is_to_stop_does_not_wait_for_what_is_missing(void **state)
{
	struct scene *scene = *state;

	atomic_store(&scene->is_stopping, true);
	assert_code(lazy_fill_complete(scene->fill, NULL), STATUS_CANCELLED);
	assert_true(scene->words[0] == lazy_word(late_scene_address(&scene->late, 0), 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_missing_page_is_asked_for_and_its_reader_waits, make,
					    end),
	    cmocka_unit_test_setup_teardown(what_is_there_is_filled_and_the_rest_is_waited_for,
					    make, end),
	    cmocka_unit_test_setup_teardown(
		after_an_event_filling_goes_on_and_what_was_dropped_stays_zero, make, end),
	    cmocka_unit_test_setup_teardown(who_was_told_of_the_event_can_fill_the_rest, make, end),
	    cmocka_unit_test_setup_teardown(filling_all_at_once_waits_for_what_is_missing, make,
					    end),
	    cmocka_unit_test_setup_teardown(who_is_to_stop_does_not_wait_for_what_is_missing, make,
					    end),
	};
	uint64_t *words = NULL;
	int uffd = -1;

	if (!lazy_memory_make(1, &words, &uffd))
		return 77;
	close_if_open(uffd);
	lazy_memory_remove(words, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
