/* SPDX-License-Identifier: Apache-2.0 */
/* What is filled next while nothing has changed any mapping. First what the newest round brought:
 * the tree wrote it a moment before it was frozen, and is likeliest to touch it when it goes on.
 * Then by address. While pages are being waited for the pieces are small, for whoever waits for a
 * page waits for the piece at hand, too. */
#include "engine/lazy/lazy_fill_internal.h"
#include "proto/clock.h"

enum { ASKED_MS = 20 }; /* for so long after a fault another is likely */

uint32_t lazy_order_newest_round(const struct lazy_map *map)
{
	uint32_t newest = 0;

	for (uint64_t i = 0; i < map->file_count; i++)
		if (map->files[i].round > newest)
			newest = map->files[i].round;
	return newest;
}

/* The first of the task's pages in [from, to) that is not filled and can be; `to`: there is none.
 */
static uint64_t first_open(const struct lazy_map *map, const struct lazy_memory *memory,
			   uint64_t from, uint64_t to)
{
	for (uint64_t page = from / 64 * 64; page < to; page += 64) {
		uint64_t open = ~memory->filled[page / 64] & lazy_map_word(map, memory->task, page);
		if (page < from)
			open &= UINT64_MAX << (from - page);
		if (open != 0) {
			uint64_t found = page + (uint64_t)__builtin_ctzll(open);
			return found < to ? found : to;
		}
	}
	return to;
}

uint64_t lazy_order_unfilled(const struct lazy_memory *memory, const struct lazy_run *run,
			     uint64_t page, uint64_t most)
{
	uint64_t end = run->first + run->pages, pages = 0;

	while (pages < most && page + pages < end && !lazy_is_filled(memory, page + pages))
		pages++;
	return pages;
}

static struct lazy_piece piece_at(const struct lazy_fill *fill, const struct lazy_memory *memory,
				  const struct lazy_run *run, uint64_t page)
{
	bool is_asked = clock_monotonic_ms() - fill->fault_ms < ASKED_MS;
	uint64_t most = is_asked ? LAZY_AROUND_PAGES : LAZY_CHUNK_PAGES;

	return (struct lazy_piece){run, page, lazy_order_unfilled(memory, run, page, most)};
}

static bool newest_of(const struct lazy_fill *fill, struct lazy_memory *memory,
		      struct lazy_piece *ret_piece)
{
	const struct lazy_task *task = memory->task;

	for (; memory->newest_run < task->run_count; memory->newest_run++) {
		const struct lazy_run *run = &fill->map->runs[task->first_run + memory->newest_run];
		if (fill->map->files[run->file].round != fill->newest_round)
			continue;
		uint64_t end = run->first + run->pages;
		uint64_t from = memory->newest_page > run->first ? memory->newest_page : run->first;
		memory->newest_page = first_open(fill->map, memory, from, end);
		if (memory->newest_page == end)
			continue;
		*ret_piece = piece_at(fill, memory, run, memory->newest_page);
		return true;
	}
	return false;
}

bool lazy_order_newest(struct lazy_fill *fill, struct lazy_memory **ret_memory,
		       struct lazy_piece *ret_piece)
{
	for (; fill->newest < fill->memory_count; fill->newest++) {
		struct lazy_memory *memory = &fill->memories[fill->newest];
		if (memory->uffd < 0 || memory->filled == NULL ||
		    !newest_of(fill, memory, ret_piece))
			continue;
		*ret_memory = memory;
		return true;
	}
	return false;
}

static const struct lazy_run *run_of_page(const struct lazy_map *map, const struct lazy_task *task,
					  uint64_t page)
{
	uint64_t low = task->first_run, high = low + task->run_count;

	while (high - low > 1) {
		uint64_t middle = low + (high - low) / 2;
		if (map->runs[middle].first <= page)
			low = middle;
		else
			high = middle;
	}
	return &map->runs[low];
}

bool lazy_order_next(const struct lazy_fill *fill, struct lazy_memory *memory,
		     struct lazy_piece *ret_piece)
{
	const struct lazy_task *task = memory->task;

	while (memory->next < task->pages && lazy_is_filled(memory, memory->next))
		memory->next++;
	uint64_t page = first_open(fill->map, memory, memory->next, task->pages);
	if (page == task->pages)
		return false;
	*ret_piece = piece_at(fill, memory, run_of_page(fill->map, task, page), page);
	return true;
}
