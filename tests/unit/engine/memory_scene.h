/* SPDX-License-Identifier: Apache-2.0 */
/* Both halves of the memory pipe onto the disk, and a socket at which a test plays CRIU. */
#ifndef HAUL_TESTS_UNIT_ENGINE_MEMORY_SCENE_H
#define HAUL_TESTS_UNIT_ENGINE_MEMORY_SCENE_H

#include <pthread.h>

#include "engine/pipe/memory_pipe.h"
#include "tests/unit/test.h"

enum { PLENTY_MS = 60000, IMAGE = 7 << 8 | PAGE_TASK };

struct scene {
	char dir[64];
	int criu; /* CRIU's end */
	int engine;
	struct pipe *from, *to;
	struct pipe_set out, in;
	struct memory_sender *sender;
	struct page_store *store;
	pthread_t receiver;
	unsigned round;
	struct memory_round received;
	status *st;
};

extern const struct batch_codecs raw;
extern const struct memory_feed tracked;

int memory_scene_make(void **state);
int memory_scene_end(void **state);
void say(const struct scene *scene, const struct page_header *header, const void *data);
int ask_of(const struct scene *scene, uint64_t image, uint32_t command, size_t size);
int ask(const struct scene *scene, uint32_t command, size_t size);
void add_to(const struct scene *scene, uint64_t image, unsigned page, unsigned pages,
	    const void *data);
int open_image(const struct scene *scene);
void add(const struct scene *scene, uint32_t flags, unsigned page, unsigned pages,
	 const void *data);
void close_round(const struct scene *scene);
void begin_fed(struct scene *scene, unsigned round, const struct memory_feed *feed);
void begin(struct scene *scene, unsigned round);
struct memory_round finish(struct scene *scene);
void expect_pages(const struct scene *scene, unsigned round, const void *want, size_t pages);

#endif
