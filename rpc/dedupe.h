/* SPDX-License-Identifier: Apache-2.0 */
/* Remembers the answers to requests by (caller, request id), so that a repeated request gets the
 * same answer and is not carried out twice.
 *
 * Bounded in number, bytes and age. What a client may still send again, by its own deadline, is
 * never forgotten to make room: rather a new request is refused before anything is done. An answer
 * may go when its bytes are needed, the memory that the request was carried out stays. Thread-safe.
 */
#ifndef HAUL_RPC_DEDUPE_H
#define HAUL_RPC_DEDUPE_H

#include "proto/clock.h"
#include "proto/envelope.h"
#include "rpc/identity.h"

struct dedupe;

struct dedupe_limits {
	uint32_t requests;	 /* remembered at most; one caller may hold a quarter */
	size_t bytes;		 /* of answers */
	int64_t age_ms;		 /* nothing is remembered for longer */
	int64_t margin_ms;	 /* after its deadline a request is remembered so much longer */
	int64_t (*now_ms)(void); /* clock_monotonic_ms, but for tests */
};

enum dedupe_verdict {
	DEDUPE_RUN,	  /* new: run it, then call dedupe_finish with the ticket */
	DEDUPE_ANSWERED,  /* known: a copy of the answer */
	DEDUPE_DIFFERENT, /* the id was used for another request */
	DEDUPE_TIMEOUT,	  /* the first one still runs */
	DEDUPE_FORGOTTEN, /* it was carried out, its answer is not kept any more */
	DEDUPE_FULL,	  /* this one could not be remembered: it must not run */
};

/* limits: NULL for those of proto/limits.h. */
must_check status *dedupe_new(const struct dedupe_limits *limits, struct dedupe **ret_dedupe);

/* Waits for a running first request until deadline_ms (CLOCK_MONOTONIC; 0 = none), at most a
 * minute. */
enum dedupe_verdict dedupe_begin(struct dedupe *dedupe, const struct identity *caller,
				 const Haul__V1__Request *request, int64_t deadline_ms,
				 uint64_t *ret_ticket, struct buffer *ret_answer);

/* The answer to the request of this ticket; it is copied. */
void dedupe_finish(struct dedupe *dedupe, uint64_t ticket, const struct buffer *answer);

/* All waiting dedupe_begin return DEDUPE_TIMEOUT from now on. */
void dedupe_stop(struct dedupe *dedupe);

void dedupe_free(struct dedupe *dedupe);

#endif
