/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/image_set.h"

#include <endian.h>
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

/* The keys of the tree are pointers to the names of records. */
static struct image_record *record_of(const void *name)
{
	return (struct image_record *)((uintptr_t)name - offsetof(struct image_record, name));
}

static int compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

struct image_record *image_set_find(const struct image_set *set, const char *name)
{
	void *const *node = tfind(name, &set->root, compare);

	return node != NULL ? record_of(*node) : NULL;
}

status *image_set_put(struct image_set *set, const char *name, uint64_t size, uint64_t digest)
{
	struct image_record *record = image_set_find(set, name);

	if (record == NULL) {
		size_t length = strlen(name) + 1;
		record = malloc(sizeof(*record) + length);
		if (record == NULL)
			return status_errnof(ENOMEM, "images");
		memcpy(record->name, name, length);
		if (tsearch(record->name, &set->root, compare) == NULL) {
			free(record);
			return status_errnof(ENOMEM, "images");
		}
		set->count++;
	}
	record->size = size;
	record->digest = digest;
	return NULL;
}

static void digest_one(const void *node, VISIT visit, void *state)
{
	if (visit != postorder && visit != leaf)
		return;
	const char *name = *(void *const *)node;
	const struct image_record *record = record_of(name);
	const uint64_t numbers[2] = {htole64(record->size), htole64(record->digest)};

	(void)XXH3_64bits_update(state, name, strlen(name) + 1);
	(void)XXH3_64bits_update(state, numbers, sizeof(numbers));
}

uint64_t image_set_digest(const struct image_set *set)
{
	XXH3_state_t state;

	(void)XXH3_64bits_reset(&state);
	twalk_r(set->root, digest_one, &state);
	return XXH3_64bits_digest(&state);
}

static void free_record(void *name)
{
	free(record_of(name));
}

void image_set_clear(struct image_set *set)
{
	tdestroy(set->root, free_record);
	*set = (struct image_set){0};
}
