/* SPDX-License-Identifier: Apache-2.0 */
/* Pre-copy as a whole: how many rounds, how fast the tree may run meanwhile, and how it ends; what
 * the downtime will be, and what it was. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/migration/source_internal.h"
#include "engine/migration/throttle.h"
#include "proto/clock.h"
#include "proto/reason.h"

enum { NOTE = 256 };

/* --- what it takes --- */

static enum cost_kind dump_kind(const struct source *source)
{
	return source->tracking == TRACKING_SOFT_DIRTY ? COST_DUMP_TRACKED : COST_DUMP_READ;
}

static struct cost_size size_of(const struct source *source)
{
	return (struct cost_size){
	    .pages = (double)source->survey.resident_bytes / PAGE_BYTES,
	    .processes = (double)source->survey.pid_count,
	};
}

/* Between the freeze and the commit the destination is asked twice. */
static double ways_ms(const struct source *source)
{
	return 2 * source->call_ms;
}

struct converge_prediction source_predict(const struct source *source)
{
	const struct converge_history history = {source->rounds, source->round};
	const struct converge_costs costs = {
	    .size = size_of(source),
	    .dump = costs_now(source->core->costs, dump_kind(source)),
	    .restore = source->restore_cost,
	    .calls_ms = costs_now(source->core->costs, COST_CALLS).fixed_ms + ways_ms(source),
	};

	return converge_predict(&history, &costs);
}

void source_note_call(struct source *source, double took_ms)
{
	if (source->call_ms == 0 || took_ms < source->call_ms)
		source->call_ms = took_ms;
}

static void learn(const struct source *source, enum cost_kind kind, double took_ms)
{
	const struct cost_sample sample = {size_of(source), took_ms};

	costs_note(source->core->costs, kind, &sample);
}

struct prediction_view {
	struct converge_prediction prediction;
	double downtime_ms;
};

static void show_error(void *self, Haul__V1__Migration *view)
{
	const struct prediction_view *shown = self;

	view->downtime_ms = shown->downtime_ms;
	if (shown->prediction.downtime_ms > 0)
		view->prediction_error_ms = shown->downtime_ms - shown->prediction.downtime_ms;
}

void source_measured(struct source *source, double downtime_ms)
{
	const struct converge_prediction *predicted = &source->prediction;
	struct prediction_view shown = {*predicted, downtime_ms};
	const struct converge_history history = {source->rounds, source->round - 1};

	registry_change(source->core->registry, source->id, show_error, &shown);
	if (predicted->downtime_ms > 0)
		log_line(
		    LOG_LEVEL_INFO, source->id,
		    "downtime %.0f ms, predicted %.0f (dump %.0f of %.0f, restore %.0f of %.0f)",
		    downtime_ms, predicted->downtime_ms, source->final_ms,
		    predicted->dump_ms + predicted->transfer_ms, source->restore_ms,
		    predicted->restore_ms);
	/* Without a round ahead nothing is known of the link. */
	if (history.count > 0 && !source->is_late)
		learn(source, dump_kind(source),
		      source->final_ms -
			  converge_transfer_ms(&history, (double)source->final_bytes));
	const struct cost_sample calls = {{0, 0},
					  downtime_ms - source->final_ms - source->restore_ms -
					      ways_ms(source)};
	costs_note(source->core->costs, COST_CALLS, &calls);
}

/* --- slowing the tree down --- */

/* Processor time of the whole tree so far. What cannot be read counts as none. */
static double tree_cpu_ms(const struct source *source)
{
	pid_t *pids = NULL;
	size_t count = 0;
	double all = 0;
	scoped(status) status *st = proc_tree(source->pid, &pids, &count);

	for (size_t i = 0; i < count && st == NULL; i++) {
		double one = 0;
		scoped(status) status *gone = proc_cpu_ms(pids[i], &one);
		all += gone == NULL ? one : 0;
	}
	free(pids);
	return all;
}

/* How many processors the tree keeps busy when it is left alone. */
static void note_use(struct source *source)
{
	double now = clock_monotonic_fine_ms(), used = tree_cpu_ms(source);

	if (source->throttle == NULL && source->cpu_at_ms > 0 && now > source->cpu_at_ms) {
		double cpus = (used - source->cpu_ms) / (now - source->cpu_at_ms);
		source->cpus = cpus > source->cpus ? cpus : source->cpus;
	}
	source->cpu_ms = used;
	source->cpu_at_ms = now;
}

struct share_view {
	unsigned share;
};

static void show_share(void *self, Haul__V1__Migration *view)
{
	view->cpu_share_percent = ((const struct share_view *)self)->share;
}

static void set_share(struct source *source, unsigned share)
{
	struct share_view shown = {share < 100 ? share : 0};

	source->share = share;
	registry_change(source->core->registry, source->id, show_share, &shown);
}

/* First it is written down where each process belongs: whoever dies then, the tree gets back there.
 */
static status *begin_throttle(struct source *source)
{
	/* Where the clock's ticks showed nothing it is taken for one busy processor. */
	double cpus = source->cpus > 0.01 ? source->cpus : 1;
	status *st = source_note_origins(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESERVED);

	return st == NULL
		   ? throttle_start(source->core, source->id, source->pid, cpus, &source->throttle)
		   : st;
}

void source_full_speed(struct source *source)
{
	throttle_free(TAKE(source->throttle));
	scoped(status) status *st = throttle_undo(source->core, source->id, &source->fence);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, source->id, "the group of the slowed tree stays", st);
	if (source->share != 0 && source->share != 100)
		set_share(source, 100);
}

/* That it cannot be slowed down is no reason to fail: it goes on as without --auto-converge. */
static void slow_down(struct source *source)
{
	unsigned share = converge_next_share(source->share);
	scoped(status) status *st = source->throttle == NULL ? begin_throttle(source) : NULL;
	char text[NOTE];

	if (st == NULL)
		st = throttle_set(source->throttle, share);
	if (st == NULL) {
		log_line(LOG_LEVEL_INFO, source->id, "the tree is left %u %% of its time", share);
		set_share(source, share);
		return;
	}
	(void)snprintf(text, sizeof(text), "the workload could not be slowed down: %.180s",
		       status_message(st));
	source_note(source, text);
	source_full_speed(source);
	source->may_throttle = false;
}

/* --- pre-copy --- */

static status *not_converging(const struct source *source, const char *why)
{
	const struct converge_prediction *p = &source->prediction;
	status *st = status_errorf(
	    STATUS_FAILED_PRECONDITION,
	    "--max-downtime %u ms would not be kept after %u rounds: %s; %.0f ms are predicted "
	    "(dump %.0f, %.0f pages %.0f, restore %.0f)",
	    atomic_load(&source->max_downtime_ms), source->round, why, p->downtime_ms, p->dump_ms,
	    p->dirty_pages, p->transfer_ms, p->restore_ms);

	st = status_detailf(st, "next", "%s",
			    source->options.auto_converge
				? "a longer --max-downtime, or --on-timeout stop-copy"
				: "--auto-converge, a longer --max-downtime, or --on-timeout "
				  "stop-copy");
	return status_because(st, REASON_NOT_CONVERGING);
}

status *source_tell_convergence(const struct source *source, status *st)
{
	if (source->stage != SRC_PRECOPY || source->prediction.downtime_ms <= 0)
		return st;
	return status_detailf(st, "cause",
			      "copying ahead had not come to an end after %u rounds: %.0f ms of "
			      "downtime were predicted, --max-downtime is %u ms",
			      source->round, source->prediction.downtime_ms,
			      atomic_load(&source->max_downtime_ms));
}

/* The end of waiting, not by the prediction. */
static status *strategy(struct source *source, const char *why)
{
	char text[NOTE];

	bool is_late = source->mode == MODE_HYBRID ||
		       source->options.on_timeout == HAUL__V1__ON_TIMEOUT__POST_COPY;
	if (!is_late && source->options.on_timeout != HAUL__V1__ON_TIMEOUT__STOP_COPY)
		return not_converging(source, why);
	source->is_late = is_late;
	if (is_late)
		(void)snprintf(text, sizeof(text),
			       "%s: what is left is fetched after the workload runs at the "
			       "destination (%s)",
			       why,
			       source->mode == MODE_HYBRID ? "--mode hybrid"
							   : "--on-timeout post-copy");
	else
		(void)snprintf(text, sizeof(text),
			       "%s: what is left is copied while the workload is frozen, %.0f ms "
			       "are predicted (--on-timeout stop-copy)",
			       why, source->prediction.downtime_ms);
	source_note(source, text);
	return NULL;
}

static bool is_late(const struct source *source)
{
	return source->precopy_until_ms != 0 && clock_left_ms(source->precopy_until_ms) <= 0;
}

/* Between rounds of a tree that does not come to rest; an interrupt is seen afterwards. */
static void pause_for(struct source *source, int64_t ms)
{
	const struct timespec at = clock_at(clock_monotonic_ms() + ms);

	(void)pthread_mutex_lock(&source->lock);
	while (ms > 0 && !source_is_interrupted_locked(source) &&
	       pthread_cond_timedwait(&source->told, &source->lock, &at) != ETIMEDOUT)
		;
	(void)pthread_mutex_unlock(&source->lock);
}

unsigned source_most_rounds(const struct source *source)
{
	if (source->options.max_rounds != 0)
		return source->options.max_rounds;
	return atomic_load(&source->is_promise) || source->may_throttle ? LIMIT_ROUNDS
									: DEFAULT_ROUNDS;
}

static struct converge_limits limits_now(const struct source *source)
{
	return (struct converge_limits){
	    .max_downtime_ms = atomic_load(&source->max_downtime_ms),
	    .max_rounds = source_most_rounds(source),
	    .is_promise = atomic_load(&source->is_promise),
	    .share = source->may_throttle ? source->share : 0,
	};
}

static status *next_round(struct source *source, const struct converge_limits *limits)
{
	const struct converge_history history = {source->rounds, source->round};
	int64_t until =
	    source->precopy_until_ms != 0 ? source->precopy_until_ms : source->deadline_ms;

	pause_for(source,
		  converge_pause_ms(limits, &history, until != 0 ? clock_left_ms(until) : 0));
	status *st = source_interrupted(source);
	if (st == NULL && source->may_throttle)
		note_use(source);
	if (st == NULL)
		st = source_one_round(source);
	if (st == NULL && source->may_throttle)
		note_use(source);
	return st == NULL ? source_interrupted(source) : st;
}

static status *copy_ahead(struct source *source)
{
	for (;;) {
		const char *why = "";
		const struct converge_history history = {source->rounds, source->round};
		struct converge_limits limits = limits_now(source);
		source->prediction = source_predict(source);
		enum converge_verdict verdict =
		    converge_decide(&limits, &history, &source->prediction, &why);
		/* A round that was cut tells nothing, and CRIU has to look at one that was read
		 * here. */
		if ((source->is_untracked || source->is_live) && verdict == CONVERGE_FREEZE &&
		    history.count < limits.max_rounds)
			verdict = CONVERGE_AGAIN;
		if (verdict != CONVERGE_FREEZE && is_late(source))
			return strategy(source, "--timeout has passed");
		if (verdict == CONVERGE_GIVE_UP)
			return strategy(source, why);
		if (verdict == CONVERGE_FREEZE) {
			log_line(LOG_LEVEL_INFO, source->id,
				 "pre-copy ends after %u rounds: %s (predicted downtime %.0f ms)",
				 source->round, why, source->prediction.downtime_ms);
			return NULL;
		}
		if (verdict == CONVERGE_SLOWER)
			slow_down(source);
		status *st = next_round(source, &limits);
		if (st != NULL)
			return st;
	}
}

static void show_prediction(void *self, Haul__V1__Migration *view)
{
	const struct converge_prediction *shown = self;

	view->predicted_downtime_ms = shown->downtime_ms;
	view->predicted_dump_ms = shown->dump_ms + shown->transfer_ms;
	view->predicted_restore_ms = shown->restore_ms;
}

/* One round that names all pages: the kernel tells the final dump which have changed since, and
 * CRIU need not read the others while the tree is frozen. */
static status *mark_all(struct source *source)
{
	status *st = NULL;

	do {
		st = source_interrupted(source);
		if (st == NULL)
			st = source_one_round(source);
	} while (st == NULL && source->is_untracked);
	return st;
}

status *source_precopy(struct source *source)
{
	if (source->tracking == TRACKING_NONE)
		return NULL;
	if (source->mode == MODE_POST_COPY)
		return mark_all(source);
	if (source->tracking == TRACKING_HASH)
		source_note(source, "dirty pages are found by comparing content: while frozen all "
				    "memory is read once, what has changed is sent");
	source->share = 100;
	status *st = copy_ahead(source);
	/* CRIU has not: the final dump takes all, and content is compared. */
	source->is_untracked = source->is_untracked || source->is_live;
	registry_change(source->core->registry, source->id, show_prediction, &source->prediction);
	return st;
}
