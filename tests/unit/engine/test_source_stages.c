/* SPDX-License-Identifier: Apache-2.0 */
/* The source's table, read column by column: each property here is a sentence of the safety
 * argument. */
#include <string.h>

#include "engine/migration/source_internal.h"
#include "tests/unit/test.h"

enum { STAGES = SRC_OVER + 1 };

static void the_table_has_no_holes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < STAGES; i++) {
		const struct source_row *row = source_row((enum source_stage)i);
		assert_non_null(row->name);
		assert_true((row->action == NULL) == (i == SRC_OVER));
		assert_in_range(row->on_ok, 0, SRC_OVER);
		assert_in_range(row->on_error, 0, SRC_OVER);
		for (unsigned other = 0; other < i; other++) {
			assert_string_not_equal(row->name,
						source_row((enum source_stage)other)->name);
			assert_true(row->action != source_row((enum source_stage)other)->action);
		}
	}
}

/* Where an action may go without the table: what source_commit.c and verdict.h say. */
static bool may_choose(enum source_stage from, enum source_stage to)
{
	if (from == SRC_COMMIT)
		return to == SRC_RESUME;
	if (from == SRC_FILL)
		return to == SRC_OVER;
	return from == SRC_ASK && (to == SRC_FILL || to == SRC_RESUME || to == SRC_FINISH ||
				   to == SRC_LOST || to == SRC_OVER);
}

static bool leads_to(enum source_stage from, enum source_stage to)
{
	const struct source_row *row = source_row(from);

	return row->on_ok == to || row->on_error == to || may_choose(from, to);
}

static void reach(enum source_stage from, bool reached[STAGES])
{
	if (reached[from])
		return;
	reached[from] = true;
	for (unsigned to = 0; to < STAGES; to++)
		if (leads_to(from, (enum source_stage)to))
			reach((enum source_stage)to, reached);
}

static void every_stage_is_reached_and_leads_to_the_end(void **state)
{
	(void)state;
	bool reached[STAGES] = {false};
	reach(SRC_PREFLIGHT, reached);
	for (unsigned i = 0; i < STAGES; i++) {
		if (!reached[i])
			fail_msg("stage %s is never reached",
				 source_row((enum source_stage)i)->name);
		bool onwards[STAGES] = {false};
		reach((enum source_stage)i, onwards);
		if (!onwards[SRC_OVER])
			fail_msg("stage %s does not end", source_row((enum source_stage)i)->name);
	}
}

static void all_going_well_it_ends_finished(void **state)
{
	(void)state;
	static const enum source_stage want[] = {SRC_PREFLIGHT, SRC_PREPARE, SRC_PRECOPY,
						 SRC_FREEZE,	SRC_RESTORE, SRC_COMMIT,
						 SRC_FILL,	SRC_FINISH,  SRC_OVER};
	enum source_stage stage = SRC_PREFLIGHT;
	for (size_t i = 0; i < array_len(want); i++) {
		assert_int_equal(stage, want[i]);
		stage = source_row(stage)->on_ok;
	}
}

static void an_error_of_a_frozen_stage_leads_to_one_that_resumes_or_asks(void **state)
{
	(void)state;
	for (enum source_stage i = SRC_PREFLIGHT; i < SRC_COMMIT; i++) {
		const struct source_row *row = source_row(i);
		assert_int_equal(row->on_error, row->is_frozen ? SRC_RESUME : SRC_ABORT);
	}
	assert_int_equal(source_row(SRC_COMMIT)->on_error, SRC_ASK);
	assert_true(source_row(SRC_COMMIT)->is_frozen);
	/* What runs there may still lose memory: the tree here is kept for as long. */
	assert_int_equal(source_row(SRC_FILL)->on_error, SRC_ASK);
	assert_true(source_row(SRC_FILL)->is_frozen);
	assert_true(source_row(SRC_ASK)->is_frozen);
	/* The frozen stages lie together: once frozen, only resume, finish or lost end it. */
	for (unsigned from = SRC_FREEZE; from <= SRC_ASK; from++)
		for (unsigned to = 0; to < STAGES; to++)
			if (leads_to((enum source_stage)from, (enum source_stage)to))
				assert_true(
				    source_row((enum source_stage)to)->is_frozen ||
				    to == SRC_FINISH || to == SRC_LOST ||
				    ((from == SRC_ASK || from == SRC_FILL) && to == SRC_OVER));
}

static void after_commit_nothing_leads_back_to_abort(void **state)
{
	(void)state;
	bool reached[STAGES] = {false};
	reach(SRC_COMMIT, reached);
	assert_false(reached[SRC_ABORT]);
	for (enum source_stage i = SRC_PREFLIGHT; i < SRC_COMMIT; i++)
		assert_false(reached[i]);
	/* By the table alone, from commit on only the destination's word (an action's choice)
	 * resumes. */
	assert_int_not_equal(source_row(SRC_COMMIT)->on_error, SRC_RESUME);
	assert_int_not_equal(source_row(SRC_FILL)->on_error, SRC_RESUME);
	assert_int_not_equal(source_row(SRC_ASK)->on_ok, SRC_RESUME);
	assert_int_not_equal(source_row(SRC_ASK)->on_error, SRC_RESUME);
}

static void the_stages_that_end_it_go_nowhere_else(void **state)
{
	(void)state;
	static const enum source_stage ends[] = {SRC_FINISH, SRC_ABORT, SRC_RESUME, SRC_LOST,
						 SRC_OVER};
	for (size_t i = 0; i < array_len(ends); i++) {
		assert_int_equal(source_row(ends[i])->on_ok, SRC_OVER);
		assert_int_equal(source_row(ends[i])->on_error, SRC_OVER);
	}
}

static void errors_never_lead_in_a_circle(void **state)
{
	(void)state;
	for (unsigned i = 0; i < STAGES; i++) {
		enum source_stage stage = (enum source_stage)i;
		for (unsigned steps = 0; stage != SRC_OVER; steps++) {
			assert_true(steps < STAGES);
			stage = source_row(stage)->on_error;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_table_has_no_holes),
	    cmocka_unit_test(every_stage_is_reached_and_leads_to_the_end),
	    cmocka_unit_test(all_going_well_it_ends_finished),
	    cmocka_unit_test(an_error_of_a_frozen_stage_leads_to_one_that_resumes_or_asks),
	    cmocka_unit_test(after_commit_nothing_leads_back_to_abort),
	    cmocka_unit_test(the_stages_that_end_it_go_nowhere_else),
	    cmocka_unit_test(errors_never_lead_in_a_circle),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
