/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/clock.h"

double clock_monotonic_fine_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1000 + (double)now.tv_nsec / 1e6;
}

int64_t clock_monotonic_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_unix_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_left_ms(int64_t deadline_ms)
{
	if (deadline_ms == 0)
		return INT64_MAX;
	int64_t left = deadline_ms - clock_monotonic_ms();
	return left > 0 ? left : 0;
}

struct timespec clock_at(int64_t monotonic_ms)
{
	return (struct timespec){.tv_sec = monotonic_ms / 1000,
				 .tv_nsec = monotonic_ms % 1000 * 1000000};
}

void clock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;

	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(cond, &attributes);
	(void)pthread_condattr_destroy(&attributes);
}
