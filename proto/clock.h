/* SPDX-License-Identifier: Apache-2.0 */
/* Time: monotonic milliseconds for waits and durations, unix milliseconds for people. */
#ifndef HAUL_PROTO_CLOCK_H
#define HAUL_PROTO_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

int64_t clock_monotonic_ms(void);
double clock_monotonic_fine_ms(void);
int64_t clock_unix_ms(void);

/* What is left until a monotonic deadline, at least 0; INT64_MAX for deadline 0 (none). */
int64_t clock_left_ms(int64_t deadline_ms);

/* A monotonic deadline as pthread_cond_timedwait takes it (conditions are on CLOCK_MONOTONIC). */
struct timespec clock_at(int64_t monotonic_ms);
/* Such a condition. */
void clock_cond_init(pthread_cond_t *cond);

#endif
