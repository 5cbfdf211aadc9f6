/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU writes one image after the other, addresses ascending, so one image is open at a time, and
 * "does the round before have this page?" is answered by reading that round's pagemap beside it:
 * memory does not grow with the workload. */
#include "engine/criu/page_store.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "pagemap.pb-c.h"
#include "proto/limits.h"

enum {
	MAGIC_IMAGE = 0x54564319,
	MAGIC_PAGEMAP = 0x56084025,
	NAME_BYTES = 64,
	ENTRY_BYTES = 64,
};

struct run {
	uint64_t address, pages;
	uint32_t flags;
};

static uint64_t run_end(const struct run *run)
{
	return run->address + run->pages * PAGE_BYTES;
}

struct image {
	uint64_t id; /* as in the stream; 0 = none is open */
	FILE *pagemap;
	FILE *before;	    /* the round before's pagemap, or NULL */
	struct run known;   /* the last entry read from it */
	struct run pending; /* not yet written: the next may continue it */
	int pages_fd;
	uint64_t offset; /* in the pages file */
	uint64_t next_address;
};

struct page_store {
	int base, dir, dir_before;
	unsigned round;
	uint32_t pages_id;
	uint64_t pages;
	bool may_be_late;
	struct image image;
};

static void close_files(struct image *image)
{
	if (image->pagemap != NULL)
		(void)fclose(image->pagemap);
	if (image->before != NULL)
		(void)fclose(image->before);
	close_if_open(image->pages_fd);
	*image = (struct image){.pages_fd = -1};
}

status *page_store_new(const char *base, struct page_store **ret_store)
{
	scoped(page_store) struct page_store *store = calloc(1, sizeof(*store));

	if (store == NULL)
		return status_errnof(ENOMEM, "page store");
	store->dir = store->dir_before = store->image.pages_fd = -1;
	store->base = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->base < 0)
		return status_errnof(errno, "cannot open directory %s", base);
	*ret_store = TAKE(store);
	return NULL;
}

void page_store_allow_late(struct page_store *store)
{
	store->may_be_late = true;
}

void page_store_free(struct page_store *store)
{
	if (store == NULL)
		return;
	close_files(&store->image);
	close_if_open(store->dir);
	close_if_open(store->dir_before);
	close_if_open(store->base);
	free(store);
}

status *page_store_begin(struct page_store *store, unsigned round)
{
	char name[16], parent[24];

	close_files(&store->image);
	close_if_open(store->dir_before);
	store->dir_before = TAKE_FD(store->dir);
	store->round = round;
	store->pages_id = 0;
	store->pages = 0;
	(void)snprintf(name, sizeof(name), "%u", round);
	if (mkdirat(store->base, name, 0700) != 0)
		return status_errnof(errno, "cannot make the directory of round %u", round);
	store->dir = openat(store->base, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->dir < 0)
		return status_errnof(errno, "cannot open the directory of round %u", round);
	(void)snprintf(parent, sizeof(parent), "../%u", round - 1);
	if (round > 1 && symlinkat(parent, store->dir, "parent") != 0)
		return status_errnof(errno, "cannot link round %u to the one before", round);
	return NULL;
}

/* --- pagemap entries --- */

static status *write_words(struct image *image, const uint8_t *data, size_t size)
{
	uint32_t length = htole32((uint32_t)size);

	if (fwrite(&length, sizeof(length), 1, image->pagemap) != 1 ||
	    fwrite(data, size, 1, image->pagemap) != 1)
		return status_errnof(errno, "cannot write a pagemap");
	return NULL;
}

static status *write_head(struct page_store *store)
{
	uint32_t magics[] = {htole32(MAGIC_IMAGE), htole32(MAGIC_PAGEMAP)};
	Haul__Pagemap__Head head = HAUL__PAGEMAP__HEAD__INIT;
	uint8_t packed[ENTRY_BYTES];

	head.pages_id = store->pages_id;
	if (fwrite(magics, sizeof(magics), 1, store->image.pagemap) != 1)
		return status_errnof(errno, "cannot write a pagemap");
	return write_words(&store->image, packed, haul__pagemap__head__pack(&head, packed));
}

static status *flush_pending(struct image *image)
{
	Haul__Pagemap__Entry entry = HAUL__PAGEMAP__ENTRY__INIT;
	uint8_t packed[ENTRY_BYTES]; /* three numbers with their tags: at most 24 */

	if (image->pending.pages == 0)
		return NULL;
	entry.vaddr = image->pending.address;
	entry.nr_pages = (uint32_t)image->pending.pages;
	entry.has_flags = 1;
	entry.flags = image->pending.flags;
	image->pending.pages = 0;
	return write_words(image, packed, haul__pagemap__entry__pack(&entry, packed));
}

/* The next length-prefixed message of a pagemap; *ret_size 0 at the end. */
static status *read_words(FILE *file, uint8_t data[ENTRY_BYTES], size_t *ret_size)
{
	uint32_t length = 0;

	*ret_size = 0;
	if (fread(&length, sizeof(length), 1, file) != 1)
		return ferror(file) ? status_errnof(EIO, "cannot read a pagemap") : NULL;
	length = le32toh(length);
	if (length == 0 || length > ENTRY_BYTES || fread(data, length, 1, file) != 1)
		return status_errorf(STATUS_DATA_LOSS,
				     "the pagemap of the round before is damaged");
	*ret_size = length;
	return NULL;
}

/* The next entry of the round before; *ret_run has no pages at the end. */
static status *read_entry(struct image *image, struct run *ret_run)
{
	uint8_t packed[ENTRY_BYTES];
	size_t size = 0;

	*ret_run = (struct run){0};
	status *st = image->before != NULL ? read_words(image->before, packed, &size) : NULL;
	if (st != NULL || size == 0)
		return st;
	Haul__Pagemap__Entry *entry = haul__pagemap__entry__unpack(NULL, size, packed);
	if (entry == NULL || entry->nr_pages == 0)
		st = status_errorf(STATUS_DATA_LOSS, "the pagemap of the round before is damaged");
	else
		*ret_run = (struct run){entry->vaddr, entry->nr_pages, entry->flags};
	if (entry != NULL)
		haul__pagemap__entry__free_unpacked(entry, NULL);
	return st;
}

/* Whether the round before has all of the run; both go upwards. */
static status *check_known(struct image *image, const struct run *run)
{
	uint64_t address = run->address;

	while (address < run_end(run)) {
		if (image->known.pages > 0 && run_end(&image->known) > address) {
			if (image->known.address > address)
				break;
			address = run_end(&image->known);
			continue;
		}
		status *st = read_entry(image, &image->known);
		if (st != NULL)
			return st;
		if (image->known.pages == 0)
			break;
	}
	if (address >= run_end(run))
		return NULL;
	return status_errorf(
	    STATUS_DATA_LOSS,
	    "the page at %#llx was never sent, but is said to be in the round before",
	    (unsigned long long)address);
}

/* --- one image --- */

static status *open_file(struct page_store *store, const char *name, int *ret_fd)
{
	int fd = openat(store->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 && errno == EEXIST)
		return status_errorf(STATUS_DATA_LOSS, "image %s came twice in round %u", name,
				     store->round);
	if (fd < 0)
		return status_errnof(errno, "cannot make %s", name);
	*ret_fd = fd;
	return NULL;
}

/* The pagemap of the round before, positioned at its first entry; none is fine. */
static status *open_before(struct page_store *store, const char *name)
{
	uint32_t magics[2];
	uint8_t head[ENTRY_BYTES];
	size_t size = 0;

	if (store->dir_before < 0)
		return NULL;
	scoped(fd) int fd = openat(store->dir_before, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? NULL : status_errnof(errno, "cannot open %s", name);
	store->image.before = fdopen(fd, "rb");
	if (store->image.before == NULL)
		return status_errnof(errno, "cannot open %s", name);
	(void)TAKE_FD(fd);
	if (fread(magics, sizeof(magics), 1, store->image.before) != 1)
		return status_errorf(STATUS_DATA_LOSS,
				     "the pagemap of the round before is damaged");
	return read_words(store->image.before, head, &size);
}

static status *open_image(struct page_store *store, uint64_t id)
{
	struct image *image = &store->image;
	char name[NAME_BYTES], pages[NAME_BYTES];
	scoped(fd) int fd = -1;

	if (store->pages_id >= LIMIT_IMAGES)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "more than %d memory images",
				     LIMIT_IMAGES);
	(void)snprintf(name, sizeof(name), "pagemap%s-%u.img",
		       (id & 0xff) == PAGE_SHMEM ? "-shmem" : "", (unsigned)(id >> 8));
	(void)snprintf(pages, sizeof(pages), "pages-%u.img", ++store->pages_id);
	status *st = open_file(store, name, &fd);
	if (st == NULL)
		st = open_file(store, pages, &image->pages_fd);
	if (st != NULL)
		return st;
	image->pagemap = fdopen(fd, "wb");
	if (image->pagemap == NULL)
		return status_errnof(errno, "cannot open %s", name);
	(void)TAKE_FD(fd);
	image->id = id;
	st = write_head(store);
	return st == NULL ? open_before(store, name) : st;
}

static status *close_image(struct page_store *store)
{
	struct image *image = &store->image;
	struct stat info;

	if (image->id == 0)
		return NULL;
	status *st = flush_pending(image);
	FILE *pagemap = TAKE(image->pagemap);
	if (fclose(pagemap) != 0 && st == NULL)
		st = status_errnof(errno, "cannot write a pagemap");
	/* Zero pages at the end are a hole, too. */
	if (st == NULL && ftruncate(image->pages_fd, (off_t)image->offset) != 0)
		st = status_errnof(errno, "cannot write pages");
	if (st == NULL &&
	    (fstat(image->pages_fd, &info) != 0 || (uint64_t)info.st_size != image->offset))
		st = status_errorf(STATUS_DATA_LOSS,
				   "a pages file has another size than its pagemap says");
	close_files(image);
	return st;
}

static status *write_pages(struct image *image, const uint8_t *data, uint64_t size)
{
	while (size > 0) {
		ssize_t done = pwrite(image->pages_fd, data, size, (off_t)image->offset);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return status_errnof(done < 0 ? errno : EIO, "cannot write pages");
		data += done;
		size -= (uint64_t)done;
		image->offset += (uint64_t)done;
	}
	return NULL;
}

static status *add_run(struct image *image, const struct run *run)
{
	struct run *pending = &image->pending;

	if (pending->pages > 0 && run_end(pending) == run->address &&
	    pending->flags == run->flags && pending->pages + run->pages <= INT32_MAX) {
		pending->pages += run->pages;
		return NULL;
	}
	status *st = flush_pending(image);
	if (st == NULL)
		*pending = *run;
	return st;
}

static status *add_pages(struct page_store *store, const struct page_header *header,
			 const uint8_t *data)
{
	struct image *image = &store->image;
	struct run run = {header->address, header->pages, PAGE_PRESENT};
	status *st = NULL;

	if (image->id == 0 || image->id != header->image)
		return status_errorf(STATUS_DATA_LOSS, "pages came for an image that is not open");
	if (header->address < image->next_address)
		return status_errorf(STATUS_DATA_LOSS, "pages came out of order, at %#llx",
				     (unsigned long long)header->address);
	if ((header->flags & (PAGE_PRESENT | PAGE_IN_PARENT)) == 0)
		return status_errorf(STATUS_UNIMPLEMENTED, "lazy pages are not supported");
	if ((header->flags & PAGE_LATE) != 0 &&
	    (!store->may_be_late || (header->image & 0xff) != PAGE_TASK))
		return status_errorf(STATUS_DATA_LOSS,
				     "pages are left out that were not to come later");
	image->next_address = run_end(&run);
	if ((header->flags & PAGE_IN_PARENT) != 0) {
		run.flags = PAGE_IN_PARENT;
		st = check_known(image, &run);
		return st == NULL ? add_run(image, &run) : st;
	}
	run.flags |= header->flags & PAGE_LATE;
	/* What is all zero, or comes later, is a hole. */
	if ((header->flags & (PAGE_ZERO | PAGE_LATE)) != 0)
		image->offset += run.pages * PAGE_BYTES;
	else
		st = write_pages(image, data, run.pages * PAGE_BYTES);
	store->pages += run.pages;
	return st == NULL ? add_run(image, &run) : st;
}

status *page_store_record(struct page_store *store, const struct page_header *header,
			  const uint8_t *data)
{
	if (store->dir < 0)
		return status_errorf(STATUS_DATA_LOSS, "pages came before a round was begun");
	if (header->command == PAGE_ADD)
		return add_pages(store, header, data);
	if (header->command != PAGE_OPEN)
		return status_errorf(STATUS_DATA_LOSS,
				     "command %#x does not belong into a page store",
				     header->command);
	status *st = close_image(store);
	return st == NULL ? open_image(store, header->image) : st;
}

status *page_store_end(struct page_store *store, uint64_t *ret_pages)
{
	status *st = close_image(store);

	if (st == NULL)
		*ret_pages = store->pages;
	return st;
}

/* --- a round that ends early --- */

/* What the round before has of the open image from here on is in its parent. */
static status *keep_rest(struct image *image)
{
	for (;;) {
		struct run rest = {image->known.address, image->known.pages, PAGE_IN_PARENT};
		if (rest.pages > 0 && run_end(&rest) > image->next_address) {
			if (rest.address < image->next_address) {
				rest.pages = (run_end(&rest) - image->next_address) / PAGE_BYTES;
				rest.address = image->next_address;
			}
			status *st = add_run(image, &rest);
			if (st != NULL)
				return st;
			image->next_address = run_end(&rest);
		}
		status *st = read_entry(image, &image->known);
		if (st != NULL || image->known.pages == 0)
			return st;
	}
}

/* The stream's id of a pagemap's name; 0: it is none. */
static uint64_t image_of_name(const char *name)
{
	static const struct {
		const char *prefix;
		unsigned kind;
	} kinds[] = {{"pagemap-shmem-", PAGE_SHMEM}, {"pagemap-", PAGE_TASK}};

	for (size_t i = 0; i < array_len(kinds); i++) {
		size_t length = strlen(kinds[i].prefix);
		char *end = NULL;
		if (strncmp(name, kinds[i].prefix, length) != 0)
			continue;
		unsigned long number = strtoul(name + length, &end, 10);
		bool is_name = end != name + length && strcmp(end, ".img") == 0;
		return is_name ? (uint64_t)number << 8 | kinds[i].kind : 0;
	}
	return 0;
}

/* An image that this round has not come to. */
static status *keep_image(struct page_store *store, const char *name)
{
	uint64_t id = image_of_name(name);

	if (id == 0 || faccessat(store->dir, name, F_OK, 0) == 0)
		return NULL;
	status *st = open_image(store, id);
	if (st == NULL)
		st = keep_rest(&store->image);
	return st == NULL ? close_image(store) : st;
}

static status *keep_images(struct page_store *store)
{
	int fd = openat(store->dir_before, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
	status *st = NULL;

	if (list == NULL) {
		st = status_errnof(errno, "cannot list the round before");
		close_if_open(fd);
		return st;
	}
	for (const struct dirent *entry = readdir(list); entry != NULL && st == NULL;
	     entry = readdir(list))
		st = keep_image(store, entry->d_name);
	(void)closedir(list);
	return st;
}

status *page_store_cut(struct page_store *store, uint64_t *ret_pages)
{
	status *st = store->image.id != 0 ? keep_rest(&store->image) : NULL;

	if (st == NULL)
		st = close_image(store);
	if (st == NULL && store->dir_before >= 0)
		st = keep_images(store);
	if (st == NULL)
		*ret_pages = store->pages;
	return st;
}
