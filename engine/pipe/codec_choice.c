/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/codec_choice.h"

#include <limits.h>

enum {
	TRIAL_BATCHES = 2,
	/* A codec that is not the best is tried again after so many: 64 MiB. */
	RETRY_BATCHES = 256,
	/* Less is a matter of scheduling; more, of the order in which messages happened to be sent.
	 */
	SAMPLE_BYTES = 512 * 1024,
	/* More than the buffers of both sockets swallow: nobody waited, the link is faster than
	   thought. */
	IDLE_BYTES = 8 * 1024 * 1024,
};

static const double WAITED_MS = 0.2;
/* How much something new counts against what was known: links and content change. */
static const double NEW_SHARE = 0.5;
/* What is not won by working side by side. */
static const double SHARED = 0.1;
static const double PLAINLY = 0.95;

static bool has(const struct codec_choice *choice, enum batch_codec codec)
{
	return (choice->set >> codec & 1) != 0;
}

void codec_choice_init(struct codec_choice *choice, unsigned set)
{
	*choice = (struct codec_choice){.set = set | 1 << BATCH_RAW,
					.now = BATCH_RAW,
					.trial = TRIAL_BATCHES};
	/* A user who names one codec wants that: RAW is only for what does not shrink. */
	if (choice->set == (1 << BATCH_RAW | 1 << BATCH_LZ4))
		choice->now = BATCH_LZ4;
	if (choice->set == (1 << BATCH_RAW | 1 << BATCH_ZSTD))
		choice->now = BATCH_ZSTD;
}

static void learn(double *known, double value)
{
	*known = *known > 0 ? *known + NEW_SHARE * (value - *known) : value;
}

static void learn_link(struct codec_choice *choice, const struct batch_cost *cost)
{
	bool waits = cost->wait_ms >= WAITED_MS;
	choice->since_ms += cost->work_ms + cost->wait_ms;
	choice->since_wire += (double)cost->wire;
	if (waits && choice->has_waited && choice->since_wire < SAMPLE_BYTES)
		return;
	if (!waits && choice->since_wire < IDLE_BYTES)
		return;
	if (waits && choice->has_waited)
		learn(&choice->link_ms, choice->since_ms / choice->since_wire);
	else if (!waits)
		choice->link_ms /= 2; /* until somebody waits again */
	choice->has_waited = waits;
	choice->since_ms = 0;
	choice->since_wire = 0;
}

/* For a byte of content. */
static double cost_of(const struct codec_choice *choice, enum batch_codec codec)
{
	double work = choice->of[codec].work_ms;
	double link = choice->of[codec].wire * choice->link_ms;
	return work > link ? work + SHARED * link : link + SHARED * work;
}

static bool is_known(const struct codec_choice *choice, enum batch_codec codec)
{
	return choice->of[codec].wire > 0;
}

static enum batch_codec cheapest(const struct codec_choice *choice, enum batch_codec now)
{
	enum batch_codec best = is_known(choice, now) ? now : BATCH_RAW;
	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++)
		if (has(choice, codec) && is_known(choice, codec) &&
		    cost_of(choice, codec) < PLAINLY * cost_of(choice, best))
			best = codec;
	return best;
}

/* Begins an experiment with a codec that was never tried, or not for long. */
static bool try_another(struct codec_choice *choice, enum batch_codec best)
{
	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++) {
		unsigned rest = codec == BATCH_RAW ? UINT_MAX : RETRY_BATCHES; /* it is always 1 */
		if (codec == best || !has(choice, codec) ||
		    (is_known(choice, codec) && choice->of[codec].batches < rest))
			continue;
		choice->now = codec;
		choice->trial = TRIAL_BATCHES;
		return true;
	}
	return false;
}

void codec_choice_note(struct codec_choice *choice, const struct batch_cost *cost, bool is_frozen)
{
	if (choice->set != BATCH_CODECS_ALL || cost->content == 0 || cost->wire == 0)
		return;
	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++)
		choice->of[codec].batches++;
	choice->of[choice->now].batches = 0;
	learn(&choice->of[choice->now].work_ms, cost->work_ms / (double)cost->content);
	learn(&choice->of[choice->now].wire, (double)cost->wire / (double)cost->content);
	learn_link(choice, cost);
	choice->trial -= choice->trial > 0 ? 1 : 0;
	if (choice->trial > 0 && !is_frozen)
		return;
	choice->trial = 0;
	enum batch_codec best = cheapest(choice, choice->now);
	if (is_frozen || !try_another(choice, best))
		choice->now = best;
}
