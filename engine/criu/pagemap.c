/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/pagemap.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "engine/criu/page_stream.h"
#include "engine/host/files.h"
#include "pagemap.pb-c.h"

enum {
	MAGIC_IMAGE = 0x54564319,
	MAGIC_PAGEMAP = 0x56084025,
	WORD_BYTES = 4,
	ENTRY_BYTES = 64,		 /* three numbers with their tags: at most 24 */
	IMAGE_MOST = 1024 * 1024 * 1024, /* of 64 M runs */
	RUN_PAGES_MOST = INT32_MAX,
	FIRST_RUNS = 64,
};

static status *damaged(const char *how)
{
	return status_errorf(STATUS_DATA_LOSS, "a pagemap is damaged: %s", how);
}

static uint32_t word(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

void pagemap_free(struct pagemap *map)
{
	free(map->runs);
	*map = (struct pagemap){0};
}

static uint64_t end_of(const struct pagemap_run *run)
{
	return run->address + run->pages * PAGE_BYTES;
}

/* Room grows by doubling: it is full whenever the count is a power of two. */
static status *grow(struct pagemap *map)
{
	bool is_full = map->count >= FIRST_RUNS && (map->count & (map->count - 1)) == 0;

	if (map->count != 0 && !is_full)
		return NULL;
	size_t room = map->count == 0 ? FIRST_RUNS : map->count * 2;
	struct pagemap_run *grown = reallocarray(map->runs, room, sizeof(*grown));
	if (grown == NULL)
		return status_errnof(ENOMEM, "a pagemap of %zu runs", map->count);
	map->runs = grown;
	return NULL;
}

status *pagemap_add(struct pagemap *map, const struct pagemap_run *run)
{
	struct pagemap_run *last = map->count > 0 ? &map->runs[map->count - 1] : NULL;

	if (last != NULL && last->flags == run->flags && end_of(last) == run->address &&
	    last->pages + run->pages <= RUN_PAGES_MOST) {
		last->pages += run->pages;
		return NULL;
	}
	status *st = grow(map);
	if (st == NULL)
		map->runs[map->count++] = *run;
	return st;
}

/* --- reading --- */

/* The message at *at, which moves behind it; NULL when the image ends in its middle. */
static const uint8_t *next_message(const uint8_t *data, size_t size, size_t *at, uint32_t *ret_size)
{
	if (size - *at < WORD_BYTES)
		return NULL;
	*ret_size = word(data + *at);
	*at += WORD_BYTES;
	if (*ret_size == 0 || *ret_size > ENTRY_BYTES || *ret_size > size - *at)
		return NULL;
	const uint8_t *message = data + *at;
	*at += *ret_size;
	return message;
}

static status *check_entry(const Haul__Pagemap__Entry *entry, uint64_t from)
{
	if (entry->nr_pages == 0 || entry->nr_pages > RUN_PAGES_MOST)
		return damaged("an impossible number of pages");
	if (entry->vaddr % PAGE_BYTES != 0 || entry->vaddr < from ||
	    entry->vaddr > UINT64_MAX - (uint64_t)entry->nr_pages * PAGE_BYTES)
		return damaged("an impossible address");
	return NULL;
}

static status *add_entry(struct pagemap *map, const uint8_t *message, size_t size, uint64_t *from)
{
	Haul__Pagemap__Entry *entry = haul__pagemap__entry__unpack(NULL, size, message);

	if (entry == NULL)
		return damaged("an entry that cannot be read");
	status *st = check_entry(entry, *from);
	const struct pagemap_run run = {entry->vaddr, entry->nr_pages, entry->flags};
	haul__pagemap__entry__free_unpacked(entry, NULL);
	if (st == NULL)
		st = pagemap_add(map, &run);
	*from = end_of(&run);
	return st;
}

static status *decode_head(struct pagemap *map, const uint8_t *message, size_t size)
{
	Haul__Pagemap__Head *head =
	    message != NULL ? haul__pagemap__head__unpack(NULL, size, message) : NULL;

	if (head == NULL)
		return damaged("it has no head");
	map->pages_id = head->pages_id;
	haul__pagemap__head__free_unpacked(head, NULL);
	return NULL;
}

status *pagemap_decode(const uint8_t *data, size_t size, struct pagemap *ret_map)
{
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	size_t at = 2 * (size_t)WORD_BYTES;
	uint32_t length = 0;
	uint64_t from = 0;

	if (size < at || word(data) != MAGIC_IMAGE || word(data + WORD_BYTES) != MAGIC_PAGEMAP)
		return damaged("it does not begin like one");
	const uint8_t *message = next_message(data, size, &at, &length);
	status *st = decode_head(&map, message, length);
	while (st == NULL && at < size) {
		message = next_message(data, size, &at, &length);
		st = message != NULL ? add_entry(&map, message, length, &from)
				     : damaged("it ends in the middle of an entry");
	}
	if (st != NULL)
		return st;
	*ret_map = map;
	map = (struct pagemap){0};
	return NULL;
}

status *pagemap_read(const char *path, struct pagemap *ret_map)
{
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	status *st = files_read(path, IMAGE_MOST, &image);

	return st == NULL ? pagemap_decode(image.data, image.size, ret_map) : st;
}

/* --- writing --- */

static void put_word(struct buffer *image, uint32_t value)
{
	value = htole32(value);
	memcpy(image->data + image->size, &value, sizeof(value));
	image->size += sizeof(value);
}

static void put_entry(struct buffer *image, const struct pagemap_run *run)
{
	Haul__Pagemap__Entry entry = HAUL__PAGEMAP__ENTRY__INIT;
	uint8_t packed[ENTRY_BYTES];

	entry.vaddr = run->address;
	entry.nr_pages = (uint32_t)run->pages;
	entry.has_flags = 1;
	entry.flags = run->flags;
	size_t size = haul__pagemap__entry__pack(&entry, packed);
	put_word(image, (uint32_t)size);
	memcpy(image->data + image->size, packed, size);
	image->size += size;
}

status *pagemap_encode(const struct pagemap *map, struct buffer *ret_image)
{
	Haul__Pagemap__Head head = HAUL__PAGEMAP__HEAD__INIT;
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};

	/* An entry takes at most 4 bytes of length and 24 of content. */
	image.data = malloc((map->count + 2) * (size_t)ENTRY_BYTES);
	if (image.data == NULL)
		return status_errnof(ENOMEM, "a pagemap of %zu runs", map->count);
	put_word(&image, MAGIC_IMAGE);
	put_word(&image, MAGIC_PAGEMAP);
	head.pages_id = map->pages_id;
	put_word(&image, (uint32_t)haul__pagemap__head__get_packed_size(&head));
	image.size += haul__pagemap__head__pack(&head, image.data + image.size);
	for (size_t i = 0; i < map->count; i++)
		put_entry(&image, &map->runs[i]);
	*ret_image = image;
	image = (struct buffer){0};
	return NULL;
}

status *pagemap_write(const char *path, const struct pagemap *map)
{
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	status *st = pagemap_encode(map, &image);

	return st == NULL ? files_write(path, image.data, image.size) : st;
}
