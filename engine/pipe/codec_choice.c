/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/codec_choice.h"

#include <limits.h>

enum {
	TRIAL_BATCHES = 2,
	/* What packing takes varies with what else runs: the mean of so many, then the new one
	   counts as one of them. */
	FIRST_ONES = 10,
	/* A codec that is not the best is tried again after so many: 64 MiB. */
	RETRY_BATCHES = 256,
	/* A promising one, and for twice as long: 16 MiB. What made a trial slow (another process,
	   cold caches) passes. */
	RETRY_PROMISING = 64,
	/* Less is a matter of scheduling; more, of the order in which messages happened to be sent.
	 */
	SAMPLE_BYTES = 512 * 1024,
	/* For so long, 12 MiB, what a link took is believed though nobody waits for it any more, if
	   a faster one would win all. */
	DOUBT_BATCHES = 48,
	/* What the buffers of both sockets swallow; somewhat more: nobody waited, and that tells.
	 */
	BUFFER_BYTES = 6 * 1024 * 1024,
	IDLE_BYTES = 8 * 1024 * 1024,
};

static const double WAITED_MS = 0.2;
/* How much something new counts at least against what was known: links and content change. */
static const double NEW_SHARE = 0.25;
/* What is not won by working side by side. */
static const double SHARED = 0.1;
static const double PLAINLY = 0.95;
/* A byte on the wire has costs that do not show here: both kernels', and opening it over there. */
static const double ABOUT = 1.25;

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

/* For a byte of content. */
static double cost_with(const struct codec_choice *choice, enum batch_codec codec, double work)
{
	double link = choice->of[codec].wire * choice->link_ms;
	return work > link ? work + SHARED * link : link + SHARED * work;
}

static double cost_of(const struct codec_choice *choice, enum batch_codec codec)
{
	return cost_with(choice, codec, choice->of[codec].work_ms);
}

static bool is_known(const struct codec_choice *choice, enum batch_codec codec)
{
	return choice->of[codec].wire > 0;
}

/* What a faster link could win, as a share of the time that a byte takes now. */
static double hoped_for(const struct codec_choice *choice)
{
	double least = choice->of[choice->now].work_ms;

	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++)
		if (has(choice, codec) && is_known(choice, codec) &&
		    choice->of[codec].work_ms < least)
			least = choice->of[codec].work_ms;
	double now = cost_of(choice, choice->now);
	return now > 0 ? (now - least) / now : 0;
}

/* Nobody waited for so long that the buffers would be full: the link takes a byte at least as fast
 * as those went that the buffers cannot hold. One that is faster than was known counts as
 * infinitely fast, until somebody waits again: a few megabytes tell. So does one that was not seen
 * for long, the sooner the more that could win. */
static void learn_nobody_waited(struct codec_choice *choice)
{
	double hope = hoped_for(choice), went = choice->since_wire - BUFFER_BYTES;

	choice->has_waited = false;
	if (choice->since_ms / went >= choice->link_ms &&
	    choice->unseen * hope * hope < DOUBT_BATCHES)
		return;
	choice->link_ms = 0;
	choice->unseen = 0;
	choice->since_ms = choice->since_wire = 0;
}

static void learn_link(struct codec_choice *choice, const struct batch_cost *cost)
{
	bool waits = cost->wait_ms >= WAITED_MS;

	choice->since_ms += cost->work_ms + cost->wait_ms;
	choice->since_wire += (double)cost->wire;
	choice->unseen = waits ? 0 : choice->unseen + 1;
	if (!waits) {
		if (choice->since_wire >= IDLE_BYTES)
			learn_nobody_waited(choice);
		return;
	}
	if (choice->has_waited && choice->since_wire < SAMPLE_BYTES)
		return;
	if (choice->has_waited)
		learn(&choice->link_ms, choice->since_ms / choice->since_wire);
	choice->has_waited = true;
	choice->since_ms = choice->since_wire = 0;
}

static bool is_candidate(const struct codec_choice *choice, enum batch_codec codec, double most)
{
	return has(choice, codec) && is_known(choice, codec) && cost_of(choice, codec) <= most;
}

/* Of those that cost the same, as well as that can be told: the one at hand, or where the link
 * would hold the rest up, the one that leaves least for it. */
static enum batch_codec cheapest(const struct codec_choice *choice)
{
	double least = cost_of(choice, BATCH_RAW);
	enum batch_codec best = BATCH_RAW;

	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++) {
		if (!is_candidate(choice, codec, least))
			continue;
		best = codec;
		least = cost_of(choice, codec);
	}
	if (choice->of[best].wire * choice->link_ms < choice->of[best].work_ms)
		return is_candidate(choice, choice->now, least / PLAINLY) ? choice->now : best;
	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++)
		if (is_candidate(choice, codec, least * ABOUT) &&
		    choice->of[codec].wire < PLAINLY * choice->of[best].wire)
			best = codec;
	return best;
}

/* It would be the best if only packing took no longer than it does with that. */
static bool is_promising(const struct codec_choice *choice, enum batch_codec codec,
			 enum batch_codec best)
{
	return cost_with(choice, codec, choice->of[best].work_ms) < PLAINLY * cost_of(choice, best);
}

static bool has_rested(const struct codec_choice *choice, enum batch_codec codec,
		       enum batch_codec best)
{
	if (codec == BATCH_RAW)
		return false; /* what it leaves is known */
	return choice->of[codec].batches >=
	       (is_promising(choice, codec, best) ? RETRY_PROMISING : RETRY_BATCHES);
}

static void begin_trial(struct codec_choice *choice, enum batch_codec codec, enum batch_codec best)
{
	choice->trial = TRIAL_BATCHES;
	if (!is_known(choice, codec))
		choice->trial++; /* behind the first */
	else if (is_promising(choice, codec, best))
		choice->trial *= 2;
	choice->now = codec;
	/* What disturbed the last one, or was its content, says nothing about this one. */
	choice->of[codec].work_ms = choice->of[codec].wire = 0;
	choice->of[codec].learned = 0;
}

/* Begins an experiment with a codec that was never tried, or not for long. */
static bool try_another(struct codec_choice *choice, enum batch_codec best)
{
	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++) {
		if (codec == best || !has(choice, codec) ||
		    (is_known(choice, codec) && !has_rested(choice, codec, best)))
			continue;
		begin_trial(choice, codec, best);
		return true;
	}
	return false;
}

static void learn_work(struct codec_choice *choice, double value)
{
	double *known = &choice->of[choice->now].work_ms;
	unsigned *learned = &choice->of[choice->now].learned;

	*learned += *learned < FIRST_ONES ? 1 : 0;
	*known += (value - *known) / *learned;
}

/* What a codec's first batch took is not learned; later trials count as any batch does. */
static void learn_codec(struct codec_choice *choice, const struct batch_cost *cost)
{
	bool is_first = !choice->of[choice->now].is_warm && choice->now != BATCH_RAW;

	choice->of[choice->now].batches = 0;
	choice->of[choice->now].is_warm = true;
	if (is_first && choice->trial > 1)
		return;
	learn_work(choice, cost->work_ms / (double)cost->content);
	learn(&choice->of[choice->now].wire, (double)cost->wire / (double)cost->content);
}

void codec_choice_note(struct codec_choice *choice, const struct batch_cost *cost, bool is_frozen)
{
	if (choice->set != BATCH_CODECS_ALL || cost->content == 0 || cost->wire == 0)
		return;
	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++)
		choice->of[codec].batches++;
	learn_codec(choice, cost);
	learn_link(choice, cost);
	choice->trial -= choice->trial > 0 ? 1 : 0;
	if (choice->trial > 0 && !is_frozen)
		return;
	choice->trial = 0;
	enum batch_codec best = cheapest(choice);
	if (is_frozen || !try_another(choice, best))
		choice->now = best;
}
