/* SPDX-License-Identifier: Apache-2.0 */
/* The rule of "exactly one copy" at the source: given what is known here and what the destination
 * says, what may be done. A pure table; docs/safety.md argues it row by row. */
#ifndef HAUL_ENGINE_MIGRATION_VERDICT_H
#define HAUL_ENGINE_MIGRATION_VERDICT_H

#include <stdbool.h>

#include "haul/v1/peer.pb-c.h"

/* The destination's answer; VERDICT_SILENT = none came. */
enum destination_says {
	SAYS_NOTHING,  /* unreachable, or an answer that decides nothing */
	SAYS_UNKNOWN,  /* it has no record: proves nothing */
	SAYS_PREPARED, /* not committed, copy not whole */
	SAYS_RESTORED, /* not committed, whole copy kept frozen */
	SAYS_COMMITTED,
	SAYS_ABORTED,  /* never committed, never will be */
	SAYS_FILLING,  /* committed and runs, but memory that it has not got yet may be lost */
	SAYS_BROKEN,   /* committed, but it was ended because that was lost */
	SAYS_FETCHING, /* committed and runs, but lacks pages that only the tree here has */
};

struct source_situation {
	bool is_committing; /* the journal says Commit may have left */
	bool is_reserved;   /* the destination may hold a whole copy */
	bool tree_exists;   /* here, in this boot, as it was */
	bool tree_has_run;  /* it is not behind its fence: someone let it run */
};

enum verdict {
	VERDICT_RESUME,	     /* let the tree here run; the destination's copy is given up */
	VERDICT_FINISH,	     /* it runs there: end the tree here */
	VERDICT_COMMIT,	     /* send (or repeat) Commit */
	VERDICT_ABORT_FIRST, /* have the destination journal "aborted", then ask again */
	VERDICT_ASK_AGAIN,   /* in doubt: keep frozen, ask with backoff */
	VERDICT_OPERATOR,    /* in doubt, and asking will not tell: still asked, shown as such */
	VERDICT_LOST,	     /* no copy anywhere: say so */
	VERDICT_WAIT, /* it runs there: keep the tree here, frozen, until all its memory is there */
};

enum verdict verdict_of(const struct source_situation *here, enum destination_says says);

enum destination_says verdict_says(Haul__V1__Outcome outcome);
const char *verdict_name(enum verdict verdict);
/* Why it is in doubt, for the user. */
const char *verdict_doubt(const struct source_situation *here, enum destination_says says);

#endif
