/* SPDX-License-Identifier: Apache-2.0 */
/* Who goes first when processors are scarce: what a workload stands still for. */
#ifndef HAUL_ENGINE_HOST_PRIORITY_H
#define HAUL_ENGINE_HOST_PRIORITY_H

#include <sys/resource.h>
#include <sys/types.h>

enum { PRIORITY_FIRST = -10 }; /* a niceness */

/* This thread or process, 0 for the calling thread, and what it starts from now on, goes before the
 * rest of this engine and what else is no nicer than usual. Without CAP_SYS_NICE nothing changes.
 */
static inline void priority_raise(pid_t id)
{
	(void)setpriority(PRIO_PROCESS, (id_t)id, PRIORITY_FIRST);
}

#endif
