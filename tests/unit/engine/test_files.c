/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/files.h"

#include <stdio.h>

#include "tests/unit/engine/pipe_pair.h"
#include "tests/unit/test.h"

enum { LONG = 10000 };

struct scene {
	char dir[64], path[128];
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	scratch_make(scene->dir);
	(void)snprintf(scene->path, sizeof(scene->path), "%s/file", scene->dir);
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

static void write_bytes(const struct scene *scene, size_t size)
{
	uint8_t bytes[LONG];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	assert_ok(files_write(scene->path, bytes, size));
}

static void expect_read(const struct scene *scene, size_t size, size_t limit)
{
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	assert_ok(files_read(scene->path, limit, &content));
	assert_int_equal(content.size, size);
	for (size_t i = 0; i < size; i++)
		assert_int_equal(content.data[i], (uint8_t)(i * 7 + i / 256));
}

static void a_file_of_any_size_is_read_as_it_is(void **state)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, LONG};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		write_bytes(*state, sizes[i]);
		expect_read(*state, sizes[i], LONG);
		expect_read(*state, sizes[i], sizes[i]);
	}
}

static void a_longer_one_is_refused(void **state)
{
	const struct scene *scene = *state;
	struct buffer content = {0};

	write_bytes(scene, LONG);
	assert_code(files_read(scene->path, LONG - 1, &content), STATUS_RESOURCE_EXHAUSTED);
	assert_code(files_read(scene->path, 0, &content), STATUS_RESOURCE_EXHAUSTED);
	assert_null(content.data);
}

/* A machine with less memory than a file might have can read a small one. */
static void a_limit_takes_no_memory(void **state)
{
	write_bytes(*state, LONG);
	expect_read(*state, LONG, SIZE_MAX / 4);
}

static void what_is_not_there_is_named(void **state)
{
	struct buffer content = {0};
	status *st = files_read("/nonexistent/file", LONG, &content);

	(void)state;
	assert_non_null(st);
	assert_non_null(strstr(status_message(st), "/nonexistent/file"));
	status_free(st);
}

int main(void)
{
#define SCENE_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    SCENE_TEST(a_file_of_any_size_is_read_as_it_is),
	    SCENE_TEST(a_longer_one_is_refused),
	    SCENE_TEST(a_limit_takes_no_memory),
	    SCENE_TEST(what_is_not_there_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
