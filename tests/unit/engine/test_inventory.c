/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/inventory.h"

#include <stdio.h>

#include "engine/host/files.h"
#include "tests/unit/engine/pipe_pair.h"
#include "tests/unit/test.h"

/* As CRIU 4.1.1 writes it after 10.7 s, but for an empty field (12) that its dumps do not read. */
static const uint8_t seen[] = {0x16, 0x31, 0x31, 0x58, 9,    0,	   0,	 0,   0x08,
			       0x00, 0x40, 0xe0, 0x89, 0x8d, 0x05, 0x48, 0x01};

static void it_is_as_criu_writes_it(void **state)
{
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	(void)state;

	assert_ok(criu_inventory_encode(10700000, &content));
	assert_int_equal(content.size, sizeof(seen));
	assert_memory_equal(content.data, seen, sizeof(seen));
}

static void the_uptime_is_read_to_the_hundredth(void **state)
{
	static const char *const nothing[] = {"", "now", "12", "12.", "-"};
	uint64_t us = 0;
	(void)state;

	assert_ok(criu_uptime_parse("2170.05 1649.03\n", &us));
	assert_int_equal(us, 2170050000);
	assert_ok(criu_uptime_parse("0.00 0.00\n", &us));
	assert_int_equal(us, 0);
	for (unsigned i = 0; i < array_len(nothing); i++)
		assert_code(criu_uptime_parse(nothing[i], &us), STATUS_DATA_LOSS);
}

static void it_is_written_where_it_is_looked_for(void **state)
{
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	char dir[64], path[96];
	uint64_t now = 0, later = 0;
	(void)state;

	scratch_make(dir);
	assert_ok(criu_uptime_now(&now));
	assert_ok(criu_uptime_now(&later));
	assert_true(now > 0 && later >= now && later - now < 60000000);
	assert_ok(criu_inventory_write(dir, 10700000));
	(void)snprintf(path, sizeof(path), "%s/inventory.img", dir);
	assert_ok(files_read(path, 64, &content));
	assert_int_equal(content.size, sizeof(seen));
	assert_memory_equal(content.data, seen, sizeof(seen));
	scratch_remove(dir);
	assert_code(criu_inventory_write(dir, 0), STATUS_NOT_FOUND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_is_as_criu_writes_it),
	    cmocka_unit_test(the_uptime_is_read_to_the_hundredth),
	    cmocka_unit_test(it_is_written_where_it_is_looked_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
