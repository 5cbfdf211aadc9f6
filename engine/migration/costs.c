/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/costs.h"

#include "engine/host/files.h"
#include "engine/log.h"
#include "haul/v1/journal.pb-c.h"
#include "proto/limits.h"
#include "proto/pack.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
	PARTS = 3, /* fixed, a page, a process */
	SAMPLES = 32,
	GUESSED_PAGES = 32768, /* the tree that a guess is made for: 128 MiB */
	GUESSED_PROCESSES = 4,
};

/* A sample's weight, by how many have come since; and what a guess weighs beside them. */
static const double FADE = 0.85, GUESS_WEIGHT = 0.05;

/* Below this an error counts as if so much had been measured. */
static const double LEAST_MS = 10;

/* Native Debian 13 on a plain server. Restore: about 1 GiB a second is filled; reading and hashing:
 * about 2 GiB a second. */
static const struct cost guesses[COST_KINDS] = {
    [COST_DUMP_TRACKED] = {.fixed_ms = 30, .process_ms = 4},
    [COST_DUMP_READ] = {.fixed_ms = 30, .page_ms = 0.002, .process_ms = 4},
    [COST_RESTORE] = {.fixed_ms = 25, .page_ms = 0.004, .process_ms = 4},
    [COST_RESTORE_LAZY] = {.fixed_ms = 25, .page_ms = 0.0001, .process_ms = 4},
    [COST_CALLS] = {.fixed_ms = 5},
};

struct costs {
	pthread_mutex_t lock;
	struct {
		struct cost_sample samples[SAMPLES]; /* oldest first */
		unsigned count;
	} kinds[COST_KINDS];
	pthread_mutex_t keeping; /* one writes at a time; taken before the lock */
	char *path;		 /* NULL: nothing is kept */
	bool is_newer;		 /* than what was kept */
};

struct cost costs_guess(enum cost_kind kind)
{
	return guesses[kind];
}

double cost_of(const struct cost *cost, const struct cost_size *size)
{
	return cost->fixed_ms + cost->page_ms * size->pages + cost->process_ms * size->processes;
}

/* --- least squares --- */

struct equations {
	double left[PARTS][PARTS], right[PARTS];
};

/* One more row to be met: parts · row = value, with this weight. */
static void add_row(struct equations *equations, const double row[PARTS], double value,
		    double weight)
{
	double scale = value > LEAST_MS ? value : LEAST_MS;

	weight /= scale * scale;
	for (int i = 0; i < PARTS; i++) {
		for (int j = 0; j < PARTS; j++)
			equations->left[i][j] += weight * row[i] * row[j];
		equations->right[i] += weight * row[i] * value;
	}
}

static void eliminate(double left[PARTS][PARTS], double right[PARTS], int pivot)
{
	for (int i = 0; i < PARTS; i++) {
		double factor = left[i][pivot] / left[pivot][pivot];
		if (i == pivot)
			continue;
		for (int j = 0; j < PARTS; j++)
			left[i][j] -= factor * left[pivot][j];
		right[i] -= factor * right[pivot];
	}
}

/* The matrix is symmetric and, by the guess's rows, positive definite: no search for pivots. */
static void solve(const struct equations *equations, const bool is_used[PARTS], double ret[PARTS])
{
	struct equations work = *equations;

	for (int i = 0; i < PARTS; i++) {
		if (is_used[i])
			continue;
		for (int j = 0; j < PARTS; j++)
			work.left[i][j] = work.left[j][i] = 0;
		work.left[i][i] = 1;
		work.right[i] = 0;
	}
	for (int i = 0; i < PARTS; i++)
		eliminate(work.left, work.right, i);
	for (int i = 0; i < PARTS; i++)
		ret[i] = work.right[i] / work.left[i][i];
}

/* A part that would be negative becomes 0, the worst one first, and the others are fitted anew. */
static void solve_positive(const struct equations *equations, double ret[PARTS])
{
	bool is_used[PARTS] = {true, true, true};

	for (;;) {
		int worst = -1;
		solve(equations, is_used, ret);
		for (int i = 0; i < PARTS; i++) {
			if (is_used[i] && ret[i] < 0 && (worst < 0 || ret[i] < ret[worst]))
				worst = i;
		}
		if (worst < 0)
			return;
		is_used[worst] = false;
	}
}

/* So that the three parts are of one magnitude. */
static const double units[PARTS] = {1, GUESSED_PAGES, GUESSED_PROCESSES};

static double weight_of(unsigned sample, unsigned count)
{
	return pow(FADE, count - 1 - sample);
}

/* How much slower than guessed this node is, by all samples: a slow one is so in all parts, until
 * they show otherwise. */
static double slowness(const struct cost_sample *samples, unsigned count, const struct cost *guess)
{
	double logs = 0, weights = 0;

	for (unsigned i = 0; i < count; i++) {
		double weight = weight_of(i, count);
		double guessed = cost_of(guess, &samples[i].size);
		double took = samples[i].took_ms > 1 ? samples[i].took_ms : 1;
		logs += weight * log(took / (guessed > 1 ? guessed : 1));
		weights += weight;
	}
	return count > 0 ? exp(logs / weights) : 1;
}

struct cost cost_fit(const struct cost_sample *samples, unsigned count, const struct cost *guess)
{
	double factor = slowness(samples, count, guess);
	const double guessed[PARTS] = {guess->fixed_ms * factor, guess->page_ms * factor,
				       guess->process_ms * factor};
	struct equations equations = {0};
	double parts[PARTS];

	for (int i = 0; i < PARTS; i++) {
		double row[PARTS] = {0};
		row[i] = 1;
		add_row(&equations, row, guessed[i] * units[i], GUESS_WEIGHT);
	}
	for (unsigned i = 0; i < count; i++) {
		const double row[PARTS] = {1, samples[i].size.pages / units[1],
					   samples[i].size.processes / units[2]};
		add_row(&equations, row, samples[i].took_ms, weight_of(i, count));
	}
	solve_positive(&equations, parts);
	return (struct cost){parts[0], parts[1] / units[1], parts[2] / units[2], count};
}

/* --- all kinds --- */

/* Caller holds the lock. */
static void add_sample(struct costs *costs, enum cost_kind kind, const struct cost_sample *sample)
{
	struct cost_sample *samples = costs->kinds[kind].samples;
	unsigned *count = &costs->kinds[kind].count;
	if (*count == SAMPLES)
		memmove(samples, samples + 1, --*count * sizeof(*samples));
	samples[*count] = *sample;
	if (samples[*count].took_ms < 0)
		samples[*count].took_ms = 0;
	++*count;
}

void costs_note(struct costs *costs, enum cost_kind kind, const struct cost_sample *sample)
{
	if (!isfinite(sample->took_ms))
		return;
	(void)pthread_mutex_lock(&costs->lock);
	add_sample(costs, kind, sample);
	costs->is_newer = true;
	(void)pthread_mutex_unlock(&costs->lock);
}

/* --- on disk --- */

static bool is_plausible(const Haul__V1__CostSample *sample)
{
	int kind = (int)sample->kind - 1;

	return kind >= 0 && kind < COST_KINDS && isfinite(sample->pages) &&
	       isfinite(sample->processes) && isfinite(sample->took_ms) && sample->pages >= 0 &&
	       sample->processes >= 0;
}

static status *take_up(struct costs *costs)
{
	scoped(buffer) struct buffer bytes = {0};
	scoped(message) ProtobufCMessage *message = NULL;

	status *st = files_read(costs->path, LIMIT_UNARY_BYTES, &bytes);
	if (st == NULL)
		st = unpack_message(&haul__v1__learnt_costs__descriptor, bytes.data, bytes.size,
				    LIMIT_UNARY_BYTES, &message);
	if (st != NULL)
		return st;
	const Haul__V1__LearntCosts *learnt = (const Haul__V1__LearntCosts *)message;
	for (size_t i = 0; i < learnt->n_samples; i++) {
		const Haul__V1__CostSample *kept = learnt->samples[i];
		const struct cost_sample sample = {{kept->pages, kept->processes}, kept->took_ms};
		if (is_plausible(kept))
			add_sample(costs, (enum cost_kind)(kept->kind - 1), &sample);
	}
	return NULL;
}

struct costs *costs_new(const char *path)
{
	struct costs *costs = calloc(1, sizeof(*costs));

	if (costs == NULL)
		abort();
	(void)pthread_mutex_init(&costs->lock, NULL);
	(void)pthread_mutex_init(&costs->keeping, NULL);
	if (path == NULL)
		return costs;
	costs->path = text_copy(path);
	scoped(status) status *st = take_up(costs);
	if (st != NULL && status_code_of(st) != STATUS_NOT_FOUND)
		log_status(LOG_LEVEL_WARN, NULL, "what migrations cost is learnt anew", st);
	return costs;
}

/* Caller holds the lock. */
static status *pack_costs(const struct costs *costs, struct buffer *ret_bytes)
{
	Haul__V1__CostSample samples[COST_KINDS * SAMPLES], *places[COST_KINDS * SAMPLES];
	Haul__V1__LearntCosts learnt = HAUL__V1__LEARNT_COSTS__INIT;

	learnt.samples = places;
	for (int kind = 0; kind < COST_KINDS; kind++) {
		for (unsigned i = 0; i < costs->kinds[kind].count; i++) {
			const struct cost_sample *from = &costs->kinds[kind].samples[i];
			Haul__V1__CostSample *to = &samples[learnt.n_samples];
			haul__v1__cost_sample__init(to);
			to->kind = (Haul__V1__CostKind)(kind + 1);
			to->pages = from->size.pages;
			to->processes = from->size.processes;
			to->took_ms = from->took_ms;
			places[learnt.n_samples++] = to;
		}
	}
	return pack_message(&learnt.base, LIMIT_UNARY_BYTES, ret_bytes);
}

status *costs_keep(struct costs *costs)
{
	scoped(buffer) struct buffer bytes = {0};
	status *st = NULL;

	if (costs->path == NULL)
		return NULL;
	(void)pthread_mutex_lock(&costs->keeping);
	/* Whoever notes what a frozen tree took does not wait for the disk. */
	(void)pthread_mutex_lock(&costs->lock);
	bool is_newer = costs->is_newer;
	costs->is_newer = false;
	if (is_newer)
		st = pack_costs(costs, &bytes);
	(void)pthread_mutex_unlock(&costs->lock);
	if (is_newer && st == NULL)
		st = files_replace(costs->path, bytes.data, bytes.size);
	(void)pthread_mutex_unlock(&costs->keeping);
	return st;
}

struct cost costs_now(struct costs *costs, enum cost_kind kind)
{
	(void)pthread_mutex_lock(&costs->lock);
	struct cost cost =
	    cost_fit(costs->kinds[kind].samples, costs->kinds[kind].count, &guesses[kind]);
	(void)pthread_mutex_unlock(&costs->lock);
	return cost;
}

void costs_free(struct costs *costs)
{
	if (costs == NULL)
		return;
	(void)pthread_mutex_destroy(&costs->keeping);
	(void)pthread_mutex_destroy(&costs->lock);
	free(costs->path);
	free(costs);
}
