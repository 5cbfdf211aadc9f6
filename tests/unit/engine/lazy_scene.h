/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of lazy restores: rounds of images as a migration leaves them, and memory of this very
 * process with a userfaultfd, which stands for a restored tree's. */
#ifndef HAUL_TESTS_UNIT_ENGINE_LAZY_SCENE_H
#define HAUL_TESTS_UNIT_ENGINE_LAZY_SCENE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "engine/criu/page_store.h"

enum { LAZY_PID = 4711 };

/* Rounds of one task, below dir. */
struct lazy_rounds {
	char dir[64];
	struct page_store *store;
	unsigned round;
};
void lazy_rounds_make(struct lazy_rounds *rounds);
void lazy_rounds_remove(struct lazy_rounds *rounds);
void lazy_round_begin(struct lazy_rounds *rounds);
/* flags: of page_stream.h. Each word of a page is its address and the round. */
void lazy_round_add(struct lazy_rounds *rounds, uint32_t flags, uint64_t address, uint32_t pages);
void lazy_round_end(struct lazy_rounds *rounds);
uint64_t lazy_word(uint64_t address, unsigned round);

/* A mapping for the mm image of the round that is open. */
struct lazy_vma {
	uint64_t address, pages;
	uint32_t flags; /* mmap's */
};
void lazy_round_mappings(const struct lazy_rounds *rounds, const struct lazy_vma *mappings,
			 size_t count);

/* `pages` of this process, empty, with a new userfaultfd as CRIU makes it. False: none to be had.
 */
bool lazy_memory_make(size_t pages, uint64_t **ret_words, int *ret_uffd);
void lazy_memory_remove(uint64_t *words, size_t pages);

#endif
