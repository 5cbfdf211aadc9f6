/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire.h"

#include <string.h>

#include "proto/limits.h"
#include "tests/unit/test.h"

static void values_come_back_as_they_were_written(void **state)
{
	static const uint64_t values[] = {0,	 1,	     127,	 127 + 1,   16383,
					  16384, UINT32_MAX, 1ULL << 32, INT64_MAX, UINT64_MAX};
	static const enum wire_type types[] = {WIRE_VARINT, WIRE_64, WIRE_32};
	(void)state;

	for (size_t i = 0; i < array_len(values); i++)
		for (size_t j = 0; j < array_len(types); j++) {
			scoped(wire_out) struct wire_out out = {0};
			struct wire_field field = {0};
			uint64_t want = types[j] == WIRE_32 ? (uint32_t)values[i] : values[i];
			assert_ok(wire_put_tag(&out, 536870911, types[j]));
			assert_ok(wire_put_value(&out, types[j], values[i]));
			struct wire wire = {out.buffer.data, out.buffer.size};
			assert_ok(wire_next(&wire, &field));
			assert_int_equal(field.number, 536870911);
			assert_int_equal(field.type, types[j]);
			assert_true(field.value == want);
			assert_ok(wire_next(&wire, &field));
			assert_int_equal(field.number, 0);
		}
}

static void bytes_are_borrowed_and_bounded_by_what_is_there(void **state)
{
	static const uint8_t good[] = {0x0a, 0x03, 'a', 'b', 'c', 0x12, 0x00};
	struct wire wire = {good, sizeof(good)};
	struct wire_field field = {0};
	(void)state;

	assert_ok(wire_next(&wire, &field));
	assert_int_equal(field.bytes.size, 3);
	assert_ptr_equal(field.bytes.at, good + 2);
	assert_ok(wire_next(&wire, &field));
	assert_int_equal(field.number, 2);
	assert_int_equal(field.bytes.size, 0);
	for (size_t size = 1; size < 5; size++) {
		wire = (struct wire){good, size};
		assert_code(wire_next(&wire, &field), STATUS_INVALID_ARGUMENT);
	}
}

static void what_is_malformed_is_refused(void **state)
{
	static const struct {
		uint8_t data[12];
		size_t size;
	} cases[] = {
	    {{0x00}, 1},			       /* field 0 */
	    {{0x80}, 1},			       /* a tag cut off */
	    {{0x80, 0x80, 0x80, 0x80, 0x10, 0x01}, 6}, /* a number too large */
	    {{0x0b}, 1},			       /* a group */
	    {{0x0c}, 1},			       /* its end */
	    {{0x0e, 0x00}, 2},			       /* no kind */
	    {{0x0d, 1, 2, 3}, 4},		       /* 32 bits cut off */
	    {{0x09, 1, 2, 3, 4, 5, 6, 7}, 8},	       /* 64 bits cut off */
	    {{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
	     11}, /* endless bytes */
	    {{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 12},
	};
	(void)state;

	for (size_t i = 0; i < array_len(cases); i++) {
		struct wire wire = {cases[i].data, cases[i].size};
		struct wire_field field = {0};
		assert_code(wire_next(&wire, &field), STATUS_INVALID_ARGUMENT);
	}
}

static void more_than_a_message_may_have_is_not_written(void **state)
{
	scoped(wire_out) struct wire_out out = {0};
	scoped(bytes) uint8_t *data = calloc(1, LIMIT_UNARY_BYTES);
	(void)state;

	assert_non_null(data);
	assert_code(wire_put_bytes(&out, 1, data, LIMIT_UNARY_BYTES), STATUS_RESOURCE_EXHAUSTED);
	assert_ok(wire_put_bytes(&out, 1, data, LIMIT_UNARY_BYTES / 2));
	assert_code(wire_put_bytes(&out, 1, data, LIMIT_UNARY_BYTES / 2),
		    STATUS_RESOURCE_EXHAUSTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(values_come_back_as_they_were_written),
	    cmocka_unit_test(bytes_are_borrowed_and_bounded_by_what_is_there),
	    cmocka_unit_test(what_is_malformed_is_refused),
	    cmocka_unit_test(more_than_a_message_may_have_is_not_written),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
