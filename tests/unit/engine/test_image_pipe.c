/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "engine/pipe/image_pipe.h"
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
	unsigned left = 0, arrived = 0;
	uint64_t bytes = 0;
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
	assert_ok(image_pipe_send(from, scene->from, PLENTY_MS, &left, &bytes));
	assert_ok(image_pipe_receive(to, scene->to, PLENTY_MS, &arrived));
	assert_int_equal(left, 3);
	assert_int_equal(arrived, 3);
	assert_int_equal(bytes, BIG + 256 * 1024);
	expect_file(scene->to, "big.img", big, sizeof(big));
	expect_file(scene->to, "even.img", big, (size_t)256 * 1024);
	expect_file(scene->to, "empty.img", "", 0);
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
	chunk = whole("core-1.img");
	assert_ok(give(scene, &chunk));
	assert_code(give(scene, &chunk), STATUS_DATA_LOSS);
	expect_file(scene->to, "pages-1.img", "mine", 4);
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
	unsigned count = 0;

	chunk.last = 0;
	assert_ok(give(scene, &chunk));
	assert_code(image_state_end(scene->state, &count), STATUS_DATA_LOSS);
	chunk.data.len = 0;
	chunk.offset = 3;
	chunk.last = 1;
	assert_ok(give(scene, &chunk));
	assert_ok(image_state_end(scene->state, &count));
	assert_int_equal(count, 1);
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
