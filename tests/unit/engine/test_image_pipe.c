/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/host/files.h"
#include "engine/pipe/image_pipe.h"
#include "proto/clock.h"
#include "proto/pack.h"
#include "tests/unit/engine/pipe_pair.h"

#include <xxhash.h>

enum { PLENTY_MS = 60000, BIG = 700 * 1024 };

struct scene {
	char from[64], to[64];
	struct image_state *state;
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	scratch_make(scene->from);
	scratch_make(scene->to);
	assert_ok(image_state_new(scene->to, &scene->state));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	image_state_free(scene->state);
	scratch_remove(scene->from);
	scratch_remove(scene->to);
	free(scene);
	return 0;
}

static void write_file(const char *dir, const char *name, const void *data, size_t size)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_ok(files_write(path, data, size));
}

static void expect_file(const char *dir, const char *name, const void *want, size_t size)
{
	struct buffer got __attribute__((cleanup(scope_buffer))) = {0};
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_ok(files_read(path, BIG + 1, &got));
	assert_int_equal(got.size, size);
	assert_memory_equal(got.data, want, size);
}

static void images_arrive_whole_and_logs_stay(void **state)
{
	struct scene *scene = *state;
	struct pipe *from = NULL, *to = NULL;
	static uint8_t big[BIG];
	char link[128];

	for (size_t i = 0; i < sizeof(big); i++)
		big[i] = (uint8_t)(i * 31 >> 4);
	write_file(scene->from, "big.img", big, sizeof(big));
	write_file(scene->from, "even.img", big, (size_t)256 * 1024);
	write_file(scene->from, "empty.img", "", 0);
	write_file(scene->from, "dump.log", "log", 3);
	write_file(scene->from, "stats-dump", "stats", 5);
	(void)snprintf(link, sizeof(link), "%s/parent", scene->from);
	assert_int_equal(symlink("../1", link), 0);
	pipe_pair_open(&to, &from);
	assert_int_equal(pipe_pair_carry_images(from, scene->from, to, scene->to), 3);
	expect_file(scene->to, "big.img", big, sizeof(big));
	expect_file(scene->to, "even.img", big, (size_t)256 * 1024);
	expect_file(scene->to, "empty.img", "", 0);
	pipe_free(from);
	pipe_free(to);
}

struct receiving {
	struct pipe *pipe;
	const char *dir;
	struct image_totals totals;
	status *st;
};

static void *receive(void *self)
{
	struct receiving *receiving = self;

	receiving->st =
	    image_pipe_receive(receiving->pipe, receiving->dir, PLENTY_MS, &receiving->totals);
	return NULL;
}

/* Waits until there is a file of this size. */
static void await_file(const char *dir, const char *name, off_t size)
{
	char path[128];
	struct stat info = {.st_size = -1};
	int64_t until = clock_monotonic_ms() + PLENTY_MS;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	while ((stat(path, &info) != 0 || info.st_size != size) && clock_monotonic_ms() < until)
		(void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	assert_int_equal(info.st_size, size);
}

static bool has_file(const char *dir, const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return access(path, F_OK) == 0;
}

/* Writes over what is there, as CRIU does with a file that it goes on with. */
static void rewrite_file(const char *dir, const char *name, const void *data, size_t size)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	scoped(fd) int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, size), size);
}

static void images_leave_when_they_are_closed_and_again_when_they_change(void **state)
{
	struct scene *scene = *state;
	struct receiving receiving = {.dir = scene->to};
	scoped(image_sender) struct image_sender *sender = NULL;
	struct image_totals left = {0};
	struct pipe *from = NULL;
	unsigned early = 0;
	uint64_t bytes = 0;
	pthread_t thread;

	pipe_pair_open(&receiving.pipe, &from);
	assert_int_equal(pthread_create(&thread, NULL, receive, &receiving), 0);
	assert_ok(image_sender_start(from, scene->from, "files.img", PLENTY_MS, &sender));
	write_file(scene->from, "files.img", "to be mended", 12);
	write_file(scene->from, "stats-dump", "stats", 5);
	write_file(scene->from, "core-1.img", "core", 4);
	write_file(scene->from, "mm-1.img", "mm", 2);
	await_file(scene->to, "mm-1.img", 2);
	expect_file(scene->to, "core-1.img", "core", 4);
	assert_false(has_file(scene->to, "files.img"));
	/* Of the same size, so that only its content tells. */
	rewrite_file(scene->from, "core-1.img", "Core", 4);
	rewrite_file(scene->from, "files.img", "mended", 6);
	write_file(scene->from, "late.img", "late", 4);
	assert_ok(image_sender_finish(sender, &left, &bytes, &early));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(receiving.st);
	assert_true(early >= 2);
	assert_int_equal(left.count, 4);
	assert_int_equal(receiving.totals.count, 4);
	assert_true(receiving.totals.digest == left.digest);
	assert_true(bytes >= 4 + 2 + 4 + 6 + 4);
	expect_file(scene->to, "core-1.img", "Core", 4);
	expect_file(scene->to, "mm-1.img", "mm", 2);
	expect_file(scene->to, "files.img", "mended", 6);
	expect_file(scene->to, "late.img", "late", 4);
	assert_false(has_file(scene->to, "stats-dump"));
	pipe_free(from);
	pipe_free(receiving.pipe);
}

/* An image that left and was taken back is there and not here. */
static void an_image_that_is_taken_back_is_an_error(void **state)
{
	struct scene *scene = *state;
	struct receiving receiving = {.dir = scene->to};
	scoped(image_sender) struct image_sender *sender = NULL;
	struct image_totals left = {0};
	struct pipe *from = NULL;
	unsigned early = 0;
	uint64_t bytes = 0;
	pthread_t thread;
	char path[128];

	pipe_pair_open(&receiving.pipe, &from);
	assert_int_equal(pthread_create(&thread, NULL, receive, &receiving), 0);
	assert_ok(image_sender_start(from, scene->from, NULL, PLENTY_MS, &sender));
	write_file(scene->from, "core-1.img", "core", 4);
	await_file(scene->to, "core-1.img", 4);
	(void)snprintf(path, sizeof(path), "%s/core-1.img", scene->from);
	assert_int_equal(unlink(path), 0);
	assert_code(image_sender_finish(sender, &left, &bytes, &early), STATUS_ABORTED);
	pipe_free(from);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_code(receiving.st, STATUS_UNAVAILABLE);
	pipe_free(receiving.pipe);
}

/* A dump that failed: nobody waits for the images any more. */
static void a_sender_that_is_not_finished_ends_its_pipe(void **state)
{
	struct scene *scene = *state;
	struct image_sender *sender = NULL;
	struct pipe *from = NULL, *to = NULL;
	static uint8_t big[BIG];

	pipe_pair_open(&to, &from);
	assert_ok(image_sender_start(from, scene->from, NULL, PLENTY_MS, &sender));
	/* Nobody receives: more than the pipe takes. */
	for (int i = 0; i < 40; i++) {
		char name[32];
		(void)snprintf(name, sizeof(name), "big-%d.img", i);
		write_file(scene->from, name, big, sizeof(big));
	}
	image_sender_free(sender);
	assert_code(pipe_send_end(from, NULL, PLENTY_MS), STATUS_CANCELLED);
	pipe_free(from);
	pipe_free(to);
}

static status *give(struct scene *scene, const Haul__V1__ImageChunk *chunk)
{
	struct buffer packed __attribute__((cleanup(scope_buffer))) = {0};

	assert_ok(pack_message(&chunk->base, LIMIT_BULK_BYTES, &packed));
	return image_state_chunk(scene->state, packed.data, packed.size);
}

/* A whole file of three bytes. */
static Haul__V1__ImageChunk whole(const char *name)
{
	static uint8_t data[] = "abc";
	Haul__V1__ImageChunk chunk = HAUL__V1__IMAGE_CHUNK__INIT;

	chunk.name = (char *)name;
	chunk.data = (ProtobufCBinaryData){3, data};
	chunk.last = 1;
	chunk.size = 3;
	chunk.digest = XXH3_64bits(data, 3);
	return chunk;
}

static void names_that_lead_elsewhere_are_refused(void **state)
{
	struct scene *scene = *state;
	static const char *const names[] = {"",	   ".",	      "..",  "../x.img", "/etc/x",
					    "a/b", ".hidden", "a b", "a\nb"};

	for (size_t i = 0; i < array_len(names); i++) {
		Haul__V1__ImageChunk chunk = whole(names[i]);
		assert_code(give(scene, &chunk), STATUS_DATA_LOSS);
	}
	char long_name[300];
	memset(long_name, 'a', sizeof(long_name));
	long_name[sizeof(long_name) - 1] = '\0';
	Haul__V1__ImageChunk chunk = whole(long_name);
	assert_code(give(scene, &chunk), STATUS_DATA_LOSS);
}

static void what_exists_is_never_replaced(void **state)
{
	struct scene *scene = *state;
	char link[128];

	write_file(scene->to, "pages-1.img", "mine", 4);
	(void)snprintf(link, sizeof(link), "%s/parent", scene->to);
	assert_int_equal(symlink("/tmp/haul-test-nowhere", link), 0);
	Haul__V1__ImageChunk chunk = whole("pages-1.img");
	assert_code(give(scene, &chunk), STATUS_DATA_LOSS);
	chunk = whole("parent");
	assert_code(give(scene, &chunk), STATUS_DATA_LOSS);
	expect_file(scene->to, "pages-1.img", "mine", 4);
}

static void a_file_that_comes_again_takes_the_place_of_the_first(void **state)
{
	struct scene *scene = *state;
	struct image_totals once = {0}, again = {0};
	Haul__V1__ImageChunk chunk = whole("core-1.img");

	assert_ok(give(scene, &chunk));
	assert_ok(image_state_end(scene->state, &once));
	chunk.data.len = 2;
	chunk.size = 2;
	chunk.digest = XXH3_64bits(chunk.data.data, 2);
	assert_ok(give(scene, &chunk));
	assert_ok(image_state_end(scene->state, &again));
	assert_int_equal(again.count, 1);
	assert_true(again.digest != once.digest);
	expect_file(scene->to, "core-1.img", "ab", 2);
}

static void a_link_in_the_place_of_a_file_that_came_is_not_followed(void **state)
{
	struct scene *scene = *state;
	Haul__V1__ImageChunk chunk = whole("core-1.img");
	char path[128], mine[128];

	assert_ok(give(scene, &chunk));
	write_file(scene->from, "mine", "mine", 4);
	(void)snprintf(path, sizeof(path), "%s/core-1.img", scene->to);
	(void)snprintf(mine, sizeof(mine), "%s/mine", scene->from);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink(mine, path), 0);
	status *st = give(scene, &chunk);
	assert_non_null(st);
	status_free(st);
	expect_file(scene->from, "mine", "mine", 4);
}

static void an_altered_file_is_refused(void **state)
{
	struct scene *scene = *state;
	Haul__V1__ImageChunk chunk = whole("a.img");

	chunk.digest++;
	assert_code(give(scene, &chunk), STATUS_DATA_LOSS);
}

static void a_short_file_is_refused(void **state)
{
	struct scene *scene = *state;
	Haul__V1__ImageChunk chunk = whole("a.img");

	chunk.size = 4;
	assert_code(give(scene, &chunk), STATUS_DATA_LOSS);
}

static void pieces_out_of_order_are_refused(void **state)
{
	struct scene *scene = *state;
	Haul__V1__ImageChunk chunk = whole("a.img");

	chunk.last = 0;
	assert_ok(give(scene, &chunk));
	assert_code(give(scene, &chunk), STATUS_DATA_LOSS); /* offset 0 again */
	Haul__V1__ImageChunk other = whole("b.img");
	assert_code(give(scene, &other), STATUS_DATA_LOSS);
}

static void an_unfinished_file_is_no_end(void **state)
{
	struct scene *scene = *state;
	Haul__V1__ImageChunk chunk = whole("a.img");
	struct image_totals totals = {0};

	chunk.last = 0;
	assert_ok(give(scene, &chunk));
	assert_code(image_state_end(scene->state, &totals), STATUS_DATA_LOSS);
	chunk.data.len = 0;
	chunk.offset = 3;
	chunk.last = 1;
	assert_ok(give(scene, &chunk));
	assert_ok(image_state_end(scene->state, &totals));
	assert_int_equal(totals.count, 1);
}

static void bytes_that_are_no_message_are_refused(void **state)
{
	struct scene *scene = *state;

	assert_code(image_state_chunk(scene->state, (const uint8_t *)"\xff\xff\xff", 3),
		    STATUS_DATA_LOSS);
	assert_code(image_state_chunk(scene->state, NULL, 0), STATUS_DATA_LOSS); /* no name */
}

int main(void)
{
#define IMAGE_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    IMAGE_TEST(images_arrive_whole_and_logs_stay),
	    IMAGE_TEST(images_leave_when_they_are_closed_and_again_when_they_change),
	    IMAGE_TEST(an_image_that_is_taken_back_is_an_error),
	    IMAGE_TEST(a_sender_that_is_not_finished_ends_its_pipe),
	    IMAGE_TEST(a_file_that_comes_again_takes_the_place_of_the_first),
	    IMAGE_TEST(a_link_in_the_place_of_a_file_that_came_is_not_followed),
	    IMAGE_TEST(names_that_lead_elsewhere_are_refused),
	    IMAGE_TEST(what_exists_is_never_replaced),
	    IMAGE_TEST(an_altered_file_is_refused),
	    IMAGE_TEST(a_short_file_is_refused),
	    IMAGE_TEST(pieces_out_of_order_are_refused),
	    IMAGE_TEST(an_unfinished_file_is_no_end),
	    IMAGE_TEST(bytes_that_are_no_message_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
