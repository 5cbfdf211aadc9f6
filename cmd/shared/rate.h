/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes a second as people write them. */
#ifndef HAUL_CMD_SHARED_RATE_H
#define HAUL_CMD_SHARED_RATE_H

#include <stdint.h>

#include "proto/status.h"

/* "800kbit", "100mbit", "1gbit" (powers of 1000, bits), "512KiB", "50MiB", "1GiB" (powers of 1024,
 * bytes), or "none", which is 0. INVALID_ARGUMENT, OUT_OF_RANGE. */
must_check status *rate_parse(const char *text, uint64_t *ret_bytes_per_s);

#endif
