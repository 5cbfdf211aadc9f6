/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that the tree waits for and that the source still has. A userfaultfd says once that a page
 * is waited for; filling it wakes whoever waits. */
#include <errno.h>

#include "engine/lazy/late_store.h"
#include "engine/lazy/lazy_fill_internal.h"

status *lazy_await(struct lazy_fill *fill, size_t number, uint64_t address)
{
	for (size_t i = 0; i < fill->awaited_count; i++)
		if (fill->awaited[i].memory == number && fill->awaited[i].address == address)
			return NULL;
	if (fill->awaited_count == fill->awaited_room) {
		size_t room = fill->awaited_room * 2 + 16;
		struct lazy_awaited *grown = reallocarray(fill->awaited, room, sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "lazy restore");
		fill->awaited = grown;
		fill->awaited_room = room;
	}
	fill->awaited[fill->awaited_count++] = (struct lazy_awaited){number, address};
	return NULL;
}

status *lazy_ask(struct lazy_fill *fill, size_t number, uint64_t address, uint64_t origin)
{
	const struct lazy_task *task = fill->memories[number].task;
	const struct lazy_run *run = lazy_map_find(fill->map, task, origin);

	if (run != NULL && fill->watch.wanted != NULL) {
		uint64_t left = run->pages - (origin - run->address) / PAGE_BYTES;
		const struct late_range range = {
		    .pid = task->pid,
		    .address = origin,
		    .pages = left < LAZY_AROUND_PAGES ? (uint32_t)left : LAZY_AROUND_PAGES,
		};
		fill->watch.wanted(fill->watch.self, &range);
	}
	return lazy_await(fill, number, address);
}

bool lazy_is_there(const struct lazy_fill *fill, const struct lazy_awaited *awaited)
{
	const struct lazy_memory *memory = &fill->memories[awaited->memory];
	const struct lazy_run *run = lazy_map_find(fill->map, memory->task, awaited->address);

	if (memory->filled == NULL)
		return lazy_moved_is_there(fill, memory, awaited->address);
	return run == NULL ||
	       lazy_map_is_there(fill->map, memory->task,
				 run->first + (awaited->address - run->address) / PAGE_BYTES);
}
