/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of codec on played links: what a batch takes is computed from the link's and the
 * processor's speed. */
#include "tests/unit/test.h"

#include "engine/pipe/codec_choice.h"

enum { BATCH = 256 * 1024 };

/* Packing takes ms_per_mib and leaves `ratio` of the content; the link takes what is left. */
struct world {
	double link_ms_per_mib;
	double pack_ms_per_mib[BATCH_CODECS], ratio[BATCH_CODECS];
};

static const struct world slow_link_text = {80, {0, 2, 4}, {1, 0.6, 0.3}};
static const struct world fast_link_text = {0.5, {0, 2, 4}, {1, 0.6, 0.3}};
static const struct world middling_link_text = {6, {0, 1, 4}, {1, 0.5, 0.4}};
static const struct world noise = {8, {0, 0.3, 1.5}, {1, 1, 1}};

static double cost(const struct world *world, enum batch_codec codec)
{
	return BATCH / 1048576.0 *
	       (world->pack_ms_per_mib[codec] + world->ratio[codec] * world->link_ms_per_mib);
}

/* Moves `batches`, returns the time it took. */
static double move(struct codec_choice *choice, const struct world *world, unsigned batches,
		   bool is_frozen)
{
	double total = 0;

	for (unsigned i = 0; i < batches; i++) {
		double ms = cost(world, choice->now);
		total += ms;
		codec_choice_note(choice, BATCH, ms, is_frozen);
	}
	return total;
}

static void expect_choice(const struct world *world, enum batch_codec want)
{
	struct codec_choice choice;

	codec_choice_init(&choice, BATCH_CODECS_ALL);
	double took = move(&choice, world, 2000, false);
	/* Within 5 % of having known it: 500 MiB, the experiments included. */
	assert_true(took < 2000 * cost(world, want) * 1.05);
}

static void the_cheapest_wins_on_each_link(void **state)
{
	(void)state;
	expect_choice(&slow_link_text, BATCH_ZSTD);
	expect_choice(&fast_link_text, BATCH_RAW);
	expect_choice(&middling_link_text, BATCH_LZ4);
	expect_choice(&noise, BATCH_RAW);
}

static void it_follows_when_link_or_content_change(void **state)
{
	struct codec_choice choice;
	(void)state;

	codec_choice_init(&choice, BATCH_CODECS_ALL);
	(void)move(&choice, &fast_link_text, 500, false);
	double took = move(&choice, &slow_link_text, 2000, false);
	assert_true(took < 2000 * cost(&slow_link_text, BATCH_ZSTD) * 1.15);
	took = move(&choice, &noise, 2000, false);
	assert_true(took < 2000 * cost(&noise, BATCH_RAW) * 1.10);
}

static void a_frozen_workload_is_no_guinea_pig(void **state)
{
	struct codec_choice choice;
	(void)state;

	codec_choice_init(&choice, BATCH_CODECS_ALL);
	(void)move(&choice, &slow_link_text, 100, false);
	/* Whatever it was trying, it settles within a window. */
	(void)move(&choice, &slow_link_text, 16, true);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(choice.now, BATCH_ZSTD);
		(void)move(&choice, &slow_link_text, 1, true);
	}
}

static void a_named_codec_is_obeyed(void **state)
{
	struct codec_choice choice;
	(void)state;

	codec_choice_init(&choice, 1 << BATCH_ZSTD);
	(void)move(&choice, &fast_link_text, 500, false);
	assert_int_equal(choice.now, BATCH_ZSTD);
	codec_choice_init(&choice, 1 << BATCH_RAW);
	(void)move(&choice, &slow_link_text, 500, false);
	assert_int_equal(choice.now, BATCH_RAW);
}

static void nothing_measured_is_no_division_by_zero(void **state)
{
	struct codec_choice choice;
	(void)state;

	codec_choice_init(&choice, BATCH_CODECS_ALL);
	for (unsigned i = 0; i < 100; i++)
		codec_choice_note(&choice, 0, 0, false);
	assert_in_range(choice.now, BATCH_RAW, BATCH_ZSTD);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_cheapest_wins_on_each_link),
	    cmocka_unit_test(it_follows_when_link_or_content_change),
	    cmocka_unit_test(a_frozen_workload_is_no_guinea_pig),
	    cmocka_unit_test(a_named_codec_is_obeyed),
	    cmocka_unit_test(nothing_measured_is_no_division_by_zero),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
