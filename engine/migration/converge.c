/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/converge.h"

#include <math.h>

enum {
	ROUNDS_THAT_TELL = 2, /* the first one sends everything, whatever is written */
	WHOLE_SHARE = 100,
	LEAST_SHARE = 1,
	PAUSE_MOST_MS = 2000,
};

/* Of a round's time, from which on it was the link that it waited for. */
static const double BLOCKED_PART = 0.3;

/* Smaller rounds tell nothing of the link: they fit into its buffers. */
static const double TELLING_BYTES = 256 * 1024;

/* --- what is written --- */

static double interval_before(const struct converge_history *history, unsigned round)
{
	double ms = history->rounds[round].begun_ms - history->rounds[round - 1].begun_ms;

	return ms > 0.01 ? ms : 0.01;
}

/* The number of pages written in a time grows with that to the power of this: 1 = ever other pages,
 * 0 = ever the same ones. By the last two rounds; unknown is 0, the most of what may be left. */
static double growth(const struct converge_history *history)
{
	unsigned last = history->count - 1;

	if (history->count < ROUNDS_THAT_TELL + 1)
		return 0;
	double times = interval_before(history, last) / interval_before(history, last - 1);
	double pages = (double)history->rounds[last].pages;
	double before = (double)history->rounds[last - 1].pages;
	if (pages < 1 || before < 1 || fabs(log(times)) < 0.1)
		return 0;
	double power = log(pages / before) / log(times);
	return power < 0 ? 0 : power > 1 ? 1 : power;
}

static double dirty_pages(const struct converge_history *history, double resident)
{
	const struct converge_round *last = &history->rounds[history->count - 1];
	double pages = (double)last->pages;

	if (history->count < ROUNDS_THAT_TELL)
		return pages;
	double times =
	    (last->ended_ms - last->begun_ms) / interval_before(history, history->count - 1);
	pages *= times > 1 ? times : pow(times < 0.001 ? 0.001 : times, growth(history));
	double most = resident > (double)last->pages ? resident : (double)last->pages;
	return pages < most ? pages : most;
}

/* --- the link --- */

static double bytes_per_ms(const struct converge_history *history)
{
	double rate = 0;

	for (unsigned i = 0; i < history->count; i++) {
		const struct converge_round *round = &history->rounds[i];
		double took = round->ended_ms - round->begun_ms;
		double seen = took > 0 ? (double)round->bytes / took : 0;
		bool is_full = took > 0 && round->blocked_ms > took * BLOCKED_PART;
		if (rate > 0 && (double)round->bytes < TELLING_BYTES)
			continue;
		if (is_full || seen > rate)
			rate = seen;
	}
	return rate;
}

static double bytes_per_page(const struct converge_history *history)
{
	for (unsigned i = history->count; i-- > 0;) {
		if (history->rounds[i].pages > 0)
			return (double)history->rounds[i].bytes / (double)history->rounds[i].pages;
	}
	return 0;
}

double converge_transfer_ms(const struct converge_history *history, double bytes)
{
	double rate = bytes_per_ms(history);

	return rate > 0 ? bytes / rate : 0;
}

struct converge_prediction converge_predict(const struct converge_history *history,
					    const struct converge_costs *costs)
{
	struct converge_prediction prediction = {
	    .dump_ms = cost_of(&costs->dump, &costs->size),
	    .restore_ms = cost_of(&costs->restore, &costs->size),
	    .calls_ms = costs->calls_ms,
	};

	if (history->count > 0)
		prediction.dirty_pages = dirty_pages(history, costs->size.pages);
	prediction.transfer_ms =
	    converge_transfer_ms(history, prediction.dirty_pages * bytes_per_page(history));
	prediction.downtime_ms = prediction.transfer_ms + prediction.dump_ms +
				 prediction.restore_ms + prediction.calls_ms;
	return prediction;
}

/* --- the decision --- */

static bool shrinks(const struct converge_history *history)
{
	const struct converge_round *last = &history->rounds[history->count - 1];

	return last->pages * 10 < last[-1].pages * 9;
}

static enum converge_verdict when_it_does_not_fit(const struct converge_limits *limits,
						  const struct converge_history *history,
						  const char **ret_why)
{
	bool may_be_slower = limits->share > LEAST_SHARE;

	if (shrinks(history) && (!may_be_slower || limits->share == WHOLE_SHARE)) {
		*ret_why = "the rounds still shrink";
		return CONVERGE_AGAIN;
	}
	*ret_why = "the last round was hardly smaller than the one before";
	if (may_be_slower)
		return CONVERGE_SLOWER;
	return limits->is_promise ? CONVERGE_AGAIN : CONVERGE_FREEZE;
}

enum converge_verdict converge_decide(const struct converge_limits *limits,
				      const struct converge_history *history,
				      const struct converge_prediction *prediction,
				      const char **ret_why)
{
	bool tells = history->count >= ROUNDS_THAT_TELL;

	if (history->count == 0) {
		*ret_why = "nothing was copied yet";
		return CONVERGE_AGAIN;
	}
	if (tells && prediction->downtime_ms <= limits->max_downtime_ms) {
		*ret_why = "the predicted downtime fits";
		return CONVERGE_FREEZE;
	}
	if (history->count >= limits->max_rounds) {
		*ret_why = "the rounds are used up";
		return limits->is_promise ? CONVERGE_GIVE_UP : CONVERGE_FREEZE;
	}
	if (!tells) {
		*ret_why = "one round does not show how fast memory is dirtied";
		return CONVERGE_AGAIN;
	}
	if (limits->is_promise &&
	    prediction->downtime_ms - prediction->transfer_ms > limits->max_downtime_ms) {
		*ret_why =
		    "to dump and to restore it takes longer even if no page is left to be sent";
		return CONVERGE_GIVE_UP;
	}
	return when_it_does_not_fit(limits, history, ret_why);
}

unsigned converge_next_share(unsigned share)
{
	return share / 2 > LEAST_SHARE ? share / 2 : LEAST_SHARE;
}

int64_t converge_pause_ms(const struct converge_limits *limits,
			  const struct converge_history *history, int64_t left_ms)
{
	if (!limits->is_promise || left_ms <= 0 || history->count < ROUNDS_THAT_TELL ||
	    history->count >= limits->max_rounds || shrinks(history))
		return 0;
	int64_t pause = left_ms / (int64_t)(limits->max_rounds - history->count);
	return pause < PAUSE_MOST_MS ? pause : PAUSE_MOST_MS;
}
