/* SPDX-License-Identifier: Apache-2.0 */
/* A task's pagemap image as a whole: which pages a round has, and where its content is. The page
 * store writes them piece by piece; this reads them back, and replaces one. */
#ifndef HAUL_ENGINE_CRIU_PAGEMAP_H
#define HAUL_ENGINE_CRIU_PAGEMAP_H

#include "proto/pack.h"

/* Pages that follow each other, with the flags of enum page_flags. */
struct pagemap_run {
	uint64_t address, pages;
	uint32_t flags;
};

struct pagemap {
	uint32_t pages_id; /* pages-<id>.img has the content of PRESENT runs, in their order */
	struct pagemap_run *runs;
	size_t count;
};

/* DATA_LOSS unless it is a pagemap, its runs ascending, of whole pages, none over another. */
must_check status *pagemap_decode(const uint8_t *data, size_t size, struct pagemap *ret_map);
must_check status *pagemap_encode(const struct pagemap *map, struct buffer *ret_image);

must_check status *pagemap_read(const char *path, struct pagemap *ret_map); /* NOT_FOUND */
must_check status *pagemap_write(const char *path, const struct pagemap *map);

/* Adds a run behind the others; one that goes on where the last ends becomes part of it. */
must_check status *pagemap_add(struct pagemap *map, const struct pagemap_run *run);

void pagemap_free(struct pagemap *map); /* what it holds */

static inline void scope_pagemap(struct pagemap *map)
{
	pagemap_free(map);
}

#endif
