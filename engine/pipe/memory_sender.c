/* SPDX-License-Identifier: Apache-2.0 */
/* The sending half: a page server for CRIU that keeps nothing. Page data is read from CRIU's socket
 * straight into the frame that leaves; a page of zeros, or one that the destination has already, is
 * found there and becomes part of a run without data. */
#include "engine/pipe/memory_sender_internal.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "proto/clock.h"
#include "proto/limits.h"
#include "proto/pack.h"

enum {
	DIGEST_BYTES = 8,
	BATCH_BYTES = MEMORY_BATCH_BYTES - DIGEST_BYTES, /* of records */
	/* What a record needs at most besides its pages: finding zeros splits it, but each split
	   saves a page. */
	RECORD_ROOM = 2 * PAGE_HEADER_BYTES + DIGEST_BYTES,
	RUN_PAGES_MOST = 1 << 20, /* what page_header_decode takes */
};

/* --- CRIU's socket --- */

static status *read_all(int fd, uint8_t *data, size_t size)
{
	while (size > 0) {
		ssize_t got = recv(fd, data, size, MSG_WAITALL);
		if (got < 0 && errno == EINTR)
			continue;
		if (got == 0)
			return status_errorf(STATUS_ABORTED,
					     "CRIU ended its stream of pages too early");
		if (got < 0)
			return status_errnof(errno, "cannot read CRIU's pages");
		data += got;
		size -= (size_t)got;
	}
	return NULL;
}

static status *answer(int fd, const void *data, size_t size)
{
	if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
		return status_errnof(errno, "cannot answer CRIU about its pages");
	return NULL;
}

/* --- batches --- */

static status *flush_batch(struct memory_sender *sender)
{
	if (!sender->has_out || sender->used == 0)
		return NULL;
	uint64_t digest = htole64(XXH3_64bits(sender->out.body, sender->used));
	memcpy(sender->out.body + sender->used, &digest, sizeof(digest));
	(void)XXH3_64bits_update(&sender->digests, &digest, sizeof(digest));
	status *st = sender->feed.is_last ? NULL : memory_sender_mark(sender);
	if (st != NULL)
		return st;
	sender->has_out = false;
	st = stripes_out_send(sender->stripes, &sender->out, sender->used + DIGEST_BYTES,
			      sender->feed.is_last);
	sender->is_pipe_lost = st != NULL;
	return st;
}

/* Makes room for a record with up to `bytes` of data. */
status *memory_sender_make_room(struct memory_sender *sender, size_t bytes)
{
	status *st = NULL;

	if (sender->has_out && sender->used + bytes + RECORD_ROOM > BATCH_BYTES)
		st = flush_batch(sender);
	if (st != NULL || sender->has_out)
		return st;
	st = pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, BATCH_BYTES, &sender->out);
	sender->has_out = st == NULL;
	sender->used = 0;
	sender->batch_pages = 0;
	sender->last_at = SIZE_MAX;
	return st;
}

static void put_header(struct memory_sender *sender, const struct page_header *header)
{
	page_header_encode(header, sender->out.body + sender->used);
	sender->last = *header;
	sender->last_at = sender->used;
	sender->used += PAGE_HEADER_BYTES;
}

/* A run without data (in the parent, or zeros): continues the last record if it can. */
void memory_sender_put_bare(struct memory_sender *sender, const struct page_header *header)
{
	struct page_header *last = &sender->last;

	if (sender->last_at != SIZE_MAX && last->command == PAGE_ADD &&
	    last->flags == header->flags && last->image == header->image &&
	    (uint64_t)last->pages + header->pages <= RUN_PAGES_MOST &&
	    last->address + (uint64_t)last->pages * PAGE_BYTES == header->address) {
		last->pages += header->pages;
		page_header_encode(last, sender->out.body + sender->last_at);
		return;
	}
	put_header(sender, header);
}

static bool is_zero(const uint8_t *page)
{
	uint64_t first;

	memcpy(&first, page, sizeof(first));
	return first == 0 && memcmp(page, page + sizeof(first), PAGE_BYTES - sizeof(first)) == 0;
}

/* How a page travels. */
enum page_kind { KIND_DATA, KIND_ZERO, KIND_SAME, KIND_LATE };

static status *kind_of(struct memory_sender *sender, uint64_t address, const uint8_t *page,
		       enum page_kind *ret_kind)
{
	bool is_same = false;
	status *st = page_table_note(sender->table, address, page, &is_same);

	if (st == NULL)
		*ret_kind = is_same	      ? KIND_SAME
			    : is_zero(page)   ? KIND_ZERO
			    : sender->is_late ? KIND_LATE
					      : KIND_DATA;
	return st;
}

static const uint32_t kind_flags[] = {
    [KIND_DATA] = PAGE_PRESENT,
    [KIND_ZERO] = PAGE_PRESENT | PAGE_ZERO,
    [KIND_SAME] = PAGE_IN_PARENT,
    [KIND_LATE] = PAGE_PRESENT | PAGE_LATE,
};

/* One run of pages that travel alike, which lie at `pages` in the frame that they leave with. */
static void put_run(struct memory_sender *sender, const struct page_header *run,
		    const uint8_t *pages)
{
	if ((run->flags & (PAGE_ZERO | PAGE_IN_PARENT | PAGE_LATE)) != 0) {
		memory_sender_put_bare(sender, run);
		return;
	}
	size_t bytes = (size_t)run->pages * PAGE_BYTES;
	/* First the data, then the header before it: the header's place may be data's old one. */
	memmove(sender->out.body + sender->used + PAGE_HEADER_BYTES, pages, bytes);
	put_header(sender, run);
	sender->used += bytes;
	sender->batch_pages += run->pages;
}

/* The pages lie in the frame behind a header's room; what travels without data is taken out from
 * left to right. Each such run makes more room than the headers that come. */
static status *put_pages(struct memory_sender *sender, struct page_header run,
			 struct memory_round *counts)
{
	const uint8_t *pages = sender->out.body + sender->used + PAGE_HEADER_BYTES;
	uint32_t total = run.pages, begin = 0;
	uint64_t base = run.address;
	enum page_kind kind, next = KIND_DATA;
	status *st = kind_of(sender, base, pages, &kind);

	for (uint32_t end = 1; st == NULL && begin < total; end++) {
		if (end < total)
			st = kind_of(sender, base + (uint64_t)end * PAGE_BYTES,
				     pages + (size_t)end * PAGE_BYTES, &next);
		if (st != NULL || (end < total && next == kind))
			continue;
		run.pages = end - begin;
		run.address = base + (uint64_t)begin * PAGE_BYTES;
		run.flags = kind_flags[kind];
		put_run(sender, &run, pages + (size_t)begin * PAGE_BYTES);
		counts->pages_sent += kind == KIND_SAME ? 0 : run.pages;
		counts->pages_zero += kind == KIND_ZERO ? run.pages : 0;
		counts->pages_same += kind == KIND_SAME ? run.pages : 0;
		counts->pages_late += kind == KIND_LATE ? run.pages : 0;
		begin = end;
		kind = next;
	}
	return st;
}

void memory_sender_count(struct memory_sender *sender, const struct memory_round *counts)
{
	(void)pthread_mutex_lock(&sender->lock);
	sender->round.pages_sent += counts->pages_sent;
	sender->round.pages_zero += counts->pages_zero;
	sender->round.pages_skipped += counts->pages_skipped;
	sender->round.pages_same += counts->pages_same;
	sender->round.pages_late += counts->pages_late;
	(void)pthread_cond_broadcast(&sender->changed);
	(void)pthread_mutex_unlock(&sender->lock);
}

/* --- commands --- */

/* Room for pages in one record: *ret_pages, at least one. */
static status *make_pages_room(struct memory_sender *sender, uint32_t most, uint32_t *ret_pages)
{
	status *st = memory_sender_make_room(sender, PAGE_BYTES);

	if (st == NULL && sender->batch_pages == LIMIT_BATCH_PAGES) {
		st = flush_batch(sender);
		if (st == NULL)
			st = memory_sender_make_room(sender, PAGE_BYTES);
	}
	if (st != NULL)
		return st;
	size_t fits = (BATCH_BYTES - RECORD_ROOM - sender->used) / PAGE_BYTES;
	uint32_t room = LIMIT_BATCH_PAGES - sender->batch_pages;
	room = room < fits ? room : (uint32_t)fits;
	*ret_pages = most < room ? most : room;
	return NULL;
}

status *memory_sender_serve_pages(struct memory_sender *sender, const struct page_header *header,
				  const struct page_source *source)
{
	struct page_header run = *header;
	struct memory_round counts;
	status *st = NULL;

	for (uint32_t left = header->pages; st == NULL && left > 0; left -= run.pages) {
		uint32_t got = 0;
		counts = (struct memory_round){0};
		st = make_pages_room(sender, left, &run.pages);
		if (st == NULL)
			st =
			    source->read(source->self, &run,
					 sender->out.body + sender->used + PAGE_HEADER_BYTES, &got);
		if (st == NULL && got == 0) { /* that one cannot be had */
			run.pages = 1;
		} else if (st == NULL) {
			run.pages = got;
			st = put_pages(sender, run, &counts);
		}
		memory_sender_count(sender, &counts);
		run.address += (uint64_t)run.pages * PAGE_BYTES;
	}
	return st;
}

/* From CRIU, or who writes what is read live. */
static status *read_feed(void *self, const struct page_header *run, uint8_t *data,
			 uint32_t *ret_pages)
{
	const struct memory_sender *sender = self;

	*ret_pages = run->pages;
	return read_all(sender->fd, data, (size_t)run->pages * PAGE_BYTES);
}

/* Pages that may stay here, or may not. */
status *memory_sender_serve_present(struct memory_sender *sender, const struct page_header *header,
				    bool may_be_late)
{
	sender->is_late = may_be_late && sender->feed.late != LATE_NONE;
	return may_be_late && sender->feed.late == LATE_ALL
		   ? memory_sender_name_pages(sender, header)
		   : memory_sender_serve_pages(sender, header,
					       &(struct page_source){read_feed, sender});
}

/* Whoever has offered them waits for an answer. */
static status *serve_live(struct memory_sender *sender, const struct page_header *header)
{
	const struct page_source source = {sender->feed.read_live, sender->feed.live};
	const int32_t verdict = 0;

	if (source.read == NULL)
		return memory_sender_serve_present(sender, header, false);
	sender->is_late = false;
	status *st = memory_sender_serve_pages(sender, header, &source);
	return st == NULL ? answer(sender->fd, &verdict, sizeof(verdict)) : st;
}

static status *serve_add(struct memory_sender *sender, const struct page_header *header)
{
	if ((header->flags & PAGE_PRESENT) != 0)
		return sender->fd == sender->criu_fd ? memory_sender_serve_late(sender, header)
						     : serve_live(sender, header);
	if (header->flags != PAGE_IN_PARENT)
		return status_errorf(STATUS_UNIMPLEMENTED,
				     "CRIU sends lazy pages, which it was not asked for");
	return memory_sender_serve_kept(sender, header);
}

/* What CRIU may leave out because it tracked it since the round before. What was read live it never
 * tracked. */
static bool criu_has_parent(const struct memory_sender *sender, uint64_t image)
{
	return sender->feed.is_tracked && (image & 0xff) == PAGE_TASK &&
	       page_table_has_image(sender->table, image);
}

/* CRIU asks of each task before it looks for dirty pages, while the tree stands still: in a
 * pre-dump with PAGE_PARENT, in a dump with PAGE_OPEN. */
static status *look_at_frames(struct memory_sender *sender, uint64_t image)
{
	if (sender->feed.frames == NULL || sender->fd != sender->criu_fd ||
	    (image & 0xff) != PAGE_TASK)
		return NULL;
	return frames_look(sender->feed.frames, image >> 8, sender->round_number,
			   sender->feed.is_last);
}

static status *serve_parent(struct memory_sender *sender, const struct page_header *header)
{
	int32_t has = criu_has_parent(sender, header->image);
	status *st = look_at_frames(sender, header->image);

	return st == NULL ? answer(sender->fd, &has, sizeof(has)) : st;
}

static status *serve_open(struct memory_sender *sender, const struct page_header *header)
{
	uint8_t has_parent = criu_has_parent(sender, header->image);
	struct page_header open = {.command = PAGE_OPEN, .image = header->image};
	status *st = sender->feed.is_last ? look_at_frames(sender, header->image) : NULL;

	if (st == NULL)
		st = memory_sender_read_areas(sender, header->image);
	if (st == NULL)
		st = answer(sender->fd, &has_parent, sizeof(has_parent));

	if (st == NULL)
		st = page_table_open(sender->table, header->image);
	if (st == NULL)
		st = memory_sender_make_room(sender, 0);
	if (st == NULL)
		put_header(sender, &open);
	return st;
}

static status *send_round_end(struct memory_sender *sender)
{
	Haul__V1__RoundEnd end = HAUL__V1__ROUND_END__INIT;
	status *st = flush_batch(sender);

	if (st != NULL)
		return st;
	end.round = sender->round_number;
	end.digest = XXH3_64bits_digest(&sender->digests);
	(void)pthread_mutex_lock(&sender->lock);
	end.pages = sender->round.pages_sent;
	sender->round.digest = end.digest;
	(void)pthread_mutex_unlock(&sender->lock);
	st = stripes_out_end(sender->stripes, &end.base);
	sender->is_pipe_lost = st != NULL;
	return st;
}

/* CRIU is answered first: while it waits the tree stands still. What is still to be sent is sent
 * then. */
static status *serve_close(struct memory_sender *sender)
{
	int32_t verdict = 0;

	return answer(sender->fd, &verdict, sizeof(verdict));
}

static status *serve_one(struct memory_sender *sender, bool *ret_over)
{
	uint8_t bytes[PAGE_HEADER_BYTES];
	struct page_header header;
	status *st = read_all(sender->fd, bytes, sizeof(bytes));

	if (st == NULL)
		st = page_header_decode(bytes, false, &header);
	if (st != NULL)
		return st;
	switch (header.command) {
	case PAGE_PARENT:
		return serve_parent(sender, &header);
	case PAGE_OPEN:
		return serve_open(sender, &header);
	case PAGE_ADD:
		return serve_add(sender, &header);
	default:
		*ret_over = true;
		return serve_close(sender);
	}
}

/* --- the thread and its round --- */

static status *serve_feed(struct memory_sender *sender, int fd)
{
	bool is_over = false;
	status *st = NULL;

	sender->fd = fd;
	while (st == NULL && !is_over)
		st = serve_one(sender, &is_over);
	return st;
}

/* So that nobody who writes waits for ever. */
static void shut_feeds(const struct memory_sender *sender)
{
	(void)shutdown(sender->criu_fd, SHUT_RDWR);
	if (sender->feed.live_fd >= 0)
		(void)shutdown(sender->feed.live_fd, SHUT_RDWR);
}

static void *serve_round(void *self)
{
	struct memory_sender *sender = self;
	status *st = NULL;

	if (sender->feed.live_fd >= 0)
		st = serve_feed(sender, sender->feed.live_fd);
	if (st == NULL && sender->feed.is_criu)
		st = serve_feed(sender, sender->criu_fd);
	if (st == NULL)
		st = send_round_end(sender);
	if (sender->has_out)
		pipe_out_drop(&sender->out);
	sender->has_out = false;
	if (st != NULL)
		shut_feeds(sender);
	(void)pthread_mutex_lock(&sender->lock);
	sender->error = st;
	sender->is_over = true;
	(void)pthread_cond_broadcast(&sender->changed);
	(void)pthread_mutex_unlock(&sender->lock);
	return NULL;
}

/* By a stripe's thread. */
static void note_sent(void *self, size_t bytes, double blocked_ms)
{
	struct memory_sender *sender = self;

	(void)pthread_mutex_lock(&sender->lock);
	sender->round.bytes += bytes;
	sender->round.blocked_ms += blocked_ms;
	(void)pthread_cond_broadcast(&sender->changed);
	(void)pthread_mutex_unlock(&sender->lock);
}

status *memory_sender_use(struct memory_sender *sender, const struct pipe_set *pipes)
{
	const struct stripes_sent sent = {note_sent, sender};

	stripes_out_free(TAKE(sender->stripes));
	status *st = stripes_out_new(pipes, &sender->codecs, &sent, &sender->stripes);
	if (st == NULL)
		stripes_out_limit(sender->stripes, sender->limit);
	return st;
}

status *memory_sender_new(int criu_fd, const struct pipe_set *pipes,
			  const struct batch_codecs *codecs, struct memory_sender **ret_sender)
{
	/* XXH3's state wants to lie at a multiple of 64, which is part of the type. */
	scoped(memory_sender) struct memory_sender *sender =
	    aligned_alloc(_Alignof(struct memory_sender), sizeof(*sender));

	if (sender == NULL)
		return status_errnof(ENOMEM, "memory sender");
	memset(sender, 0, sizeof(*sender));
	sender->criu_fd = criu_fd;
	sender->codecs = *codecs;
	(void)pthread_mutex_init(&sender->lock, NULL);
	clock_cond_init(&sender->changed);
	status *st = page_table_new(&sender->table);
	if (st == NULL)
		st = memory_sender_use(sender, pipes);
	if (st == NULL)
		*ret_sender = TAKE(sender);
	return st;
}

void memory_sender_limit(struct memory_sender *sender, const atomic_uint_fast64_t *bytes_per_s)
{
	sender->limit = bytes_per_s;
	stripes_out_limit(sender->stripes, bytes_per_s);
}

status *memory_sender_begin(struct memory_sender *sender, unsigned round,
			    const struct memory_feed *feed)
{
	if (sender->has_thread)
		return status_errorf(STATUS_INTERNAL, "round %u has not been ended",
				     sender->round_number);
	page_table_next_round(sender->table, feed->is_last);
	sender->feed = *feed;
	sender->round_number = round;
	sender->round = (struct memory_round){0};
	sender->is_over = false;
	sender->is_pipe_lost = false;
	sender->mark_count = 0;
	(void)XXH3_64bits_reset(&sender->digests);
	int failed = pthread_create(&sender->thread, NULL, serve_round, sender);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	sender->has_thread = true;
	return NULL;
}

/* Until it is over or nothing has moved for timeout_ms: false. */
static bool wait_for_end(struct memory_sender *sender, int64_t timeout_ms)
{
	int64_t until = clock_monotonic_ms() + timeout_ms;
	struct memory_round seen = sender->round;
	int failed = 0;

	while (!sender->is_over && failed != ETIMEDOUT) {
		struct timespec at = clock_at(until);
		failed = pthread_cond_timedwait(&sender->changed, &sender->lock, &at);
		if (sender->round.bytes != seen.bytes ||
		    sender->round.pages_sent != seen.pages_sent ||
		    sender->round.pages_same != seen.pages_same ||
		    sender->round.pages_skipped != seen.pages_skipped) {
			seen = sender->round;
			until = clock_monotonic_ms() + timeout_ms;
			failed = 0;
		}
	}
	return sender->is_over;
}

static void stop(struct memory_sender *sender)
{
	(void)pthread_mutex_lock(&sender->lock);
	sender->is_stopping = true;
	(void)pthread_cond_broadcast(&sender->changed);
	(void)pthread_mutex_unlock(&sender->lock);
	shut_feeds(sender);
	stripes_out_stop(sender->stripes);
}

status *memory_sender_end(struct memory_sender *sender, int64_t timeout_ms,
			  struct memory_round *ret_round)
{
	status *late = NULL;

	if (!sender->has_thread)
		return status_errorf(STATUS_INTERNAL, "no round has been begun");
	(void)pthread_mutex_lock(&sender->lock);
	bool is_over = wait_for_end(sender, timeout_ms);
	(void)pthread_mutex_unlock(&sender->lock);
	if (!is_over) {
		late = status_errorf(STATUS_DEADLINE_EXCEEDED,
				     "round %u: no page has moved for %lld ms",
				     sender->round_number, (long long)timeout_ms);
		stop(sender);
	}
	(void)pthread_join(sender->thread, NULL);
	sender->has_thread = false;
	status *st = status_first(late, TAKE(sender->error));
	if (st != NULL)
		return status_wrapf(st, "memory");
	*ret_round = sender->round;
	return NULL;
}

void memory_sender_progress(struct memory_sender *sender, struct memory_round *ret_round)
{
	(void)pthread_mutex_lock(&sender->lock);
	*ret_round = sender->round;
	(void)pthread_mutex_unlock(&sender->lock);
}

void memory_sender_free(struct memory_sender *sender)
{
	if (sender == NULL)
		return;
	if (sender->has_thread) {
		stop(sender);
		(void)pthread_join(sender->thread, NULL);
	}
	stripes_out_free(sender->stripes);
	status_free(sender->error);
	page_table_free(sender->table);
	free(sender->marks);
	memory_drain_free(sender->drain);
	late_areas_free(&sender->areas);
	(void)pthread_cond_destroy(&sender->changed);
	(void)pthread_mutex_destroy(&sender->lock);
	free(sender);
}
