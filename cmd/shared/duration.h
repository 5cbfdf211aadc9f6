/* SPDX-License-Identifier: Apache-2.0 */
/* Durations as people write them: 300ms, 10s, 5m, 2h. */
#ifndef HAUL_CMD_SHARED_DURATION_H
#define HAUL_CMD_SHARED_DURATION_H

#include <stdint.h>

#include "proto/status.h"

/* A whole number with its unit, or a plain 0; at most INT32_MAX ms (24 days).
 * INVALID_ARGUMENT says how a duration is written. */
must_check status *duration_parse(const char *text, int64_t *ret_ms);

#endif
