/* SPDX-License-Identifier: Apache-2.0 */
/* When to stop pre-copying: a pure policy. */
#ifndef HAUL_ENGINE_MIGRATION_CONVERGE_H
#define HAUL_ENGINE_MIGRATION_CONVERGE_H

#include <stdbool.h>
#include <stdint.h>

struct converge_round {
	uint64_t pages;
	double duration_ms;
};

struct converge_limits {
	double max_downtime_ms;
	unsigned max_rounds;
};

enum converge_verdict { CONVERGE_AGAIN, CONVERGE_FREEZE };

/* Predicted downtime if frozen now: what became dirty during the last round is about what becomes
 * dirty until the freeze; it moves at the rate of the rounds so far, everything is filled in by the
 * restore at `restore_ms_per_page`, and there is the fixed cost. is_all_read: without dirty
 * tracking the frozen tree is read as a whole. */
double converge_predict_ms(const struct converge_round *rounds, unsigned count,
			   uint64_t resident_pages, bool is_all_read);

/* FREEZE when the prediction fits, the rounds are used up, or the last round was not smaller than
 * nine tenths of the one before (more rounds would only send more). `why` gets a sentence's end. */
enum converge_verdict converge_decide(const struct converge_limits *limits,
				      const struct converge_round *rounds, unsigned count,
				      double predicted_ms, const char **ret_why);

#endif
