/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/late_scene.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/unit/test.h"

enum { WORDS = PAGE_BYTES / 8 };

uint64_t late_scene_address(const struct late_scene *scene, size_t page)
{
	return scene->base + page * PAGE_BYTES;
}

static void dump(struct late_scene *scene, struct lazy_map *map)
{
	struct lazy_rounds *rounds = &scene->rounds;
	struct lazy_index *index;
	const struct lazy_vma all = {scene->base, LATE_PAGES, MAP_PRIVATE | MAP_ANONYMOUS};
	const size_t behind = LATE_AGAIN + LATE_AGAIN_PAGES;

	assert_ok(lazy_index_new(rounds->dir, &index));
	lazy_round_begin(rounds);
	lazy_round_add(rounds, PAGE_PRESENT, scene->base, LATE_SENT);
	lazy_round_add(rounds, PAGE_PRESENT | PAGE_LATE, late_scene_address(scene, LATE_SENT),
		       LATE_MISSING);
	lazy_round_end(rounds);
	assert_ok(lazy_index_add(index, 1));
	lazy_round_begin(rounds);
	lazy_round_add(rounds, PAGE_IN_PARENT, scene->base, LATE_AGAIN);
	lazy_round_add(rounds, PAGE_PRESENT | PAGE_LATE, late_scene_address(scene, LATE_AGAIN),
		       LATE_AGAIN_PAGES);
	lazy_round_add(rounds, PAGE_IN_PARENT, late_scene_address(scene, behind),
		       (uint32_t)(LATE_PAGES - behind));
	lazy_round_mappings(rounds, &all, 1);
	lazy_round_end(rounds);
	assert_ok(lazy_index_add(index, 2));
	assert_ok(lazy_index_finish(index, map));
	lazy_index_free(index);
}

void late_scene_make(struct late_scene *scene, uint64_t base)
{
	struct lazy_map map = {0};
	scoped(fd) int fd = -1;

	*scene = (struct late_scene){.base = base};
	lazy_rounds_make(&scene->rounds);
	page_store_allow_late(scene->rounds.store);
	dump(scene, &map);
	assert_int_equal(map.late_pages, LATE_MISSING);
	assert_ok(lazy_shared_new(&map, &fd, &scene->shared));
	lazy_map_free(&map);
	(void)snprintf(scene->shared->images, sizeof(scene->shared->images), "%s",
		       scene->rounds.dir);
	lazy_shared_map(scene->shared, &scene->map);
	assert_ok(late_store_new(scene->shared, &scene->store));
}

void late_scene_end(struct late_scene *scene)
{
	late_store_free(scene->store);
	lazy_shared_free(scene->shared);
	lazy_rounds_remove(&scene->rounds);
}

void late_scene_read(uint64_t address, size_t bytes, uint8_t *data)
{
	for (size_t word = 0; word < bytes / 8; word++) {
		uint64_t value = lazy_word(address + word / WORDS * PAGE_BYTES, LATE_ROUND);
		memcpy(data + word * 8, &value, sizeof(value));
	}
}

/* Page by page: a range lies in one run. */
void late_scene_put(const struct late_scene *scene, size_t page, uint32_t pages)
{
	uint8_t data[PAGE_BYTES];

	for (size_t i = page; i < page + pages; i++) {
		const struct late_range range = {.pid = LAZY_PID,
						 .address = late_scene_address(scene, i),
						 .pages = 1};
		late_scene_read(range.address, PAGE_BYTES, data);
		assert_ok(late_store_put(scene->store, &range, data));
	}
}

uint64_t late_scene_content(const struct late_scene *scene, size_t page)
{
	const struct lazy_task *task = lazy_map_task(&scene->map, LAZY_PID);
	const struct lazy_run *run =
	    lazy_map_find(&scene->map, task, late_scene_address(scene, page));
	uint64_t word = 0;
	char path[128];

	assert_non_null(run);
	(void)snprintf(path, sizeof(path), "%s/%u/pages-%u.img", scene->rounds.dir,
		       scene->map.files[run->file].round, scene->map.files[run->file].pages_id);
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	off_t offset = (off_t)(run->offset + (late_scene_address(scene, page) - run->address));
	assert_int_equal(pread(fd, &word, sizeof(word), offset), sizeof(word));
	return word;
}
