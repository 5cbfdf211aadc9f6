/* SPDX-License-Identifier: Apache-2.0 */
/* Memory from a CRIU, played here, through both halves of the pipe onto the disk. */
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/criu/pagemap.h"
#include "engine/host/files.h"
#include "engine/pipe/memory_pipe.h"
#include "proto/clock.h"
#include "proto/limits.h"
#include "tests/unit/engine/memory_scene.h"

#include <xxhash.h>

enum { PAGES = 700 };

/* Pages with their number everywhere, and zeros where the pattern says. */
static uint8_t *make_pages(const char *pattern)
{
	uint8_t *data = calloc(PAGES, PAGE_BYTES);
	size_t length = strlen(pattern);

	assert_non_null(data);
	for (unsigned page = 0; page < PAGES; page++)
		if (pattern[page % length] != '0')
			memset(data + (size_t)page * PAGE_BYTES, (int)(page % 255) + 1, PAGE_BYTES);
	return data;
}

static unsigned zeros_of(const char *pattern)
{
	unsigned zeros = 0;

	for (unsigned page = 0; page < PAGES; page++)
		zeros += pattern[page % strlen(pattern)] == '0';
	return zeros;
}

/* --- tests --- */

/* One record longer than several batches, then short ones. */
static void add_all(const struct scene *scene, const uint8_t *data)
{
	add(scene, PAGE_PRESENT, 0, 300, data);
	for (unsigned page = 300; page < PAGES; page += 4)
		add(scene, PAGE_PRESENT | (page % 8 == 0 ? PAGE_LAZY : 0), page, 4,
		    data + (size_t)page * PAGE_BYTES);
}

static void content_and_zeros_arrive_whatever_their_order(void **state)
{
	static const char *const patterns[] = {"1",
					       "0",
					       "01",
					       "10",
					       "0011",
					       "1101",
					       "0000000000000000000000001",
					       "1111111111111111111111110",
					       "100000001"};

	for (unsigned i = 0; i < array_len(patterns); i++) {
		struct scene *scene = *state;
		scoped(bytes) uint8_t *data = make_pages(patterns[i]);
		begin(scene, 1);
		assert_int_equal(open_image(scene), 0);
		add_all(scene, data);
		close_round(scene);
		struct memory_round sent = finish(scene);
		assert_int_equal(sent.pages_sent, PAGES);
		assert_int_equal(sent.pages_zero, zeros_of(patterns[i]));
		assert_true(sent.bytes < (uint64_t)(PAGES - sent.pages_zero) * PAGE_BYTES + 20000);
		expect_pages(scene, 1, data, PAGES);
		(void)memory_scene_end(state);
		(void)memory_scene_make(state);
	}
}

static void dirty_pages_with_known_content_are_not_sent_again(void **state)
{
	struct scene *scene = *state;
	scoped(bytes) uint8_t *data = make_pages("1110");

	for (unsigned round = 1; round <= 3; round++) {
		unsigned changed = round == 1 ? PAGES : 2;
		if (round > 1) {
			data[(size_t)100 * PAGE_BYTES + 4000] = (uint8_t)round;
			data[(size_t)699 * PAGE_BYTES] = (uint8_t)round; /* was zero at first */
		}
		begin(scene, round);
		assert_int_equal(open_image(scene), round > 1);
		add_all(scene, data);
		close_round(scene);
		struct memory_round sent = finish(scene);
		assert_int_equal(sent.pages_sent, changed);
		assert_int_equal(sent.pages_same, PAGES - changed);
		assert_int_equal(sent.pages_skipped, 0);
		if (round == 1)
			continue;
		assert_true(sent.bytes < 3 * PAGE_BYTES);
		scoped(bytes) uint8_t *want = malloc(2 * (size_t)PAGE_BYTES);
		assert_non_null(want);
		memcpy(want, data + (size_t)100 * PAGE_BYTES, PAGE_BYTES);
		memcpy(want + PAGE_BYTES, data + (size_t)699 * PAGE_BYTES, PAGE_BYTES);
		expect_pages(scene, round, want, 2);
	}
}

static void packed_batches_arrive_as_they_were(void **state)
{
	static const struct batch_codecs codecs[] = {{1 << BATCH_LZ4, 1},
						     {1 << BATCH_ZSTD, 1},
						     {1 << BATCH_ZSTD, 19},
						     {BATCH_CODECS_ALL, 1}};

	for (unsigned i = 0; i < array_len(codecs); i++) {
		struct scene *scene = *state;
		scoped(bytes) uint8_t *data = make_pages("1101");
		memory_sender_free(TAKE(scene->sender));
		assert_ok(
		    memory_sender_new(scene->engine, &scene->out, &codecs[i], &scene->sender));
		begin(scene, 1);
		assert_int_equal(open_image(scene), 0);
		add_all(scene, data);
		close_round(scene);
		struct memory_round sent = finish(scene);
		assert_int_equal(sent.pages_sent, PAGES);
		if (codecs[i].set != BATCH_CODECS_ALL)
			assert_true(sent.bytes < PAGES * PAGE_BYTES / 20);
		expect_pages(scene, 1, data, PAGES);
		(void)memory_scene_end(state);
		(void)memory_scene_make(state);
	}
}

static double round_ms(struct scene *scene, unsigned round, const struct memory_feed *feed,
		       const uint8_t *data)
{
	double begun = clock_monotonic_fine_ms();

	begin_fed(scene, round, feed);
	(void)open_image(scene);
	add_all(scene, data);
	close_round(scene);
	(void)finish(scene);
	return clock_monotonic_fine_ms() - begun;
}

static void a_limit_is_kept_while_the_tree_runs_only(void **state)
{
	struct scene *scene = *state;
	scoped(bytes) uint8_t *data = make_pages("1");
	struct memory_feed last = tracked;
	atomic_uint_fast64_t limit;

	atomic_init(&limit, 8 * 1024 * 1024);
	memory_sender_limit(scene->sender, &limit);
	/* 2.7 MiB, of which the last batch is not waited for. */
	assert_true(round_ms(scene, 1, &tracked, data) > 250);
	data[0]++;
	for (size_t page = 0; page < PAGES; page++)
		data[page * PAGE_BYTES]++;
	atomic_store(&limit, 64 * 1024); /* would take 43 s */
	last.is_last = true;
	assert_true(round_ms(scene, 2, &last, data) < 20000);
}

static void a_sender_that_keeps_a_limit_can_be_freed_at_once(void **state)
{
	struct scene *scene = *state;
	scoped(bytes) uint8_t *data = make_pages("1");
	atomic_uint_fast64_t limit;

	atomic_init(&limit, 1);
	memory_sender_limit(scene->sender, &limit);
	assert_ok(memory_sender_begin(scene->sender, 1, &tracked));
	assert_int_equal(open_image(scene), 0);
	add(scene, PAGE_PRESENT, 0, 64, data);
	add(scene, PAGE_PRESENT, 64, 1, data); /* the first batch leaves, and is waited for */
	memory_sender_free(TAKE(scene->sender));
}

static void a_later_round_refers_to_the_one_before(void **state)
{
	struct scene *scene = *state;
	scoped(bytes) uint8_t *data = make_pages("1");

	begin(scene, 1);
	assert_int_equal(ask(scene, PAGE_PARENT, 4), 0);
	assert_int_equal(open_image(scene), 0);
	add(scene, PAGE_PRESENT, 0, 100, data);
	close_round(scene);
	(void)finish(scene);
	begin(scene, 2);
	assert_int_equal(ask(scene, PAGE_PARENT, 4), 1);
	assert_int_equal(open_image(scene), 1);
	add(scene, PAGE_IN_PARENT, 0, 50, NULL);
	add(scene, PAGE_PRESENT, 50, 2, data);
	add(scene, PAGE_IN_PARENT, 52, 40, NULL);
	close_round(scene);
	struct memory_round sent = finish(scene);
	assert_int_equal(sent.pages_sent, 2);
	assert_int_equal(sent.pages_skipped, 90);
	expect_pages(scene, 2, data, 2);
	/* An image that the second round did not have is not in the third one's parent. */
	begin(scene, 3);
	close_round(scene);
	(void)finish(scene);
	begin(scene, 4);
	assert_int_equal(ask(scene, PAGE_PARENT, 4), 0);
	close_round(scene);
	(void)finish(scene);
}

/* Memory that was read live is in the round, and compared, but CRIU has not tracked it. */
static void what_was_read_live_is_known_but_not_to_criu(void **state)
{
	struct scene *scene = *state;
	scoped(bytes) uint8_t *data = make_pages("1");
	struct memory_feed both = tracked;
	int live[2], criu = scene->criu;
	const uint64_t segment = 9 << 8 | PAGE_SHMEM;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, live), 0);
	both.live_fd = live[1];
	for (unsigned round = 1; round <= 2; round++) {
		begin_fed(scene, round, &both);
		scene->criu = live[0];
		assert_int_equal(ask_of(scene, segment, PAGE_OPEN, 1), 0);
		add_to(scene, segment, 0, 10, data);
		close_round(scene);
		scene->criu = criu;
		assert_int_equal(open_image(scene), round > 1);
		add(scene, PAGE_PRESENT, 0, 10, data);
		close_round(scene);
		struct memory_round sent = finish(scene);
		assert_int_equal(sent.pages_sent, round == 1 ? 20 : 0);
		assert_int_equal(sent.pages_same, round == 1 ? 0 : 20);
	}
	begin_fed(scene, 3, &tracked);
	assert_int_equal(ask_of(scene, segment, PAGE_PARENT, 4), 0);
	assert_int_equal(ask_of(scene, segment, PAGE_OPEN, 1), 0);
	add_to(scene, segment, 0, 10, data);
	close_round(scene);
	struct memory_round sent = finish(scene);
	assert_int_equal(sent.pages_same, 10);
	(void)close(live[0]);
	(void)close(live[1]);
}

enum { OFFERED_PAGES = 400, LOST_PAGE = 130 };

/* Pages that have their number in each byte; one cannot be had. */
static status *read_offered(void *live, const struct page_header *run, uint8_t *data,
			    uint32_t *ret_pages)
{
	unsigned *reads = live;

	(*reads)++;
	for (*ret_pages = 0; *ret_pages < run->pages; (*ret_pages)++) {
		unsigned page = (unsigned)(run->address / PAGE_BYTES) + *ret_pages;
		if (page == LOST_PAGE)
			return NULL;
		memset(data + (size_t)*ret_pages * PAGE_BYTES, (int)(page % 251 + 1), PAGE_BYTES);
	}
	return NULL;
}

static void what_is_offered_is_read_and_then_answered(void **state)
{
	struct scene *scene = *state;
	scoped(bytes) uint8_t *want = malloc((size_t)OFFERED_PAGES * PAGE_BYTES);
	struct memory_feed feed = {.read_live = read_offered};
	const struct page_header header = {PAGE_ADD, PAGE_PRESENT, OFFERED_PAGES, 0, IMAGE};
	uint8_t bytes[PAGE_HEADER_BYTES];
	int live[2], verdict = 1, criu = scene->criu;
	unsigned reads = 0, there = 0;

	assert_non_null(want);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, live), 0);
	feed.live_fd = live[1];
	feed.live = &reads;
	begin_fed(scene, 1, &feed);
	scene->criu = live[0];
	(void)open_image(scene);
	page_header_encode(&header, bytes);
	assert_int_equal(send(live[0], bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
	assert_int_equal(recv(live[0], &verdict, sizeof(verdict), MSG_WAITALL), sizeof(verdict));
	assert_int_equal(verdict, 0);
	assert_true(reads > OFFERED_PAGES / LIMIT_BATCH_PAGES);
	close_round(scene);
	scene->criu = criu;
	assert_int_equal(finish(scene).pages_sent, OFFERED_PAGES - 1);
	for (unsigned page = 0; page < OFFERED_PAGES; page++)
		if (page != LOST_PAGE)
			memset(want + (size_t)there++ * PAGE_BYTES, (int)(page % 251 + 1),
			       PAGE_BYTES);
	expect_pages(scene, 1, want, there);
	(void)close(live[0]);
	(void)close(live[1]);
}

static void begin_alone(struct scene *scene)
{
	assert_ok(memory_sender_begin(scene->sender, 1, &tracked));
}

static void expect_shut(const struct scene *scene)
{
	char byte;

	assert_int_equal(recv(scene->criu, &byte, 1, 0), 0);
}

static void a_record_that_cannot_be_ends_the_round_and_criu_s_wait(void **state)
{
	struct scene *scene = *state;
	const struct page_header header = {.command = 99};
	struct memory_round sent;

	begin_alone(scene);
	say(scene, &header, NULL);
	assert_code(memory_sender_end(scene->sender, PLENTY_MS, &sent), STATUS_DATA_LOSS);
	expect_shut(scene);
}

static void a_criu_that_goes_away_ends_the_round(void **state)
{
	struct scene *scene = *state;
	struct memory_round sent;

	begin_alone(scene);
	assert_int_equal(open_image(scene), 0);
	assert_int_equal(shutdown(scene->criu, SHUT_WR), 0);
	assert_code(memory_sender_end(scene->sender, PLENTY_MS, &sent), STATUS_ABORTED);
	expect_shut(scene);
}

static void a_silent_criu_ends_the_round_in_time(void **state)
{
	struct scene *scene = *state;
	struct memory_round sent;

	begin_alone(scene);
	assert_code(memory_sender_end(scene->sender, 100, &sent), STATUS_DEADLINE_EXCEEDED);
	expect_shut(scene);
}

static void an_interrupted_pipe_ends_the_round_as_cancelled(void **state)
{
	struct scene *scene = *state;
	const struct page_header close_header = {.command = PAGE_FORCE_CLOSE};
	struct memory_round sent;

	begin_alone(scene);
	assert_int_equal(open_image(scene), 0);
	pipe_interrupt(scene->from);
	say(scene, &close_header, NULL);
	assert_code(memory_sender_end(scene->sender, PLENTY_MS, &sent), STATUS_CANCELLED);
}

static void freeing_a_sender_in_mid_round_does_not_wait(void **state)
{
	struct scene *scene = *state;

	begin_alone(scene);
	assert_int_equal(open_image(scene), 0);
	memory_sender_free(TAKE(scene->sender));
	expect_shut(scene);
}

static void a_round_of_another_number_is_refused(void **state)
{
	struct scene *scene = *state;
	struct memory_round sent, got;

	assert_ok(page_store_begin(scene->store, 2));
	begin_alone(scene);
	close_round(scene);
	assert_ok(memory_sender_end(scene->sender, PLENTY_MS, &sent));
	assert_code(memory_receive_round(&scene->in, scene->store, 2, PLENTY_MS, &got),
		    STATUS_DATA_LOSS);
}

static void send_end(struct scene *scene, uint64_t pages, uint64_t digest)
{
	Haul__V1__RoundEnd round_end = HAUL__V1__ROUND_END__INIT;

	round_end.round = 1;
	round_end.pages = pages;
	round_end.digest = digest;
	assert_ok(pipe_send_message(scene->from, HAUL__V1__FRAME_KIND__FRAME_ROUND, &round_end.base,
				    PLENTY_MS));
}

static void a_round_with_other_counts_or_digests_is_refused(void **state)
{
	struct scene *scene = *state;
	struct memory_round got;
	uint64_t nothing = XXH3_64bits("", 0);

	assert_ok(page_store_begin(scene->store, 1));
	send_end(scene, 1, nothing);
	assert_code(memory_receive_round(&scene->in, scene->store, 1, PLENTY_MS, &got),
		    STATUS_DATA_LOSS);
	send_end(scene, 0, nothing + 1);
	assert_code(memory_receive_round(&scene->in, scene->store, 1, PLENTY_MS, &got),
		    STATUS_DATA_LOSS);
	send_end(scene, 0, nothing);
	assert_ok(memory_receive_round(&scene->in, scene->store, 1, PLENTY_MS, &got));
}

int main(void)
{
#define PIPE_TEST(name) cmocka_unit_test_setup_teardown(name, memory_scene_make, memory_scene_end)
	const struct CMUnitTest tests[] = {
	    PIPE_TEST(content_and_zeros_arrive_whatever_their_order),
	    PIPE_TEST(dirty_pages_with_known_content_are_not_sent_again),
	    PIPE_TEST(packed_batches_arrive_as_they_were),
	    PIPE_TEST(a_limit_is_kept_while_the_tree_runs_only),
	    PIPE_TEST(a_sender_that_keeps_a_limit_can_be_freed_at_once),
	    PIPE_TEST(a_later_round_refers_to_the_one_before),
	    PIPE_TEST(what_was_read_live_is_known_but_not_to_criu),
	    PIPE_TEST(what_is_offered_is_read_and_then_answered),
	    PIPE_TEST(a_record_that_cannot_be_ends_the_round_and_criu_s_wait),
	    PIPE_TEST(a_criu_that_goes_away_ends_the_round),
	    PIPE_TEST(a_silent_criu_ends_the_round_in_time),
	    PIPE_TEST(an_interrupted_pipe_ends_the_round_as_cancelled),
	    PIPE_TEST(freeing_a_sender_in_mid_round_does_not_wait),
	    PIPE_TEST(a_round_of_another_number_is_refused),
	    PIPE_TEST(a_round_with_other_counts_or_digests_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
