/* SPDX-License-Identifier: Apache-2.0 */
/* Which pages of a tree may come after it has been restored, and where their content lies.
 *
 * The rounds of pre-copy are a chain of directories (criu/page_store.h). The index resolves the
 * chain round by round, while the tree still runs: of each page it knows the file and the place
 * that has its newest content. After the last round it splits off what CRIU may restore lazily
 * (private anonymous memory, not locked, no huge pages) and marks it so in the last round's
 * pagemaps: CRIU leaves these pages out.
 *
 * Of late pages the round has only the name: their place in the file is a hole until their content
 * has been fetched from the source (late_store.h). A bit for each page says whether it is there. */
#ifndef HAUL_ENGINE_LAZY_LAZY_MAP_H
#define HAUL_ENGINE_LAZY_LAZY_MAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "proto/pack.h"

/* <images>/<round>/pages-<pages_id>.img */
struct lazy_file {
	uint32_t round, pages_id;
};

/* Pages in one mapping and in one file, both without a gap. */
struct lazy_run {
	uint64_t address, pages;
	uint64_t offset;  /* of the first, in its file */
	uint64_t first;	  /* of the task's pages, the number of the first */
	uint64_t file;	  /* of files */
	uint64_t is_late; /* 1: its content is fetched after the restore */
};

struct lazy_task {
	uint64_t first_run, run_count; /* of runs; addresses ascend */
	uint64_t pages;
	uint64_t first_page; /* of the map's pages, its first: a multiple of 64 */
	int64_t pid;	     /* as the tree sees it */
};

struct lazy_map {
	struct lazy_file *files;
	struct lazy_run *runs;
	struct lazy_task *tasks;
	uint64_t file_count, run_count, task_count;
	uint64_t pages;
	uint64_t late_pages;
	/* Where pages may be late, else NULL: a bit for each page of the map, set when its content
	 * is in its file; and how many are missing. Shared by processes (lazy_shared.h). */
	atomic_uint_fast64_t *there, *missing;
};

/* How many pages of the run's task, from number `page` on and below `limit`, are there. */
uint64_t lazy_map_there(const struct lazy_map *map, const struct lazy_task *task, uint64_t page,
			uint64_t limit);
/* Of the 64 pages of the task from number `page`, a multiple of 64: a bit for each that is there.
 */
static inline uint64_t lazy_map_word(const struct lazy_map *map, const struct lazy_task *task,
				     uint64_t page)
{
	return map->there == NULL
		   ? UINT64_MAX
		   : atomic_load_explicit(&map->there[(task->first_page + page) / 64],
					  memory_order_acquire);
}
static inline bool lazy_map_is_there(const struct lazy_map *map, const struct lazy_task *task,
				     uint64_t page)
{
	return (lazy_map_word(map, task, page / 64 * 64) >> (page % 64) & 1) != 0;
}
static inline uint64_t lazy_map_missing(const struct lazy_map *map)
{
	return map->missing == NULL ? 0 : atomic_load(map->missing);
}
/* Words of 64 bits that its `there` needs. */
uint64_t lazy_map_words(const struct lazy_map *map);

struct lazy_index;

/* images: the directory of the rounds' directories. */
must_check status *lazy_index_new(const char *images, struct lazy_index **ret_index);
/* One more round, which has arrived. DATA_LOSS when its pagemaps do not fit the round before. */
must_check status *lazy_index_add(struct lazy_index *index, unsigned round);
/* The round added last was the last. *ret_map belongs to the caller. Once. DATA_LOSS when late
 * pages are where CRIU restores them at once. */
must_check status *lazy_index_finish(struct lazy_index *index, struct lazy_map *ret_map);
/* Marks the pages of that map in the last round's pagemaps: CRIU leaves them out from now on. */
must_check status *lazy_index_mark(const struct lazy_index *index);
void lazy_index_free(struct lazy_index *index);

/* The task of this pid; NULL when the map has none. */
const struct lazy_task *lazy_map_task(const struct lazy_map *map, int64_t pid);

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
