/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/retry.h"

#include <sys/random.h>

enum { TENTHS = 10 };

void retry_budget_init(struct retry_budget *budget)
{
	(void)pthread_mutex_init(&budget->lock, NULL);
	budget->tenths = RETRY_TOKENS * TENTHS;
}

void retry_budget_fini(struct retry_budget *budget)
{
	(void)pthread_mutex_destroy(&budget->lock);
}

bool retry_budget_failed(struct retry_budget *budget)
{
	(void)pthread_mutex_lock(&budget->lock);
	budget->tenths = budget->tenths > TENTHS ? budget->tenths - TENTHS : 0;
	bool may_retry = budget->tenths > RETRY_TOKENS * TENTHS / 2;
	(void)pthread_mutex_unlock(&budget->lock);
	return may_retry;
}

void retry_budget_succeeded(struct retry_budget *budget)
{
	(void)pthread_mutex_lock(&budget->lock);
	if (budget->tenths < RETRY_TOKENS * TENTHS)
		budget->tenths++;
	(void)pthread_mutex_unlock(&budget->lock);
}

int64_t retry_backoff_ms(unsigned attempts)
{
	int64_t pause_ms = RETRY_FIRST_MS;
	uint32_t random = UINT32_MAX / 2; /* without random numbers: the middle */
	for (unsigned i = 1; i < attempts && pause_ms < RETRY_LONGEST_MS; i++)
		pause_ms *= 2;
	if (pause_ms > RETRY_LONGEST_MS)
		pause_ms = RETRY_LONGEST_MS;
	(void)!getrandom(&random, sizeof(random), GRND_NONBLOCK);
	int64_t spread_ms = pause_ms * RETRY_JITTER_PERCENT / 100;
	return pause_ms - spread_ms + (int64_t)random * 2 * spread_ms / UINT32_MAX;
}
