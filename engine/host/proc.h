/* SPDX-License-Identifier: Apache-2.0 */
/* /proc, read with care: every process may end while we look. */
#ifndef HAUL_ENGINE_HOST_PROC_H
#define HAUL_ENGINE_HOST_PROC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/status.h"

enum { PROC_TREE_MAX = 4096 };

/* /proc/PID/stat, what we need of it. */
struct proc_stat {
	pid_t pid, parent, session, tty;
	char state;
	uint64_t start_ticks;
	uint64_t flags; /* PF_KTHREAD = 0x00200000 */
	char name[64];
};
must_check status *proc_stat(pid_t pid, struct proc_stat *ret_stat); /* NOT_FOUND */

/* The tree below root, root first (parents before children): heap array. RESOURCE_EXHAUSTED above
 * PROC_TREE_MAX. */
must_check status *proc_tree(pid_t root, pid_t **ret_pids, size_t *ret_count);

/* Alive: exists, not a zombie, and the start time is this one (0 = any). */
bool proc_is_alive(pid_t pid, uint64_t start_ticks);

/* Certainly over: the kernel knows no such process, or only its zombie, or another with its number.
 * What cannot be read (no descriptors, no memory) is not over. */
bool proc_is_gone(pid_t pid, uint64_t start_ticks);

must_check status *proc_resident_bytes(pid_t pid, uint64_t *ret_bytes); /* Rss of /proc/PID/statm */

/* From now on the kernel calls those of its pages dirty that are written after this. Nobody is
 * stopped. */
must_check status *proc_reset_dirty(pid_t pid);

/* Processor time that it has used so far, its threads together. */
must_check status *proc_cpu_ms(pid_t pid, double *ret_ms);

/* Its pid as it sees it itself, in the innermost of its pid namespaces. */
must_check status *proc_innermost_pid(pid_t pid, pid_t *ret_pid);

/* The process that traces this one; 0 = none. */
must_check status *proc_tracer(pid_t pid, pid_t *ret_tracer);

/* /proc/sys/kernel/random/boot_id, without the newline. */
must_check status *proc_boot_id(char ret_id[40]);

#endif
