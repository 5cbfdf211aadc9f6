/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU's stats-dump file, which it writes into its work directory after each (pre-)dump. */
#ifndef HAUL_ENGINE_CRIU_STATS_H
#define HAUL_ENGINE_CRIU_STATS_H

#include <stddef.h>
#include <stdint.h>

/* Milliseconds that the tree stood still in the last (pre-)dump; *ret_ms stays as it is when the
 * file is missing or strange (it is for the report only). */
void criu_stats_frozen_ms(const char *work_dir, double *ret_ms);

/* Pure part. */
void criu_stats_decode(const uint8_t *data, size_t size, double *ret_ms);

#endif
