/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/frames.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "engine/criu/live_pages.h"
#include "engine/criu/page_stream.h"
#include "engine/host/proc.h"

enum {
	BLOCK_PAGES = 512, /* of one page table */
	SAMPLES = 8,	   /* of a block: one that is written meanwhile tells nothing */
	SAME_ENOUGH = 3,   /* that are where they were */
	REGIONS = 8,	   /* of a block, in which samples are taken */
	LINE_BYTES = 4608  /* a path of maps has at most 4096 */
};

static const uint64_t BLOCK_BYTES = BLOCK_PAGES * PAGE_BYTES;
/* Where a process has its memory unless it asks for more than 47 bits. */
static const uint64_t MEMORY_END = (1ULL << 47) - PAGE_BYTES;
/* An area that would take too long to look through without the kernel's search. */
static const uint64_t AREA_MOST = 1ULL << 35;

/* /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst. */
static const uint64_t PM_FRAME = (1ULL << 55) - 1, PM_SOFT_DIRTY = 1ULL << 55,
		      PM_EXCLUSIVE = 1ULL << 56, PM_FILE = 1ULL << 61, PM_SWAPPED = 1ULL << 62,
		      PM_PRESENT = 1ULL << 63;

struct block {
	uint64_t start;
	uint64_t frames[SAMPLES];
	uint16_t pages[SAMPLES]; /* of the block */
	uint8_t count;
	bool is_doubtful; /* something else was there when it was read */
	bool has_stayed;
};

struct blocks {
	struct block *list; /* by address */
	size_t count, room;
};

struct task {
	uint64_t id;
	pid_t pid;	/* ours */
	unsigned round; /* of the last look */
	bool is_merged; /* at a look so far */
	struct blocks noted, judged;
};

struct frames {
	pid_t root;
	bool can_scan;
	bool merges; /* at the last look the kernel merged pages */
	struct task *tasks;
	size_t count, room;
	/* The task that is open: */
	uint64_t open; /* 0 = none */
	int pagemap, memory;
};

status *frames_new(pid_t root, bool is_old_kernel, struct frames **ret_frames)
{
	struct frames *frames = calloc(1, sizeof(*frames));

	if (frames == NULL)
		return status_errnof(ENOMEM, "page frames");
	frames->root = root;
	frames->can_scan = !is_old_kernel;
	frames->pagemap = frames->memory = -1;
	*ret_frames = frames;
	return NULL;
}

/* --- tasks --- */

static struct task *find_task(const struct frames *frames, uint64_t id)
{
	for (size_t i = 0; i < frames->count; i++)
		if (frames->tasks[i].id == id)
			return &frames->tasks[i];
	return NULL;
}

static status *add_task(struct frames *frames, uint64_t id, pid_t pid)
{
	struct task *known = find_task(frames, id);

	if (known != NULL) {
		known->pid = pid;
		return NULL;
	}
	if (frames->count == frames->room) {
		size_t room = frames->room * 2 + 16;
		struct task *grown = reallocarray(frames->tasks, room, sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "page frames");
		frames->tasks = grown;
		frames->room = room;
	}
	frames->tasks[frames->count++] = (struct task){.id = id, .pid = pid};
	return NULL;
}

static void drop_task(struct frames *frames, size_t number)
{
	struct task *task = &frames->tasks[number];

	free(task->noted.list);
	free(task->judged.list);
	*task = frames->tasks[--frames->count];
}

static void drop_ended(struct frames *frames)
{
	for (size_t i = frames->count; i-- > 0;)
		if (frames->tasks[i].pid == 0)
			drop_task(frames, i);
}

static bool is_pid_of(pid_t pid, uint64_t id)
{
	pid_t inner = 0;
	scoped(status) status *st = proc_innermost_pid(pid, &inner);

	return st == NULL && (uint64_t)inner == id;
}

static status *find_tasks(struct frames *frames)
{
	pid_t *pids = NULL;
	size_t count = 0;
	scoped(status) status *unseen = proc_tree(frames->root, &pids, &count);
	status *st = NULL;

	if (unseen == NULL)
		for (size_t i = 0; i < frames->count; i++)
			frames->tasks[i].pid = 0;
	for (size_t i = 0; st == NULL && i < count; i++) {
		pid_t inner = 0;
		scoped(status) status *gone = proc_innermost_pid(pids[i], &inner);
		if (gone == NULL)
			st = add_task(frames, (uint64_t)inner, pids[i]);
	}
	free(pids);
	drop_ended(frames);
	return st;
}

static void close_task(struct frames *frames)
{
	close_if_open(TAKE_FD(frames->pagemap));
	close_if_open(TAKE_FD(frames->memory));
	frames->open = 0;
}

static void open_task(struct frames *frames, const struct task *task)
{
	char path[64];

	close_task(frames);
	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)task->pid);
	frames->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)task->pid);
	frames->memory = open(path, O_RDONLY | O_CLOEXEC);
	frames->open = task->id;
}

status *frames_find(struct frames *frames, uint64_t id, pid_t *ret_pid)
{
	const struct task *task = find_task(frames, id);
	status *st = NULL;

	if (task == NULL || !is_pid_of(task->pid, id)) {
		st = find_tasks(frames);
		task = find_task(frames, id);
	}
	*ret_pid = task != NULL && is_pid_of(task->pid, id) ? task->pid : 0;
	return st;
}

/* Its files are open then. *ret_task: NULL when there is no such process. */
static status *reach_task(struct frames *frames, uint64_t id, struct task **ret_task)
{
	pid_t pid = 0;
	status *st = frames_find(frames, id, &pid);

	*ret_task = pid != 0 ? find_task(frames, id) : NULL;
	if (st == NULL && *ret_task != NULL)
		open_task(frames, *ret_task);
	return st;
}

/* --- what lies there now --- */

/* 0: nothing that would tell. */
static uint64_t frame_of(uint64_t entry)
{
	if ((entry & (PM_PRESENT | PM_SWAPPED)) == 0 || (entry & PM_FILE) != 0 ||
	    (entry & PM_FRAME) == 0)
		return 0;
	return entry & (PM_PRESENT | PM_SWAPPED | PM_FRAME);
}

static bool read_entries(int pagemap, uint64_t address, uint64_t *entries, size_t count)
{
	return pread(pagemap, entries, count * sizeof(*entries),
		     (off_t)(address / PAGE_BYTES * sizeof(*entries))) ==
	       (ssize_t)(count * sizeof(*entries));
}

/* By pages that have not been written since, in the frames that they were in: page tables move as a
 * whole, so all the others are where they were, too. (One that was written may be a new page that
 * got a frame which had become free.) */
static bool is_as_noted(const struct block *block, int pagemap)
{
	unsigned same = 0;

	for (unsigned i = 0; i < block->count && same < SAME_ENOUGH; i++) {
		uint64_t entry = PM_SOFT_DIRTY;
		if (!read_entries(pagemap, block->start + (uint64_t)block->pages[i] * PAGE_BYTES,
				  &entry, 1))
			return false;
		if ((entry & PM_SOFT_DIRTY) != 0 || frame_of(entry) == 0)
			continue;
		if (frame_of(entry) != block->frames[i])
			return false;
		same++;
	}
	return same > 0;
}

static struct block *find_block(const struct blocks *blocks, uint64_t start)
{
	size_t low = 0, high = blocks->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (blocks->list[middle].start == start)
			return &blocks->list[middle];
		if (blocks->list[middle].start < start)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* --- noting --- */

static status *add_block(struct blocks *blocks, uint64_t start, struct block **ret_block)
{
	if (blocks->count == blocks->room) {
		size_t room = blocks->room * 2 + 64;
		struct block *grown = reallocarray(blocks->list, room, sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "page frames");
		blocks->list = grown;
		blocks->room = room;
	}
	*ret_block = &blocks->list[blocks->count++];
	**ret_block = (struct block){.start = start};
	return NULL;
}

/* Takes samples of those of a block's pages that are wanted, spread over them. */
static status *note_block(const struct frames *frames, struct blocks *blocks, uint64_t start,
			  const bool wanted[BLOCK_PAGES])
{
	uint64_t entries[BLOCK_PAGES];
	unsigned count = 0, seen = 0;
	struct block *block;

	for (unsigned page = 0; page < BLOCK_PAGES; page++)
		count += wanted[page];
	if (count == 0 || !read_entries(frames->pagemap, start, entries, BLOCK_PAGES))
		return NULL;
	status *st = add_block(blocks, start, &block);
	for (unsigned page = 0; st == NULL && page < BLOCK_PAGES && block->count < SAMPLES;
	     page++) {
		if (!wanted[page] || seen++ < block->count * count / SAMPLES ||
		    frame_of(entries[page]) == 0)
			continue;
		block->pages[block->count] = (uint16_t)page;
		block->frames[block->count++] = frame_of(entries[page]);
	}
	return st;
}

/* The next block with pages, by the kernel's search, which passes over holes and knows the page of
 * zeros. */
static int scan(const struct frames *frames, uint64_t address, struct page_region regions[REGIONS])
{
	const uint64_t not_wanted = PAGE_IS_PFNZERO | PAGE_IS_FILE;
	struct pm_scan_arg found = {
	    .size = sizeof(found),
	    .start = address,
	    .end = MEMORY_END,
	    .vec = (uintptr_t)regions,
	    .vec_len = REGIONS,
	    .max_pages = BLOCK_PAGES,
	    .category_inverted = not_wanted,
	    .category_mask = not_wanted,
	    .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	    .return_mask = PAGE_IS_PRESENT,
	};

	return ioctl(frames->pagemap, PAGEMAP_SCAN, &found);
}

static status *note_by_scan(const struct frames *frames, struct blocks *blocks)
{
	struct page_region regions[REGIONS];
	status *st = NULL;
	int count;

	for (uint64_t address = 0; st == NULL && (count = scan(frames, address, regions)) > 0;
	     address += BLOCK_BYTES) {
		bool wanted[BLOCK_PAGES] = {false};
		address = regions[0].start / BLOCK_BYTES * BLOCK_BYTES;
		for (int i = 0; i < count; i++)
			for (uint64_t at = regions[i].start;
			     at < regions[i].end && at - address < BLOCK_BYTES; at += PAGE_BYTES)
				wanted[(at - address) / PAGE_BYTES] = true;
		st = note_block(frames, blocks, address, wanted);
	}
	return st;
}

/* Only pages that nobody else has: one of zeros is everybody's. */
static status *note_area(const struct frames *frames, struct blocks *blocks,
			 const struct live_area *area)
{
	uint64_t entries[BLOCK_PAGES];
	status *st = NULL;

	for (uint64_t start = area->start / BLOCK_BYTES * BLOCK_BYTES;
	     st == NULL && start < area->end; start += BLOCK_BYTES) {
		bool wanted[BLOCK_PAGES] = {false};
		if ((blocks->count > 0 && blocks->list[blocks->count - 1].start == start) ||
		    !read_entries(frames->pagemap, start, entries, BLOCK_PAGES))
			continue;
		for (unsigned page = 0; page < BLOCK_PAGES; page++)
			wanted[page] =
			    (entries[page] & PM_EXCLUSIVE) != 0 && frame_of(entries[page]) != 0;
		st = note_block(frames, blocks, start, wanted);
	}
	return st;
}

static status *note_by_area(const struct frames *frames, pid_t pid, struct blocks *blocks)
{
	char path[64], line[LINE_BYTES];
	struct live_area area;
	status *st = NULL;

	(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	FILE *maps = fopen(path, "re");
	while (st == NULL && maps != NULL && fgets(line, sizeof(line), maps) != NULL)
		if (live_area_parse(line, &area) && !area.is_shared &&
		    area.end - area.start <= AREA_MOST)
			st = note_area(frames, blocks, &area);
	if (maps != NULL)
		(void)fclose(maps);
	return st;
}

static status *note(struct frames *frames, struct task *task)
{
	status *st = NULL;

	if (frames->can_scan) {
		struct page_region none[REGIONS];
		frames->can_scan = scan(frames, MEMORY_END - PAGE_BYTES, none) >= 0 ||
				   (errno != ENOTTY && errno != EINVAL);
	}
	if (frames->can_scan)
		st = note_by_scan(frames, &task->noted);
	else
		st = note_by_area(frames, task->pid, &task->noted);
	return st;
}

/* --- looks --- */

/* Whether the kernel merges pages at all. */
static bool merges(void)
{
	int run = 0;
	FILE *file = fopen("/sys/kernel/mm/ksm/run", "re");

	if (file == NULL)
		return false;
	if (fscanf(file, "%d", &run) != 1)
		run = 1;
	(void)fclose(file);
	return run != 0;
}

/* Whether the kernel compares its pages with others' to merge them (KSM): a page that was written
 * is not dirty any more once it is merged (replace_page in mm/ksm.c). Kernels before 6.1 do not
 * tell. */
static bool is_merged(pid_t pid)
{
	char path[64];
	unsigned long long items = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/ksm_stat", (int)pid);
	FILE *file = fopen(path, "re");
	if (file == NULL)
		return merges();
	int found = fscanf(file, "ksm_rmap_items %llu", &items);
	(void)fclose(file);
	return found == 1 && items > 0;
}

/* The bits are of the look before: of the round before, or something went wrong then. */
static void judge(struct frames *frames, struct task *task, unsigned round)
{
	struct blocks spare = task->judged;

	frames->merges = merges();
	task->is_merged = task->is_merged || is_merged(task->pid);
	for (size_t i = 0; i < task->noted.count; i++) {
		struct block *block = &task->noted.list[i];
		block->has_stayed = task->round + 1 == round && !task->is_merged &&
				    !block->is_doubtful && is_as_noted(block, frames->pagemap);
	}
	task->judged = task->noted;
	task->noted = spare;
	task->noted.count = 0;
}

status *frames_look(struct frames *frames, uint64_t id, unsigned round, bool is_last)
{
	struct task *task;
	status *st = reach_task(frames, id, &task);

	if (st != NULL || task == NULL || task->round == round)
		return st;
	judge(frames, task, round);
	task->round = round;
	return is_last ? NULL : note(frames, task);
}

bool frames_have_stayed(const struct frames *frames, uint64_t id, unsigned round, uint64_t address,
			uint64_t pages, uint64_t *ret_alike)
{
	const uint64_t start = address / BLOCK_BYTES * BLOCK_BYTES;
	const uint64_t left = (start + BLOCK_BYTES - address) / PAGE_BYTES;
	const struct task *task = find_task(frames, id);

	*ret_alike = pages < left ? pages : left;
	if (task == NULL || task->round != round)
		return false;
	const struct block *block = find_block(&task->judged, start);
	/* It may be merged between the look and CRIU's. */
	return block != NULL && block->has_stayed && !(frames->merges && is_merged(task->pid));
}

void frames_witness(struct frames *frames, uint64_t id, int pagemap, uint64_t address,
		    uint64_t pages)
{
	const struct task *task = find_task(frames, id);
	uint64_t end = address + pages * PAGE_BYTES;

	for (uint64_t start = address / BLOCK_BYTES * BLOCK_BYTES; task != NULL && start < end;
	     start += BLOCK_BYTES) {
		struct block *block = find_block(&task->noted, start);
		if (block != NULL && !block->is_doubtful)
			block->is_doubtful = !is_as_noted(block, pagemap);
	}
}

size_t frames_read(struct frames *frames, uint64_t id, uint64_t address, size_t pages,
		   uint8_t *data)
{
	struct task *task = NULL;

	if (frames->open != id) {
		scoped(status) status *st = reach_task(frames, id, &task);
		if (st != NULL || task == NULL)
			return 0;
	}
	frames_witness(frames, id, frames->pagemap, address, pages);
	ssize_t got = pread(frames->memory, data, pages * PAGE_BYTES, (off_t)address);
	frames_witness(frames, id, frames->pagemap, address, pages);
	return got > 0 ? (size_t)got / PAGE_BYTES : 0;
}

void frames_forget(struct frames *frames)
{
	close_task(frames);
	while (frames->count > 0)
		drop_task(frames, frames->count - 1);
}

void frames_free(struct frames *frames)
{
	if (frames == NULL)
		return;
	frames_forget(frames);
	free(frames->tasks);
	free(frames);
}
