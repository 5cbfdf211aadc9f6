/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/codec_choice.h"

/* A window of 8 full batches is 2 MiB: enough to see past what the socket's buffers swallow, little
 * enough to be lost on a bad guess; one that is plainly bad is over after two. Experiments may cost
 * about 1 / REST_PER_LOSS of the time. */
enum {
	WINDOW_BATCHES = 8,
	HOPELESS_BATCHES = 2,
	REST_PER_LOSS = 64,
	REST_SHORTEST = 8,
	REST_LONGEST = 1024
};

/* How much a new window counts against what was known: links and content change. */
static const double NEW_SHARE = 0.5;

static const double CHANGED = 1.5;

static bool has(const struct codec_choice *choice, enum batch_codec codec)
{
	return (choice->set >> codec & 1) != 0;
}

void codec_choice_init(struct codec_choice *choice, unsigned set)
{
	*choice = (struct codec_choice){.set = set | 1 << BATCH_RAW, .now = BATCH_RAW};
	/* A user who names one codec wants that: RAW is only for what does not shrink. */
	if (choice->set == (1 << BATCH_RAW | 1 << BATCH_LZ4))
		choice->now = BATCH_LZ4;
	if (choice->set == (1 << BATCH_RAW | 1 << BATCH_ZSTD))
		choice->now = BATCH_ZSTD;
}

static bool is_fixed(const struct codec_choice *choice)
{
	return choice->set != BATCH_CODECS_ALL;
}

static enum batch_codec cheapest(const struct codec_choice *choice)
{
	enum batch_codec best = choice->now;

	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++)
		if (has(choice, codec) && choice->of[codec].ms_per_byte > 0 &&
		    (choice->of[best].ms_per_byte <= 0 ||
		     choice->of[codec].ms_per_byte < choice->of[best].ms_per_byte))
			best = codec;
	return best;
}

/* One that was never tried, or whose rest is over. */
static bool find_untried(struct codec_choice *choice, enum batch_codec best,
			 enum batch_codec *ret_codec)
{
	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++) {
		if (codec == best || !has(choice, codec))
			continue;
		if (choice->of[codec].ms_per_byte > 0 && choice->of[codec].rest > 0) {
			choice->of[codec].rest--;
			continue;
		}
		*ret_codec = codec;
		return true;
	}
	return false;
}

/* Windows until a codec is tried again that was `loss` times dearer than the best. */
static unsigned rest_after(double loss)
{
	double rest = (loss - 1) * REST_PER_LOSS;

	return rest < REST_SHORTEST  ? REST_SHORTEST
	       : rest > REST_LONGEST ? REST_LONGEST
				     : (unsigned)rest;
}

static double seen(const struct codec_choice *choice)
{
	return choice->bytes > 0 && choice->ms > 0 ? choice->ms / (double)choice->bytes : 1e-12;
}

/* Link or content are not what they were: what is known of the others is old. */
static bool has_changed(double known, double now)
{
	return known > 0 && (now > CHANGED * known || known > CHANGED * now);
}

/* If another is cheaper this was an experiment, and rests. */
static void close_window(struct codec_choice *choice)
{
	double *known = &choice->of[choice->now].ms_per_byte;
	bool is_new = has_changed(*known, seen(choice));

	for (enum batch_codec codec = BATCH_RAW; codec < BATCH_CODECS; codec++)
		choice->of[codec].rest = is_new ? 0 : choice->of[codec].rest;

	*known = *known > 0 ? *known + NEW_SHARE * (seen(choice) - *known) : seen(choice);
	enum batch_codec best = cheapest(choice);
	if (best != choice->now)
		choice->of[choice->now].rest = rest_after(*known / choice->of[best].ms_per_byte);
	choice->batches = 0;
	choice->bytes = 0;
	choice->ms = 0;
}

/* Plainly dearer than what is known to be better. */
static bool is_hopeless(const struct codec_choice *choice)
{
	enum batch_codec best = cheapest(choice);

	return best != choice->now && choice->batches >= HOPELESS_BATCHES &&
	       seen(choice) > 2 * choice->of[best].ms_per_byte;
}

void codec_choice_note(struct codec_choice *choice, uint64_t bytes, double ms, bool is_frozen)
{
	enum batch_codec untried;

	if (is_fixed(choice))
		return;
	choice->bytes += bytes;
	choice->ms += ms;
	choice->batches++;
	if (choice->batches < WINDOW_BATCHES && !is_hopeless(choice))
		return;
	close_window(choice);
	choice->now = cheapest(choice);
	if (!is_frozen && find_untried(choice, choice->now, &untried))
		choice->now = untried;
}
