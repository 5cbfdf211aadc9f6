/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/verdict.h"

#include <string.h>

#include "tests/unit/test.h"

enum { SAYS_COUNT = SAYS_FETCHING + 1, SITUATIONS = 16 };

static const char *const says_names[SAYS_COUNT] = {"nothing",  "unknown",   "prepared",
						   "restored", "committed", "aborted",
						   "filling",  "broken",    "fetching"};

static struct source_situation situation(unsigned bits)
{
	return (struct source_situation){
	    .is_committing = (bits & 1) != 0,
	    .is_reserved = (bits & 2) != 0,
	    .tree_exists = (bits & 4) != 0,
	    .tree_has_run = (bits & 8) != 0,
	};
}

/* The rule as a table of truth, written down a second time: situation by situation, answer by
 * answer. */
static const struct {
	const char *when;
	unsigned must, must_not; /* bits as in situation() */
	enum verdict want[SAYS_COUNT];
} rule[] = {
    /* clang-format off */
	/*                                            nothing            unknown           prepared             restored        committed       aborted         filling         broken          fetching */
	{"the tree waits, Commit may have left", 5, 8,
	 {VERDICT_ASK_AGAIN, VERDICT_OPERATOR, VERDICT_ABORT_FIRST, VERDICT_COMMIT, VERDICT_FINISH, VERDICT_RESUME, VERDICT_WAIT, VERDICT_OPERATOR, VERDICT_WAIT}},
	{"somebody let the tree run", 13, 0,
	 {VERDICT_ASK_AGAIN, VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME, VERDICT_FINISH, VERDICT_RESUME, VERDICT_WAIT, VERDICT_RESUME, VERDICT_WAIT}},
	{"Commit has not left", 4, 1,
	 {VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME, VERDICT_RESUME}},
	{"the tree is gone, a copy may be there", 2, 4,
	 {VERDICT_ASK_AGAIN, VERDICT_OPERATOR, VERDICT_ABORT_FIRST, VERDICT_COMMIT, VERDICT_FINISH, VERDICT_LOST, VERDICT_FINISH, VERDICT_LOST, VERDICT_LOST}},
	{"the tree is gone, no copy can be there", 0, 6,
	 {VERDICT_LOST, VERDICT_LOST, VERDICT_LOST, VERDICT_LOST, VERDICT_LOST, VERDICT_LOST, VERDICT_LOST, VERDICT_LOST, VERDICT_LOST}},
    /* clang-format on */
};

static void every_situation_has_its_verdict(void **state)
{
	(void)state;
	unsigned covered = 0;
	for (size_t row = 0; row < array_len(rule); row++) {
		for (unsigned bits = 0; bits < SITUATIONS; bits++) {
			if ((bits & rule[row].must) != rule[row].must ||
			    (bits & rule[row].must_not) != 0)
				continue;
			covered |= 1U << bits;
			struct source_situation here = situation(bits);
			for (unsigned says = 0; says < SAYS_COUNT; says++) {
				enum verdict got = verdict_of(&here, (enum destination_says)says);
				if (got != rule[row].want[says])
					fail_msg("%s, it says %s: %s, not %s", rule[row].when,
						 says_names[says], verdict_name(got),
						 verdict_name(rule[row].want[says]));
			}
		}
	}
	assert_int_equal(covered, 0xffff);
}

static void once_committing_the_tree_resumes_only_on_aborted_or_if_it_ran(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < SITUATIONS; bits++) {
		for (unsigned says = 0; says < SAYS_COUNT; says++) {
			struct source_situation here = situation(bits);
			enum verdict got = verdict_of(&here, (enum destination_says)says);
			if (got == VERDICT_RESUME && here.is_committing)
				assert_true(says == SAYS_ABORTED || here.tree_has_run);
			if (got == VERDICT_RESUME) {
				assert_true(here.tree_exists);
				assert_true(!here.is_committing || says != SAYS_COMMITTED);
				assert_true(!here.is_committing || says != SAYS_NOTHING);
				assert_true(!here.is_committing || says != SAYS_FILLING);
				assert_true(!here.is_committing || says != SAYS_FETCHING);
			}
		}
	}
}

static void a_tree_ends_only_when_the_destination_committed(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < SITUATIONS; bits++) {
		for (unsigned says = 0; says < SAYS_COUNT; says++) {
			struct source_situation here = situation(bits);
			enum verdict got = verdict_of(&here, (enum destination_says)says);
			if (got == VERDICT_FINISH)
				assert_true(says == SAYS_COMMITTED ||
					    (says == SAYS_FILLING && !here.tree_exists));
			/* As long as memory can be lost there, the tree here stays, frozen. */
			if ((says == SAYS_FILLING || says == SAYS_FETCHING) && here.tree_exists &&
			    here.is_committing)
				assert_int_equal(got, VERDICT_WAIT);
			if (got == VERDICT_COMMIT)
				assert_int_equal(says, SAYS_RESTORED);
			if (got == VERDICT_LOST)
				assert_false(here.tree_exists);
			/* A copy that may be whole is never called lost on silence. */
			if (got == VERDICT_LOST && here.is_reserved)
				assert_true(says == SAYS_ABORTED || says == SAYS_BROKEN ||
					    says == SAYS_FETCHING);
		}
	}
}

static void what_a_newer_destination_says_decides_nothing(void **state)
{
	(void)state;
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_UNKNOWN), SAYS_UNKNOWN);
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_PREPARED), SAYS_PREPARED);
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_RESTORED), SAYS_RESTORED);
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_COMMITTED), SAYS_COMMITTED);
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_ABORTED), SAYS_ABORTED);
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_FILLING), SAYS_FILLING);
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_BROKEN), SAYS_BROKEN);
	assert_int_equal(verdict_says(HAUL__V1__OUTCOME__OUTCOME_FETCHING), SAYS_FETCHING);
	assert_int_equal(verdict_says((Haul__V1__Outcome)8), SAYS_NOTHING);
	assert_int_equal(verdict_says((Haul__V1__Outcome)-1), SAYS_NOTHING);
}

static void a_doubt_says_where_to_look_and_names_are_told_apart(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < SITUATIONS; bits++) {
		struct source_situation here = situation(bits);
		assert_non_null(strstr(verdict_doubt(&here, SAYS_UNKNOWN), "haulctl resolve"));
		assert_non_null(strstr(verdict_doubt(&here, SAYS_NOTHING), "destination"));
	}
	for (unsigned a = 0; a <= VERDICT_LOST; a++)
		for (unsigned b = 0; b < a; b++)
			assert_string_not_equal(verdict_name((enum verdict)a),
						verdict_name((enum verdict)b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_situation_has_its_verdict),
	    cmocka_unit_test(once_committing_the_tree_resumes_only_on_aborted_or_if_it_ran),
	    cmocka_unit_test(a_tree_ends_only_when_the_destination_committed),
	    cmocka_unit_test(what_a_newer_destination_says_decides_nothing),
	    cmocka_unit_test(a_doubt_says_where_to_look_and_names_are_told_apart),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
