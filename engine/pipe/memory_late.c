/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that stay here until they are asked for: CRIU sends them all the same, while the tree
 * stands still. They are let go without being copied where the kernel can. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "engine/pipe/memory_sender_internal.h"

enum {
	DISCARD_BYTES = 256 * 1024, /* stays in the processor's cache */
	PIPE_BYTES = 1024 * 1024,
};

struct memory_drain {
	int in, out, null;  /* a pipe, and /dev/null; -1: pages are read instead */
	uint8_t *discarded; /* DISCARD_BYTES, then */
};

static void no_pipe(struct memory_drain *drain)
{
	close_if_open(drain->in);
	close_if_open(drain->out);
	close_if_open(drain->null);
	drain->in = drain->out = drain->null = -1;
}

static status *drain_new(struct memory_drain **ret_drain)
{
	struct memory_drain *drain = calloc(1, sizeof(*drain));
	int pair[2];

	if (drain == NULL)
		return status_errnof(ENOMEM, "memory sender");
	drain->in = drain->out = -1;
	drain->null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	if (pipe2(pair, O_CLOEXEC) == 0) {
		drain->out = pair[0];
		drain->in = pair[1];
		(void)fcntl(drain->in, F_SETPIPE_SZ, PIPE_BYTES);
	}
	if (drain->in < 0 || drain->null < 0)
		no_pipe(drain);
	*ret_drain = drain;
	return NULL;
}

void memory_drain_free(struct memory_drain *drain)
{
	if (drain == NULL)
		return;
	no_pipe(drain);
	free(drain->discarded);
	free(drain);
}

/* The pages' references go through the pipe, their content nowhere. Less than 0: with errno. */
static ssize_t pass_on(const struct memory_drain *drain, int fd, size_t most)
{
	ssize_t got = splice(fd, NULL, drain->in, NULL, most, SPLICE_F_MOVE);

	for (ssize_t left = got; left > 0;) {
		ssize_t gone = splice(drain->out, NULL, drain->null, NULL, (size_t)left, 0);
		if (gone <= 0) { /* what is in the pipe is lost to the stream */
			errno = EIO;
			return -1;
		}
		left -= gone;
	}
	return got;
}

static ssize_t read_away(struct memory_drain *drain, int fd, size_t most)
{
	if (drain->discarded == NULL)
		drain->discarded = malloc(DISCARD_BYTES);
	if (drain->discarded == NULL)
		return -1;
	return recv(fd, drain->discarded, most < DISCARD_BYTES ? most : DISCARD_BYTES, 0);
}

static status *discard(struct memory_drain *drain, int fd, uint64_t bytes)
{
	while (bytes > 0) {
		size_t most = bytes < PIPE_BYTES ? (size_t)bytes : PIPE_BYTES;
		ssize_t got =
		    drain->in >= 0 ? pass_on(drain, fd, most) : read_away(drain, fd, most);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EINVAL && drain->in >= 0) { /* not of this kernel */
			no_pipe(drain);
			continue;
		}
		if (got == 0)
			return status_errorf(STATUS_ABORTED,
					     "CRIU ended its stream of pages too early");
		if (got < 0)
			return status_errnof(errno, "cannot read CRIU's pages");
		bytes -= (uint64_t)got;
	}
	return NULL;
}

status *memory_sender_name(struct memory_sender *sender, const struct page_header *header)
{
	struct page_header run = *header;
	const struct memory_round counts = {.pages_sent = header->pages,
					    .pages_late = header->pages};
	status *st = memory_sender_make_room(sender, 0);

	if (st != NULL)
		return st;
	run.flags = PAGE_PRESENT | PAGE_LATE;
	memory_sender_put_bare(sender, &run);
	memory_sender_count(sender, &counts);
	return NULL;
}

status *memory_sender_name_pages(struct memory_sender *sender, const struct page_header *header)
{
	status *st = sender->drain == NULL ? drain_new(&sender->drain) : NULL;

	if (st == NULL)
		st = discard(sender->drain, sender->fd, (uint64_t)header->pages * PAGE_BYTES);
	return st == NULL ? memory_sender_name(sender, header) : st;
}

/* Which of its memory may stay here. */
status *memory_sender_read_areas(struct memory_sender *sender, uint64_t image)
{
	pid_t pid = 0;
	status *st = NULL;

	sender->areas.count = 0;
	if (sender->feed.late == LATE_NONE || sender->feed.frames == NULL ||
	    (image & 0xff) != PAGE_TASK)
		return NULL;
	st = frames_find(sender->feed.frames, image >> 8, &pid);
	return st == NULL && pid != 0 ? late_areas_read(&sender->areas, pid) : st;
}

status *memory_sender_serve_late(struct memory_sender *sender, const struct page_header *header)
{
	struct page_header run = *header;
	uint64_t left = header->pages, alike = left;
	status *st = NULL;

	if (sender->feed.late == LATE_NONE || (run.flags & PAGE_LAZY) != 0)
		return memory_sender_serve_present(sender, header, (run.flags & PAGE_LAZY) != 0);
	for (; st == NULL && left > 0; left -= alike, run.address += alike * PAGE_BYTES) {
		bool may_be_late = late_areas_have(&sender->areas, run.address, left, &alike);
		run.pages = (uint32_t)alike;
		st = memory_sender_serve_present(sender, &run, may_be_late);
	}
	return st;
}
