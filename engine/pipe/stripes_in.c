/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "engine/pipe/memory_pipe.h"
#include "engine/pipe/stripes.h"

enum { PLACES = 2 }; /* a stripe's: one is being used, one is being filled */

struct place {
	struct pipe_in in;
	uint8_t *unpacked; /* MEMORY_BATCH_BYTES, once one was needed */
	struct stripe_frame frame;
	bool is_full;
};

struct stripe {
	struct stripes_in *all;
	struct pipe *pipe;
	struct batch_packer *packer;
	pthread_t thread;
	struct place places[PLACES];
	unsigned next;	/* the taker's */
	status *error;	/* behind the last full place; by the lock */
	bool has_ended; /* its thread; by the lock */
};

struct stripes_in {
	struct stripe of[LIMIT_STRIPES];
	unsigned count;
	unsigned turn; /* the taker's */
	struct place *used;
	bool is_over;	    /* the round has ended on every pipe */
	int64_t silence_ms; /* of each pipe: it has its turn only once in so many frames */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_stopping; /* by the lock */
};

/* --- one stripe's thread --- */

static status *unpack(struct stripe *stripe, struct place *place)
{
	struct stripe_frame *frame = &place->frame;

	if (place->unpacked == NULL)
		place->unpacked = malloc(MEMORY_BATCH_BYTES);
	if (place->unpacked == NULL)
		return status_errnof(ENOMEM, "a batch of pages");
	frame->kind = HAUL__V1__FRAME_KIND__FRAME_BATCH;
	frame->data = place->unpacked;
	return memory_batch_unpack(stripe->packer, place->in.body, place->in.size, place->unpacked,
				   MEMORY_BATCH_BYTES, &frame->size);
}

static status *receive_into(struct stripe *stripe, struct place *place)
{
	status *st = pipe_receive(stripe->pipe, stripe->all->silence_ms, &place->in);

	if (st != NULL)
		return st;
	place->frame = (struct stripe_frame){
	    .kind = place->in.kind,
	    .data = place->in.body,
	    .size = place->in.size,
	    .wire = place->in.size,
	};
	switch (place->in.kind) {
	case HAUL__V1__FRAME_KIND__FRAME_BATCH:
	case HAUL__V1__FRAME_KIND__FRAME_ROUND:
		return NULL;
	case HAUL__V1__FRAME_KIND__FRAME_PACKED:
		return unpack(stripe, place);
	default:
		return status_errorf(STATUS_DATA_LOSS, "a frame of kind %d came among the pages",
				     (int)place->in.kind);
	}
}

/* Until there is room, or it is to end: false. */
static bool await_room(struct stripe *stripe, const struct place *place)
{
	struct stripes_in *all = stripe->all;

	(void)pthread_mutex_lock(&all->lock);
	while (place->is_full && !all->is_stopping)
		(void)pthread_cond_wait(&all->changed, &all->lock);
	bool go_on = !all->is_stopping;
	(void)pthread_mutex_unlock(&all->lock);
	return go_on;
}

static void *run_stripe(void *self)
{
	struct stripe *stripe = self;
	struct stripes_in *all = stripe->all;
	bool is_over = false;

	for (unsigned i = 0; !is_over && await_room(stripe, &stripe->places[i]);
	     i = (i + 1) % PLACES) {
		struct place *place = &stripe->places[i];
		status *st = receive_into(stripe, place);
		(void)pthread_mutex_lock(&all->lock);
		stripe->error = st;
		place->is_full = st == NULL;
		is_over = st != NULL || place->frame.kind == HAUL__V1__FRAME_KIND__FRAME_ROUND;
		(void)pthread_cond_broadcast(&all->changed);
		(void)pthread_mutex_unlock(&all->lock);
	}
	(void)pthread_mutex_lock(&all->lock);
	stripe->has_ended = true;
	(void)pthread_cond_broadcast(&all->changed);
	(void)pthread_mutex_unlock(&all->lock);
	return NULL;
}

/* --- the taker --- */

static void give_back(struct stripes_in *in)
{
	struct place *place = TAKE(in->used);

	if (place == NULL)
		return;
	pipe_in_drop(&place->in);
	(void)pthread_mutex_lock(&in->lock);
	place->is_full = false;
	(void)pthread_cond_broadcast(&in->changed);
	(void)pthread_mutex_unlock(&in->lock);
}

/* The next frame of this stripe. */
static status *take(struct stripes_in *in, struct stripe *stripe, struct place **ret_place)
{
	struct place *place = &stripe->places[stripe->next];
	status *st = NULL;

	(void)pthread_mutex_lock(&in->lock);
	while (!place->is_full && !stripe->has_ended)
		(void)pthread_cond_wait(&in->changed, &in->lock);
	if (!place->is_full)
		st = stripe->error != NULL ? status_copy(stripe->error)
					   : status_errorf(STATUS_INTERNAL, "the round is over");
	(void)pthread_mutex_unlock(&in->lock);
	stripe->next = (stripe->next + 1) % PLACES;
	*ret_place = place;
	return st;
}

/* The round has ended on the stripe whose turn it was; on the others it must, too. */
static status *end_others(struct stripes_in *in)
{
	for (unsigned i = 1; i < in->count; i++) {
		struct place *place;
		status *st = take(in, &in->of[(in->turn + i) % in->count], &place);
		if (st != NULL)
			return st;
		if (place->frame.kind != HAUL__V1__FRAME_KIND__FRAME_ROUND)
			return status_errorf(STATUS_DATA_LOSS,
					     "a batch came behind the end of its round");
	}
	in->is_over = true;
	return NULL;
}

status *stripes_in_next(struct stripes_in *in, struct stripe_frame *ret_frame)
{
	struct place *place;

	give_back(in);
	status *st = take(in, &in->of[in->turn], &place);
	if (st == NULL && place->frame.kind == HAUL__V1__FRAME_KIND__FRAME_ROUND)
		st = end_others(in);
	if (st != NULL)
		return st;
	in->used = place;
	in->turn = (in->turn + 1) % in->count;
	*ret_frame = place->frame;
	return NULL;
}

/* --- new, free --- */

static status *start_stripe(struct stripes_in *in, struct pipe *pipe)
{
	struct stripe *stripe = &in->of[in->count];

	stripe->all = in;
	stripe->pipe = pipe;
	status *st = batch_packer_new(0, &stripe->packer);
	if (st != NULL)
		return st;
	int failed = pthread_create(&stripe->thread, NULL, run_stripe, stripe);
	if (failed != 0) {
		batch_packer_free(stripe->packer);
		return status_errnof(failed, "cannot start a thread");
	}
	in->count++;
	return NULL;
}

status *stripes_in_new(const struct pipe_set *set, int64_t silence_ms, struct stripes_in **ret_in)
{
	scoped(stripes_in) struct stripes_in *in = calloc(1, sizeof(*in));

	if (in == NULL)
		return status_errnof(ENOMEM, "memory pipes");
	in->silence_ms = silence_ms * set->count;
	(void)pthread_mutex_init(&in->lock, NULL);
	(void)pthread_cond_init(&in->changed, NULL);
	status *st = NULL;
	for (unsigned i = 0; i < set->count && st == NULL; i++)
		st = start_stripe(in, set->pipes[i]);
	if (st == NULL)
		*ret_in = TAKE(in);
	return st;
}

static void free_stripe(struct stripe *stripe)
{
	(void)pthread_join(stripe->thread, NULL);
	for (unsigned i = 0; i < PLACES; i++) {
		pipe_in_drop(&stripe->places[i].in);
		free(stripe->places[i].unpacked);
	}
	batch_packer_free(stripe->packer);
	status_free(stripe->error);
}

void stripes_in_free(struct stripes_in *in)
{
	if (in == NULL)
		return;
	(void)pthread_mutex_lock(&in->lock);
	in->is_stopping = true;
	(void)pthread_cond_broadcast(&in->changed);
	(void)pthread_mutex_unlock(&in->lock);
	for (unsigned i = 0; i < in->count && !in->is_over; i++)
		pipe_hang_up(in->of[i].pipe);
	for (unsigned i = 0; i < in->count; i++)
		free_stripe(&in->of[i]);
	(void)pthread_cond_destroy(&in->changed);
	(void)pthread_mutex_destroy(&in->lock);
	free(in);
}
