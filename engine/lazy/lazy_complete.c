/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a fill in one go, with the tree frozen or about to be. Events are read here: each lets
 * the thread that waits for it go on, up to the freeze. From the first one on, what is left is a
 * list of pieces that may have moved. */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "engine/host/cgroup.h"
#include "engine/lazy/lazy_fill_internal.h"
#include "proto/clock.h"

enum {
	FREEZE_MS = 10000, /* what does not freeze by then hangs in the kernel, and runs no more */
	STUCK_MS = 20000,
	PAUSE_MS = 1,
};

static uint64_t rest_end(const struct lazy_rest *rest)
{
	return rest->address + rest->pages * PAGE_BYTES;
}

static status *add_rest(struct lazy_memory *memory, const struct lazy_rest *rest)
{
	if (memory->rest_count == memory->rest_room) {
		size_t room = memory->rest_room == 0 ? 64 : memory->rest_room * 2;
		struct lazy_rest *grown = reallocarray(memory->rest, room, sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "lazy restore");
		memory->rest = grown;
		memory->rest_room = room;
	}
	memory->rest[memory->rest_count++] = *rest;
	return NULL;
}

/* The pages of a run that are not filled. */
static status *list_run(struct lazy_memory *memory, const struct lazy_run *run)
{
	uint64_t page = 0;
	status *st = NULL;

	while (st == NULL && page < run->pages) {
		uint64_t begin = page;
		while (page < run->pages && !lazy_is_filled(memory, run->first + page))
			page++;
		uint64_t address = run->address + begin * PAGE_BYTES;
		const struct lazy_rest rest = {address, address, page - begin};
		if (page > begin)
			st = add_rest(memory, &rest);
		while (page < run->pages && lazy_is_filled(memory, run->first + page))
			page++;
	}
	return st;
}

static status *list_rest(struct lazy_fill *fill)
{
	status *st = NULL;

	for (size_t i = 0; st == NULL && i < fill->memory_count; i++) {
		struct lazy_memory *memory = &fill->memories[i];
		if (memory->uffd < 0 || memory->filled == NULL)
			continue;
		const struct lazy_task *task = memory->task;
		for (uint64_t run = 0; st == NULL && run < task->run_count; run++)
			st = list_run(memory, &fill->map->runs[task->first_run + run]);
		free(memory->filled);
		memory->filled = NULL;
	}
	return st;
}

/* --- events --- */

bool lazy_part_of(const struct lazy_rest *rest, uint64_t start, uint64_t end,
		  struct lazy_rest *ret_part)
{
	uint64_t from = rest->address > start ? rest->address : start;
	uint64_t to = rest_end(rest) < end ? rest_end(rest) : end;

	if (from >= to)
		return false;
	*ret_part = (struct lazy_rest){from, rest->origin + (from - rest->address),
				       (to - from) / PAGE_BYTES};
	return true;
}

status *lazy_take_out(struct lazy_memory *memory, uint64_t start, uint64_t end, uint64_t moved_to)
{
	size_t count = memory->rest_count;
	struct lazy_rest part;
	status *st = NULL;

	for (size_t i = 0; st == NULL && i < count; i++) {
		struct lazy_rest rest = memory->rest[i];
		if (!lazy_part_of(&rest, start, end, &part))
			continue;
		memory->rest[i].pages = 0;
		struct lazy_rest left;
		if (lazy_part_of(&rest, 0, start, &left))
			memory->rest[i] = left;
		if (lazy_part_of(&rest, end, UINT64_MAX, &left))
			st = add_rest(memory, &left);
		if (st == NULL && moved_to != 0) {
			part.address = moved_to + (part.address - start);
			st = add_rest(memory, &part);
		}
	}
	return st;
}

static status *apply_fork(struct lazy_fill *fill, size_t number, int uffd)
{
	struct lazy_memory *child = NULL;
	status *st = lazy_add_memory(fill, fill->memories[number].task, uffd, &child);

	if (st != NULL)
		return st;
	const struct lazy_memory *parent = &fill->memories[number];
	for (size_t i = 0; st == NULL && i < parent->rest_count; i++)
		st = add_rest(child, &parent->rest[i]);
	return st;
}

/* A page that is waited for while an event is unread stays unfilled; its thread waits on. */
static status *apply_fault(struct lazy_fill *fill, size_t number, uint64_t address)
{
	enum lazy_step step = LAZY_MORE;
	status *st = lazy_moved_serve(fill, number, address, &step);

	return st == NULL && step == LAZY_EVENT
		   ? lazy_await(fill, number, address & ~(uint64_t)(PAGE_BYTES - 1))
		   : st;
}

static status *apply(struct lazy_fill *fill, size_t number, const struct uffd_msg *message)
{
	struct lazy_memory *memory = &fill->memories[number];

	switch (message->event) {
	case UFFD_EVENT_PAGEFAULT:
		return apply_fault(fill, number, message->arg.pagefault.address);
	case UFFD_EVENT_FORK:
		return apply_fork(fill, number, (int)message->arg.fork.ufd);
	case UFFD_EVENT_REMAP:
		return lazy_take_out(memory, message->arg.remap.from,
				     message->arg.remap.from + message->arg.remap.len,
				     message->arg.remap.to);
	case UFFD_EVENT_REMOVE:
	case UFFD_EVENT_UNMAP:
		return lazy_take_out(memory, message->arg.remove.start, message->arg.remove.end, 0);
	default:
		return status_errorf(STATUS_UNIMPLEMENTED, "an unknown event of userfaultfd: %d",
				     message->event);
	}
}

static void note_reading(const struct lazy_fill *fill, bool is_reading)
{
	if (fill->watch.is_reading != NULL)
		atomic_store(fill->watch.is_reading, is_reading);
}

/* While this runs, nobody else knows what was read. */
static status *read_one(struct lazy_fill *fill, size_t number, struct uffd_msg *ret_message,
			bool *ret_got)
{
	note_reading(fill, true);
	status *st = lazy_read(&fill->memories[number], ret_message, ret_got);
	if (st == NULL && *ret_got)
		st = lazy_tell(fill, number, ret_message);
	note_reading(fill, false);
	return st;
}

/* All that is to be read now; *ret_any: there was something. Forks add memories at the end. */
static status *read_events(struct lazy_fill *fill, bool *ret_any)
{
	struct uffd_msg message;
	status *st = NULL;
	bool got;

	*ret_any = false;
	for (size_t i = 0; st == NULL && i < fill->memory_count; i++) {
		got = fill->memories[i].uffd >= 0;
		while (st == NULL && got) {
			st = read_one(fill, i, &message, &got);
			if (st == NULL && got)
				st = apply(fill, i, &message);
			*ret_any = *ret_any || got;
		}
	}
	return st;
}

/* --- all that is left --- */

/* *ret_busy: an event has to be read first. */
static status *fill_memory(struct lazy_fill *fill, struct lazy_memory *memory, bool *ret_busy)
{
	enum lazy_step step = LAZY_MORE;
	struct lazy_rest part;
	status *st = NULL;

	while (st == NULL && step == LAZY_MORE && memory->uffd >= 0 &&
	       lazy_moved_next(fill, memory, &part))
		st = lazy_moved_put(fill, memory, &part, &step);
	*ret_busy = step == LAZY_EVENT;
	return st;
}

static bool is_stopping(const struct lazy_fill *fill)
{
	return fill->watch.is_stopping != NULL && atomic_load(fill->watch.is_stopping);
}

/* How many memories wait for pages that the source has. */
static size_t count_waiting(const struct lazy_fill *fill)
{
	size_t waiting = 0;

	for (size_t i = 0; i < fill->memory_count; i++)
		waiting += fill->memories[i].uffd >= 0 && fill->memories[i].rest_count > 0;
	return waiting;
}

/* One go; *ret_busy: something is to be done at once, *ret_waiting: later. */
static status *fill_once(struct lazy_fill *fill, bool *ret_busy, size_t *ret_waiting)
{
	bool any = false;
	status *st = NULL;

	*ret_busy = false;
	for (size_t i = 0; st == NULL && !*ret_busy && i < fill->memory_count; i++)
		st = fill_memory(fill, &fill->memories[i], ret_busy);
	if (st == NULL)
		st = read_events(fill, &any);
	*ret_waiting = *ret_busy ? 0 : count_waiting(fill);
	if ((*ret_busy || *ret_waiting > 0) && !any)
		(void)poll(NULL, 0, PAUSE_MS);
	*ret_busy = *ret_busy || any;
	return st;
}

static status *fill_rest(struct lazy_fill *fill)
{
	int64_t until = clock_monotonic_ms() + STUCK_MS;
	bool busy = true;
	size_t waiting = 0;
	uint64_t filled = fill->counts.pages;
	status *st = NULL;

	while (st == NULL && (busy || waiting > 0)) {
		st = fill_once(fill, &busy, &waiting);
		if (fill->counts.pages != filled || waiting > 0)
			until = clock_monotonic_ms() + STUCK_MS;
		filled = fill->counts.pages;
		if (st == NULL && waiting > 0 && is_stopping(fill))
			return status_errorf(STATUS_CANCELLED, "the fill is left to the guard");
		if (busy && clock_monotonic_ms() > until)
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "the restored tree's memory does not come to rest");
	}
	return st;
}

static bool is_frozen(const char *group)
{
	if (group == NULL)
		return true;
	scoped(status) status *st = cgroup_freeze(group, 0);
	return st == NULL;
}

/* Threads on their way into the freeze may still ask, and change mappings. */
static status *settle(struct lazy_fill *fill, const char *group)
{
	int64_t until = clock_monotonic_ms() + FREEZE_MS;
	bool any = true, frozen = false;
	status *st = NULL;

	while (st == NULL && (any || !frozen) && clock_monotonic_ms() < until) {
		frozen = is_frozen(group);
		st = read_events(fill, &any);
		if (st == NULL && !any && !frozen) {
			struct pollfd asked = {.fd = fill->poll, .events = POLLIN};
			(void)poll(&asked, 1, PAUSE_MS);
		}
	}
	return st;
}

status *lazy_fill_replay(struct lazy_fill *fill, size_t memory, const struct uffd_msg *event)
{
	if (memory >= fill->memory_count)
		return status_errorf(STATUS_DATA_LOSS, "an event of a memory that is not known");
	status *st = list_rest(fill);
	return st == NULL ? apply(fill, memory, event) : st;
}

status *lazy_fill_settle(struct lazy_fill *fill, const char *group)
{
	status *st = list_rest(fill);

	if (st == NULL && fill->has_early)
		st = apply(fill, fill->early_memory, &fill->early);
	fill->has_early = false;
	return st == NULL ? settle(fill, group) : st;
}

status *lazy_fill_complete(struct lazy_fill *fill, const char *group)
{
	status *st = lazy_fill_settle(fill, group);

	return st == NULL ? fill_rest(fill) : st;
}
