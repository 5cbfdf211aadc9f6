/* SPDX-License-Identifier: Apache-2.0 */
/* Both halves over real pipes; the source's tree is played. */
#include "engine/pipe/late_pipe.h"
#include "engine/pipe/late_window.h"

#include <endian.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#include "proto/clock.h"
#include "tests/unit/engine/late_scene.h"
#include "tests/unit/engine/pipe_pair.h"
#include "tests/unit/test.h"

enum { BASE = 0x20000000, PLENTY_MS = 30000, ZERO_PAGE = 33, DIGEST_BYTES = 8 };

struct scene {
	struct late_scene late;
	struct late_fetcher *fetcher;
	struct pipe *to, *from;
	struct late_source source;
	pthread_t server;
	status *served;
	/* Of the tree: */
	atomic_uint reads, reads_most; /* more: it cannot be read */
	uint64_t first_address;
};

/* One page of the tree is zero. */
static status *read_tree(void *self, int64_t pid, uint64_t address, size_t bytes, uint8_t *data)
{
	struct scene *scene = self;

	assert_int_equal(pid, LAZY_PID);
	if (atomic_fetch_add(&scene->reads, 1) == 0)
		scene->first_address = address;
	if (atomic_load(&scene->reads) > atomic_load(&scene->reads_most))
		return status_errorf(STATUS_DATA_LOSS, "the page cannot be read");
	late_scene_read(address, bytes, data);
	uint64_t zero = late_scene_address(&scene->late, ZERO_PAGE);
	if (zero >= address && zero < address + bytes)
		memset(data + (zero - address), 0, PAGE_BYTES);
	return NULL;
}

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	late_scene_make(&scene->late, BASE);
	atomic_init(&scene->reads_most, UINT32_MAX);
	scene->source = (struct late_source){.read = read_tree,
					     .self = scene,
					     .codecs = {.set = BATCH_CODECS_ALL, .level = 1}};
	assert_ok(late_fetcher_new(&scene->fetcher));
	*state = scene;
	return 0;
}

static void *serve(void *self)
{
	struct scene *scene = self;

	scene->served = late_serve(scene->from, &scene->source);
	return NULL;
}

/* A pipe between both; the server begins. */
static void connect_both(struct scene *scene)
{
	const struct pipe_place place = {.host = "127.0.0.1",
					 .port_low = 21000,
					 .port_high = 29999};
	Haul__V1__PipeAddress *address = NULL;

	assert_ok(rpc_start());
	assert_ok(pipe_listen(&place, &scene->to, &address));
	late_fetcher_offer(scene->fetcher, scene->to);
	assert_ok(pipe_dial(address, PLENTY_MS, &scene->from));
	haul__v1__pipe_address__free_unpacked(address, NULL);
	assert_int_equal(pthread_create(&scene->server, NULL, serve, scene), 0);
}

static status *server_ends(struct scene *scene)
{
	assert_int_equal(pthread_join(scene->server, NULL), 0);
	pipe_free(scene->from);
	scene->from = NULL;
	return TAKE(scene->served);
}

static int end(void **state)
{
	struct scene *scene = *state;

	late_fetcher_free(scene->fetcher);
	pipe_free(scene->from);
	late_scene_end(&scene->late);
	free(scene);
	return 0;
}

static uint64_t missing(const struct scene *scene)
{
	struct late_counts counts;

	late_store_counts(scene->late.store, &counts);
	return counts.missing;
}

static void expect_whole(const struct scene *scene)
{
	assert_int_equal(missing(scene), 0);
	for (size_t page = LATE_SENT; page < LATE_PAGES; page++)
		assert_int_equal(late_scene_content(&scene->late, page),
				 page == ZERO_PAGE
				     ? 0
				     : lazy_word(late_scene_address(&scene->late, page),
						 LATE_ROUND));
}

static void all_pages_come_with_their_content_and_both_end(void **state)
{
	struct scene *scene = *state;

	connect_both(scene);
	late_fetcher_feed(scene->fetcher, scene->late.store);
	assert_ok(server_ends(scene));
	expect_whole(scene);
}

static void what_is_waited_for_is_read_first(void **state)
{
	struct scene *scene = *state;
	const struct late_range wanted = {.pid = LAZY_PID,
					  .address = late_scene_address(&scene->late, 200),
					  .pages = 16};

	late_store_want(scene->late.store, &wanted);
	connect_both(scene);
	late_fetcher_feed(scene->fetcher, scene->late.store);
	assert_ok(server_ends(scene));
	assert_int_equal(scene->first_address, wanted.address);
	expect_whole(scene);
}

static bool is_connected(struct scene *scene)
{
	return late_fetcher_is_connected(scene->fetcher);
}

static bool has_error(struct scene *scene)
{
	scoped(status) status *st = late_fetcher_error(scene->fetcher);

	return st != NULL;
}

static void await(struct scene *scene, bool (*is_so)(struct scene *scene), bool wanted)
{
	int64_t until = clock_monotonic_ms() + PLENTY_MS;

	while (is_so(scene) != wanted && clock_monotonic_ms() < until)
		(void)poll(NULL, 0, 5);
	assert_true(is_so(scene) == wanted);
}

static void a_pipe_that_is_lost_is_replaced_and_the_rest_comes(void **state)
{
	struct scene *scene = *state;

	connect_both(scene);
	await(scene, is_connected, true);
	late_scene_put(&scene->late, LATE_SENT, 20);
	pipe_interrupt(scene->from);
	assert_code(server_ends(scene), STATUS_CANCELLED);
	late_fetcher_feed(scene->fetcher, scene->late.store);
	await(scene, is_connected, false);
	assert_int_equal(missing(scene), LATE_MISSING - 20);
	connect_both(scene);
	assert_ok(server_ends(scene));
	expect_whole(scene);
}

static void a_source_that_cannot_read_says_so_and_nothing_is_there(void **state)
{
	struct scene *scene = *state;

	atomic_store(&scene->reads_most, 0);
	connect_both(scene);
	late_fetcher_feed(scene->fetcher, scene->late.store);
	assert_code(server_ends(scene), STATUS_DATA_LOSS);
	await(scene, has_error, true);
	scoped(status) status *why = late_fetcher_error(scene->fetcher);
	assert_non_null(strstr(status_message(why), "cannot be read"));
	assert_int_equal(missing(scene), LATE_MISSING);
	/* It can, later. */
	atomic_store(&scene->reads_most, UINT32_MAX);
	connect_both(scene);
	assert_ok(server_ends(scene));
	expect_whole(scene);
}

static void a_request_that_makes_no_sense_ends_the_pipe(void **state)
{
	struct scene *scene = *state;
	Haul__V1__LateWant want = HAUL__V1__LATE_WANT__INIT;
	struct pipe *to;

	pipe_pair_open(&to, &scene->from);
	assert_int_equal(pthread_create(&scene->server, NULL, serve, scene), 0);
	want.pid = LAZY_PID;
	want.address = BASE;
	want.pages = LATE_RANGE_PAGES + 1;
	assert_ok(pipe_send_message(to, HAUL__V1__FRAME_KIND__FRAME_WANT, &want.base, PLENTY_MS));
	assert_code(server_ends(scene), STATUS_DATA_LOSS);
	assert_int_equal(atomic_load(&scene->reads), 0);
	pipe_free(to);
}

/* A batch of one page as the source makes it. */
static size_t one_page(const struct late_scene *late, uint8_t *batch)
{
	const struct page_header header = {PAGE_ADD, PAGE_PRESENT, 1, late_scene_address(late, 40),
					   (uint64_t)LAZY_PID << 8 | PAGE_TASK};
	size_t used = PAGE_HEADER_BYTES + PAGE_BYTES;

	page_header_encode(&header, batch);
	late_scene_read(header.address, PAGE_BYTES, batch + PAGE_HEADER_BYTES);
	uint64_t digest = htole64(XXH3_64bits(batch, used));
	memcpy(batch + used, &digest, sizeof(digest));
	return used + DIGEST_BYTES;
}

static void a_batch_with_any_bit_changed_or_cut_puts_nothing(void **state)
{
	struct scene *scene = *state;
	uint8_t batch[PAGE_HEADER_BYTES + PAGE_BYTES + DIGEST_BYTES];
	uint64_t pages = 0;
	size_t size = one_page(&scene->late, batch);

	for (size_t at = 0; at < size; at += 7) {
		batch[at] ^= 0x10;
		assert_code(late_batch_apply(batch, size, scene->late.store, &pages),
			    STATUS_DATA_LOSS);
		batch[at] ^= 0x10;
		assert_code(late_batch_apply(batch, at, scene->late.store, &pages),
			    STATUS_DATA_LOSS);
	}
	assert_int_equal(missing(scene), LATE_MISSING);
	assert_ok(late_batch_apply(batch, size, scene->late.store, &pages));
	assert_int_equal(pages, 1);
	assert_int_equal(missing(scene), LATE_MISSING - 1);
}

/* --- how much is under way --- */

static void few_are_under_way_while_the_tree_begins(void **state)
{
	struct late_window window;
	(void)state;

	late_window_begin(&window, 5000);
	assert_int_equal(late_window_now(&window, 5000), 2);
	late_window_urgent(&window, 5100);
	assert_int_equal(late_window_now(&window, 5100), 1);
	assert_int_equal(late_window_now(&window, 5149), 1);
	assert_int_equal(late_window_now(&window, 5150), 2);
	/* It has begun: what is waited for does not hold up the rest any more. */
	late_window_urgent(&window, 7000);
	assert_int_equal(late_window_now(&window, 7000), 4);
}

static void later_as_much_as_the_link_carries(void **state)
{
	struct late_window window;
	(void)state;

	late_window_begin(&window, 0);
	late_window_came(&window, 100, 2000);
	assert_int_equal(late_window_now(&window, 2000), 4); /* a slow one */
	late_window_came(&window, 6400, 4000);
	assert_int_equal(late_window_now(&window, 4000), 10); /* 100 requests in 2 s */
	late_window_came(&window, 64, 4050);		      /* too early to tell */
	assert_int_equal(late_window_now(&window, 4050), 10);
	late_window_came(&window, 640000, 4100);
	assert_int_equal(late_window_now(&window, 4100), 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(all_pages_come_with_their_content_and_both_end, make,
					    end),
	    cmocka_unit_test_setup_teardown(what_is_waited_for_is_read_first, make, end),
	    cmocka_unit_test_setup_teardown(a_pipe_that_is_lost_is_replaced_and_the_rest_comes,
					    make, end),
	    cmocka_unit_test_setup_teardown(a_source_that_cannot_read_says_so_and_nothing_is_there,
					    make, end),
	    cmocka_unit_test_setup_teardown(a_request_that_makes_no_sense_ends_the_pipe, make, end),
	    cmocka_unit_test_setup_teardown(a_batch_with_any_bit_changed_or_cut_puts_nothing, make,
					    end),
	    cmocka_unit_test(few_are_under_way_while_the_tree_begins),
	    cmocka_unit_test(later_as_much_as_the_link_carries),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
