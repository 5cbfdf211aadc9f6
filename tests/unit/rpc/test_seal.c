/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "rpc/seal.h"

static const uint8_t key[SEAL_KEY_BYTES] = {1, 2, 3};
static const uint8_t pipe_id[SEAL_ID_BYTES] = {9, 8, 7};

enum { TEXT = 5, SEALED = TEXT + SEAL_TAG_BYTES };

struct pair {
	struct seal *out;
	struct seal *in;
	uint8_t first[SEALED];
	uint8_t second[SEALED];
};

static int set_up(void **state)
{
	static struct pair pair;
	assert_ok(seal_new(key, pipe_id, true, &pair.out));
	assert_ok(seal_new(key, pipe_id, false, &pair.in));
	memcpy(pair.first, "first", TEXT);
	memcpy(pair.second, "secon", TEXT);
	assert_ok(seal_close(pair.out, pair.first, TEXT));
	assert_ok(seal_close(pair.out, pair.second, TEXT));
	*state = &pair;
	return 0;
}

static int tear_down(void **state)
{
	struct pair *pair = *state;
	seal_free(pair->out);
	seal_free(pair->in);
	return 0;
}

static void messages_in_order_open(void **state)
{
	struct pair *pair = *state;
	assert_memory_not_equal(pair->first, "first", TEXT);
	assert_ok(seal_open(pair->in, pair->first, SEALED));
	assert_memory_equal(pair->first, "first", TEXT);
	assert_ok(seal_open(pair->in, pair->second, SEALED));
	assert_memory_equal(pair->second, "secon", TEXT);
	assert_int_equal(seal_count(pair->in), 2);
}

static void a_repeated_message_is_refused(void **state)
{
	struct pair *pair = *state;
	uint8_t again[SEALED];
	memcpy(again, pair->first, SEALED);
	assert_ok(seal_open(pair->in, pair->first, SEALED));
	assert_code(seal_open(pair->in, again, SEALED), STATUS_DATA_LOSS);
}

static void a_reordered_or_lost_message_is_refused_and_does_not_count(void **state)
{
	struct pair *pair = *state;
	uint8_t copy[SEALED];
	memcpy(copy, pair->second, SEALED);
	assert_code(seal_open(pair->in, copy, SEALED), STATUS_DATA_LOSS);
	assert_int_equal(seal_count(pair->in), 0);
	assert_ok(seal_open(pair->in, pair->first, SEALED));
}

static void every_altered_bit_is_noticed(void **state)
{
	struct pair *pair = *state;
	for (size_t bit = 0; bit < 8 * SEALED; bit++) {
		uint8_t copy[SEALED];
		memcpy(copy, pair->first, SEALED);
		copy[bit / 8] ^= (uint8_t)(1U << (bit % 8));
		assert_code(seal_open(pair->in, copy, SEALED), STATUS_DATA_LOSS);
	}
	assert_ok(seal_open(pair->in, pair->first, SEALED));
}

static void every_cut_is_noticed(void **state)
{
	struct pair *pair = *state;
	for (size_t size = 0; size < SEALED; size++) {
		uint8_t copy[SEALED];
		memcpy(copy, pair->first, SEALED);
		assert_code(seal_open(pair->in, copy, size), STATUS_DATA_LOSS);
	}
}

static void another_key_or_pipe_is_refused(void **state)
{
	struct pair *pair = *state;
	uint8_t other_key[SEAL_KEY_BYTES] = {1, 2, 4};
	uint8_t other_id[SEAL_ID_BYTES] = {9, 8, 6};
	uint8_t copy[SEALED];
	scoped(seal) struct seal *by_key = NULL;
	scoped(seal) struct seal *by_id = NULL;
	assert_ok(seal_new(other_key, pipe_id, false, &by_key));
	assert_ok(seal_new(key, other_id, false, &by_id));
	memcpy(copy, pair->first, SEALED);
	assert_code(seal_open(by_key, copy, SEALED), STATUS_DATA_LOSS);
	memcpy(copy, pair->first, SEALED);
	assert_code(seal_open(by_id, copy, SEALED), STATUS_DATA_LOSS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(messages_in_order_open, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(a_repeated_message_is_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(
		a_reordered_or_lost_message_is_refused_and_does_not_count, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(every_altered_bit_is_noticed, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(every_cut_is_noticed, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(another_key_or_pipe_is_refused, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
