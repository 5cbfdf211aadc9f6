/* SPDX-License-Identifier: Apache-2.0 */
/* When to stop pre-copying: a pure policy. */
#ifndef HAUL_ENGINE_MIGRATION_CONVERGE_H
#define HAUL_ENGINE_MIGRATION_CONVERGE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/migration/costs.h"

struct converge_round {
	uint64_t pages;		   /* that were sent */
	uint64_t bytes;		   /* on the wire */
	double begun_ms, ended_ms; /* monotonic */
	double blocked_ms;	   /* of that: the link took no more */
};

struct converge_history {
	const struct converge_round *rounds;
	unsigned count;
};

/* What is known of this tree and the two nodes. */
struct converge_costs {
	struct cost_size size;
	struct cost dump, restore;
	double calls_ms;
};

struct converge_prediction {
	double dirty_pages; /* that the final dump sends */
	double transfer_ms, dump_ms, restore_ms, calls_ms;
	double downtime_ms; /* all of that */
};

/* Predicted if the tree were frozen now.
 *
 * Dirty pages: the last round sent what was written since the round before it had begun; what has
 * been written since the last one began is as much by the time that has passed, but for what shows
 * that the same pages are written over and over: less time did not make fewer of them.
 *
 * Link: what the last round that filled it moved; rounds that did not only show that it is at least
 * so fast. */
struct converge_prediction converge_predict(const struct converge_history *history,
					    const struct converge_costs *costs);

/* So many bytes, at the link's rate as above; 0 when nothing was sent yet. */
double converge_transfer_ms(const struct converge_history *history, double bytes);

struct converge_limits {
	double max_downtime_ms;
	unsigned max_rounds;
	bool is_promise; /* rather no freeze than one that does not fit */
	/* Percent of its processor time that the tree is left with; 0 = it may not be slowed down.
	 */
	unsigned share;
};

enum converge_verdict {
	CONVERGE_AGAIN,
	CONVERGE_SLOWER, /* leave the tree converge_next_share, then again */
	CONVERGE_FREEZE,
	CONVERGE_GIVE_UP, /* it will not fit, and that was promised */
};

/* FREEZE when the prediction fits. Otherwise, as long as rounds shrink (to less than nine tenths of
 * the one before) and are left: AGAIN. When they do not shrink, and from then on after each round:
 * SLOWER where that may still be. Else FREEZE, for more rounds would only send more; or with a
 * promise AGAIN, for a tree may come to rest, until the rounds are used up. Then FREEZE, or GIVE_UP
 * with a promise; at once when it could not be kept if no page were left. *ret_why: a sentence's
 * end. */
enum converge_verdict converge_decide(const struct converge_limits *limits,
				      const struct converge_history *history,
				      const struct converge_prediction *prediction,
				      const char **ret_why);

/* 100, 50, 25, 12, 6, 3, 1. */
unsigned converge_next_share(unsigned share);

/* How long to wait before the next round of a tree that does not come to rest, so that the rounds
 * that are left last for the time that is left (0 = no end is set). */
int64_t converge_pause_ms(const struct converge_limits *limits,
			  const struct converge_history *history, int64_t left_ms);

#endif
