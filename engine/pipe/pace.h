/* SPDX-License-Identifier: Apache-2.0 */
/* A limit on bytes a second: pure arithmetic, no clock and no sleep of its own. */
#ifndef HAUL_ENGINE_PIPE_PACE_H
#define HAUL_ENGINE_PIPE_PACE_H

#include <stdint.h>

struct pace {
	double due_ms; /* when all that was sent would have left at the limit's rate */
};

/* `bytes` have been sent at now_ms (monotonic) under a limit of bytes_per_s (0 = none): how long to
 * wait before more is sent. An idle time is no credit for later; a changed limit counts from the
 * next call on. */
double pace_wait_ms(struct pace *pace, uint64_t bytes, uint64_t bytes_per_s, double now_ms);

#endif
