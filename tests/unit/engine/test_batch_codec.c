/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "engine/pipe/batch_codec.h"

enum { SIZE = 100000 };

static int make(void **state)
{
	struct batch_packer *packer;

	assert_ok(batch_packer_new(1, &packer));
	*state = packer;
	return 0;
}

static int end(void **state)
{
	batch_packer_free(*state);
	return 0;
}

static uint8_t *text(void)
{
	uint8_t *data = malloc(SIZE);

	assert_non_null(data);
	for (unsigned i = 0; i < SIZE; i++)
		data[i] = (uint8_t)"the quick brown fox jumps over it "[(i + i / 1000) % 34];
	return data;
}

static void what_is_packed_comes_back(void **state)
{
	static const int levels[] = {1, 1, 1, 19};
	static const enum batch_codec codecs[] = {BATCH_LZ4, BATCH_ZSTD, BATCH_LZ4, BATCH_ZSTD};
	scoped(bytes) uint8_t *data = text();
	scoped(bytes) uint8_t *packed = malloc(SIZE);
	scoped(bytes) uint8_t *again = malloc(SIZE);
	scoped(batch_packer) struct batch_packer *slow = NULL;

	assert_ok(batch_packer_new(19, &slow));
	assert_non_null(packed);
	assert_non_null(again);
	for (unsigned i = 0; i < array_len(codecs); i++) {
		size_t used = batch_pack(levels[i] == 1 ? *state : slow, codecs[i], data, SIZE,
					 packed, SIZE * 7 / 8);
		assert_in_range(used, 1, SIZE / 2);
		memset(again, 0, SIZE);
		assert_ok(batch_unpack(*state, codecs[i], packed, used, again, SIZE));
		assert_memory_equal(again, data, SIZE);
	}
}

static void what_does_not_shrink_is_left(void **state)
{
	scoped(bytes) uint8_t *data = malloc(SIZE);
	scoped(bytes) uint8_t *packed = malloc(SIZE);
	uint64_t seed = 1;

	assert_non_null(data);
	assert_non_null(packed);
	for (unsigned i = 0; i < SIZE; i++) {
		seed = seed * 6364136223846793005U + 1442695040888963407U;
		data[i] = (uint8_t)(seed >> 56);
	}
	assert_int_equal(batch_pack(*state, BATCH_RAW, data, SIZE, packed, SIZE), 0);
	assert_int_equal(batch_pack(*state, BATCH_LZ4, data, SIZE, packed, SIZE * 7 / 8), 0);
	assert_int_equal(batch_pack(*state, BATCH_ZSTD, data, SIZE, packed, SIZE * 7 / 8), 0);
}

/* Cut, altered, longer or shorter than said: refused, and nothing is written beyond the room (the
 * sanitizer watches). */
static void what_a_peer_made_up_is_refused(void **state)
{
	scoped(bytes) uint8_t *data = text();
	scoped(bytes) uint8_t *packed = malloc(SIZE);

	assert_non_null(packed);
	for (enum batch_codec codec = BATCH_LZ4; codec < BATCH_CODECS; codec++) {
		size_t used = batch_pack(*state, codec, data, SIZE, packed, SIZE * 7 / 8);
		scoped(bytes) uint8_t *room = malloc(SIZE + 1);
		scoped(bytes) uint8_t *small = malloc(SIZE - 1);
		assert_non_null(room);
		assert_non_null(small);
		assert_code(batch_unpack(*state, codec, packed, used - 1, room, SIZE),
			    STATUS_DATA_LOSS);
		assert_code(batch_unpack(*state, codec, packed, used, room, SIZE + 1),
			    STATUS_DATA_LOSS);
		assert_code(batch_unpack(*state, codec, packed, used, small, SIZE - 1),
			    STATUS_DATA_LOSS);
		assert_code(batch_unpack(*state, codec, packed, 0, room, SIZE), STATUS_DATA_LOSS);
		memset(packed, 0xff, 64);
		assert_code(batch_unpack(*state, codec, packed, used, room, SIZE),
			    STATUS_DATA_LOSS);
	}
	assert_code(batch_unpack(*state, BATCH_RAW, packed, 10, data, 10), STATUS_DATA_LOSS);
}

static void a_header_says_codec_and_size(void **state)
{
	uint8_t header[BATCH_HEADER_BYTES];
	enum batch_codec codec;
	uint32_t size;
	(void)state;

	batch_header_encode(BATCH_ZSTD, 0x12345678, header);
	assert_ok(batch_header_decode(header, &codec, &size));
	assert_int_equal(codec, BATCH_ZSTD);
	assert_int_equal(size, 0x12345678);
	header[0] = BATCH_RAW;
	assert_code(batch_header_decode(header, &codec, &size), STATUS_DATA_LOSS);
	header[0] = BATCH_CODECS;
	assert_code(batch_header_decode(header, &codec, &size), STATUS_DATA_LOSS);
	header[0] = BATCH_LZ4;
	header[3] = 1;
	assert_code(batch_header_decode(header, &codec, &size), STATUS_DATA_LOSS);
}

static void words_of_users_become_codecs(void **state)
{
	struct batch_codecs codecs;
	static const char *const bad[] = {
	    "zip",   "zstd:", "zstd:0",	 "zstd:20", "zstd:x", "zstd:1x", "zstd:99999999999",
	    "lz4:1", "Auto",  "zstd:-1", "none "};
	(void)state;

	assert_ok(batch_codecs_parse("", &codecs));
	assert_int_equal(codecs.set, BATCH_CODECS_ALL);
	assert_ok(batch_codecs_parse("auto", &codecs));
	assert_int_equal(codecs.set, BATCH_CODECS_ALL);
	assert_ok(batch_codecs_parse("none", &codecs));
	assert_int_equal(codecs.set, 1 << BATCH_RAW);
	assert_ok(batch_codecs_parse("lz4", &codecs));
	assert_int_equal(codecs.set, 1 << BATCH_RAW | 1 << BATCH_LZ4);
	assert_ok(batch_codecs_parse("zstd", &codecs));
	assert_int_equal(codecs.set, 1 << BATCH_RAW | 1 << BATCH_ZSTD);
	assert_ok(batch_codecs_parse("zstd:12", &codecs));
	assert_int_equal(codecs.level, 12);
	for (unsigned i = 0; i < array_len(bad); i++)
		assert_code(batch_codecs_parse(bad[i], &codecs), STATUS_INVALID_ARGUMENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(what_is_packed_comes_back, make, end),
	    cmocka_unit_test_setup_teardown(what_does_not_shrink_is_left, make, end),
	    cmocka_unit_test_setup_teardown(what_a_peer_made_up_is_refused, make, end),
	    cmocka_unit_test(a_header_says_codec_and_size),
	    cmocka_unit_test(words_of_users_become_codecs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
