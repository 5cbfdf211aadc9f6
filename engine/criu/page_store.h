/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's pages on disk as CRIU restores them: per round a directory with pagemap-*.img
 * and pages-*.img, linked to the round before by "parent". No fsync: a restore reads them back at
 * once. */
#ifndef HAUL_ENGINE_CRIU_PAGE_STORE_H
#define HAUL_ENGINE_CRIU_PAGE_STORE_H

#include "engine/criu/page_stream.h"

struct page_store;

/* base: existing directory; rounds are base/1, base/2 … */
must_check status *page_store_new(const char *base, struct page_store **ret_store);
/* From now on tasks' pages may come without their content (PAGE_LATE): a hole in the pages file,
 * its run marked in the pagemap. Whoever restores has to see to it (lazy_map.h). */
void page_store_allow_late(struct page_store *store);
must_check status *page_store_begin(struct page_store *store, unsigned round);
/* A decoded record with its data (page_header_data bytes). Checks order: OPEN before ADD, addresses
 * ascending, in-parent only where the round before has the page. */
must_check status *page_store_record(struct page_store *store, const struct page_header *header,
				     const uint8_t *data);
/* Closes the round's files and checks that sizes fit; *ret_pages = PRESENT pages of the round. */
must_check status *page_store_end(struct page_store *store, uint64_t *ret_pages);
/* The same for a round of which no more will come: what the round before has behind it is in this
 * one, too. */
must_check status *page_store_cut(struct page_store *store, uint64_t *ret_pages);
void page_store_free(struct page_store *store); /* files stay */

DEFINE_SCOPE(page_store, struct page_store *, page_store_free);

#endif
