/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/live_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "engine/criu/page_stream.h"
#include "engine/host/proc.h"

enum {
	RUN_PAGES = 1024, /* offered at once */
	MAP_PAGES = 4096, /* looked up at once */
	REGIONS = 256,	  /* found by one scan */
	LINE_BYTES = 4608 /* a path of maps has at most 4096 */
};

/* /proc/PID/pagemap, Documentation/admin-guide/mm/pagemap.rst. */
static const uint64_t PM_PRESENT = 1ULL << 63, PM_SWAPPED = 1ULL << 62, PM_FILE = 1ULL << 61;

struct segment {
	struct live_area area;
	pid_t pid; /* through whom it is read */
};

struct live_pages {
	int fd;
	const struct live_options *options;
	struct segment *segments;
	size_t segment_count, segment_room;
	uint64_t image; /* that is open */
	uint64_t next;	/* address in it: of what is below nothing can be sent any more */
	int pagemap;	/* of the task that is read */
	int memory;	/* the same, for what it may not read itself */
	int segment;	/* that is read instead; -1: none */
	pid_t pid;
	bool is_protected; /* the area that is read */
	bool can_scan;	   /* the kernel finds pages for us: since 6.7 */
	struct page_region regions[REGIONS];
	uint64_t entries[MAP_PAGES];
};

/* --- the socket --- */

/* A command that is answered; the answer does not matter here. */
static status *command(int fd, const struct page_header *header, size_t answer_size)
{
	uint8_t bytes[PAGE_HEADER_BYTES], answer[4];

	page_header_encode(header, bytes);
	if (send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != (ssize_t)sizeof(bytes) ||
	    recv(fd, answer, answer_size, MSG_WAITALL) != (ssize_t)answer_size)
		return status_errorf(STATUS_ABORTED, "the sender of pages went away");
	return NULL;
}

static status *open_image(struct live_pages *live, uint64_t image)
{
	const struct page_header header = {.command = PAGE_OPEN, .image = image};

	live->image = image;
	live->next = 0;
	return command(live->fd, &header, 1);
}

/* The sender reads them, then it answers. */
static status *send_pages(struct live_pages *live, uint64_t address, size_t pages)
{
	const struct page_header header = {PAGE_ADD, PAGE_PRESENT, (uint32_t)pages, address,
					   live->image};

	return command(live->fd, &header, sizeof(int32_t));
}

/* --- areas --- */

bool live_area_parse(const char *line, struct live_area *ret_area)
{
	struct live_area area = {0};
	char access[5];
	uint64_t offset;
	unsigned major, minor;
	int name = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64 " %n",
		   &area.start, &area.end, access, &offset, &major, &minor, &area.inode,
		   &name) < 7 ||
	    strlen(access) != 4 || area.end <= area.start || name == 0)
		return false;
	if (access[3] == 's') {
		/* CRIU names a segment's image by its inode, and counts its pages from 0. What it
		 * has restored is a memfd. */
		area.is_shared = strncmp(line + name, "/dev/zero (deleted)", 19) == 0 ||
				 strncmp(line + name, "/memfd:", 7) == 0;
		*ret_area = area;
		return area.is_shared;
	}
	area.is_vdso = strncmp(line + name, "[vdso]", 6) == 0;
	area.is_protected = access[0] != 'r';
	*ret_area = area;
	/* Not the kernel's own pages. */
	return area.is_vdso || strncmp(line + name, "[v", 2) != 0;
}

static bool is_wanted(uint64_t entry)
{
	return (entry & (PM_PRESENT | PM_SWAPPED)) != 0 && (entry & PM_FILE) == 0;
}

static void witness(const struct live_pages *live, uint64_t address, size_t pages)
{
	if (live->options->frames != NULL && live->segment < 0)
		frames_witness(live->options->frames, live->image >> 8, live->pagemap, address,
			       pages);
}

static ssize_t read_bytes(const struct live_pages *live, uint64_t address, uint8_t *data,
			  size_t size)
{
	struct iovec here = {data, size};
	struct iovec there = {(void *)(uintptr_t)address, size};

	if (live->segment >= 0)
		return pread(live->segment, data, size, (off_t)address);
	return live->is_protected ? pread(live->memory, data, size, (off_t)address)
				  : process_vm_readv(live->pid, &here, 1, &there, 1, 0);
}

status *live_pages_read(void *self, const struct page_header *run, uint8_t *data,
			uint32_t *ret_pages)
{
	const struct live_pages *live = self;

	witness(live, run->address, run->pages);
	ssize_t got = read_bytes(live, run->address, data, (size_t)run->pages * PAGE_BYTES);
	witness(live, run->address, run->pages);
	*ret_pages = got > 0 ? (uint32_t)((size_t)got / PAGE_BYTES) : 0;
	return NULL;
}

/* Pages that lie in a row. */
static status *send_run(struct live_pages *live, uint64_t address, uint64_t pages)
{
	status *st = NULL;

	while (st == NULL && pages > 0) {
		uint64_t part = pages < RUN_PAGES ? pages : RUN_PAGES;
		st = send_pages(live, address, (size_t)part);
		address += part * PAGE_BYTES;
		pages -= part;
	}
	return st;
}

static status *send_looked_up(struct live_pages *live, uint64_t address, size_t count)
{
	status *st = NULL;

	for (size_t begin = 0, end; st == NULL && begin < count; begin = end) {
		bool wanted = is_wanted(live->entries[begin]);
		for (end = begin + 1; end < count && is_wanted(live->entries[end]) == wanted; end++)
			;
		if (wanted)
			st = send_run(live, address + begin * PAGE_BYTES, end - begin);
	}
	return st;
}

/* By looking at each page's entry. */
static status *look_up_area(struct live_pages *live, const struct live_area *area)
{
	uint64_t address = area->start;

	while (address < area->end) {
		uint64_t left = (area->end - address) / PAGE_BYTES;
		size_t count = left < MAP_PAGES ? (size_t)left : MAP_PAGES;
		ssize_t got = pread(live->pagemap, live->entries, count * sizeof(live->entries[0]),
				    (off_t)(address / PAGE_BYTES * sizeof(live->entries[0])));
		if (got <= 0) /* the area, or the process, is gone */
			return NULL;
		count = (size_t)got / sizeof(live->entries[0]);
		status *st = send_looked_up(live, address, count);
		if (st != NULL)
			return st;
		address += count * PAGE_BYTES;
	}
	return NULL;
}

/* By the kernel's search, which passes over holes: a process may reserve terabytes. False when this
 * kernel has none. */
static bool scan(struct live_pages *live, const struct live_area *area, uint64_t address,
		 struct pm_scan_arg *ret_found, int *ret_count)
{
	uint64_t not_wanted = PAGE_IS_PFNZERO | PAGE_IS_FILE;

	*ret_found = (struct pm_scan_arg){
	    .size = sizeof(*ret_found),
	    .start = address,
	    .end = area->end,
	    .vec = (uintptr_t)live->regions,
	    .vec_len = REGIONS,
	    .category_inverted = not_wanted,
	    .category_mask = not_wanted,
	    .category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
	    .return_mask = PAGE_IS_PRESENT,
	};
	*ret_count = ioctl(live->pagemap, PAGEMAP_SCAN, ret_found);
	return *ret_count >= 0 || (errno != ENOTTY && errno != EINVAL);
}

static status *scan_area(struct live_pages *live, const struct live_area *area)
{
	struct pm_scan_arg found;
	status *st = NULL;
	int count = 0;

	for (uint64_t address = area->start; st == NULL && address < area->end;
	     address = found.walk_end) {
		live->can_scan = scan(live, area, address, &found, &count);
		if (!live->can_scan)
			return look_up_area(live, area);
		if (count < 0 || found.walk_end <= address) /* it is gone */
			return NULL;
		for (int i = 0; st == NULL && i < count; i++)
			st = send_run(live, live->regions[i].start,
				      (live->regions[i].end - live->regions[i].start) / PAGE_BYTES);
	}
	return st;
}

static status *send_area(struct live_pages *live, const struct live_area *area)
{
	live->is_protected = area->is_protected;
	if (area->is_vdso)
		return send_run(live, area->start, (area->end - area->start) / PAGE_BYTES);
	return live->can_scan ? scan_area(live, area) : look_up_area(live, area);
}

/* --- tasks and segments --- */

/* Several may map a segment: any view of it leads to it. */
static status *note_segment(struct live_pages *live, const struct live_area *area)
{
	if (area->inode > UINT32_MAX) /* more than an image's name holds on the wire */
		return NULL;
	for (size_t i = 0; i < live->segment_count; i++) {
		if (live->segments[i].area.inode == area->inode)
			return NULL;
	}
	if (live->segment_count == live->segment_room) {
		size_t room = live->segment_room * 2 + 16;
		struct segment *grown = realloc(live->segments, room * sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "shared memory");
		live->segments = grown;
		live->segment_room = room;
	}
	live->segments[live->segment_count++] = (struct segment){*area, live->pid};
	return NULL;
}

static status *send_line(struct live_pages *live, const char *line)
{
	struct live_area area;

	if (!live_area_parse(line, &area))
		return NULL;
	if (area.is_shared)
		return live->options->is_shared ? note_segment(live, &area) : NULL;
	if (!live->options->is_private || !live_area_cut(&area, &live->next))
		return NULL;
	return send_area(live, &area);
}

bool live_area_cut(struct live_area *area, uint64_t *next)
{
	if (area->end <= *next)
		return false;
	area->start = area->start > *next ? area->start : *next;
	*next = area->end;
	return true;
}

/* What cannot be opened is not read. */
static void open_task(struct live_pages *live, pid_t pid)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	live->pid = pid;
	live->pagemap = open(path, O_RDONLY | O_CLOEXEC);
	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	live->memory = open(path, O_RDONLY | O_CLOEXEC);
}

static void close_task(struct live_pages *live)
{
	close_if_open(TAKE_FD(live->pagemap));
	close_if_open(TAKE_FD(live->memory));
}

static status *send_maps(struct live_pages *live, FILE *maps)
{
	char line[LINE_BYTES];
	pid_t image;
	status *st = proc_innermost_pid(live->pid, &image);

	if (status_code_of(st) == STATUS_NOT_FOUND) {
		status_free(st);
		return NULL;
	}
	if (st == NULL && live->options->is_private)
		st = open_image(live, (uint64_t)image << 8 | PAGE_TASK);
	while (st == NULL && fgets(line, sizeof(line), maps) != NULL)
		st = send_line(live, line);
	return st;
}

static status *send_task(struct live_pages *live, pid_t pid)
{
	char path[64];
	status *st = NULL;

	open_task(live, pid);
	(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	FILE *maps = live->pagemap >= 0 ? fopen(path, "re") : NULL;
	if (maps != NULL) {
		st = send_maps(live, maps);
		(void)fclose(maps);
	}
	close_task(live);
	return st;
}

static uint64_t pages_of(uint64_t bytes)
{
	return (bytes + PAGE_BYTES - 1) / PAGE_BYTES;
}

/* By its file: the page tables of one task tell only what that one has touched. */
static status *send_segment(struct live_pages *live, const struct segment *segment)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64,
		       (int)segment->pid, segment->area.start, segment->area.end);
	live->segment = open(path, O_RDONLY | O_CLOEXEC);
	if (live->segment < 0) /* it is gone */
		return NULL;
	status *st = open_image(live, segment->area.inode << 8 | PAGE_SHMEM);
	off_t begin = lseek(live->segment, 0, SEEK_DATA);
	while (st == NULL && begin >= 0) {
		off_t end = lseek(live->segment, begin, SEEK_HOLE);
		if (end <= begin)
			break;
		st = send_run(live, (uint64_t)begin, pages_of((uint64_t)(end - begin)));
		begin = lseek(live->segment, end, SEEK_DATA);
	}
	close_if_open(TAKE_FD(live->segment));
	return st;
}

status *live_pages_new(const struct live_options *options, struct live_pages **ret_live)
{
	struct live_pages *live = calloc(1, sizeof(*live));

	if (live == NULL)
		return status_errnof(ENOMEM, "pages of a running tree");
	live->options = options;
	live->pagemap = live->memory = live->segment = -1;
	live->can_scan = !options->is_old_kernel;
	*ret_live = live;
	return NULL;
}

void live_pages_free(struct live_pages *live)
{
	if (live == NULL)
		return;
	free(live->segments);
	free(live);
}

status *live_pages_send(struct live_pages *live, int fd, const pid_t *pids, size_t count)
{
	const struct page_header over = {.command = PAGE_FORCE_CLOSE};
	status *st = NULL;

	live->fd = fd;
	for (size_t i = 0; st == NULL && i < count; i++)
		st = send_task(live, pids[i]);
	for (size_t i = 0; st == NULL && i < live->segment_count; i++)
		st = send_segment(live, &live->segments[i]);
	return st == NULL ? command(fd, &over, 4) : st;
}
