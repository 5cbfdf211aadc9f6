/* SPDX-License-Identifier: Apache-2.0 */
/* What the destination has of each page after the round before, as hashes: a page that the kernel
 * calls dirty but whose content has not changed is not sent again. Dirty tracking is per page-table
 * entry: with transparent huge pages one write marks 2 MiB, of which 511 pages are as they were.
 *
 * A hash is XXH3-128 under a secret that is drawn for each migration: neither chance (2^-128 a
 * pair) nor a workload that knows the algorithm can make two pages look the same, for it never
 * learns the secret nor any hash. 16 bytes a page (0.4 % of the workload), in the order in which
 * CRIU sends: images one after the other, addresses ascending. */
#ifndef HAUL_ENGINE_PIPE_PAGE_TABLE_H
#define HAUL_ENGINE_PIPE_PAGE_TABLE_H

#include "proto/status.h"

struct page_table;

must_check status *page_table_new(struct page_table **ret_table);

/* The pages noted since the last call become the round before. In the last round nothing more is
 * noted, only compared. */
void page_table_next_round(struct page_table *table, bool is_last);

/* Does the round before have this image? */
bool page_table_has_image(const struct page_table *table, uint64_t image);

/* The pages that follow are of this image. */
must_check status *page_table_open(struct page_table *table, uint64_t image);

/* Notes the content of the page (4096 bytes) at this address; *ret_same: the round before has it
 * with the same content. Addresses ascend. DATA_LOSS before any image was opened. */
must_check status *page_table_note(struct page_table *table, uint64_t address, const uint8_t *page,
				   bool *ret_same);

/* These pages are as in the round before, says the kernel. The first *ret_alike of them, at least
 * one, are known from the round before, or are not; those behind them are still to be told. */
must_check status *page_table_keep(struct page_table *table, uint64_t address, uint64_t pages,
				   uint64_t *ret_alike, bool *ret_is_known);

/* How far this round has come: images opened, and the end of the last page noted in the last one.
 */
struct page_table_mark {
	size_t images;
	uint64_t address;
};
struct page_table_mark page_table_mark(const struct page_table *table);

/* This round ends at an earlier mark of it: what was noted behind that is forgotten, and what the
 * round before has behind it, as far as that is still known, counts as noted. Not in the last
 * round. */
must_check status *page_table_cut(struct page_table *table, const struct page_table_mark *mark);

/* Heap that the table takes now. */
size_t page_table_bytes(const struct page_table *table);

void page_table_free(struct page_table *table);

DEFINE_SCOPE(page_table, struct page_table *, page_table_free);

#endif
