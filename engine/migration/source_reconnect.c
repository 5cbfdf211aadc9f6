/* SPDX-License-Identifier: Apache-2.0 */
/* The link was lost in the middle of pre-copy: once it is back, it goes on with what is there. */
#include <errno.h>
#include <stdio.h>

#include "engine/log.h"
#include "engine/migration/source_internal.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"

enum {
	RECONNECTS_MOST =
	    16,		/* of one migration: a link that comes and goes does not copy anything */
	ASK_MS = 2000,	/* the first attempt; each has twice the time of the one before */
	PAUSE_MS = 250, /* between two */
	NOTE = 160,
};

/* Is this what a lost link makes of a round, of its pages or of its calls? */
static bool is_of_the_link(const struct source *source, const status *st)
{
	enum status_code code = status_code_of(st);

	return (source->sender != NULL && memory_sender_lost_pipe(source->sender)) ||
	       code == STATUS_UNAVAILABLE || code == STATUS_DEADLINE_EXCEEDED;
}

static bool may_be_asked_again(const status *st)
{
	return status_code_of(st) == STATUS_UNAVAILABLE ||
	       status_code_of(st) == STATUS_DEADLINE_EXCEEDED;
}

/* False when it is interrupted. */
static bool wait_a_moment(struct source *source)
{
	const struct timespec at = clock_at(clock_monotonic_ms() + PAUSE_MS);

	(void)pthread_mutex_lock(&source->lock);
	while (!source_is_interrupted_locked(source) &&
	       pthread_cond_timedwait(&source->told, &source->lock, &at) != ETIMEDOUT)
		;
	bool go_on = !source_is_interrupted_locked(source);
	(void)pthread_mutex_unlock(&source->lock);
	return go_on;
}

/* Until the destination answers, says that it will not, or it is interrupted: by a user, by
 * --timeout, or by the keeper, when nothing was heard for the lease. A destination that answers the
 * keeper but not this is given up after a lease, too. */
static status *ask(struct source *source, ProtobufCMessage **ret_response)
{
	int64_t deadline_ms = clock_monotonic_ms() + source->core->config.lease_ms;

	for (int64_t patience_ms = ASK_MS;; patience_ms *= 2) {
		Haul__V1__ResumeRequest request = HAUL__V1__RESUME_REQUEST__INIT;
		int64_t left_ms = deadline_ms - clock_monotonic_ms();
		request.id = source->id;
		request.attempt = ++source->attempt;
		status *st =
		    source_call(source, "Resume", &request.base,
				patience_ms < left_ms ? patience_ms : left_ms, ret_response);
		if (st == NULL || !may_be_asked_again(st) || !wait_a_moment(source) ||
		    clock_monotonic_ms() >= deadline_ms)
			return st;
		status_free(st);
	}
}

/* A CRIU whose memory socket was shut is of no more use, nor are the pipes. */
static status *open_anew(struct source *source, const Haul__V1__ResumeResponse *there)
{
	const struct memory_progress progress = {there->round, there->whole, there->batches,
						 there->digest};
	const struct source_pipes pipes = {there->memory, there->images, there->more_memory,
					   there->n_more_memory};
	struct pipe_set memory __attribute__((cleanup(pipe_set_free))) = {0};
	scoped(pipe) struct pipe *images = NULL;
	struct swrk *swrk = source->swrk;

	source_own_session(source, NULL);
	swrk_free(swrk);
	status *st = source_open_session(source);
	if (st == NULL)
		st = source_dial(source, &pipes, &memory, &images);
	if (st == NULL)
		st = memory_sender_resume(source->sender, swrk_memory_fd(source->swrk), &memory,
					  &progress);
	if (st != NULL)
		return st;
	struct pipe_set lost_memory = source->memory;
	struct pipe *lost_images = source->images;
	source_own_pipes(source, &memory, TAKE(images));
	memory = (struct pipe_set){0};
	pipe_set_free(&lost_memory);
	pipe_free(lost_images);
	return NULL;
}

/* The round that was cut: nobody knows what it took, nor what is dirty. */
static void note_cut_round(struct source *source, unsigned begun, unsigned there, double begun_ms)
{
	struct round_view shown = {0};

	source->round = there;
	if (there < begun)
		return;
	memory_sender_progress(source->sender, &shown.memory);
	shown.duration_ms = clock_monotonic_fine_ms() - begun_ms;
	source->rounds[there - 1] = (struct converge_round){
	    .pages = source->survey.resident_bytes / PAGE_BYTES,
	    .begun_ms = begun_ms,
	    .ended_ms = begun_ms + shown.duration_ms,
	};
	source_show_round(source, &shown);
}

static status *reconnect(struct source *source, double begun_ms, double *ret_lost_ms)
{
	scoped(message) ProtobufCMessage *response = NULL;
	double lost = clock_monotonic_fine_ms();
	unsigned begun = source->round;
	status *st = ask(source, &response);

	if (st != NULL)
		return st;
	const Haul__V1__ResumeResponse *there = (const Haul__V1__ResumeResponse *)response;
	if (there->round > begun || there->round + 1 < begun)
		return status_errorf(STATUS_DATA_LOSS, "round %u was begun, %u is there", begun,
				     there->round);
	st = open_anew(source, there);
	if (st != NULL)
		return st;
	note_cut_round(source, begun, there->round, begun_ms);
	*ret_lost_ms = clock_monotonic_fine_ms() - lost;
	return NULL;
}

status *source_reconnect(struct source *source, status *st, double begun_ms)
{
	unsigned round = source->round;
	double lost_ms = 0;
	char text[NOTE];
	scoped(status) status *why = source_interrupted(source);

	/* Sockets that somebody else has connected cannot be connected anew. */
	if (why != NULL || source->is_handed_over || !is_of_the_link(source, st) ||
	    source->reconnects == RECONNECTS_MOST)
		return st;
	log_status(LOG_LEVEL_WARN, source->id, "the link is lost, trying again", st);
	source->reconnects++;
	why = reconnect(source, begun_ms, &lost_ms);
	if (why != NULL) {
		log_status(LOG_LEVEL_WARN, source->id, "it cannot be taken up again", why);
		return status_detailf(st, "cause", "it could not be taken up again: %s",
				      status_message(why));
	}
	status_free(st);
	/* The kernel's bits of what the lost round was to send are gone. */
	source->is_untracked = true;
	frames_forget(source->frames);
	(void)snprintf(
	    text, sizeof(text),
	    "the link was lost in round %u and came back: it went on after %.1f s with what "
	    "had arrived",
	    round, lost_ms / 1000);
	source_note(source, text);
	return NULL;
}
