/* SPDX-License-Identifier: Apache-2.0 */
/* All lists are in the order of addresses, so everything is done by walking two of them at once. */
#include "engine/lazy/lazy_map.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/criu/page_stream.h"
#include "engine/criu/pagemap.h"
#include "engine/host/files.h"

enum { MM_IMAGE_MOST = 64 * 1024 * 1024, FIRST_ROOM = 16 };

struct runs {
	struct lazy_run *list;
	size_t count;
};

/* A task of the round added last. */
struct known {
	int64_t pid;
	unsigned round;
	struct runs runs;    /* where its pages are */
	struct pagemap last; /* as the round says it */
};

struct lazy_index {
	char images[FILES_PATH];
	unsigned round;
	struct known *tasks;
	size_t task_count;
	struct lazy_file *files;
	size_t file_count;
	status *error; /* of the walk over a directory */
};

static status *no_memory(void)
{
	return status_errnof(ENOMEM, "the list of pages that may come later");
}

/* Makes room for one more of `size` bytes in a list that is full at powers of two. */
static status *room_for_one(void **list, size_t count, size_t size)
{
	if (count != 0 && (count < FIRST_ROOM || (count & (count - 1)) != 0))
		return NULL;
	size_t room = count == 0 ? FIRST_ROOM : count * 2;
	void *grown = reallocarray(*list, room, size);
	if (grown == NULL)
		return no_memory();
	*list = grown;
	return NULL;
}

static uint64_t run_end(const struct lazy_run *run)
{
	return run->address + run->pages * PAGE_BYTES;
}

static bool goes_on(const struct lazy_run *last, const struct lazy_run *run)
{
	return last->file == run->file && last->is_late == run->is_late &&
	       run_end(last) == run->address &&
	       last->offset + last->pages * PAGE_BYTES == run->offset;
}

static status *add_run(struct runs *runs, const struct lazy_run *run, bool may_join)
{
	if (may_join && runs->count > 0 && goes_on(&runs->list[runs->count - 1], run)) {
		runs->list[runs->count - 1].pages += run->pages;
		return NULL;
	}
	status *st = room_for_one((void **)&runs->list, runs->count, sizeof(*runs->list));
	if (st == NULL)
		runs->list[runs->count++] = *run;
	return st;
}

/* The part of `run` that lies in [start, end), which it overlaps. */
static struct lazy_run cut(const struct lazy_run *run, uint64_t start, uint64_t end)
{
	uint64_t from = run->address > start ? run->address : start;
	uint64_t to = run_end(run) < end ? run_end(run) : end;
	struct lazy_run part = *run;

	part.address = from;
	part.offset = run->offset + (from - run->address);
	part.pages = (to - from) / PAGE_BYTES;
	return part;
}

/* --- the index --- */

status *lazy_index_new(const char *images, struct lazy_index **ret_index)
{
	struct lazy_index *index = calloc(1, sizeof(*index));

	if (index == NULL)
		return no_memory();
	(void)snprintf(index->images, sizeof(index->images), "%s", images);
	*ret_index = index;
	return NULL;
}

static void forget_task(struct known *task)
{
	free(task->runs.list);
	pagemap_free(&task->last);
	*task = (struct known){0};
}

void lazy_index_free(struct lazy_index *index)
{
	if (index == NULL)
		return;
	for (size_t i = 0; i < index->task_count; i++)
		forget_task(&index->tasks[i]);
	free(index->tasks);
	free(index->files);
	status_free(index->error);
	free(index);
}

/* What the round before has of [address, address + pages), into `runs`; *place moves on. */
static status *take_over(const struct runs *before, size_t *place, const struct pagemap_run *wanted,
			 struct runs *runs)
{
	uint64_t address = wanted->address, end = address + wanted->pages * PAGE_BYTES;

	while (address < end) {
		while (*place < before->count && run_end(&before->list[*place]) <= address)
			(*place)++;
		if (*place == before->count || before->list[*place].address > address)
			return status_errorf(STATUS_DATA_LOSS,
					     "the page at %#llx is in no round, but is said to be",
					     (unsigned long long)address);
		struct lazy_run part = cut(&before->list[*place], address, end);
		status *st = add_run(runs, &part, true);
		if (st != NULL)
			return st;
		address = run_end(&part);
	}
	return NULL;
}

static status *resolve(const struct pagemap *map, size_t file, const struct runs *before,
		       struct runs *ret_runs)
{
	uint64_t offset = 0;
	size_t place = 0;
	status *st = NULL;

	for (size_t i = 0; st == NULL && i < map->count; i++) {
		const struct pagemap_run *run = &map->runs[i];
		if ((run->flags & PAGE_PRESENT) == 0) {
			st = take_over(before, &place, run, ret_runs);
			continue;
		}
		const struct lazy_run here = {.address = run->address,
					      .pages = run->pages,
					      .offset = offset,
					      .file = file,
					      .is_late = (run->flags & PAGE_LATE) != 0};
		st = add_run(ret_runs, &here, true);
		offset += run->pages * PAGE_BYTES;
	}
	return st;
}

static struct known *find_task(struct lazy_index *index, int64_t pid)
{
	for (size_t i = 0; i < index->task_count; i++)
		if (index->tasks[i].pid == pid)
			return &index->tasks[i];
	return NULL;
}

static status *task_of(struct lazy_index *index, int64_t pid, struct known **ret_task)
{
	struct known *task = find_task(index, pid);

	if (task == NULL) {
		status *st =
		    room_for_one((void **)&index->tasks, index->task_count, sizeof(*index->tasks));
		if (st != NULL)
			return st;
		task = &index->tasks[index->task_count++];
		*task = (struct known){.pid = pid};
	}
	*ret_task = task;
	return NULL;
}

static status *add_task(struct lazy_index *index, int64_t pid, struct pagemap *map)
{
	struct known *task = NULL;
	struct runs runs = {0};
	status *st = room_for_one((void **)&index->files, index->file_count, sizeof(*index->files));

	if (st == NULL)
		st = task_of(index, pid, &task);
	if (st != NULL)
		return st;
	index->files[index->file_count] = (struct lazy_file){index->round, map->pages_id};
	st = resolve(map, index->file_count, &task->runs, &runs);
	if (st != NULL) {
		free(runs.list);
		return status_wrapf(st, "pages of process %lld", (long long)pid);
	}
	index->file_count++;
	forget_task(task);
	*task = (struct known){pid, index->round, runs, *map};
	*map = (struct pagemap){0};
	return NULL;
}

/* pagemap-<pid>.img; pages of shared memory have another name, and are never lazy. */
static bool is_task_image(const char *name, int64_t *ret_pid)
{
	int pid, end = 0;

	if (sscanf(name, "pagemap-%9d.img%n", &pid, &end) != 1 || end == 0 || name[end] != '\0' ||
	    pid <= 0)
		return false;
	*ret_pid = pid;
	return true;
}

static void image_path(const struct lazy_index *index, const char *kind, int64_t pid,
		       char ret_path[FILES_PATH + 64])
{
	(void)snprintf(ret_path, FILES_PATH + 64, "%s/%u/%s-%lld.img", index->images, index->round,
		       kind, (long long)pid);
}

static void visit_image(void *self, const char *name)
{
	struct lazy_index *index = self;
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	char path[FILES_PATH + 64];
	int64_t pid;

	if (index->error != NULL || !is_task_image(name, &pid))
		return;
	image_path(index, "pagemap", pid, path);
	index->error = pagemap_read(path, &map);
	if (index->error == NULL)
		index->error = add_task(index, pid, &map);
}

status *lazy_index_add(struct lazy_index *index, unsigned round)
{
	char dir[FILES_PATH + 16];

	index->round = round;
	(void)snprintf(dir, sizeof(dir), "%s/%u", index->images, round);
	status *st = files_each(dir, visit_image, index);
	st = status_first(st, TAKE(index->error));
	if (st != NULL)
		return status_wrapf(st, "pages of round %u", round);
	/* A task that has ended has no place in what comes. */
	for (size_t i = 0; i < index->task_count;) {
		if (index->tasks[i].round == round) {
			i++;
			continue;
		}
		forget_task(&index->tasks[i]);
		index->tasks[i] = index->tasks[--index->task_count];
	}
	return NULL;
}

/* --- the end --- */

struct ranges {
	struct lazy_range *list;
	size_t count;
};

static void scope_ranges(struct ranges *ranges)
{
	free(ranges->list);
}

/* The run's parts inside and outside of the ranges, with their flags, into `marked`. */
static status *mark_run(const struct pagemap_run *run, const struct ranges *ranges, size_t *place,
			struct pagemap *marked)
{
	uint64_t address = run->address, end = address + run->pages * PAGE_BYTES;
	uint32_t lazy = (run->flags & PAGE_PRESENT) | PAGE_LAZY;
	status *st = NULL;

	while (st == NULL && address < end) {
		while (*place < ranges->count && ranges->list[*place].end <= address)
			(*place)++;
		const struct lazy_range *range =
		    *place < ranges->count ? &ranges->list[*place] : NULL;
		bool is_inside = range != NULL && range->start <= address;
		uint64_t limit = range == NULL ? end : is_inside ? range->end : range->start;
		uint64_t to = limit < end ? limit : end;
		const struct pagemap_run part = {address, (to - address) / PAGE_BYTES,
						 is_inside ? lazy : run->flags};
		st = pagemap_add(marked, &part);
		address = to;
	}
	return st;
}

/* What of the task's pages lies in the ranges; each run in one of them. */
static status *select_runs(const struct runs *all, const struct ranges *ranges,
			   struct runs *selected, struct lazy_task *task)
{
	size_t place = 0;

	for (size_t i = 0; i < all->count; i++) {
		const struct lazy_run *run = &all->list[i];
		while (place < ranges->count && ranges->list[place].end <= run->address)
			place++;
		for (size_t j = place; j < ranges->count && ranges->list[j].start < run_end(run);
		     j++) {
			struct lazy_run part = cut(run, ranges->list[j].start, ranges->list[j].end);
			part.first = task->pages;
			status *st = add_run(selected, &part, false);
			if (st != NULL)
				return st;
			task->pages += part.pages;
			task->run_count++;
		}
	}
	return NULL;
}

static status *read_ranges(const struct lazy_index *index, int64_t pid, struct ranges *ret_ranges)
{
	char path[FILES_PATH + 64];
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};

	image_path(index, "mm", pid, path);
	status *st = files_read(path, MM_IMAGE_MOST, &image);
	return st == NULL ? lazy_ranges_decode(image.data, image.size, &ret_ranges->list,
					       &ret_ranges->count)
			  : st;
}

static status *select_task(const struct lazy_index *index, const struct known *known,
			   struct runs *selected, struct lazy_task *task)
{
	struct ranges ranges __attribute__((cleanup(scope_ranges))) = {0};
	status *st = read_ranges(index, known->pid, &ranges);

	*task = (struct lazy_task){.first_run = selected->count, .pid = known->pid};
	return st == NULL ? select_runs(&known->runs, &ranges, selected, task) : st;
}

static uint64_t late_of(const struct lazy_run *runs, size_t count)
{
	uint64_t late = 0;

	for (size_t i = 0; i < count; i++)
		late += runs[i].is_late != 0 ? runs[i].pages : 0;
	return late;
}

/* A late page that CRIU does not leave out would be restored as zeros. */
static status *check_late(const struct known *known, const struct runs *selected,
			  const struct lazy_task *task, uint64_t *late)
{
	uint64_t wanted = late_of(known->runs.list, known->runs.count);
	uint64_t found = late_of(selected->list + task->first_run, task->run_count);

	*late += found;
	if (wanted == found)
		return NULL;
	return status_errorf(STATUS_DATA_LOSS,
			     "%llu pages of process %lld were left at the source, but cannot come "
			     "later: their mapping has changed (mlock?) since they were marked",
			     (unsigned long long)(wanted - found), (long long)known->pid);
}

static status *mark_task(const struct lazy_index *index, const struct known *known)
{
	struct ranges ranges __attribute__((cleanup(scope_ranges))) = {0};
	struct pagemap marked __attribute__((cleanup(scope_pagemap))) = {0};
	char path[FILES_PATH + 64];
	size_t place = 0;
	status *st = read_ranges(index, known->pid, &ranges);

	marked.pages_id = known->last.pages_id;
	for (size_t i = 0; st == NULL && i < known->last.count; i++)
		st = mark_run(&known->last.runs[i], &ranges, &place, &marked);
	image_path(index, "pagemap", known->pid, path);
	return st == NULL ? pagemap_write(path, &marked) : st;
}

status *lazy_index_mark(const struct lazy_index *index)
{
	status *st = NULL;

	for (size_t i = 0; st == NULL && i < index->task_count; i++)
		st = mark_task(index, &index->tasks[i]);
	return st != NULL ? status_wrapf(st, "pages that may come later") : NULL;
}

status *lazy_index_finish(struct lazy_index *index, struct lazy_map *ret_map)
{
	struct runs selected = {0};
	uint64_t page = 0;
	struct lazy_map map = {.tasks = calloc(index->task_count + 1, sizeof(*map.tasks))};
	status *st = map.tasks == NULL ? no_memory() : NULL;

	for (size_t i = 0; st == NULL && i < index->task_count; i++) {
		struct lazy_task *task = &map.tasks[i];
		st = select_task(index, &index->tasks[i], &selected, task);
		if (st == NULL)
			st = check_late(&index->tasks[i], &selected, task, &map.late_pages);
		task->first_page = page;
		page += (task->pages + 63) / 64 * 64;
		map.pages += task->pages;
	}
	map.runs = selected.list;
	if (st != NULL) {
		lazy_map_free(&map);
		return status_wrapf(st, "pages that may come later");
	}
	map.run_count = selected.count;
	map.task_count = index->task_count;
	map.file_count = index->file_count;
	map.files = TAKE(index->files);
	index->file_count = 0;
	*ret_map = map;
	return NULL;
}

void lazy_map_free(struct lazy_map *map)
{
	free(map->files);
	free(map->runs);
	free(map->tasks);
	*map = (struct lazy_map){0};
}

const struct lazy_run *lazy_map_find(const struct lazy_map *map, const struct lazy_task *task,
				     uint64_t address)
{
	uint64_t low = task->first_run, high = low + task->run_count;

	while (low < high) {
		uint64_t middle = low + (high - low) / 2;
		const struct lazy_run *run = &map->runs[middle];
		if (address < run->address)
			high = middle;
		else if (address >= run_end(run))
			low = middle + 1;
		else
			return run;
	}
	return NULL;
}

const struct lazy_task *lazy_map_task(const struct lazy_map *map, int64_t pid)
{
	for (uint64_t i = 0; i < map->task_count; i++)
		if (map->tasks[i].pid == pid)
			return &map->tasks[i];
	return NULL;
}

uint64_t lazy_map_words(const struct lazy_map *map)
{
	const struct lazy_task *last =
	    map->task_count > 0 ? &map->tasks[map->task_count - 1] : NULL;

	return last == NULL ? 0 : (last->first_page + last->pages + 63) / 64;
}

uint64_t lazy_map_there(const struct lazy_map *map, const struct lazy_task *task, uint64_t page,
			uint64_t limit)
{
	uint64_t pages = 0;

	if (map->there == NULL)
		return limit - page;
	while (page + pages < limit && lazy_map_is_there(map, task, page + pages))
		pages++;
	return pages;
}
