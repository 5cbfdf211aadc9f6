/* SPDX-License-Identifier: Apache-2.0 */
/* The format of the files is CRIU's (version 4.1): pagemap-<id>.img is two magics, then a length and a
 * protobuf message each: first the head (1: number of the pages file), then entries (1: address, 2: pages, 4: flags).
 * pages-<n>.img is the PRESENT pages, in the entries' order, without anything between. */
#include "engine/criu/page_store.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/host/files.h"
#include "pagemap.pb-c.h"

enum {
	MAGIC_IMAGE = 0x54564319,
	MAGIC_PAGEMAP = 0x56084025,
	FIRST_PAGES_ID = 0x10001,
	IMAGES_MOST = 65536,
	ENTRY_MOST = 64,
	BUFFERED = 64 * 1024,
};

/* What a round knows of an image: for "in parent" and for one image not to be opened twice. */
struct image_list {
	uint64_t *images;
	size_t count, room;
};

struct page_store {
	char base[FILES_PATH];
	char dir[FILES_PATH];     /* of the round */
	unsigned round;
	struct image_list now, before;
	int pagemap, pages;       /* of the open image, or -1 */
	uint64_t image;
	uint64_t next_address;    /* entries ascend */
	uint64_t pages_written;   /* into the open pages file */
	uint64_t round_pages;
	uint32_t next_pages_id;
	/* An entry is written when the next one does not continue it. */
	struct page_header pending;
	uint8_t buffer[BUFFERED]; /* of the pagemap file */
	size_t buffered;
};

static bool list_has(const struct image_list *list, uint64_t image)
{
	for (size_t i = 0; i < list->count; i++) {
		if (list->images[i] == image)
			return true;
	}
	return false;
}

static status *list_add(struct image_list *list, uint64_t image)
{
	if (list->count == list->room) {
		size_t room = list->room == 0 ? 64 : list->room * 2;
		uint64_t *grown = room > IMAGES_MOST ? NULL : realloc(list->images, room * sizeof(*grown));
		if (grown == NULL)
			return status_errorf(STATUS_RESOURCE_EXHAUSTED, "too many images in one round");
		list->images = grown;
		list->room = room;
	}
	list->images[list->count++] = image;
	return NULL;
}

status *page_store_new(const char *base, struct page_store **ret_store)
{
	struct page_store *store = calloc(1, sizeof(*store));

	if (store == NULL)
		return status_errnof(ENOMEM, "page store");
	(void)snprintf(store->base, sizeof(store->base), "%s", base);
	store->pagemap = store->pages = -1;
	*ret_store = store;
	return NULL;
}

status *page_store_begin(struct page_store *store, unsigned round)
{
	char link[FILES_PATH + 16], target[32];

	if (store->pagemap >= 0)
		return status_errorf(STATUS_FAILED_PRECONDITION, "round %u is not at its end", store->round);
	if ((size_t)snprintf(store->dir, sizeof(store->dir), "%.3000s/%u", store->base, round) >=
	    sizeof(store->dir))
		return status_errorf(STATUS_INVALID_ARGUMENT, "path is too long");
	status *st = files_make_directory(store->dir);
	if (st != NULL)
		return st;
	if (round > 1) {
		(void)snprintf(link, sizeof(link), "%s/parent", store->dir);
		(void)snprintf(target, sizeof(target), "../%u", round - 1);
		if (symlink(target, link) != 0 && errno != EEXIST)
			return status_errnof(errno, "cannot link %s", link);
	}
	free(store->before.images);
	store->before = store->now;
	store->now = (struct image_list){0};
	store->round = round;
	store->round_pages = 0;
	store->next_pages_id = FIRST_PAGES_ID;
	return NULL;
}

/* --- the pagemap file --- */

static status *flush(struct page_store *store)
{
	for (size_t done = 0; done < store->buffered;) {
		ssize_t wrote = write(store->pagemap, store->buffer + done, store->buffered - done);
		if (wrote < 0 && errno != EINTR)
			return status_errnof(errno, "cannot write a pagemap in %s", store->dir);
		done += wrote > 0 ? (size_t)wrote : 0;
	}
	store->buffered = 0;
	return NULL;
}

static status *put(struct page_store *store, const void *data, size_t size)
{
	if (store->buffered + size > sizeof(store->buffer)) {
		status *st = flush(store);
		if (st != NULL)
			return st;
	}
	memcpy(store->buffer + store->buffered, data, size);
	store->buffered += size;
	return NULL;
}

static status *put_message(struct page_store *store, const ProtobufCMessage *message)
{
	uint8_t bytes[ENTRY_MOST + 4];
	uint32_t length = (uint32_t)protobuf_c_message_get_packed_size(message);

	if (length > ENTRY_MOST)
		return status_errorf(STATUS_INTERNAL, "pagemap entry of %u bytes", length);
	uint32_t on_disk = htole32(length);
	memcpy(bytes, &on_disk, 4);
	(void)protobuf_c_message_pack(message, bytes + 4);
	return put(store, bytes, length + 4);
}

static status *put_pending(struct page_store *store)
{
	Haul__Pagemap__Entry entry = HAUL__PAGEMAP__ENTRY__INIT;

	if (store->pending.pages == 0)
		return NULL;
	entry.vaddr = store->pending.address;
	entry.nr_pages = store->pending.pages;
	entry.has_flags = 1;
	entry.flags = store->pending.flags & (PAGE_IN_PARENT | PAGE_PRESENT);
	store->pending.pages = 0;
	return put_message(store, &entry.base);
}

/* --- one image --- */

static status *create(const struct page_store *store, const char *name, int *ret_fd)
{
	char path[FILES_PATH + 64];

	(void)snprintf(path, sizeof(path), "%s/%s", store->dir, name);
	*ret_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return *ret_fd < 0 ? status_errnof(errno, "cannot create %s", path) : NULL;
}

static status *close_image(struct page_store *store)
{
	struct stat info;

	if (store->pagemap < 0)
		return NULL;
	status *st = put_pending(store);
	if (st == NULL)
		st = flush(store);
	/* Zero pages at the end are a hole: the size must be said. */
	off_t size = (off_t)(store->pages_written * PAGE_BYTES);
	if (st == NULL && ftruncate(store->pages, size) != 0)
		st = status_errnof(errno, "cannot size a pages file in %s", store->dir);
	if (st == NULL && (fstat(store->pages, &info) != 0 || info.st_size != size))
		st = status_errorf(STATUS_DATA_LOSS, "a pages file in %s has the wrong size", store->dir);
	(void)close(TAKE_FD(store->pagemap));
	(void)close(TAKE_FD(store->pages));
	return st;
}

static status *write_head(struct page_store *store, uint32_t pages_id)
{
	Haul__Pagemap__Head head = HAUL__PAGEMAP__HEAD__INIT;
	uint32_t magics[2] = {htole32(MAGIC_IMAGE), htole32(MAGIC_PAGEMAP)};

	head.pages_id = pages_id;
	status *st = put(store, magics, sizeof(magics));
	return st == NULL ? put_message(store, &head.base) : st;
}

static status *open_image(struct page_store *store, uint64_t image)
{
	char name[64];
	bool is_task = (image & 0xff) == PAGE_TASK;
	status *st = close_image(store);

	if (st == NULL && list_has(&store->now, image))
		st = status_errorf(STATUS_DATA_LOSS, "image 0x%llx twice in round %u",
				   (unsigned long long)image, store->round);
	if (st == NULL)
		st = list_add(&store->now, image);
	if (st != NULL)
		return st;
	(void)snprintf(name, sizeof(name), is_task ? "pagemap-%llu.img" : "pagemap-shmem-%llu.img",
		       (unsigned long long)(image >> 8));
	st = create(store, name, &store->pagemap);
	if (st != NULL)
		return st;
	(void)snprintf(name, sizeof(name), "pages-%u.img", store->next_pages_id);
	st = create(store, name, &store->pages);
	if (st != NULL) {
		(void)close(TAKE_FD(store->pagemap));
		return st;
	}
	store->image = image;
	store->next_address = store->pages_written = 0;
	store->pending.pages = 0;
	store->buffered = 0;
	return write_head(store, store->next_pages_id++);
}

static status *write_pages(struct page_store *store, const struct page_header *header, const uint8_t *data)
{
	size_t size = (size_t)page_header_data(header);
	off_t at = (off_t)(store->pages_written * PAGE_BYTES);

	for (size_t done = 0; done < size;) {
		ssize_t wrote = pwrite(store->pages, data + done, size - done, at + (off_t)done);
		if (wrote < 0 && errno != EINTR)
			return status_errnof(errno, "cannot write pages in %s", store->dir);
		done += wrote > 0 ? (size_t)wrote : 0;
	}
	store->pages_written += header->pages;
	store->round_pages += header->pages;
	return NULL;
}

static status *add_pages(struct page_store *store, const struct page_header *header, const uint8_t *data)
{
	struct page_header *pending = &store->pending;
	uint32_t flags = header->flags & (PAGE_IN_PARENT | PAGE_PRESENT);

	if (store->pagemap < 0 || header->image != store->image)
		return status_errorf(STATUS_DATA_LOSS, "pages for image 0x%llx, which is not open",
				     (unsigned long long)header->image);
	if (header->address < store->next_address)
		return status_errorf(STATUS_DATA_LOSS, "pages at 0x%llx come after 0x%llx",
				     (unsigned long long)header->address,
				     (unsigned long long)store->next_address);
	if ((flags & PAGE_IN_PARENT) != 0 && !list_has(&store->before, header->image))
		return status_errorf(STATUS_DATA_LOSS, "pages of image 0x%llx in a round before, which has none",
				     (unsigned long long)header->image);
	if (pending->pages > 0 && pending->flags == flags && store->next_address == header->address &&
	    (uint64_t)pending->pages + header->pages <= INT32_MAX) {
		pending->pages += header->pages;
	} else {
		status *st = put_pending(store);
		if (st != NULL)
			return st;
		*pending = *header;
		pending->flags = flags;
	}
	store->next_address = header->address + (uint64_t)header->pages * PAGE_BYTES;
	return (flags & PAGE_PRESENT) != 0 ? write_pages(store, header, data) : NULL;
}

status *page_store_record(struct page_store *store, const struct page_header *header, const uint8_t *data)
{
	if (store->round == 0)
		return status_errorf(STATUS_FAILED_PRECONDITION, "no round has begun");
	if (header->command == PAGE_OPEN)
		return open_image(store, header->image);
	if (header->command == PAGE_ADD)
		return add_pages(store, header, data);
	return status_errorf(STATUS_DATA_LOSS, "page record: command 0x%x has no place here", header->command);
}

status *page_store_end(struct page_store *store, uint64_t *ret_pages)
{
	status *st = close_image(store);

	if (st == NULL)
		*ret_pages = store->round_pages;
	return st;
}

void page_store_free(struct page_store *store)
{
	if (store == NULL)
		return;
	close_if_open(store->pagemap);
	close_if_open(store->pages);
	free(store->now.images);
	free(store->before.images);
	free(store);
}
