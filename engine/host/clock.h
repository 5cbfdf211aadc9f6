/* SPDX-License-Identifier: Apache-2.0 */
/* Time: monotonic milliseconds for waits and durations, unix milliseconds for people. */
#ifndef HAUL_ENGINE_HOST_CLOCK_H
#define HAUL_ENGINE_HOST_CLOCK_H

#include <stdint.h>

int64_t clock_monotonic_ms(void);
double clock_monotonic_fine_ms(void);
int64_t clock_unix_ms(void);

/* What is left until a monotonic deadline, at least 0; INT64_MAX for deadline 0 (none). */
int64_t clock_left_ms(int64_t deadline_ms);

#endif
