/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by lazy_fill.c (while the tree runs), lazy_order.c (what it fills next), lazy_moved.c
 * (after it has changed its mappings) and lazy_complete.c (while it is frozen). */
#ifndef HAUL_ENGINE_LAZY_LAZY_FILL_INTERNAL_H
#define HAUL_ENGINE_LAZY_LAZY_FILL_INTERNAL_H

#include <linux/userfaultfd.h>

#include "engine/criu/page_stream.h"
#include "engine/lazy/lazy_fill.h"

enum {
	LAZY_CHUNK_PAGES = 64,
	LAZY_AROUND_PAGES = 16, /* filled along with the one that is waited for; see lazy_order.c */
};

/* Pages of a run that are not filled, and where they are now: an event may have moved them. */
struct lazy_rest {
	uint64_t address; /* now */
	uint64_t origin;  /* as dumped */
	uint64_t pages;
};

struct lazy_memory {
	const struct lazy_task *task;
	int uffd;	  /* -1: it has ended */
	int waits;	  /* its file in /proc/self/fdinfo: how many wait for a page */
	uint64_t *filled; /* a bit for each page; NULL for a fork's */
	uint64_t next;	  /* none below is to be filled */
	/* Of the task's runs and pages: none below is to be filled before others. */
	uint64_t newest_run, newest_page;
	struct lazy_rest *rest; /* from the first event on */
	size_t rest_count, rest_room;
};

/* A page that is waited for, and whose content has not come. */
struct lazy_awaited {
	size_t memory;
	uint64_t address;
};

struct lazy_fill {
	const struct lazy_map *map;
	int images;
	int poll;
	int *files; /* -1: not open yet */
	struct lazy_memory *memories;
	size_t memory_count, current;
	size_t newest; /* of memories: the same */
	uint32_t newest_round;
	int64_t fault_ms;      /* when a page was served last that was waited for */
	struct uffd_msg early; /* an event that was read by chance */
	size_t early_memory;
	bool has_early;
	struct lazy_awaited *awaited;
	size_t awaited_count, awaited_room;
	struct lazy_watch watch;
	struct lazy_counts counts;
	uint8_t *chunk; /* LAZY_CHUNK_PAGES */
};

/* What the kernel made of putting pages into a memory. */
enum lazy_put {
	PUT_ALL,
	PUT_BUSY,    /* an event waits to be read */
	PUT_PRESENT, /* the page behind the *done first is there already */
	PUT_NOWHERE, /* there is nothing mapped */
	PUT_GONE,    /* the memory has ended */
	PUT_MISSING, /* the content of the first has not come */
};

/* The content of `pages` (at most LAZY_CHUNK_PAGES, of one run) from `origin` on, to `address`, up
 * to the first that has not come. */
must_check status *lazy_put(struct lazy_fill *fill, struct lazy_memory *memory,
			    const struct lazy_rest *what, uint64_t *ret_done,
			    enum lazy_put *ret_put);
must_check status *lazy_put_zero(const struct lazy_memory *memory, uint64_t address,
				 enum lazy_put *ret_put);
/* Lets those go on that wait for a page that is there. */
void lazy_wake(const struct lazy_memory *memory, uint64_t address, uint64_t pages);

/* lazy_await.c: its thread waits on, until the page is there, or no event has to be read. */
must_check status *lazy_await(struct lazy_fill *fill, size_t number, uint64_t address);
/* The same, and the page is asked for, with some behind it; origin: where it was dumped. */
must_check status *lazy_ask(struct lazy_fill *fill, size_t number, uint64_t address,
			    uint64_t origin);

bool lazy_is_there(const struct lazy_fill *fill, const struct lazy_awaited *awaited);

/* lazy_order.c: pages of one run that are not filled and can be, the task's from number `page` on.
 */
struct lazy_piece {
	const struct lazy_run *run;
	uint64_t page, pages;
};
uint32_t lazy_order_newest_round(const struct lazy_map *map);
/* Those that the newest round brought, of any memory; false: there are no more (but those that had
 * not come, which lazy_order_next finds). */
bool lazy_order_newest(struct lazy_fill *fill, struct lazy_memory **ret_memory,
		       struct lazy_piece *ret_piece);
/* Of this memory, which nothing has moved, the first by address. */
bool lazy_order_next(const struct lazy_fill *fill, struct lazy_memory *memory,
		     struct lazy_piece *ret_piece);
/* How many of the run's pages from `page` on, at most `most`, are not filled. */
uint64_t lazy_order_unfilled(const struct lazy_memory *memory, const struct lazy_run *run,
			     uint64_t page, uint64_t most);

/* lazy_complete.c: the part of the piece in [start, end), if there is one. */
bool lazy_part_of(const struct lazy_rest *rest, uint64_t start, uint64_t end,
		  struct lazy_rest *ret_part);
/* Takes [start, end) out of what is left; what was in there goes to `moved_to` when that is not 0.
 */
must_check status *lazy_take_out(struct lazy_memory *memory, uint64_t start, uint64_t end,
				 uint64_t moved_to);

/* lazy_moved.c: of a memory whose pages may have moved. A page that is waited for: */
must_check status *lazy_moved_serve(struct lazy_fill *fill, size_t number, uint64_t address,
				    enum lazy_step *ret_step);
/* The next pages that can be filled; false: there are none. */
bool lazy_moved_next(const struct lazy_fill *fill, struct lazy_memory *memory,
		     struct lazy_rest *ret_part);
/* Fills them, and takes them out. */
must_check status *lazy_moved_put(struct lazy_fill *fill, struct lazy_memory *memory,
				  const struct lazy_rest *part, enum lazy_step *ret_step);
/* Is the content of a page that is waited for there? */
bool lazy_moved_is_there(const struct lazy_fill *fill, const struct lazy_memory *memory,
			 uint64_t address);

/* Adds a memory; takes the descriptor. */
must_check status *lazy_add_memory(struct lazy_fill *fill, const struct lazy_task *task, int uffd,
				   struct lazy_memory **ret_memory);
void lazy_end_memory(struct lazy_fill *fill, struct lazy_memory *memory);

/* *ret_got false when there is nothing to read. */
must_check status *lazy_read(const struct lazy_memory *memory, struct uffd_msg *ret_message,
			     bool *ret_got);

/* Tells the watcher of an event; nothing for a page that is waited for. */
must_check status *lazy_tell(struct lazy_fill *fill, size_t memory, const struct uffd_msg *message);

static inline bool lazy_is_filled(const struct lazy_memory *memory, uint64_t page)
{
	return (memory->filled[page / 64] >> (page % 64) & 1) != 0;
}

#endif
