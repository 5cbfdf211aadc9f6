/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that stay here until they are asked for: CRIU sends them all the same, which costs the time
 * to read them, while the tree stands still. */
#include <errno.h>
#include <sys/socket.h>

#include "engine/pipe/memory_sender_internal.h"

enum { DISCARD_BYTES = 256 * 1024 /* stays in the processor's cache */ };

static status *discard(struct memory_sender *sender, uint64_t bytes)
{
	if (sender->discarded == NULL)
		sender->discarded = malloc(DISCARD_BYTES);
	if (sender->discarded == NULL)
		return status_errnof(ENOMEM, "memory sender");
	while (bytes > 0) {
		size_t most = bytes < DISCARD_BYTES ? (size_t)bytes : DISCARD_BYTES;
		ssize_t got = recv(sender->fd, sender->discarded, most, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0)
			return status_errorf(STATUS_ABORTED,
					     "CRIU ended its stream of pages too early");
		if (got < 0)
			return status_errnof(errno, "cannot read CRIU's pages");
		bytes -= (uint64_t)got;
	}
	return NULL;
}

status *memory_sender_name_pages(struct memory_sender *sender, const struct page_header *header)
{
	struct page_header run = *header;
	const struct memory_round counts = {.pages_sent = header->pages,
					    .pages_late = header->pages};

	run.flags = PAGE_PRESENT | PAGE_LATE;
	status *st = discard(sender, (uint64_t)header->pages * PAGE_BYTES);
	if (st == NULL)
		st = memory_sender_make_room(sender, 0);
	if (st != NULL)
		return st;
	memory_sender_put_bare(sender, &run);
	memory_sender_count(sender, &counts);
	return NULL;
}
