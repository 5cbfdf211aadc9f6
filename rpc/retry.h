/* SPDX-License-Identifier: Apache-2.0 */
/* When a call is tried again: gRPC's retry policy and throttling (its proposal A6). Attempts are
 * counted and paused for longer and longer, with jitter so that clients that lost the same server
 * do not come back together; and a budget keeps a client from multiplying the load of a server that
 * is in trouble: each failed attempt takes a token, each answer gives a tenth of one back, and
 * without more than half of the tokens nothing is tried again. */
#ifndef HAUL_RPC_RETRY_H
#define HAUL_RPC_RETRY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum {
	RETRY_ATTEMPTS = 5, /* the first included */
	RETRY_FIRST_MS = 100,
	RETRY_LONGEST_MS = 2000,
	RETRY_JITTER_PERCENT = 20,
	RETRY_TOKENS = 10,
};

struct retry_budget {
	pthread_mutex_t lock;
	int tenths; /* of tokens */
};

void retry_budget_init(struct retry_budget *budget);
void retry_budget_fini(struct retry_budget *budget);

/* An attempt failed: may there be another? */
bool retry_budget_failed(struct retry_budget *budget);
/* An answer came, good or bad. */
void retry_budget_succeeded(struct retry_budget *budget);

/* The pause after so many attempts (from 1), at random within RETRY_JITTER_PERCENT. */
int64_t retry_backoff_ms(unsigned attempts);

#endif
