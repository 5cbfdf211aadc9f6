/* SPDX-License-Identifier: Apache-2.0 */
/* One batch of pages as a peer sent it: damaged, cut, packed. */
#include "tests/unit/test.h"

#include <endian.h>
#include <string.h>

#include "engine/pipe/memory_pipe.h"
#include "tests/unit/engine/pipe_pair.h"

#include <xxhash.h>

enum { IMAGE = 7 << 8 | PAGE_TASK };

static char dir[64];

static int make(void **state)
{
	struct page_store *store = NULL;

	scratch_make(dir);
	assert_ok(page_store_new(dir, &store));
	*state = store;
	return 0;
}

static int end(void **state)
{
	page_store_free(*state);
	scratch_remove(dir);
	return 0;
}

/* A batch that opens an image and brings one page, with its digest. */
static size_t make_batch(uint8_t *data)
{
	const struct page_header open = {.command = PAGE_OPEN, .image = IMAGE};
	const struct page_header one = {PAGE_ADD, PAGE_PRESENT, 1, 0, IMAGE};
	size_t size = 2 * PAGE_HEADER_BYTES + PAGE_BYTES;

	page_header_encode(&open, data);
	page_header_encode(&one, data + PAGE_HEADER_BYTES);
	memset(data + 2 * PAGE_HEADER_BYTES, 5, PAGE_BYTES);
	uint64_t digest = htole64(XXH3_64bits(data, size));
	memcpy(data + size, &digest, sizeof(digest));
	return size + sizeof(digest);
}

static void sign(uint8_t *data, size_t size)
{
	uint64_t digest = htole64(XXH3_64bits(data, size - sizeof(digest)));

	memcpy(data + size - sizeof(digest), &digest, sizeof(digest));
}

static void a_damaged_batch_is_refused(void **state)
{
	struct page_store *store = *state;
	uint8_t data[2 * PAGE_HEADER_BYTES + PAGE_BYTES + 8];
	struct memory_round round = {0};

	assert_ok(page_store_begin(store, 1));
	size_t size = make_batch(data);
	data[100] ^= 1;
	assert_code(memory_batch_apply(data, size, store, &round), STATUS_DATA_LOSS);
	assert_code(memory_batch_apply(data, 7, store, &round), STATUS_DATA_LOSS);
	data[100] ^= 1;
	assert_ok(memory_batch_apply(data, size, store, &round));
	assert_int_equal(round.pages_sent, 1);
}

static void a_batch_that_ends_inside_something_is_refused(void **state)
{
	struct page_store *store = *state;
	uint8_t data[2 * PAGE_HEADER_BYTES + PAGE_BYTES + 8];
	struct memory_round round = {0};

	assert_ok(page_store_begin(store, 1));
	size_t size = make_batch(data);
	sign(data, size - 1);
	assert_code(memory_batch_apply(data, size - 1, store, &round), STATUS_DATA_LOSS);
	sign(data, PAGE_HEADER_BYTES + 10 + 8);
	assert_ok(page_store_begin(store, 2));
	assert_code(memory_batch_apply(data, PAGE_HEADER_BYTES + 10 + 8, store, &round),
		    STATUS_DATA_LOSS);
}

static void a_packed_batch_that_lies_about_its_size_is_refused(void **state)
{
	scoped(batch_packer) struct batch_packer *packer = NULL;
	uint8_t content[64] = {1}, body[BATCH_HEADER_BYTES + 128], data[64];
	size_t size;
	(void)state;

	assert_ok(batch_packer_new(0, &packer));
	size_t used =
	    batch_pack(packer, BATCH_LZ4, content, sizeof(content), body + BATCH_HEADER_BYTES, 128);
	assert_true(used > 0);
	batch_header_encode(BATCH_LZ4, sizeof(content), body);
	assert_code(memory_batch_unpack(packer, body, 7, data, sizeof(data), &size),
		    STATUS_DATA_LOSS);
	assert_code(memory_batch_unpack(packer, body, BATCH_HEADER_BYTES + used, data,
					sizeof(data) - 1, &size),
		    STATUS_DATA_LOSS);
	assert_ok(memory_batch_unpack(packer, body, BATCH_HEADER_BYTES + used, data, sizeof(data),
				      &size));
	assert_int_equal(size, sizeof(content));
	assert_memory_equal(data, content, size);
	batch_header_encode(BATCH_LZ4, UINT32_MAX, body);
	assert_code(memory_batch_unpack(packer, body, BATCH_HEADER_BYTES + used, data, sizeof(data),
					&size),
		    STATUS_DATA_LOSS);
}

int main(void)
{
#define BATCH_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    BATCH_TEST(a_damaged_batch_is_refused),
	    BATCH_TEST(a_batch_that_ends_inside_something_is_refused),
	    cmocka_unit_test(a_packed_batch_that_lies_about_its_size_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
