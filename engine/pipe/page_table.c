/* SPDX-License-Identifier: Apache-2.0 */
/* An image is a list of blocks; a block holds runs of neighbouring pages: a header and a hash a
 * page. A round reads the one before while it writes itself, both from left to right, and gives
 * back each block that it has passed, so that hardly more than one round is kept at a time. */
#include "engine/pipe/page_table.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "engine/criu/page_stream.h"
#include "proto/limits.h"

enum { BLOCK_WORDS = 4096, /* of 16 bytes: 64 KiB */ SECRET_BYTES = XXH3_SECRET_DEFAULT_SIZE };

/* A run's header and a hash are of one size, so that a block is an array. */
union word {
	struct {
		uint64_t address, pages;
	} run;
	XXH128_hash_t hash;
};

struct block {
	struct block *next;
	size_t used; /* words */
	union word words[BLOCK_WORDS];
};

struct image {
	uint64_t id;
	struct block *first, *last;
};

struct images {
	struct image *list;
	size_t count, room;
};

/* Where the reader is in the round before. */
struct cursor {
	struct image *image; /* NULL: the round before has no such image */
	size_t run;	     /* its header's place in the first block */
};

struct page_table {
	uint8_t secret[SECRET_BYTES];
	struct images before, now;
	struct cursor cursor;
	union word *run; /* the last run of the image that is being written */
	bool is_last;
	size_t blocks;
};

status *page_table_new(struct page_table **ret_table)
{
	scoped(page_table) struct page_table *table = calloc(1, sizeof(*table));

	if (table == NULL)
		return status_errnof(ENOMEM, "page table");
	if (getrandom(table->secret, sizeof(table->secret), 0) != (ssize_t)sizeof(table->secret))
		return status_errnof(errno, "no random bytes for the page table");
	*ret_table = TAKE(table);
	return NULL;
}

/* --- images --- */

static void drop_first_block(struct page_table *table, struct image *image)
{
	struct block *block = image->first;

	image->first = block->next;
	free(block);
	table->blocks--;
}

static void drop_images(struct page_table *table, struct images *images)
{
	for (size_t i = 0; i < images->count; i++)
		while (images->list[i].first != NULL)
			drop_first_block(table, &images->list[i]);
	images->count = 0;
}

/* CRIU sends the images of every round in the same order: the search starts at `hint`. */
static struct image *find_image(const struct images *images, uint64_t id, size_t hint)
{
	for (size_t i = 0; i < images->count; i++) {
		struct image *image = &images->list[(hint + i) % images->count];
		if (image->id == id)
			return image;
	}
	return NULL;
}

void page_table_next_round(struct page_table *table, bool is_last)
{
	drop_images(table, &table->before);
	struct images spare = table->before;
	table->before = table->now;
	table->now = spare;
	table->cursor = (struct cursor){0};
	table->run = NULL;
	table->is_last = is_last;
}

bool page_table_has_image(const struct page_table *table, uint64_t image)
{
	return find_image(&table->before, image, table->now.count) != NULL;
}

status *page_table_open(struct page_table *table, uint64_t id)
{
	struct images *now = &table->now;

	if (now->count == LIMIT_IMAGES)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "more than %d memory images",
				     LIMIT_IMAGES);
	if (now->count == now->room) {
		size_t room = now->room * 2 + 16;
		struct image *grown = realloc(now->list, room * sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "page table");
		now->list = grown;
		now->room = room;
	}
	table->cursor = (struct cursor){.image = find_image(&table->before, id, now->count)};
	table->run = NULL;
	now->list[now->count++] = (struct image){.id = id};
	return NULL;
}

/* --- writing --- */

static status *new_block(struct page_table *table, struct image *image)
{
	struct block *block = malloc(sizeof(*block));

	if (block == NULL)
		return status_errnof(ENOMEM, "page table");
	block->next = NULL;
	block->used = 0;
	if (image->first == NULL)
		image->first = block;
	else
		image->last->next = block;
	image->last = block;
	table->blocks++;
	return NULL;
}

static status *append(struct page_table *table, uint64_t address, XXH128_hash_t hash)
{
	if (table->is_last)
		return NULL;
	if (table->now.count == 0)
		return status_errorf(STATUS_DATA_LOSS, "CRIU sent pages of no image");
	struct image *image = &table->now.list[table->now.count - 1];
	struct block *block = image->last;
	bool continues = table->run != NULL && block->used < BLOCK_WORDS &&
			 table->run->run.address + table->run->run.pages * PAGE_BYTES == address;
	if (!continues) {
		if (image->first == NULL || block->used + 2 > BLOCK_WORDS) {
			status *st = new_block(table, image);
			if (st != NULL)
				return st;
			block = image->last;
		}
		table->run = &block->words[block->used++];
		*table->run = (union word){.run = {address, 0}};
	}
	block->words[block->used++].hash = hash;
	table->run->run.pages++;
	return NULL;
}

/* --- reading --- */

/* The hash of the page at this address in the round before, or NULL. Addresses ascend: what lies
 * below is given back. */
static const XXH128_hash_t *look_up(struct page_table *table, uint64_t address)
{
	struct cursor *cursor = &table->cursor;

	while (cursor->image != NULL && cursor->image->first != NULL) {
		struct block *block = cursor->image->first;
		if (cursor->run == block->used) {
			drop_first_block(table, cursor->image);
			cursor->run = 0;
			continue;
		}
		const union word *run = &block->words[cursor->run];
		if (address < run->run.address)
			return NULL;
		uint64_t index = (address - run->run.address) / PAGE_BYTES;
		if (index < run->run.pages)
			return &run[1 + index].hash;
		cursor->run += 1 + run->run.pages;
	}
	return NULL;
}

status *page_table_note(struct page_table *table, uint64_t address, const uint8_t *page,
			bool *ret_same)
{
	XXH128_hash_t hash =
	    XXH3_128bits_withSecret(page, PAGE_BYTES, table->secret, sizeof(table->secret));
	const XXH128_hash_t *known = look_up(table, address);
	bool is_same = known != NULL && XXH128_isEqual(*known, hash);
	status *st = append(table, address, hash);

	if (st == NULL)
		*ret_same = is_same;
	return st;
}

status *page_table_keep(struct page_table *table, uint64_t address, uint64_t pages,
			uint64_t *ret_alike, bool *ret_is_known)
{
	const XXH128_hash_t *known = look_up(table, address);
	status *st = NULL;

	*ret_is_known = known != NULL;
	*ret_alike = 0;
	while (st == NULL && *ret_alike < pages && (known != NULL) == *ret_is_known) {
		if (known != NULL)
			st = append(table, address + *ret_alike * PAGE_BYTES, *known);
		if (st == NULL && ++*ret_alike < pages)
			known = look_up(table, address + *ret_alike * PAGE_BYTES);
	}
	return st;
}

/* --- a round that ends early --- */

struct page_table_mark page_table_mark(const struct page_table *table)
{
	struct page_table_mark mark = {.images = table->now.count};

	if (table->run != NULL)
		mark.address = table->run->run.address + table->run->run.pages * PAGE_BYTES;
	return mark;
}

/* Nothing of this image from the address on. */
static void cut_image(struct page_table *table, struct image *image, uint64_t address)
{
	for (struct block *block = image->first; block != NULL; block = block->next) {
		size_t at = 0;
		while (at < block->used && block->words[at].run.address < address) {
			union word *run = &block->words[at];
			uint64_t most = (address - run->run.address) / PAGE_BYTES;
			at += 1 + run->run.pages;
			if (run->run.pages <= most)
				continue;
			at -= run->run.pages - most;
			run->run.pages = most;
			break;
		}
		if (at == block->used)
			continue;
		block->used = at;
		while (block->next != NULL) {
			struct block *dropped = block->next;
			block->next = dropped->next;
			free(dropped);
			table->blocks--;
		}
		image->last = block;
	}
}

/* What an image of the round before has from the address on, to the last image of this one. */
static status *append_rest(struct page_table *table, const struct image *before, uint64_t address)
{
	for (const struct block *block = before->first; block != NULL; block = block->next) {
		for (size_t at = 0; at < block->used; at += 1 + block->words[at].run.pages) {
			const union word *run = &block->words[at];
			for (uint64_t i = 0; i < run->run.pages; i++) {
				uint64_t page = run->run.address + i * PAGE_BYTES;
				status *st =
				    page < address ? NULL : append(table, page, run[1 + i].hash);
				if (st != NULL)
					return st;
			}
		}
	}
	return NULL;
}

/* The image as it is; its blocks change hands. */
static status *move_image(struct images *from, size_t place, struct images *to)
{
	if (to->count == to->room) {
		size_t room = to->room * 2 + 16;
		struct image *grown = realloc(to->list, room * sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "page table");
		to->list = grown;
		to->room = room;
	}
	to->list[to->count++] = from->list[place];
	from->list[place] = (struct image){.id = from->list[place].id};
	return NULL;
}

status *page_table_cut(struct page_table *table, const struct page_table_mark *mark)
{
	struct images *now = &table->now, *before = &table->before;
	status *st = NULL;

	for (size_t i = mark->images; i < now->count; i++)
		while (now->list[i].first != NULL)
			drop_first_block(table, &now->list[i]);
	if (mark->images < now->count)
		now->count = mark->images;
	table->run = NULL;
	table->cursor = (struct cursor){0};
	if (now->count > 0) {
		struct image *last = &now->list[now->count - 1];
		const struct image *known = find_image(before, last->id, 0);
		cut_image(table, last, mark->address);
		if (known != NULL)
			st = append_rest(table, known, mark->address);
	}
	for (size_t i = 0; i < before->count && st == NULL; i++) {
		if (find_image(now, before->list[i].id, 0) == NULL)
			st = move_image(before, i, now);
	}
	table->run = NULL;
	return st;
}

size_t page_table_bytes(const struct page_table *table)
{
	return sizeof(*table) + table->blocks * sizeof(struct block) +
	       (table->before.room + table->now.room) * sizeof(struct image);
}

void page_table_free(struct page_table *table)
{
	if (table == NULL)
		return;
	drop_images(table, &table->before);
	drop_images(table, &table->now);
	free(table->before.list);
	free(table->now.list);
	free(table);
}
