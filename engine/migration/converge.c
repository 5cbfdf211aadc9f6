/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/converge.h"

/* What does not depend on memory: seizing the tree, its other images, three calls, starting the
 * restore. */
static const double FIXED_MS = 60;

/* Filling a page at restore: about 1 GiB/s. Cautious on slow machines is impossible to know before
 * the first restore there; the report tells predicted next to measured. */
static const double RESTORE_MS_PER_PAGE = 0.004;

/* CRIU reads a page, and its hash is taken: about 2 GiB/s. */
static const double READ_MS_PER_PAGE = 0.002;

double converge_predict_ms(const struct converge_round *rounds, unsigned count,
			   uint64_t resident_pages, bool is_all_read)
{
	double pages = 0, duration = 0;

	for (unsigned i = 0; i < count; i++) {
		pages += (double)rounds[i].pages;
		duration += rounds[i].duration_ms;
	}
	double fill = RESTORE_MS_PER_PAGE + (is_all_read ? READ_MS_PER_PAGE : 0);
	double restore = FIXED_MS + (double)resident_pages * fill;
	if (count == 0 || pages <= 0)
		return restore;
	double ms_per_page = duration / pages;
	double remaining = (double)rounds[count - 1].pages;
	/* After the first round "what it sent" is everything: what is dirty now is unknown, so the
	 * share that the second round finds is what tells. */
	return restore + remaining * ms_per_page;
}

enum converge_verdict converge_decide(const struct converge_limits *limits,
				      const struct converge_round *rounds, unsigned count,
				      double predicted_ms, const char **ret_why)
{
	if (count == 0) {
		*ret_why = "nothing was copied yet";
		return CONVERGE_AGAIN;
	}
	if (count >= limits->max_rounds) {
		*ret_why = "the rounds are used up";
		return CONVERGE_FREEZE;
	}
	if (count < 2) {
		*ret_why = "one round does not show how fast memory is dirtied";
		return CONVERGE_AGAIN;
	}
	if (predicted_ms <= limits->max_downtime_ms) {
		*ret_why = "the predicted downtime fits";
		return CONVERGE_FREEZE;
	}
	if (rounds[count - 1].pages * 10 >= rounds[count - 2].pages * 9) {
		*ret_why = "the last round was hardly smaller than the one before";
		return CONVERGE_FREEZE;
	}
	*ret_why = "the rounds still shrink";
	return CONVERGE_AGAIN;
}
