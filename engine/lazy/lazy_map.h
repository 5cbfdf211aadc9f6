/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages of a tree may come after it has been restored, and where their content lies.
 *
 * The rounds of pre-copy are a chain of directories (criu/page_store.h). The index resolves the
 * chain round by round, while the tree still runs: of each page it knows the file and the place
 * that has its newest content. After the last round it splits off what CRIU may restore lazily
 * (private anonymous memory, not locked, no huge pages) and marks it so in the last round's
 * pagemaps: CRIU leaves these pages out. */
#ifndef HAUL_ENGINE_LAZY_LAZY_MAP_H
#define HAUL_ENGINE_LAZY_LAZY_MAP_H

#include <sys/types.h>

#include "proto/pack.h"

/* <images>/<round>/pages-<pages_id>.img */
struct lazy_file {
	uint32_t round, pages_id;
};

/* Pages in one mapping and in one file, both without a gap. */
struct lazy_run {
	uint64_t address, pages;
	uint64_t offset; /* of the first, in its file */
	uint64_t first;	 /* of the task's pages, the number of the first */
	uint64_t file;	 /* of files */
};

struct lazy_task {
	uint64_t first_run, run_count; /* of runs; addresses ascend */
	uint64_t pages;
	int64_t pid; /* as the tree sees it */
};

struct lazy_map {
	struct lazy_file *files;
	struct lazy_run *runs;
	struct lazy_task *tasks;
	uint64_t file_count, run_count, task_count;
	uint64_t pages;
};

struct lazy_index;

/* images: the directory of the rounds' directories. */
must_check status *lazy_index_new(const char *images, struct lazy_index **ret_index);
/* One more round, which has arrived. DATA_LOSS when its pagemaps do not fit the round before. */
must_check status *lazy_index_add(struct lazy_index *index, unsigned round);
/* The round added last was the last. *ret_map belongs to the caller. Once. */
must_check status *lazy_index_finish(struct lazy_index *index, struct lazy_map *ret_map);
/* Marks the pages of that map in the last round's pagemaps: CRIU leaves them out from now on. */
must_check status *lazy_index_mark(const struct lazy_index *index);
void lazy_index_free(struct lazy_index *index);

/* The run of the task that has this address; NULL when none does. */
const struct lazy_run *lazy_map_find(const struct lazy_map *map, const struct lazy_task *task,
				     uint64_t address);

void lazy_map_free(struct lazy_map *map); /* what it holds */

DEFINE_SCOPE(lazy_index, struct lazy_index *, lazy_index_free);

/* Pure part: the mappings of an mm image that may be restored lazily, ascending. DATA_LOSS when it
 * is none. */
struct lazy_range {
	uint64_t start, end;
};
must_check status *lazy_ranges_decode(const uint8_t *data, size_t size,
				      struct lazy_range **ret_ranges, size_t *ret_count);

#endif
