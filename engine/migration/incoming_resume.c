/* SPDX-License-Identifier: Apache-2.0 */
/* The link was lost while memory was copied ahead, and is back: what has come stays, the rest comes
 * over new pipes. */
#include <string.h>

#include "engine/log.h"
#include "engine/migration/incoming_internal.h"

/* The threads that wait for the lost pipes end; so does a method that waits for them and has the
 * turn. Pipes stand while is_open and PREPARED. */
static status *interrupt_pipes(struct incomings *incomings, const struct rpc_call *call,
			       const Haul__V1__ResumeRequest *request)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&incomings->lock);
	for (size_t i = 0; i < incomings->count; i++) {
		struct incoming *incoming = incomings->list[i];
		if (strcmp(incoming->id, request->id) != 0 ||
		    incoming->state != INCOMING_PREPARED ||
		    strcmp(call->caller->name, incoming->source) != 0)
			continue;
		if (request->attempt <= incoming->attempt) {
			st = status_errorf(STATUS_FAILED_PRECONDITION,
					   "attempt %u comes late, %u was answered",
					   request->attempt, incoming->attempt);
			continue;
		}
		incoming->attempt = request->attempt;
		if (incoming->is_open) {
			pipe_set_interrupt(&incoming->memory);
			pipe_interrupt(incoming->images);
		}
		incoming->is_open = false;
	}
	(void)pthread_mutex_unlock(&incomings->lock);
	return st;
}

/* Was it the pipe that ended the round? */
static bool is_of_the_pipe(const status *st)
{
	enum status_code code = status_code_of(st);

	return code == STATUS_CANCELLED || code == STATUS_UNAVAILABLE ||
	       code == STATUS_DEADLINE_EXCEEDED;
}

/* Ends the round that was being received where it is. */
static status *end_early(struct incoming *incoming)
{
	uint64_t pages;

	if (incoming->is_receiving)
		(void)pthread_join(incoming->receiving, NULL);
	incoming->is_receiving = false;
	if (!incoming->is_unfinished)
		return NULL;
	/* Begun, but no page of it was waited for. */
	if (incoming->progress.round != incoming->round)
		incoming->progress = (struct memory_progress){.round = incoming->round};
	status *st = NULL;
	if (!incoming->progress.is_whole) {
		if (incoming->received_status != NULL && !is_of_the_pipe(incoming->received_status))
			return status_copy(incoming->received_status);
		st = page_store_cut(incoming->store, &pages);
	}
	if (st == NULL)
		st = incoming_note_round(incoming);
	incoming->is_unfinished = st != NULL;
	return st;
}

static status *resume(struct incoming *incoming, const struct rpc_call *call,
		      Haul__V1__ResumeResponse *ret_response)
{
	if (incoming->is_last)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "the memory of the frozen tree was on its way: that is not taken up again");
	/* Those of an attempt whose answer got lost. */
	pipe_set_interrupt(&incoming->memory);
	if (incoming->images != NULL)
		pipe_interrupt(incoming->images);
	status *st = end_early(incoming);
	if (st != NULL)
		return st;
	const struct memory_progress *progress = &incoming->progress;
	ret_response->round = incoming->round;
	ret_response->whole = incoming->round == 0 || progress->is_whole;
	ret_response->batches = progress->batches;
	ret_response->digest = progress->digest;
	incoming_close_pipes(incoming);
	const struct incoming_pipes pipes = {&ret_response->memory, &ret_response->images,
					     &ret_response->more_memory,
					     &ret_response->n_more_memory};
	return incoming_open_pipes(incoming, call, &pipes);
}

status *incoming_resume(struct incomings *incomings, const struct rpc_call *call,
			const Haul__V1__ResumeRequest *request,
			Haul__V1__ResumeResponse *ret_response)
{
	struct incoming *incoming;
	status *st = interrupt_pipes(incomings, call, request);

	if (st == NULL)
		st = incoming_enter(incomings, call, request->id, 1U << INCOMING_PREPARED,
				    &incoming);
	if (st != NULL)
		return st;
	st = resume(incoming, call, ret_response);
	(void)pthread_mutex_lock(&incomings->lock);
	/* Another attempt that came meanwhile waits for its turn: these pipes are not for long. */
	incoming->is_open = st == NULL && request->attempt == incoming->attempt;
	(void)pthread_mutex_unlock(&incomings->lock);
	if (st == NULL)
		log_line(LOG_LEVEL_INFO, incoming->id,
			 "pipes were lost in round %u, of which %llu batches are here",
			 incoming->round, (unsigned long long)incoming->progress.batches);
	incoming_leave(incomings, incoming);
	return st;
}
