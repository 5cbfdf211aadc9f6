/* SPDX-License-Identifier: Apache-2.0 */
/* Which page frames a tree's memory lies in. The kernel's dirty bits tell of what is written, and
 * of pages that are moved one by one; but mremap moves whole page tables (2 MiB at addresses that
 * are multiples of it), and leaves their bits as they are (move_normal_pmd in mm/mremap.c): what
 * lies at the address then is called clean, and is another page. So a few frames of each such block
 * are noted whenever dirty bits are reset, and looked at when they are asked.
 *
 * Of a task whose pages the kernel merges with others (KSM), which takes their dirty bits,
 * nothing has ever stayed. Rounds are numbered one after the other: notes count in the next one
 * only.
 *
 * One round at a time, by one thread at a time. */
#ifndef HAUL_ENGINE_CRIU_FRAMES_H
#define HAUL_ENGINE_CRIU_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/status.h"

struct frames;

/* Of the tree below root. is_old_kernel: without PAGEMAP_SCAN (before 6.7), also where there is
 * one. */
must_check status *frames_new(pid_t root, bool is_old_kernel, struct frames **ret_frames);

/* The process with that pid as it sees it itself; 0: there is none. */
must_check status *frames_find(struct frames *frames, uint64_t task, pid_t *ret_pid);

/* The task (its pid as it sees it itself) stands still, the dirty bits tell what it has written
 * since the look before, and are reset before it goes on (not after the last one: nothing is
 * noted). The first look in a round counts. What cannot be looked at has not stayed, so only a lack
 * of memory is an error. */
must_check status *frames_look(struct frames *frames, uint64_t task, unsigned round, bool is_last);

/* What is clean of these pages is what lay there at the look before, and was read there since.
 * *ret_alike: of so many this is the answer, one at least. False of what was not looked at in this
 * round. */
bool frames_have_stayed(const struct frames *frames, uint64_t task, unsigned round,
			uint64_t address, uint64_t pages, uint64_t *ret_alike);

/* Before and after a reader has read these pages of a task that runs: if what lies there is not
 * what was noted they will not have stayed, even if it comes back. pagemap: /proc/PID/pagemap of
 * the task. */
void frames_witness(struct frames *frames, uint64_t task, int pagemap, uint64_t address,
		    uint64_t pages);

/* Content of a task that may run, witnessed. Returns how many pages of it could be read. */
size_t frames_read(struct frames *frames, uint64_t task, uint64_t address, size_t pages,
		   uint8_t *data);

/* Of all looks so far: nothing has stayed. */
void frames_forget(struct frames *frames);

void frames_free(struct frames *frames);

DEFINE_SCOPE(frames, struct frames *, frames_free);

#endif
