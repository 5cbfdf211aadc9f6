/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/costs.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/host/files.h"
#include "tests/unit/test.h"

static const struct cost guess = {.fixed_ms = 25, .page_ms = 0.004, .process_ms = 4};

static double predict(const struct cost *cost, double pages, double processes)
{
	const struct cost_size size = {pages, processes};
	return cost_of(cost, &size);
}

static void assert_near(double got, double wanted, double part)
{
	if (fabs(got - wanted) > wanted * part)
		fail_msg("%.3f is not %.3f within %.0f %%", got, wanted, part * 100);
}

static void without_samples_it_is_the_guess(void **state)
{
	(void)state;
	struct cost cost = cost_fit(NULL, 0, &guess);
	assert_int_equal(cost.samples, 0);
	assert_near(cost.fixed_ms, 25, 0.001);
	assert_near(cost.page_ms, 0.004, 0.001);
	assert_near(cost.process_ms, 4, 0.001);
}

static void one_sample_foretells_its_like(void **state)
{
	(void)state;
	/* An emulated machine: ten times as slow as any guess, and half as slow. */
	static const double factors[] = {10, 0.5, 0.1};
	for (size_t i = 0; i < sizeof(factors) / sizeof(factors[0]); i++) {
		struct cost_sample sample = {{65536, 1}, 0};
		sample.took_ms = factors[i] * cost_of(&guess, &sample.size);
		struct cost cost = cost_fit(&sample, 1, &guess);
		assert_near(predict(&cost, 65536, 1), sample.took_ms, 0.25);
	}
}

static void the_parts_are_told_apart(void **state)
{
	(void)state;
	struct cost_sample samples[18];
	unsigned count = 0;
	for (double pages = 1000; pages < 300000; pages *= 5) {
		for (double processes = 1; processes <= 25; processes += 8)
			samples[count++] =
			    (struct cost_sample){{pages, processes},
						 300 + 0.02 * pages + 15 * processes};
	}
	struct cost cost = cost_fit(samples, count, &guess);
	assert_int_equal(cost.samples, count);
	assert_near(predict(&cost, 1000, 1), 300 + 20 + 15, 0.25);
	assert_near(predict(&cost, 300000, 1), 300 + 6000 + 15, 0.1);
	assert_near(predict(&cost, 1000, 25), 300 + 20 + 375, 0.1);
	assert_near(predict(&cost, 150000, 12), 300 + 3000 + 180, 0.1);
}

/* A restore that does not fill memory in is soon seen to be one. */
static void what_has_changed_is_learnt(void **state)
{
	(void)state;
	struct cost_sample samples[32];
	for (unsigned i = 0; i < 32; i++) {
		double pages = i % 2 == 0 ? 16384 : 262144;
		samples[i] = (struct cost_sample){{pages, 1}, i < 16 ? 50 + 0.02 * pages : 50};
	}
	struct cost before = cost_fit(samples, 16, &guess), after = cost_fit(samples, 32, &guess);
	assert_near(predict(&before, 262144, 1), 50 + 0.02 * 262144, 0.05);
	assert_true(predict(&after, 262144, 1) < 500);
}

static void no_part_is_negative_whatever_was_measured(void **state)
{
	(void)state;
	uint64_t seed = 3;
	for (unsigned run = 0; run < 3000; run++) {
		struct cost_sample samples[32];
		unsigned count = run % 33;
		for (unsigned i = 0; i < count; i++) {
			double drawn[3];
			for (int d = 0; d < 3; d++) {
				seed = seed * 6364136223846793005U + 1442695040888963407U;
				drawn[d] = (double)(seed >> 40);
			}
			samples[i] = (struct cost_sample){{drawn[0], drawn[1] / 100000},
							  drawn[2] / (1 + run % 1000)};
		}
		struct cost cost = cost_fit(samples, count, &guess);
		assert_true(cost.fixed_ms >= 0 && cost.page_ms >= 0 && cost.process_ms >= 0);
		assert_true(isfinite(cost.fixed_ms + cost.page_ms + cost.process_ms));
	}
}

static void the_store_keeps_the_youngest_and_no_nonsense(void **state)
{
	(void)state;
	struct costs *costs = costs_new(NULL);
	struct cost fresh = costs_now(costs, COST_RESTORE), guessed = costs_guess(COST_RESTORE);
	assert_near(fresh.fixed_ms, guessed.fixed_ms, 0.001);
	const struct cost_sample wrong = {{1000, 1}, NAN}, early = {{1000, 1}, -3};
	costs_note(costs, COST_RESTORE, &wrong);
	assert_int_equal(costs_now(costs, COST_RESTORE).samples, 0);
	costs_note(costs, COST_RESTORE, &early);
	assert_int_equal(costs_now(costs, COST_RESTORE).samples, 1);
	for (unsigned i = 0; i < 1000; i++) {
		const struct cost_sample sample = {{1000, 1}, i < 900 ? 10000 : 100};
		costs_note(costs, COST_RESTORE, &sample);
	}
	struct cost learnt = costs_now(costs, COST_RESTORE);
	assert_int_equal(learnt.samples, 32);
	assert_near(predict(&learnt, 1000, 1), 100, 0.15);
	assert_int_equal(costs_now(costs, COST_DUMP_READ).samples, 0);
	costs_free(costs);
}

static void what_was_learnt_outlives_the_engine(void **state)
{
	char path[] = "/tmp/haul-costs-XXXXXX";
	const struct cost_sample slow = {{1000, 1}, 10000}, fast = {{1000, 1}, 100};
	(void)state;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(unlink(path), 0);
	struct costs *costs = costs_new(path);
	assert_ok(costs_keep(costs)); /* nothing: there is no file */
	assert_int_not_equal(access(path, F_OK), 0);
	for (int i = 0; i < 40; i++)
		costs_note(costs, COST_RESTORE, &slow);
	costs_note(costs, COST_CALLS, &fast);
	assert_ok(costs_keep(costs));
	struct cost before = costs_now(costs, COST_RESTORE);
	costs_free(costs);
	costs = costs_new(path);
	struct cost after = costs_now(costs, COST_RESTORE);
	assert_int_equal(after.samples, before.samples);
	assert_near(predict(&after, 1000, 1), predict(&before, 1000, 1), 1e-9);
	assert_near(predict(&after, 50000, 7), predict(&before, 50000, 7), 1e-9);
	assert_int_equal(costs_now(costs, COST_CALLS).samples, 1);
	assert_int_equal(costs_now(costs, COST_DUMP_READ).samples, 0);
	costs_free(costs);
	(void)unlink(path);
}

/* A kind that is not known, and numbers that are none: as a newer or another program may write. */
static void a_damaged_file_is_as_good_as_none(void **state)
{
	static const uint8_t strange[] =
	    "\x0a\x02\x08\x63\x0a\x0b\x08\x03\x21\x00\x00\x00\x00\x00\x00\xf8\x7f";
	char path[] = "/tmp/haul-costs-XXXXXX";
	(void)state;
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	(void)close(fd);
	for (size_t size = 0; size < sizeof(strange); size++) {
		assert_ok(files_replace(path, strange, size));
		struct costs *costs = costs_new(path);
		for (int kind = 0; kind < COST_KINDS; kind++)
			assert_int_equal(costs_now(costs, (enum cost_kind)kind).samples, 0);
		costs_free(costs);
	}
	(void)unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(without_samples_it_is_the_guess),
	    cmocka_unit_test(one_sample_foretells_its_like),
	    cmocka_unit_test(the_parts_are_told_apart),
	    cmocka_unit_test(what_has_changed_is_learnt),
	    cmocka_unit_test(no_part_is_negative_whatever_was_measured),
	    cmocka_unit_test(the_store_keeps_the_youngest_and_no_nonsense),
	    cmocka_unit_test(what_was_learnt_outlives_the_engine),
	    cmocka_unit_test(a_damaged_file_is_as_good_as_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
