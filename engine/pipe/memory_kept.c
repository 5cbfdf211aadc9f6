/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that CRIU takes for sent, because the kernel calls them clean since the round before. Those
 * that have stayed in their place and are in the page table are; the others are read from the tree
 * and go by their content. */
#include "engine/pipe/memory_sender_internal.h"

static status *read_tree(void *self, const struct page_header *run, uint8_t *data,
			 uint32_t *ret_pages)
{
	struct memory_sender *sender = self;

	*ret_pages = (uint32_t)frames_read(sender->feed.frames, run->image >> 8, run->address,
					   run->pages, data);
	if (*ret_pages == 0 && sender->feed.is_last)
		return status_errorf(
		    STATUS_DATA_LOSS,
		    "the page at %#llx of process %llu, which CRIU takes for sent, "
		    "was not, and cannot be read",
		    (unsigned long long)run->address, (unsigned long long)(run->image >> 8));
	return NULL;
}

/* By their content, whatever the kernel says. */
static status *serve_read(struct memory_sender *sender, const struct page_header *run)
{
	struct page_header read = *run;

	read.flags = PAGE_PRESENT;
	sender->is_late = false;
	return memory_sender_serve_pages(sender, &read, &(struct page_source){read_tree, sender});
}

static status *keep(struct memory_sender *sender, const struct page_header *run)
{
	struct memory_round counts = {.pages_skipped = run->pages};
	status *st = memory_sender_make_room(sender, 0);

	if (st != NULL)
		return st;
	memory_sender_put_bare(sender, run);
	memory_sender_count(sender, &counts);
	return NULL;
}

/* Of pages that have stayed. */
static status *serve_stayed(struct memory_sender *sender, struct page_header run)
{
	uint64_t left = run.pages, alike = 0;
	bool is_known = false;
	status *st = NULL;

	for (; st == NULL && left > 0; left -= alike, run.address += alike * PAGE_BYTES) {
		st = page_table_keep(sender->table, run.address, left, &alike, &is_known);
		if (st != NULL)
			break;
		run.pages = (uint32_t)alike;
		/* What was only named is not in the table. */
		if (is_known || sender->feed.was_named || sender->feed.frames == NULL)
			st = keep(sender, &run);
		else
			st = serve_read(sender, &run);
	}
	return st;
}

/* Another page lies there than was sent or named. In a round that names what may stay here it is
 * named anew, else read. */
static status *serve_moved(struct memory_sender *sender, struct page_header run)
{
	uint64_t left = run.pages, alike = left;
	status *st = NULL;

	for (; st == NULL && left > 0; left -= alike, run.address += alike * PAGE_BYTES) {
		bool is_late = sender->feed.late == LATE_ALL &&
			       late_areas_have(&sender->areas, run.address, left, &alike);
		if (sender->feed.late != LATE_ALL)
			alike = left;
		run.pages = (uint32_t)alike;
		st = is_late ? memory_sender_name(sender, &run) : serve_read(sender, &run);
	}
	return st;
}

status *memory_sender_serve_kept(struct memory_sender *sender, const struct page_header *header)
{
	struct page_header run = *header;
	uint64_t left = header->pages, alike = left;
	status *st = NULL;

	if ((header->image & 0xff) != PAGE_TASK)
		return status_errorf(
		    STATUS_DATA_LOSS,
		    "CRIU takes pages of shared memory for sent, which it was not told");
	for (; st == NULL && left > 0; left -= alike, run.address += alike * PAGE_BYTES) {
		bool has_stayed =
		    sender->feed.frames == NULL ||
		    frames_have_stayed(sender->feed.frames, run.image >> 8, sender->round_number,
				       run.address, left, &alike);
		run.pages = (uint32_t)alike;
		st = has_stayed ? serve_stayed(sender, run) : serve_moved(sender, run);
	}
	return st;
}
