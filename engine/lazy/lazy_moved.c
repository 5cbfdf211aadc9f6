/* SPDX-License-Identifier: Apache-2.0 */
/* Filling after events: what is left of a memory is a list of pieces, each of one run, that may be
 * elsewhere than they were dumped. A page in none of them is filled already, or was never used. */
#include "engine/lazy/lazy_fill_internal.h"

static const struct lazy_rest *find(const struct lazy_memory *memory, uint64_t address,
				    struct lazy_rest *ret_part)
{
	for (size_t i = 0; i < memory->rest_count; i++)
		if (lazy_part_of(&memory->rest[i], address,
				 address + (uint64_t)LAZY_AROUND_PAGES * PAGE_BYTES, ret_part) &&
		    ret_part->address == address)
			return &memory->rest[i];
	return NULL;
}

/* How many of the piece's pages, from number `skip` on, are there. */
static uint64_t there(const struct lazy_map *map, const struct lazy_task *task,
		      const struct lazy_rest *rest, uint64_t skip)
{
	const struct lazy_run *run = lazy_map_find(map, task, rest->origin);

	if (run == NULL)
		return 0;
	uint64_t page = run->first + (rest->origin - run->address) / PAGE_BYTES + skip;
	uint64_t most = rest->pages - skip;
	most = most < LAZY_CHUNK_PAGES ? most : LAZY_CHUNK_PAGES;
	return lazy_map_there(map, task, page, page + most);
}

bool lazy_moved_is_there(const struct lazy_fill *fill, const struct lazy_memory *memory,
			 uint64_t address)
{
	struct lazy_rest part;

	return find(memory, address, &part) == NULL || there(fill->map, memory->task, &part, 0) > 0;
}

/* The first page of the piece that is there; its count when none is. */
static uint64_t first_there(const struct lazy_map *map, const struct lazy_task *task,
			    const struct lazy_rest *rest)
{
	const struct lazy_run *run = lazy_map_find(map, task, rest->origin);

	if (run == NULL)
		return rest->pages;
	uint64_t first = run->first + (rest->origin - run->address) / PAGE_BYTES;
	uint64_t end = first + rest->pages;
	for (uint64_t page = first / 64 * 64; page < end; page += 64) {
		uint64_t open = lazy_map_word(map, task, page);
		if (page < first)
			open &= UINT64_MAX << (first - page);
		if (open == 0)
			continue;
		uint64_t found = page + (uint64_t)__builtin_ctzll(open);
		return found < end ? found - first : rest->pages;
	}
	return rest->pages;
}

bool lazy_moved_next(const struct lazy_fill *fill, struct lazy_memory *memory,
		     struct lazy_rest *ret_part)
{
	for (size_t i = memory->rest_count; i > 0; i--) {
		struct lazy_rest *rest = &memory->rest[i - 1];
		if (rest->pages == 0) {
			*rest = memory->rest[--memory->rest_count];
			continue;
		}
		uint64_t skip = first_there(fill->map, memory->task, rest);
		uint64_t pages =
		    skip < rest->pages ? there(fill->map, memory->task, rest, skip) : 0;
		if (pages == 0)
			continue;
		*ret_part = (struct lazy_rest){rest->address + skip * PAGE_BYTES,
					       rest->origin + skip * PAGE_BYTES, pages};
		return true;
	}
	return false;
}

status *lazy_moved_put(struct lazy_fill *fill, struct lazy_memory *memory,
		       const struct lazy_rest *part, enum lazy_step *ret_step)
{
	enum lazy_put put = PUT_ALL;
	uint64_t done = 0;
	status *st = lazy_put(fill, memory, part, &done, &put);

	if (st != NULL)
		return st;
	if (put == PUT_GONE) {
		lazy_end_memory(fill, memory);
		return NULL;
	}
	if (put == PUT_BUSY)
		*ret_step = LAZY_EVENT;
	/* There already, or unmapped: one page is skipped. */
	if (put == PUT_PRESENT)
		lazy_wake(memory, part->address + done * PAGE_BYTES, 1);
	if (put == PUT_PRESENT || put == PUT_NOWHERE)
		done++;
	return lazy_take_out(memory, part->address, part->address + done * PAGE_BYTES, 0);
}

status *lazy_moved_serve(struct lazy_fill *fill, size_t number, uint64_t address,
			 enum lazy_step *ret_step)
{
	struct lazy_memory *memory = &fill->memories[number];
	enum lazy_put put = PUT_ALL;
	struct lazy_rest part;

	address &= ~(uint64_t)(PAGE_BYTES - 1);
	if (memory->uffd < 0)
		return NULL;
	if (find(memory, address, &part) == NULL) {
		status *st = lazy_put_zero(memory, address, &put);
		if (st == NULL && put == PUT_BUSY)
			*ret_step = LAZY_EVENT;
		else if (st == NULL)
			lazy_wake(memory, address, 1);
		return st;
	}
	if (there(fill->map, memory->task, &part, 0) == 0)
		return lazy_ask(fill, number, address, part.origin);
	fill->counts.faults++;
	return lazy_moved_put(fill, memory, &part, ret_step);
}
