/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/shared_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "engine/criu/image_records.h"
#include "engine/criu/page_stream.h"
#include "engine/criu/pagemap.h"
#include "engine/host/files.h"
#include "memfd.pb-c.h"

enum {
	MAGIC_MEMFD = 0x48453499,
	MAGIC_FDINFO = 0x56213732,
	KIND_MEMFD = 18, /* of a descriptor */
	/* F_GET_SEALS of a mapping of shared anonymous memory, and of what CRIU restored it as. */
	SEALS_ANONYMOUS = 1,
	LEAST_PAGES = 256, /* 1 MiB: less is restored as fast as it is asked for */
	WINDOW_BYTES = 8 * 1024 * 1024,
	IMAGE_MOST = 64 * 1024 * 1024,
	NAME_GROWTH = 32,
	NAMES_MOST = FILES_PATH + 64,
};

/* What CRIU calls shared anonymous memory, and a memfd of it that it restored. */
static const char ANONYMOUS_NAME[] = "/dev/zero";

struct object {
	uint32_t id;	/* CRIU's shmid, an inode's number; 0: free */
	unsigned round; /* whose content it has */
	uint64_t pages;
};

struct shared_memory {
	char images[FILES_PATH];
	struct object objects[SHARED_MEMORY_MOST];
	int fds[SHARED_MEMORY_MOST];
	unsigned round;
	bool is_last;
	uint64_t pages_most; /* that may be new in this round */
	bool is_unfit;	     /* a task has a memfd open, or the tree has a user namespace */
	status *error;	     /* of a walk over a directory */
};

void shared_memory_free(struct shared_memory *memory)
{
	if (memory == NULL)
		return;
	for (size_t i = 0; i < SHARED_MEMORY_MOST; i++)
		close_if_open(memory->fds[i]);
	status_free(memory->error);
	free(memory);
}

status *shared_memory_new(const char *images, struct shared_memory **ret_memory)
{
	scoped(shared_memory) struct shared_memory *memory = calloc(1, sizeof(*memory));

	if (memory == NULL)
		return status_errnof(ENOMEM, "shared memory");
	(void)snprintf(memory->images, sizeof(memory->images), "%s", images);
	for (size_t i = 0; i < SHARED_MEMORY_MOST; i++)
		memory->fds[i] = -1;
	for (size_t i = 0; i < SHARED_MEMORY_MOST; i++) {
		memory->fds[i] = memfd_create(ANONYMOUS_NAME, MFD_CLOEXEC);
		if (memory->fds[i] < 0)
			return status_errnof(errno, "cannot make a file for shared memory");
	}
	*ret_memory = TAKE(memory);
	return NULL;
}

const int *shared_memory_fds(const struct shared_memory *memory)
{
	return memory->fds;
}

/* --- a round's content --- */

/* Where a pages file is being read. */
struct reader {
	int fd;
	uint64_t size;
	const uint8_t *window; /* mapped, or NULL */
	uint64_t window_start, window_size;
	uint64_t data_start, data_end; /* what lies between is written; before it is a hole */
};

static void end_window(struct reader *reader)
{
	if (reader->window != NULL)
		(void)munmap((void *)reader->window, reader->window_size);
	reader->window = NULL;
}

static status *window_at(struct reader *reader, uint64_t offset)
{
	if (reader->window != NULL && offset >= reader->window_start &&
	    offset < reader->window_start + reader->window_size)
		return NULL;
	end_window(reader);
	uint64_t left = reader->size - offset;
	reader->window_start = offset;
	reader->window_size = left < WINDOW_BYTES ? left : WINDOW_BYTES;
	void *window = mmap(NULL, reader->window_size, PROT_READ, MAP_SHARED, reader->fd,
			    (off_t)reader->window_start);
	if (window == MAP_FAILED)
		return status_errnof(errno, "cannot read pages of shared memory");
	reader->window = window;
	return NULL;
}

static status *data_at(struct reader *reader, uint64_t offset)
{
	if (offset < reader->data_end)
		return NULL;
	off_t start = lseek(reader->fd, (off_t)offset, SEEK_DATA);
	off_t end = start >= 0 ? lseek(reader->fd, start, SEEK_HOLE) : -1;
	if ((start < 0 && errno != ENXIO) || (start >= 0 && end < 0))
		return status_errnof(errno, "cannot read pages of shared memory");
	reader->data_start = start < 0 ? reader->size : (uint64_t)start;
	reader->data_end = start < 0 ? reader->size : (uint64_t)end;
	return NULL;
}

/* What is not there reads as zeros, and takes no memory. */
static status *punch(int fd, uint64_t from, uint64_t to)
{
	if (from < to && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
				   (off_t)(to - from)) != 0)
		return status_errnof(errno, "cannot clear shared memory");
	return NULL;
}

static status *write_at(int fd, const uint8_t *data, uint64_t size, uint64_t address)
{
	while (size > 0) {
		ssize_t done = pwrite(fd, data, size, (off_t)address);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return status_errnof(done < 0 ? errno : EIO, "cannot fill shared memory");
		data += done;
		address += (uint64_t)done;
		size -= (uint64_t)done;
	}
	return NULL;
}

static uint64_t least(uint64_t one, uint64_t other)
{
	return one < other ? one : other;
}

/* `size` bytes of the pages file to `address`. */
static status *copy_run(struct reader *reader, uint64_t offset, int fd, uint64_t address,
			uint64_t size)
{
	status *st = NULL;

	if (offset > reader->size || size > reader->size - offset)
		return status_errorf(STATUS_DATA_LOSS,
				     "a pages file is shorter than its pagemap says");
	while (st == NULL && size > 0) {
		uint64_t part = 0;
		st = data_at(reader, offset);
		if (st == NULL && offset < reader->data_start) {
			part = least(size, reader->data_start - offset);
			st = punch(fd, address, address + part);
		} else if (st == NULL) {
			st = window_at(reader, offset);
			part = least(size, reader->data_end - offset);
			part = least(part, reader->window_start + reader->window_size - offset);
			if (st == NULL)
				st = write_at(fd, reader->window + (offset - reader->window_start),
					      part, address);
		}
		offset += part;
		address += part;
		size -= part;
	}
	return st;
}

static status *copy_runs(struct reader *reader, const struct pagemap *map, int fd)
{
	uint64_t offset = 0, from = 0;
	struct stat info;
	status *st = fstat(fd, &info) != 0 ? status_errnof(errno, "shared memory") : NULL;

	for (size_t i = 0; st == NULL && i < map->count; i++) {
		const struct pagemap_run *run = &map->runs[i];
		uint64_t bytes = run->pages * PAGE_BYTES;
		st = punch(fd, from, least(run->address, (uint64_t)info.st_size));
		if (st == NULL && (run->flags & PAGE_PRESENT) != 0) {
			st = copy_run(reader, offset, fd, run->address, bytes);
			offset += bytes;
		}
		from = run->address + bytes;
	}
	return st == NULL ? punch(fd, from, (uint64_t)info.st_size) : st;
}

static status *apply(const struct shared_memory *memory, const struct pagemap *map, int fd)
{
	char path[NAMES_MOST];
	struct stat info;

	(void)snprintf(path, sizeof(path), "%s/%u/pages-%u.img", memory->images, memory->round,
		       map->pages_id);
	scoped(fd) int pages = open(path, O_RDONLY | O_CLOEXEC);
	if (pages < 0 || fstat(pages, &info) != 0)
		return status_errnof(errno, "cannot open %s", path);
	struct reader reader = {.fd = pages, .size = (uint64_t)info.st_size};
	status *st = copy_runs(&reader, map, fd);
	end_window(&reader);
	return st;
}

/* --- rounds --- */

static void give_back(struct shared_memory *memory, size_t number)
{
	memory->objects[number] = (struct object){0};
	/* What may be left of it is cleared, or written over, by the next that comes here. */
	if (ftruncate(memory->fds[number], 0) != 0)
		errno = 0;
}

static uint64_t pages_of(const struct pagemap *map, bool *ret_is_whole)
{
	uint64_t pages = 0;

	*ret_is_whole = true;
	for (size_t i = 0; i < map->count; i++) {
		pages += map->runs[i].pages;
		*ret_is_whole = *ret_is_whole && (map->runs[i].flags & PAGE_PRESENT) != 0;
	}
	return pages;
}

/* The memory's number; SHARED_MEMORY_MOST: it has none. One that is new takes a free one. */
static size_t number_of(struct shared_memory *memory, uint32_t id, bool may_be_new)
{
	size_t spare = SHARED_MEMORY_MOST;

	for (size_t i = 0; i < SHARED_MEMORY_MOST; i++) {
		if (memory->objects[i].id == id)
			return i;
		if (memory->objects[i].id == 0 && spare == SHARED_MEMORY_MOST)
			spare = i;
	}
	if (spare < SHARED_MEMORY_MOST && may_be_new)
		memory->objects[spare].id = id;
	return may_be_new ? spare : SHARED_MEMORY_MOST;
}

static void add_image(struct shared_memory *memory, uint32_t id, const struct pagemap *map)
{
	bool is_whole;
	uint64_t pages = pages_of(map, &is_whole);
	bool may_be_new =
	    is_whole && !memory->is_last && pages >= LEAST_PAGES && pages <= memory->pages_most;
	size_t number = number_of(memory, id, may_be_new);

	if (number == SHARED_MEMORY_MOST)
		return;
	scoped(status) status *st = apply(memory, map, memory->fds[number]);
	if (st != NULL)
		give_back(memory, number);
	else
		memory->objects[number] = (struct object){id, memory->round, pages};
}

static void visit_image(void *self, const char *name)
{
	struct shared_memory *memory = self;
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	char path[NAMES_MOST];
	unsigned id;
	int end = 0;

	if (memory->error != NULL || sscanf(name, "pagemap-shmem-%10u.img%n", &id, &end) != 1 ||
	    end == 0 || name[end] != '\0' || id == 0)
		return;
	(void)snprintf(path, sizeof(path), "%s/%u/%.64s", memory->images, memory->round, name);
	memory->error = pagemap_read(path, &map);
	if (memory->error == NULL)
		add_image(memory, id, &map);
}

status *shared_memory_add(struct shared_memory *memory, unsigned round, bool is_last,
			  uint64_t pages_most)
{
	char dir[NAMES_MOST];

	memory->round = round;
	memory->is_last = is_last;
	memory->pages_most = pages_most;
	(void)snprintf(dir, sizeof(dir), "%s/%u", memory->images, round);
	status *st = files_each(dir, visit_image, memory);
	st = status_first(st, TAKE(memory->error));
	/* What is not in this round is no longer. */
	for (size_t i = 0; i < SHARED_MEMORY_MOST; i++)
		if (memory->objects[i].id != 0 && memory->objects[i].round != round)
			give_back(memory, i);
	return status_wrapf(st, "shared memory of round %u", round);
}

/* --- the end --- */

static status *find_memfd(struct image_records *records, bool *ret_has)
{
	const uint8_t *message;
	uint32_t size;

	while (image_records_next(records, &message, &size)) {
		Haul__Memfd__Descriptor *descriptor =
		    haul__memfd__descriptor__unpack(NULL, size, message);
		if (descriptor == NULL)
			return status_errorf(STATUS_DATA_LOSS,
					     "an fdinfo image has a record that cannot be read");
		*ret_has = *ret_has || descriptor->type == KIND_MEMFD;
		haul__memfd__descriptor__free_unpacked(descriptor, NULL);
	}
	return NULL;
}

/* CRIU would give a descriptor of it a place and owner that are not its own; in a user namespace,
 * the file another owner. */
static void look_at_image(void *self, const char *name)
{
	struct shared_memory *memory = self;
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	struct image_records records;
	char path[NAMES_MOST];

	if (strncmp(name, "userns-", strlen("userns-")) == 0)
		memory->is_unfit = true;
	if (memory->error != NULL || strncmp(name, "fdinfo-", strlen("fdinfo-")) != 0)
		return;
	(void)snprintf(path, sizeof(path), "%s/%u/%.64s", memory->images, memory->round, name);
	memory->error = files_read(path, IMAGE_MOST, &image);
	if (memory->error == NULL)
		memory->error =
		    image_records_open(name, MAGIC_FDINFO, image.data, image.size, &records);
	if (memory->error == NULL)
		memory->error = find_memfd(&records, &memory->is_unfit);
}

/* Whether the object is to be this memory; it is made so. */
static bool take_over(const struct shared_memory *memory, const Haul__Memfd__Inode *inode,
		      size_t number)
{
	int fd = memory->fds[number];

	return strcmp(inode->name, ANONYMOUS_NAME) == 0 && inode->seals == SEALS_ANONYMOUS &&
	       !inode->has_hugetlb_flag && inode->size <= INT64_MAX &&
	       ftruncate(fd, (off_t)inode->size) == 0 && fchown(fd, inode->uid, inode->gid) == 0 &&
	       (!inode->has_mode || fchmod(fd, inode->mode & 07777) == 0);
}

struct naming {
	struct shared_memory *memory;
	struct criu_inherit *inherits;
	size_t count;
	uint64_t pages;
};

/* One record of memfd.img to `out`. */
static size_t name_inode(struct naming *naming, const uint8_t *message, uint32_t size, uint8_t *out)
{
	struct shared_memory *memory = naming->memory;
	Haul__Memfd__Inode *inode = haul__memfd__inode__unpack(NULL, size, message);
	size_t number = inode != NULL && inode->shmid != 0 ? number_of(memory, inode->shmid, false)
							   : SHARED_MEMORY_MOST;
	size_t written = 0;

	if (number < SHARED_MEMORY_MOST && naming->count < SHARED_MEMORY_MOST &&
	    take_over(memory, inode, number)) {
		struct criu_inherit *inherit = &naming->inherits[naming->count++];
		inherit->number = (unsigned)number;
		(void)snprintf(inherit->key, sizeof(inherit->key), "/memfd:haul-%u", inode->shmid);
		char *name = TAKE(inode->name);
		inode->name = inherit->key + strlen("/memfd:");
		written = image_put_message(&inode->base, out);
		inode->name = name;
		naming->pages += memory->objects[number].pages;
	}
	if (inode != NULL)
		haul__memfd__inode__free_unpacked(inode, NULL);
	return written > 0 ? written : image_put_bytes(message, size, out);
}

static status *name_all(struct naming *naming, const struct buffer *image, struct buffer *ret_named)
{
	struct image_records records;
	const uint8_t *message;
	uint32_t size;
	status *st =
	    image_records_open("memfd.img", MAGIC_MEMFD, image->data, image->size, &records);

	if (st != NULL)
		return st;
	uint8_t *out = malloc(image->size + records.count * NAME_GROWTH);
	if (out == NULL)
		return status_errnof(ENOMEM, "cannot name shared memory");
	size_t used = image_put_header(MAGIC_MEMFD, out);
	while (image_records_next(&records, &message, &size))
		used += name_inode(naming, message, size, out + used);
	*ret_named = (struct buffer){out, used};
	return NULL;
}

static bool has_any(const struct shared_memory *memory)
{
	for (size_t i = 0; i < SHARED_MEMORY_MOST; i++)
		if (memory->objects[i].id != 0)
			return true;
	return false;
}

status *shared_memory_finish(struct shared_memory *memory, struct criu_inherit *ret_inherits,
			     size_t *ret_count, uint64_t *ret_pages)
{
	char path[NAMES_MOST];
	struct naming naming = {.memory = memory, .inherits = ret_inherits};
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	struct buffer named __attribute__((cleanup(scope_buffer))) = {0};

	*ret_count = 0;
	*ret_pages = 0;
	if (!has_any(memory))
		return NULL;
	(void)snprintf(path, sizeof(path), "%s/%u", memory->images, memory->round);
	status *st = files_each(path, look_at_image, memory);
	st = status_first(st, TAKE(memory->error));
	if (st != NULL || memory->is_unfit)
		return st;
	(void)snprintf(path, sizeof(path), "%s/%u/memfd.img", memory->images, memory->round);
	st = files_read(path, IMAGE_MOST, &image);
	if (status_code_of(st) == STATUS_NOT_FOUND) {
		status_free(st);
		return NULL;
	}
	if (st == NULL)
		st = name_all(&naming, &image, &named);
	if (st == NULL && naming.count > 0)
		st = files_replace(path, named.data, named.size);
	if (st != NULL)
		return st;
	*ret_count = naming.count;
	*ret_pages = naming.pages;
	return NULL;
}
