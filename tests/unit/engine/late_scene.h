/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of late pages: two rounds of one task, of which the source keeps a part. */
#ifndef HAUL_TESTS_UNIT_ENGINE_LATE_SCENE_H
#define HAUL_TESTS_UNIT_ENGINE_LATE_SCENE_H

#include "engine/lazy/late_store.h"
#include "tests/unit/engine/lazy_scene.h"

enum {
	LATE_PAGES = 256,
	LATE_SENT = 8,	  /* the first: sent in round 1 */
	LATE_AGAIN = 100, /* named again in round 2, with LATE_AGAIN_PAGES */
	LATE_AGAIN_PAGES = 4,
	LATE_MISSING = LATE_PAGES - LATE_SENT,
	LATE_ROUND = 0xee, /* in lazy_word: of the source */
};

struct late_scene {
	struct lazy_rounds rounds;
	struct lazy_map map; /* of the shared area */
	struct lazy_shared *shared;
	struct late_store *store;
	uint64_t base;
};
/* Its pages begin at `base`. */
void late_scene_make(struct late_scene *scene, uint64_t base);
void late_scene_end(struct late_scene *scene);
/* What the source has. */
void late_scene_read(uint64_t address, size_t bytes, uint8_t *data);
/* It comes. */
void late_scene_put(const struct late_scene *scene, size_t page, uint32_t pages);
uint64_t late_scene_address(const struct late_scene *scene, size_t page);
/* What the page's file has, once it is there. */
uint64_t late_scene_content(const struct late_scene *scene, size_t page);

#endif
