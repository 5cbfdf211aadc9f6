/* SPDX-License-Identifier: Apache-2.0 */
/* Where a task has memory that may stay behind: private and anonymous, as lazy_ranges finds it at
 * the destination. CRIU says so for each page (PAGE_LAZY), but takes all of a process for stack
 * when one of its threads has a stack pointer at the very start of a page (is_stack in criu/mem.c
 * compares the other half of the address, 4.1). */
#ifndef HAUL_ENGINE_CRIU_LATE_AREAS_H
#define HAUL_ENGINE_CRIU_LATE_AREAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/status.h"

struct late_areas {
	struct late_area {
		uint64_t start, end;
	} *list; /* by address; areas that touch are one */
	size_t count, room;
};

/* Anew, of a process. None when it is not there, or has locked memory: of that CRIU knows which is.
 */
must_check status *late_areas_read(struct late_areas *areas, pid_t pid);

/* Whether these pages may: *ret_alike, one at least, is how many of them this is the answer for. */
bool late_areas_have(const struct late_areas *areas, uint64_t address, uint64_t pages,
		     uint64_t *ret_alike);

void late_areas_free(struct late_areas *areas);

#endif
