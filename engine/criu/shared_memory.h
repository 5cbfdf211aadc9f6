/* SPDX-License-Identifier: Apache-2.0 */
/* Shared anonymous memory, put in place at the destination while the tree still runs at the source.
 *
 * CRIU 4.1 restores such memory as a memfd that it makes and fills while nothing runs: the larger
 * it is, the longer. But a mapping of a memfd that it finds by name among the descriptors it
 * inherits (criu(8), --inherit-fd) it makes from that one, whatever its pages file says. So there
 * are empty memfds in the table of the CRIU that will restore, from its start; each round of
 * pre-copy fills them, and before the restore their names are put into memfd.img. The pages files
 * stay as they are: what cannot go this way CRIU restores by itself. */
#ifndef HAUL_ENGINE_CRIU_SHARED_MEMORY_H
#define HAUL_ENGINE_CRIU_SHARED_MEMORY_H

#include "engine/criu/request.h"

/* Mappings' files that can go this way at a time: the first that are large enough. */
enum { SHARED_MEMORY_MOST = SWRK_MORE_FDS };

struct shared_memory;

/* images: the directory of the rounds' directories (page_store.h). */
must_check status *shared_memory_new(const char *images, struct shared_memory **ret_memory);

/* SHARED_MEMORY_MOST descriptors, of one shared memory each; they stay its own. */
const int *shared_memory_fds(const struct shared_memory *memory);

/* One more round that has arrived: brings the memfds to its state. Memory that cannot follow (no
 * space, unknown before the last round) is CRIU's again. DATA_LOSS when a pagemap is damaged.
 * pages_most: what is new and has more is not taken. */
must_check status *shared_memory_add(struct shared_memory *memory, unsigned round, bool is_last,
				     uint64_t pages_most);

/* The last round's images are there: names in memfd.img what CRIU is to inherit, and tells it.
 * *ret_count of `ret_inherits` (room for SHARED_MEMORY_MOST), numbers as in shared_memory_fds;
 * *ret_pages = how many pages that are. */
must_check status *shared_memory_finish(struct shared_memory *memory,
					struct criu_inherit *ret_inherits, size_t *ret_count,
					uint64_t *ret_pages);

void shared_memory_free(struct shared_memory *memory); /* what was restored keeps its own */

DEFINE_SCOPE(shared_memory, struct shared_memory *, shared_memory_free);

#endif
