/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "engine/pipe/codec_choice.h"
#include "engine/pipe/pace.h"
#include "engine/pipe/stripes.h"
#include "proto/clock.h"

enum {
	PACE_MOST_MS = 2000, /* of waiting at once: a changed limit, or the end, is not far */
	SEND_MS = 5000, /* a link that takes nothing for so long is broken; the tree may be frozen
			   meanwhile */
};

struct stripe {
	struct stripes_out *all;
	struct pipe *pipe;
	struct batch_packer *packer;
	pthread_t thread;
	/* The frame that is its thread's turn, by the lock: */
	bool has_frame;
	struct pipe_out frame;
	size_t size;
	bool is_last;
};

struct stripes_out {
	struct stripe of[LIMIT_STRIPES];
	unsigned count;
	unsigned next; /* the sender's */
	struct stripes_sent sent;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* By the lock: */
	struct codec_choice choice;
	struct pace pace;
	const atomic_uint_fast64_t *limit; /* bytes a second; NULL = none */
	bool is_stopping;
	status *error;
};

/* --- one frame, by its stripe's thread --- */

/* Packs the batch into a frame of its own when that makes it clearly smaller. */
static status *pack(struct stripe *stripe, enum batch_codec codec, size_t *size,
		    struct pipe_out *frame)
{
	struct pipe_out packed;

	if (codec == BATCH_RAW)
		return NULL;
	size_t room = *size - *size / 8;
	status *st =
	    pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_PACKED, BATCH_HEADER_BYTES + room, &packed);
	if (st != NULL)
		return st;
	size_t used = batch_pack(stripe->packer, codec, frame->body, *size,
				 packed.body + BATCH_HEADER_BYTES, room);
	if (used == 0) {
		pipe_out_drop(&packed);
		return NULL;
	}
	batch_header_encode(codec, (uint32_t)*size, packed.body);
	pipe_out_drop(frame);
	*frame = packed;
	*size = BATCH_HEADER_BYTES + used;
	return NULL;
}

/* Keeps to the limit, and returns how long that took; lock held. */
static double keep_pace(struct stripes_out *all, size_t sent)
{
	if (all->limit == NULL)
		return 0;
	double now = clock_monotonic_fine_ms();
	double wait = pace_wait_ms(&all->pace, sent, atomic_load(all->limit), now);
	if (wait < 1)
		return 0;
	struct timespec at = clock_at((int64_t)(now + (wait < PACE_MOST_MS ? wait : PACE_MOST_MS)));
	while (!all->is_stopping &&
	       pthread_cond_timedwait(&all->changed, &all->lock, &at) != ETIMEDOUT)
		;
	return clock_monotonic_fine_ms() - now;
}

/* What it was and took, for who counts and for the next choice. Lock held. The stripes work side by
 * side: a byte costs each of them its part of the time. */
static void note_cost(struct stripe *stripe, enum batch_codec codec, struct batch_cost cost)
{
	struct stripes_out *all = stripe->all;

	all->sent.note(all->sent.self, cost.wire, cost.wait_ms / all->count);
	cost.wait_ms += stripe->is_last ? 0 : keep_pace(all, cost.wire);
	cost.wait_ms /= all->count;
	cost.work_ms /= all->count;
	/* Another stripe may have tried another one meanwhile. */
	if (codec == all->choice.now)
		codec_choice_note(&all->choice, &cost, stripe->is_last);
}

/* Lock held, but not while it works. */
static status *send_frame(struct stripe *stripe)
{
	struct stripes_out *all = stripe->all;
	enum batch_codec codec = all->choice.now;
	size_t size = stripe->size;

	(void)pthread_mutex_unlock(&all->lock);
	double begun = clock_monotonic_fine_ms(), waited = pipe_waited_ms(stripe->pipe);
	status *st = pack(stripe, codec, &size, &stripe->frame);
	if (st == NULL)
		st = pipe_send_frame(stripe->pipe, &stripe->frame, size, SEND_MS);
	struct batch_cost cost = {.content = stripe->size,
				  .wire = size,
				  .wait_ms = pipe_waited_ms(stripe->pipe) - waited};
	cost.work_ms = clock_monotonic_fine_ms() - begun - cost.wait_ms;
	(void)pthread_mutex_lock(&all->lock);
	if (st == NULL)
		note_cost(stripe, codec, cost);
	return st;
}

static void *run_stripe(void *self)
{
	struct stripe *stripe = self;
	struct stripes_out *all = stripe->all;

	(void)pthread_mutex_lock(&all->lock);
	while (!all->is_stopping) {
		if (!stripe->has_frame) {
			(void)pthread_cond_wait(&all->changed, &all->lock);
			continue;
		}
		all->error = status_first(all->error, send_frame(stripe));
		pipe_out_drop(&stripe->frame);
		stripe->has_frame = false;
		(void)pthread_cond_broadcast(&all->changed);
	}
	(void)pthread_mutex_unlock(&all->lock);
	return NULL;
}

/* --- the sender's side --- */

/* Why nothing can be sent any more. Lock held. */
static status *trouble(const struct stripes_out *out)
{
	if (out->error != NULL)
		return status_copy(out->error);
	return out->is_stopping ? status_errorf(STATUS_CANCELLED, "the memory pipes were stopped")
				: NULL;
}

/* Lock held. */
static void wait_for_stripe(struct stripes_out *out, const struct stripe *stripe)
{
	while (stripe->has_frame && out->error == NULL && !out->is_stopping)
		(void)pthread_cond_wait(&out->changed, &out->lock);
}

status *stripes_out_send(struct stripes_out *out, struct pipe_out *frame, size_t size, bool is_last)
{
	struct stripe *stripe = &out->of[out->next];

	(void)pthread_mutex_lock(&out->lock);
	wait_for_stripe(out, stripe);
	status *st = trouble(out);
	if (st == NULL) {
		stripe->frame = *frame;
		*frame = (struct pipe_out){0};
		stripe->size = size;
		stripe->is_last = is_last;
		stripe->has_frame = true;
		out->next = (out->next + 1) % out->count;
		(void)pthread_cond_broadcast(&out->changed);
	}
	(void)pthread_mutex_unlock(&out->lock);
	if (st != NULL)
		pipe_out_drop(frame);
	return st;
}

status *stripes_out_end(struct stripes_out *out, const ProtobufCMessage *end)
{
	(void)pthread_mutex_lock(&out->lock);
	for (unsigned i = 0; i < out->count; i++)
		wait_for_stripe(out, &out->of[i]);
	status *st = trouble(out);
	(void)pthread_mutex_unlock(&out->lock);
	for (unsigned i = 0; i < out->count && st == NULL; i++)
		st = pipe_send_message(out->of[i].pipe, HAUL__V1__FRAME_KIND__FRAME_ROUND, end,
				       SEND_MS);
	out->next = 0;
	return st;
}

/* --- new, limit, stop, free --- */

static status *start_stripe(struct stripes_out *out, struct pipe *pipe, int level)
{
	struct stripe *stripe = &out->of[out->count];

	stripe->all = out;
	stripe->pipe = pipe;
	status *st = batch_packer_new(level, &stripe->packer);
	if (st != NULL)
		return st;
	int failed = pthread_create(&stripe->thread, NULL, run_stripe, stripe);
	if (failed != 0) {
		batch_packer_free(stripe->packer);
		return status_errnof(failed, "cannot start a thread");
	}
	out->count++;
	return NULL;
}

status *stripes_out_new(const struct pipe_set *set, const struct batch_codecs *codecs,
			const struct stripes_sent *sent, struct stripes_out **ret_out)
{
	scoped(stripes_out) struct stripes_out *out = calloc(1, sizeof(*out));

	if (out == NULL)
		return status_errnof(ENOMEM, "memory pipes");
	out->sent = *sent;
	codec_choice_init(&out->choice, codecs->set);
	(void)pthread_mutex_init(&out->lock, NULL);
	clock_cond_init(&out->changed);
	(void)pthread_mutex_lock(&out->lock); /* the threads see the whole count */
	status *st = NULL;
	for (unsigned i = 0; i < set->count && st == NULL; i++)
		st = start_stripe(out, set->pipes[i], codecs->level);
	(void)pthread_mutex_unlock(&out->lock);
	if (st == NULL)
		*ret_out = TAKE(out);
	return st;
}

void stripes_out_limit(struct stripes_out *out, const atomic_uint_fast64_t *bytes_per_s)
{
	(void)pthread_mutex_lock(&out->lock);
	out->limit = bytes_per_s;
	(void)pthread_mutex_unlock(&out->lock);
}

void stripes_out_stop(struct stripes_out *out)
{
	(void)pthread_mutex_lock(&out->lock);
	out->is_stopping = true;
	(void)pthread_cond_broadcast(&out->changed);
	(void)pthread_mutex_unlock(&out->lock);
	for (unsigned i = 0; i < out->count; i++)
		pipe_interrupt(out->of[i].pipe);
}

void stripes_out_free(struct stripes_out *out)
{
	if (out == NULL)
		return;
	/* What has been handed to a pipe may still be on its way: that is not cut off. */
	(void)pthread_mutex_lock(&out->lock);
	out->is_stopping = true;
	(void)pthread_cond_broadcast(&out->changed);
	for (unsigned i = 0; i < out->count; i++)
		if (out->of[i].has_frame)
			pipe_interrupt(out->of[i].pipe);
	(void)pthread_mutex_unlock(&out->lock);
	for (unsigned i = 0; i < out->count; i++) {
		(void)pthread_join(out->of[i].thread, NULL);
		pipe_out_drop(&out->of[i].frame);
		batch_packer_free(out->of[i].packer);
	}
	status_free(out->error);
	(void)pthread_cond_destroy(&out->changed);
	(void)pthread_mutex_destroy(&out->lock);
	free(out);
}
