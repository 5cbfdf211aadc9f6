/* SPDX-License-Identifier: Apache-2.0 */
/* What either side of an image pipe knows of the images that went: name, size, digest of each. */
#ifndef HAUL_ENGINE_PIPE_IMAGE_SET_H
#define HAUL_ENGINE_PIPE_IMAGE_SET_H

#include "proto/status.h"

struct image_record {
	uint64_t size;
	uint64_t digest; /* xxh3-64 of the content */
	char name[];
};

/* Zeroed at the start. */
struct image_set {
	void *root; /* of a tree of records, tsearch(3) */
	unsigned count;
};

/* NULL when there is none of that name. */
struct image_record *image_set_find(const struct image_set *set, const char *name);

/* Adds an image, or replaces what is known of it. */
must_check status *image_set_put(struct image_set *set, const char *name, uint64_t size,
				 uint64_t digest);

/* Over names, sizes and digests in the order of the names: the same on both sides when all is. */
uint64_t image_set_digest(const struct image_set *set);

void image_set_clear(struct image_set *set);

#endif
