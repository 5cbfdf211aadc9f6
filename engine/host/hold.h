/* SPDX-License-Identifier: Apache-2.0 */
/* A tree that stands still for a moment, held as CRIU holds it (ptrace): none of its threads runs
 * or is in the middle of a system call, so nobody writes to its memory but devices, whose pages the
 * kernel has pinned. It goes on when it is released, and when hauld dies. */
#ifndef HAUL_ENGINE_HOST_HOLD_H
#define HAUL_ENGINE_HOST_HOLD_H

#include <stdint.h>
#include <sys/types.h>

#include "proto/status.h"

struct hold;

/* All threads of the tree below root, itself included. FAILED_PRECONDITION when another traces one
 * of them, DEADLINE_EXCEEDED when they do not come to a stop (one may wait for a disk). After an
 * error they go on as if nothing had been. */
must_check status *hold_tree(pid_t root, int64_t timeout_ms, struct hold **ret_hold);

void hold_release(struct hold *hold);

DEFINE_SCOPE(hold, struct hold *, hold_release);

#endif
