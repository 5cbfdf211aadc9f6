/* SPDX-License-Identifier: Apache-2.0 */
/* The pages of a tree while it runs, as CRIU's pre-dump would send them: a round of pre-copy where
 * the kernel cannot track dirty pages, for shared anonymous memory, which CRIU never pre-dumps, and
 * the first round everywhere, because CRIU's would stop the tree for as long as its memory is
 * large. Read without stopping anybody, straight into
 * the frame that they leave with: a page may be torn, or stale a
 * moment later. That is why the last round, of the frozen tree, is CRIU's, and sends each page
 * whose content is not what was read here (page_table.h), or that the kernel calls dirty since
 * before it was read. What is left out here is only sent later. */
#ifndef HAUL_ENGINE_CRIU_LIVE_PAGES_H
#define HAUL_ENGINE_CRIU_LIVE_PAGES_H

#include <stdbool.h>
#include <sys/types.h>

#include "engine/criu/frames.h"
#include "engine/criu/page_stream.h"
#include "proto/status.h"

struct live_options {
	bool is_private;       /* private memory of each task */
	bool is_shared;	       /* shared anonymous memory, once for the tree */
	bool is_old_kernel;    /* do without PAGEMAP_SCAN, for tests */
	struct frames *frames; /* told of what is read of private memory; NULL = nobody. Borrowed */
};

struct live_pages;

/* For one round. The options are borrowed until it is freed. */
must_check status *live_pages_new(const struct live_options *options, struct live_pages **ret_live);

/* Offers a round to who is at the other end of `fd` (a stream socket), in CRIU's page-server
 * protocol, but that the pages do not follow their PAGE_ADD: the other end reads them by itself
 * (live_pages_read), and answers with an int32 then. PAGE_FORCE_CLOSE at its end. `pids` as seen by
 * this process; those that end meanwhile are left out. ABORTED when the other end goes away. */
must_check status *live_pages_send(struct live_pages *live, int fd, const pid_t *pids,
				   size_t count);

/* By the other end's thread, before it answers: at most run->pages of what was offered last, from
 * run->address on. *ret_pages: so many, 0 when the first one cannot be had (it may be gone by now,
 * or not be readable at all). */
must_check status *live_pages_read(void *live, const struct page_header *run, uint8_t *data,
				   uint32_t *ret_pages);

void live_pages_free(struct live_pages *live);

DEFINE_SCOPE(live_pages, struct live_pages *, live_pages_free);

/* One line of /proc/PID/maps, for its test: what of it would be sent. */
struct live_area {
	uint64_t start, end;
	uint64_t inode;
	bool is_shared;	   /* shared and anonymous */
	bool is_vdso;	   /* CRIU sends all of it, though it is the kernel's */
	bool is_protected; /* the task itself may not read it */
};
/* False for lines that nothing is sent of. */
bool live_area_parse(const char *line, struct live_area *ret_area);
/* A tree that runs moves and grows its areas between two lines: one may begin below the end of
 * the last. Cuts off what is below *next and moves that to the area's end; false: nothing is left.
 */
bool live_area_cut(struct live_area *area, uint64_t *next);

#endif
