/* SPDX-License-Identifier: Apache-2.0 */
/* The inventory that CRIU's dumps look for where the round before has its images: haul writes it
 * for a round that it has read itself. */
#ifndef HAUL_ENGINE_CRIU_INVENTORY_H
#define HAUL_ENGINE_CRIU_INVENTORY_H

#include "proto/pack.h"
#include "proto/status.h"

/* Into this directory. uptime_us: before anything of the tree was looked at; CRIU takes a process
 * that began later for one that has nothing in that round. */
must_check status *criu_inventory_write(const char *dir, uint64_t uptime_us);

/* As CRIU reads it. */
must_check status *criu_uptime_now(uint64_t *ret_us);

/* Pure part. */
must_check status *criu_inventory_encode(uint64_t uptime_us, struct buffer *ret_content);
/* The first number of /proc/uptime, in seconds and hundredths. DATA_LOSS when it is none. */
must_check status *criu_uptime_parse(const char *text, uint64_t *ret_us);

#endif
