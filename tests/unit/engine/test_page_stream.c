/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "engine/criu/page_stream.h"

static const struct page_header sound = {.command = PAGE_ADD,
					 .flags = PAGE_PRESENT,
					 .pages = 3,
					 .address = 0x7000,
					 .image = 5 << 8 | PAGE_TASK};

static status *decode(const struct page_header *header, bool on_wire)
{
	uint8_t bytes[PAGE_HEADER_BYTES];
	struct page_header decoded;

	page_header_encode(header, bytes);
	return page_header_decode(bytes, on_wire, &decoded);
}

static void the_bytes_are_criu_s(void **state)
{
	(void)state;
	static const uint8_t want[PAGE_HEADER_BYTES] = {6, 0, 4, 0, 3, 0, 0, 0, 0, 0x70, 0, 0,
							0, 0, 0, 0, 1, 5, 0, 0, 0, 0,	 0, 0};
	uint8_t bytes[PAGE_HEADER_BYTES];
	struct page_header decoded;

	page_header_encode(&sound, bytes);
	assert_memory_equal(bytes, want, sizeof(want));
	assert_ok(page_header_decode(want, false, &decoded));
	assert_int_equal(decoded.command, PAGE_ADD);
	assert_int_equal(decoded.flags, PAGE_PRESENT);
	assert_int_equal(decoded.pages, 3);
	assert_true(decoded.address == 0x7000 && decoded.image == sound.image);
}

static void only_present_pages_with_content_have_data(void **state)
{
	(void)state;
	struct page_header header = sound;

	assert_int_equal(page_header_data(&header), 3 * PAGE_BYTES);
	header.flags = PAGE_PRESENT | PAGE_ZERO;
	assert_int_equal(page_header_data(&header), 0);
	header.flags = PAGE_IN_PARENT;
	assert_int_equal(page_header_data(&header), 0);
	header.command = PAGE_OPEN;
	header.flags = PAGE_PRESENT;
	assert_int_equal(page_header_data(&header), 0);
}

static void impossible_records_are_refused(void **state)
{
	(void)state;
	struct page_header bad[] = {sound, sound, sound, sound, sound, sound, sound, sound};

	bad[0].command = 7;
	bad[1].flags = 0;
	bad[2].flags = PAGE_PRESENT | PAGE_IN_PARENT;
	bad[3].pages = 0;
	bad[4].pages = UINT32_MAX;
	bad[5].address = 0x7001;
	bad[6].address = UINT64_MAX - PAGE_BYTES + 1;
	bad[7].image = 5 << 8 | 3;
	for (size_t i = 0; i < array_len(bad); i++) {
		assert_code(decode(&bad[i], false), STATUS_DATA_LOSS);
		assert_code(decode(&bad[i], true), STATUS_DATA_LOSS);
	}
}

static void zeros_travel_on_our_wire_only_and_questions_on_criu_s_only(void **state)
{
	(void)state;
	struct page_header header = sound;

	header.flags = PAGE_PRESENT | PAGE_ZERO;
	assert_code(decode(&header, false), STATUS_DATA_LOSS);
	assert_ok(decode(&header, true));
	header = (struct page_header){.command = PAGE_FORCE_CLOSE};
	assert_ok(decode(&header, false));
	assert_code(decode(&header, true), STATUS_DATA_LOSS);
	header = (struct page_header){.command = PAGE_PARENT, .image = 1 << 8 | PAGE_TASK};
	assert_ok(decode(&header, false));
	assert_code(decode(&header, true), STATUS_DATA_LOSS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_bytes_are_criu_s),
	    cmocka_unit_test(only_present_pages_with_content_have_data),
	    cmocka_unit_test(impossible_records_are_refused),
	    cmocka_unit_test(zeros_travel_on_our_wire_only_and_questions_on_criu_s_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
