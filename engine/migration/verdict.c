/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/verdict.h"

enum destination_says verdict_says(Haul__V1__Outcome outcome)
{
	switch ((int)outcome) {
	case HAUL__V1__OUTCOME__OUTCOME_UNKNOWN:
		return SAYS_UNKNOWN;
	case HAUL__V1__OUTCOME__OUTCOME_PREPARED:
		return SAYS_PREPARED;
	case HAUL__V1__OUTCOME__OUTCOME_RESTORED:
		return SAYS_RESTORED;
	case HAUL__V1__OUTCOME__OUTCOME_COMMITTED:
		return SAYS_COMMITTED;
	case HAUL__V1__OUTCOME__OUTCOME_ABORTED:
		return SAYS_ABORTED;
	case HAUL__V1__OUTCOME__OUTCOME_FILLING:
		return SAYS_FILLING;
	case HAUL__V1__OUTCOME__OUTCOME_BROKEN:
		return SAYS_BROKEN;
	case HAUL__V1__OUTCOME__OUTCOME_FETCHING:
		return SAYS_FETCHING;
	default: /* a newer destination's word: decides nothing here */
		return SAYS_NOTHING;
	}
}

/* The tree is here, and Commit may have left. */
static const enum verdict tree_waits[] = {
    [SAYS_NOTHING] = VERDICT_ASK_AGAIN,	   [SAYS_UNKNOWN] = VERDICT_OPERATOR,
    [SAYS_PREPARED] = VERDICT_ABORT_FIRST, [SAYS_RESTORED] = VERDICT_COMMIT,
    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_RESUME,
    [SAYS_FILLING] = VERDICT_WAIT,	   [SAYS_BROKEN] = VERDICT_OPERATOR,
    [SAYS_FETCHING] = VERDICT_WAIT,
};

/* The tree here is gone (its machine restarted, or it was killed): the destination's copy is all
 * there is. */
static const enum verdict tree_gone[] = {
    [SAYS_NOTHING] = VERDICT_ASK_AGAIN,	   [SAYS_UNKNOWN] = VERDICT_OPERATOR,
    [SAYS_PREPARED] = VERDICT_ABORT_FIRST, [SAYS_RESTORED] = VERDICT_COMMIT,
    [SAYS_COMMITTED] = VERDICT_FINISH,	   [SAYS_ABORTED] = VERDICT_LOST,
    [SAYS_FILLING] = VERDICT_FINISH,	   [SAYS_BROKEN] = VERDICT_LOST,
    [SAYS_FETCHING] = VERDICT_LOST,
};

enum verdict verdict_of(const struct source_situation *here, enum destination_says says)
{
	if (!here->tree_exists) {
		if (!here->is_reserved)
			return VERDICT_LOST;
		return tree_gone[says];
	}
	/* Before Commit could leave, nothing can run there. A tree that has run since is ahead of
	 * any copy that does not run; whether one runs, only the destination knows: it is asked
	 * even then. */
	if (!here->is_committing)
		return VERDICT_RESUME;
	if (here->tree_has_run && says != SAYS_NOTHING && says != SAYS_COMMITTED &&
	    says != SAYS_FILLING && says != SAYS_FETCHING)
		return VERDICT_RESUME;
	return tree_waits[says];
}

const char *verdict_name(enum verdict verdict)
{
	static const char *const names[] = {
	    [VERDICT_RESUME] = "resume",       [VERDICT_FINISH] = "finish",
	    [VERDICT_COMMIT] = "commit",       [VERDICT_ABORT_FIRST] = "abort first",
	    [VERDICT_ASK_AGAIN] = "ask again", [VERDICT_OPERATOR] = "operator",
	    [VERDICT_LOST] = "lost",	       [VERDICT_WAIT] = "wait",
	};
	return names[verdict];
}

const char *verdict_doubt(const struct source_situation *here, enum destination_says says)
{
	if (says == SAYS_UNKNOWN)
		return here->tree_exists ? "the destination has no record of this migration (its "
					   "state directory was lost?): it may or "
					   "may not run there; look there, then `haulctl resolve`"
					 : "the tree here is gone and the destination has no "
					   "record of this migration: look there, "
					   "then `haulctl resolve`";
	if (says == SAYS_BROKEN)
		return "the workload ran at the destination and was killed there, because memory "
		       "that it had not got yet was lost; the tree here is as it was at the "
		       "commit: "
		       "what it did since then would be undone by `haulctl resolve --resume`";
	return here->tree_exists ? "the destination did not say whether it committed; the tree is "
				   "kept frozen here and asked for until it does"
				 : "the tree here is gone; the destination may hold a whole copy "
				   "and is asked until it answers";
}
