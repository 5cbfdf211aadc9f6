/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "proto/clock.h"
#include "rpc/seal.h"
#include "rpc/seal_choice.h"

static const uint8_t key[SEAL_KEY_BYTES] = {1, 2, 3};
static const uint8_t pipe_id[SEAL_ID_BYTES] = {9, 8, 7};

enum { TEXT = 5, SEALED = TEXT + SEAL_TAG_BYTES };

struct pair {
	Haul__V1__Seal kind;
	struct seal *out;
	struct seal *in;
	uint8_t first[SEALED];
	uint8_t second[SEALED];
};

static int set_up(void **state, Haul__V1__Seal kind)
{
	static struct pair both;
	struct pair *pair = &both;
	pair->kind = kind;
	assert_ok(seal_new(kind, key, pipe_id, true, &pair->out));
	assert_ok(seal_new(kind, key, pipe_id, false, &pair->in));
	memcpy(pair->first, "first", TEXT);
	memcpy(pair->second, "secon", TEXT);
	assert_ok(seal_close(pair->out, pair->first, TEXT));
	assert_ok(seal_close(pair->out, pair->second, TEXT));
	*state = pair;
	return 0;
}

static int with_aes(void **state)
{
	return set_up(state, HAUL__V1__SEAL__SEAL_AES_256_GCM);
}

static int with_aes_128(void **state)
{
	return set_up(state, HAUL__V1__SEAL__SEAL_AES_128_GCM);
}

static int with_chacha(void **state)
{
	return set_up(state, HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305);
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
	assert_ok(seal_new(pair->kind, other_key, pipe_id, false, &by_key));
	assert_ok(seal_new(pair->kind, key, other_id, false, &by_id));
	memcpy(copy, pair->first, SEALED);
	assert_code(seal_open(by_key, copy, SEALED), STATUS_DATA_LOSS);
	memcpy(copy, pair->first, SEALED);
	assert_code(seal_open(by_id, copy, SEALED), STATUS_DATA_LOSS);
}

static void what_is_no_seal_is_refused(void **state)
{
	(void)state;
	struct seal *seal = NULL;

	assert_code(seal_new((Haul__V1__Seal)SEAL_KINDS, key, pipe_id, true, &seal),
		    STATUS_INVALID_ARGUMENT);
	assert_code(seal_new((Haul__V1__Seal)-1, key, pipe_id, true, &seal),
		    STATUS_INVALID_ARGUMENT);
	assert_int_equal(seal_measure((Haul__V1__Seal)SEAL_KINDS), 0);
}

/* A round's bytes through one seal, in place of a migration. */
static double seconds_of(Haul__V1__Seal kind)
{
	enum { BYTES = 64 * 1024, MIB = 16 };
	static uint8_t data[BYTES + SEAL_TAG_BYTES];
	scoped(seal) struct seal *seal = NULL;
	double begun = clock_monotonic_fine_ms();

	assert_ok(seal_new(kind, key, pipe_id, true, &seal));
	for (unsigned i = 0; i < MIB * 16; i++)
		assert_ok(seal_close(seal, data, BYTES));
	return (clock_monotonic_fine_ms() - begun) / 1000;
}

static void what_is_measured_is_what_is_had(void **state)
{
	(void)state;
	for (int kind = 0; kind < SEAL_KINDS; kind++) {
		double rate = seal_measure((Haul__V1__Seal)kind);
		double seen = 16 / seconds_of((Haul__V1__Seal)kind);
		if (rate < seen / 8 || rate > seen * 8)
			fail_msg("%f MiB/s were measured, %f seen", rate, seen);
	}
}

/* --- the choice --- */

static Haul__V1__Seal chosen(uint32_t aes, uint32_t chacha, uint32_t its_aes, uint32_t its_chacha)
{
	Haul__V1__SealRates ours = HAUL__V1__SEAL_RATES__INIT, theirs = HAUL__V1__SEAL_RATES__INIT;
	Haul__V1__Seal seal = 99;

	ours.aes_256_gcm = aes;
	ours.chacha20_poly1305 = chacha;
	theirs.aes_256_gcm = its_aes;
	theirs.chacha20_poly1305 = its_chacha;
	assert_ok(seal_choose(&ours, &theirs, &seal));
	return seal;
}

static void the_slower_of_the_two_decides(void **state)
{
	(void)state;
	assert_int_equal(chosen(2000, 900, 2000, 900), HAUL__V1__SEAL__SEAL_AES_256_GCM);
	assert_int_equal(chosen(2000, 900, 40, 200), HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305);
	assert_int_equal(chosen(40, 200, 2000, 900), HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305);
	assert_int_equal(chosen(2000, 30, 40, 200), HAUL__V1__SEAL__SEAL_AES_256_GCM);
	/* As good as the same. */
	assert_int_equal(chosen(100, 110, 100, 110), HAUL__V1__SEAL__SEAL_AES_256_GCM);
}

static void the_shorter_key_is_for_who_is_faster_with_it(void **state)
{
	(void)state;
	Haul__V1__SealRates ours = HAUL__V1__SEAL_RATES__INIT, theirs = HAUL__V1__SEAL_RATES__INIT;
	Haul__V1__Seal seal = 99;

	ours.aes_256_gcm = theirs.aes_256_gcm = 1000;
	ours.aes_128_gcm = theirs.aes_128_gcm = 1300;
	ours.chacha20_poly1305 = theirs.chacha20_poly1305 = 1400;
	assert_ok(seal_choose(&ours, &theirs, &seal));
	assert_int_equal(seal, HAUL__V1__SEAL__SEAL_AES_128_GCM);
	theirs.aes_128_gcm = 1100;
	theirs.chacha20_poly1305 = 900;
	assert_ok(seal_choose(&ours, &theirs, &seal));
	assert_int_equal(seal, HAUL__V1__SEAL__SEAL_AES_256_GCM);
	theirs.aes_128_gcm = 0;
	assert_ok(seal_choose(&ours, &theirs, &seal));
	assert_int_equal(seal, HAUL__V1__SEAL__SEAL_AES_256_GCM);
	assert_ok(seal_allow(&ours, HAUL__V1__SEAL__SEAL_AES_128_GCM));
	assert_code(seal_allow(&theirs, HAUL__V1__SEAL__SEAL_AES_128_GCM),
		    STATUS_FAILED_PRECONDITION);
}

static void only_what_both_have_is_chosen(void **state)
{
	(void)state;
	Haul__V1__SealRates aes = HAUL__V1__SEAL_RATES__INIT, chacha = HAUL__V1__SEAL_RATES__INIT;
	Haul__V1__Seal seal = 99;

	assert_int_equal(chosen(2000, 900, 0, 1), HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305);
	assert_int_equal(chosen(1, 0, 40, 200), HAUL__V1__SEAL__SEAL_AES_256_GCM);
	aes.aes_256_gcm = chacha.chacha20_poly1305 = 100;
	assert_code(seal_choose(&aes, &chacha, &seal), STATUS_FAILED_PRECONDITION);
	/* A peer that says nothing knows AES only. */
	assert_ok(seal_choose(&aes, NULL, &seal));
	assert_int_equal(seal, HAUL__V1__SEAL__SEAL_AES_256_GCM);
	assert_code(seal_choose(&chacha, NULL, &seal), STATUS_FAILED_PRECONDITION);
	/* What the other has chosen is looked at, too. */
	assert_ok(seal_allow(&aes, HAUL__V1__SEAL__SEAL_AES_256_GCM));
	assert_code(seal_allow(&aes, HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305),
		    STATUS_FAILED_PRECONDITION);
	assert_code(seal_allow(&chacha, HAUL__V1__SEAL__SEAL_AES_256_GCM),
		    STATUS_FAILED_PRECONDITION);
	assert_code(seal_allow(&aes, (Haul__V1__Seal)SEAL_KINDS), STATUS_FAILED_PRECONDITION);
}

#define WITH_EACH(test)                                                                            \
	cmocka_unit_test_setup_teardown(test, with_aes, tear_down),                                \
	    cmocka_unit_test_setup_teardown(test, with_aes_128, tear_down),                        \
	    cmocka_unit_test_setup_teardown(test, with_chacha, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    WITH_EACH(messages_in_order_open),
	    WITH_EACH(a_repeated_message_is_refused),
	    WITH_EACH(a_reordered_or_lost_message_is_refused_and_does_not_count),
	    WITH_EACH(every_altered_bit_is_noticed),
	    WITH_EACH(every_cut_is_noticed),
	    WITH_EACH(another_key_or_pipe_is_refused),
	    cmocka_unit_test(what_is_no_seal_is_refused),
	    cmocka_unit_test(what_is_measured_is_what_is_had),
	    cmocka_unit_test(the_slower_of_the_two_decides),
	    cmocka_unit_test(the_shorter_key_is_for_who_is_faster_with_it),
	    cmocka_unit_test(only_what_both_have_is_chosen),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
