/* SPDX-License-Identifier: Apache-2.0 */
/* Failure modes: CRIU dies or stops (end of its socket, or the caller shuts it); the peer is slow (the pipe
 * blocks, CRIU's socket fills, CRIU waits: back-pressure, no memory grows) or gone (the pipe's error; CRIU's socket is shut, so that
 * it lets the tree go); damage on the way (digests). */
#include "engine/pipe/memory_pipe.h"

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#define XXH_STATIC_LINKING_ONLY /* XXH3_state_t on the stack */
#include <xxhash.h>

#include "engine/host/clock.h"
#include "proto/limits.h"

enum {
	RECORDS_ROOM = 16 * 1024,  /* for the headers in a batch */
	DIGEST_BYTES = 8,
	BATCH_BYTES = LIMIT_BATCH_PAGES * PAGE_BYTES + RECORDS_ROOM,
	IMAGES_MOST = 65536,
	SEND_TIMEOUT_MS = 30000,
};

struct memory_sender {
	int criu;
	struct pipe *pipe;
	unsigned round;
	pthread_t thread;
	bool is_running;
	status *outcome;

	pthread_mutex_t lock;         /* guards shown */
	struct memory_round shown;

	/* The thread's own. */
	struct memory_round now;
	struct pipe_out out;
	size_t used;
	uint64_t open_image;
	uint64_t *images, *before;    /* of this round, of the round before */
	size_t image_count, before_count, room;
	XXH3_state_t digest;
	uint8_t pages[LIMIT_BATCH_PAGES * PAGE_BYTES];
};

static bool is_zero_page(const uint8_t *page)
{
	uint64_t first;

	memcpy(&first, page, sizeof(first));
	return first == 0 && memcmp(page, page + sizeof(first), PAGE_BYTES - sizeof(first)) == 0;
}

static uint64_t batch_digest(const uint8_t *data, size_t size)
{
	return XXH3_64bits(data, size);
}

static void digest_add(XXH3_state_t *state, uint64_t digest)
{
	uint64_t on_wire = htole64(digest);

	(void)XXH3_64bits_update(state, &on_wire, sizeof(on_wire));
}

/* --- sending --- */

static status *flush(struct memory_sender *sender)
{
	if (sender->used == 0)
		return NULL;
	uint64_t digest = batch_digest(sender->out.body, sender->used);
	uint64_t on_wire = htole64(digest);
	memcpy(sender->out.body + sender->used, &on_wire, DIGEST_BYTES);
	digest_add(&sender->digest, digest);
	uint64_t before = pipe_bytes_sent(sender->pipe);
	status *st = pipe_send_frame(sender->pipe, &sender->out, sender->used + DIGEST_BYTES, SEND_TIMEOUT_MS);
	sender->now.bytes += pipe_bytes_sent(sender->pipe) - before;
	sender->used = 0;
	(void)pthread_mutex_lock(&sender->lock);
	sender->shown = sender->now;
	(void)pthread_mutex_unlock(&sender->lock);
	return st;
}

/* Room for one more record with `least` bytes of data. */
static status *make_room(struct memory_sender *sender, size_t least)
{
	if (sender->used + PAGE_HEADER_BYTES + least > BATCH_BYTES) {
		status *st = flush(sender);
		if (st != NULL)
			return st;
	}
	if (sender->used > 0)
		return NULL;
	return pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, BATCH_BYTES + DIGEST_BYTES, &sender->out);
}

static status *put_record(struct memory_sender *sender, const struct page_header *header, const uint8_t *data)
{
	size_t size = (size_t)page_header_data(header);
	status *st = make_room(sender, size);

	if (st != NULL)
		return st;
	page_header_encode(header, sender->out.body + sender->used);
	if (size > 0)
		memcpy(sender->out.body + sender->used + PAGE_HEADER_BYTES, data, size);
	sender->used += PAGE_HEADER_BYTES + size;
	return NULL;
}

static status *read_all(int fd, void *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t got = recv(fd, (uint8_t *)data + done, size - done, MSG_WAITALL);
		if (got == 0)
			return status_errorf(STATUS_UNAVAILABLE, "CRIU ended in the middle of its pages");
		if (got < 0 && errno != EINTR)
			return status_errnof(errno, "cannot read CRIU's pages");
		done += got > 0 ? (size_t)got : 0;
	}
	return NULL;
}

/* Pages of one kind (zero or not) in a row become one record. */
static status *put_runs(struct memory_sender *sender, const struct page_header *header, uint32_t count)
{
	for (uint32_t at = 0; at < count;) {
		const uint8_t *first = sender->pages + (size_t)at * PAGE_BYTES;
		bool is_zero = is_zero_page(first);
		uint32_t length = 1;
		while (at + length < count &&
		       is_zero_page(first + (size_t)length * PAGE_BYTES) == is_zero)
			length++;
		struct page_header run = *header;
		run.flags = PAGE_PRESENT | (is_zero ? PAGE_ZERO : 0);
		run.address += (uint64_t)at * PAGE_BYTES;
		run.pages = length;
		status *st = put_record(sender, &run, first);
		if (st != NULL)
			return st;
		sender->now.pages_zero += is_zero ? length : 0;
		at += length;
	}
	return NULL;
}

static status *forward_pages(struct memory_sender *sender, const struct page_header *header)
{
	struct page_header part = *header;

	for (uint32_t left = header->pages; left > 0;) {
		uint32_t count = left < LIMIT_BATCH_PAGES ? left : LIMIT_BATCH_PAGES;
		status *st = read_all(sender->criu, sender->pages, (size_t)count * PAGE_BYTES);
		if (st == NULL)
			st = put_runs(sender, &part, count);
		if (st != NULL)
			return st;
		part.address += (uint64_t)count * PAGE_BYTES;
		left -= count;
	}
	sender->now.pages_sent += header->pages;
	return NULL;
}

static bool was_before(const struct memory_sender *sender, uint64_t image)
{
	for (size_t i = 0; i < sender->before_count; i++) {
		if (sender->before[i] == image)
			return true;
	}
	return false;
}

static status *note_image(struct memory_sender *sender, uint64_t image)
{
	if (sender->image_count == sender->room) {
		size_t room = sender->room == 0 ? 64 : sender->room * 2;
		uint64_t *grown = room > IMAGES_MOST ? NULL : realloc(sender->images, room * sizeof(*grown));
		if (grown == NULL)
			return status_errorf(STATUS_RESOURCE_EXHAUSTED, "too many images in one round");
		sender->images = grown;
		sender->room = room;
	}
	sender->images[sender->image_count++] = image;
	return NULL;
}

static status *answer(struct memory_sender *sender, const void *data, size_t size)
{
	return send(sender->criu, data, size, MSG_NOSIGNAL) == (ssize_t)size
		       ? NULL
		       : status_errnof(errno, "cannot answer CRIU");
}

static status *serve_open(struct memory_sender *sender, const struct page_header *header)
{
	uint8_t has_parent = was_before(sender, header->image) ? 1 : 0;
	status *st = note_image(sender, header->image);

	sender->open_image = header->image;
	if (st == NULL)
		st = put_record(sender, header, NULL);
	return st == NULL ? answer(sender, &has_parent, sizeof(has_parent)) : st;
}

static status *serve_add(struct memory_sender *sender, const struct page_header *header)
{
	if (header->image != sender->open_image)
		return status_errorf(STATUS_DATA_LOSS, "CRIU adds pages to an image that is not open");
	if ((header->flags & PAGE_PRESENT) != 0)
		return forward_pages(sender, header);
	sender->now.pages_skipped += header->pages;
	return put_record(sender, header, NULL);
}

/* The round's numbers, so that the receiver can tell that it has all. */
static status *send_round_end(struct memory_sender *sender)
{
	Haul__V1__RoundEnd end = HAUL__V1__ROUND_END__INIT;
	status *st = flush(sender);

	if (st != NULL)
		return st;
	sender->now.digest = XXH3_64bits_digest(&sender->digest);
	end.round = sender->round;
	end.pages = sender->now.pages_sent;
	end.digest = sender->now.digest;
	return pipe_send_message(sender->pipe, HAUL__V1__FRAME_KIND__FRAME_ROUND, &end.base, SEND_TIMEOUT_MS);
}

/* One command; *ret_done at the round's end. CRIU is answered before the network is done: it must not wait
 * for that while the tree stands still. */
static status *serve_one(struct memory_sender *sender, bool *ret_done)
{
	uint8_t bytes[PAGE_HEADER_BYTES];
	struct page_header header;
	int32_t word = 0;
	status *st = read_all(sender->criu, bytes, sizeof(bytes));

	if (st == NULL)
		st = page_header_decode(bytes, false, &header);
	if (st != NULL)
		return st;
	switch (header.command) {
	case PAGE_OPEN:
		return serve_open(sender, &header);
	case PAGE_ADD:
		return serve_add(sender, &header);
	case PAGE_PARENT:
		word = was_before(sender, header.image) ? 1 : 0;
		return answer(sender, &word, sizeof(word));
	default:
		*ret_done = true;
		st = answer(sender, &word, sizeof(word));
		return st == NULL ? send_round_end(sender) : st;
	}
}

static void *serve(void *self)
{
	struct memory_sender *sender = self;
	status *st = NULL;

	for (bool is_done = false; !is_done && st == NULL;)
		st = serve_one(sender, &is_done);
	if (st != NULL) {
		(void)shutdown(sender->criu, SHUT_RDWR);
		if (sender->used > 0)
			pipe_out_drop(&sender->out);
		sender->used = 0;
	}
	sender->outcome = st;
	return NULL;
}

status *memory_sender_new(int criu_fd, struct pipe *pipe, struct memory_sender **ret_sender)
{
	struct memory_sender *sender = calloc(1, sizeof(*sender));

	if (sender == NULL)
		return status_errnof(ENOMEM, "memory pipe");
	sender->criu = criu_fd;
	sender->pipe = pipe;
	(void)pthread_mutex_init(&sender->lock, NULL);
	*ret_sender = sender;
	return NULL;
}

status *memory_sender_begin(struct memory_sender *sender, unsigned round)
{
	if (sender->is_running)
		return status_errorf(STATUS_INTERNAL, "round %u still runs", sender->round);
	free(sender->before);
	sender->before = TAKE(sender->images);
	sender->before_count = sender->image_count;
	sender->image_count = sender->room = 0;
	sender->round = round;
	sender->now = (struct memory_round){0};
	(void)XXH3_64bits_reset(&sender->digest);
	int failed = pthread_create(&sender->thread, NULL, serve, sender);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	sender->is_running = true;
	return NULL;
}

static void stop(struct memory_sender *sender)
{
	(void)shutdown(sender->criu, SHUT_RDWR);
	pipe_interrupt(sender->pipe);
	(void)pthread_join(sender->thread, NULL);
	sender->is_running = false;
}

status *memory_sender_end(struct memory_sender *sender, int64_t timeout_ms, struct memory_round *ret_round)
{
	struct timespec until;
	int64_t at = clock_monotonic_ms() + timeout_ms;

	if (!sender->is_running)
		return status_errorf(STATUS_INTERNAL, "no round runs");
	until = (struct timespec){.tv_sec = at / 1000, .tv_nsec = (at % 1000) * 1000000};
	if (pthread_clockjoin_np(sender->thread, NULL, CLOCK_MONOTONIC, &until) != 0) {
		stop(sender);
		status_free(TAKE(sender->outcome));
		return status_errorf(STATUS_DEADLINE_EXCEEDED, "memory did not move within %lld ms",
				     (long long)timeout_ms);
	}
	sender->is_running = false;
	if (sender->outcome != NULL)
		return TAKE(sender->outcome);
	*ret_round = sender->now;
	return NULL;
}

void memory_sender_progress(struct memory_sender *sender, struct memory_round *ret_round)
{
	(void)pthread_mutex_lock(&sender->lock);
	*ret_round = sender->shown;
	(void)pthread_mutex_unlock(&sender->lock);
}

void memory_sender_free(struct memory_sender *sender)
{
	if (sender == NULL)
		return;
	if (sender->is_running)
		stop(sender);
	status_free(sender->outcome);
	free(sender->images);
	free(sender->before);
	(void)pthread_mutex_destroy(&sender->lock);
	free(sender);
}

/* --- receiving --- */

status *memory_batch_apply(const uint8_t *data, size_t size, struct page_store *store,
			   struct memory_round *round)
{
	uint64_t told;

	if (size < DIGEST_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "a batch of %zu bytes", size);
	size -= DIGEST_BYTES;
	memcpy(&told, data + size, sizeof(told));
	if (le64toh(told) != batch_digest(data, size))
		return status_errorf(STATUS_DATA_LOSS, "a batch of pages was damaged on the way");
	for (size_t at = 0; at < size;) {
		struct page_header header;
		if (size - at < PAGE_HEADER_BYTES)
			return status_errorf(STATUS_DATA_LOSS, "a batch ends in the middle of a record");
		status *st = page_header_decode(data + at, true, &header);
		if (st != NULL)
			return st;
		at += PAGE_HEADER_BYTES;
		if (page_header_data(&header) > size - at)
			return status_errorf(STATUS_DATA_LOSS, "a batch ends in the middle of a page");
		st = page_store_record(store, &header, data + at);
		if (st != NULL)
			return st;
		at += (size_t)page_header_data(&header);
		if (header.command == PAGE_ADD && (header.flags & PAGE_PRESENT) != 0)
			round->pages_sent += header.pages;
		else if (header.command == PAGE_ADD)
			round->pages_skipped += header.pages;
	}
	round->bytes += size + DIGEST_BYTES;
	return NULL;
}

static status *end_of_round(const struct pipe_in *in, unsigned number, struct page_store *store,
			    const XXH3_state_t *digest, struct memory_round *round)
{
	ProtobufCMessage *message = NULL;
	uint64_t stored = 0;
	status *st = unpack_message(&haul__v1__round_end__descriptor, in->body, in->size, LIMIT_BULK_BYTES,
				    &message);

	if (st != NULL)
		return st;
	const Haul__V1__RoundEnd *end = (const Haul__V1__RoundEnd *)message;
	round->digest = XXH3_64bits_digest(digest);
	if (end->round != number || end->pages != round->pages_sent || end->digest != round->digest)
		st = status_errorf(STATUS_DATA_LOSS, "round %u: %llu pages of %llu arrived, or others", number,
				   (unsigned long long)round->pages_sent, (unsigned long long)end->pages);
	message_free(message);
	if (st == NULL)
		st = page_store_end(store, &stored);
	if (st == NULL && stored != round->pages_sent)
		st = status_errorf(STATUS_DATA_LOSS, "round %u: %llu pages stored of %llu", number,
				   (unsigned long long)stored, (unsigned long long)round->pages_sent);
	return st;
}

status *memory_receive_round(struct pipe *pipe, struct page_store *store, unsigned round,
			     int64_t silence_ms, struct memory_round *ret_round)
{
	struct memory_round sum = {0};
	XXH3_state_t digest;

	(void)XXH3_64bits_reset(&digest);
	for (;;) {
		struct pipe_in in __attribute__((cleanup(scope_pipe_in))) = {0};
		uint64_t told = 0;
		status *st = pipe_receive(pipe, silence_ms, &in);
		if (st != NULL)
			return status_wrapf(st, "memory pipe, round %u", round);
		if (in.kind == HAUL__V1__FRAME_KIND__FRAME_ROUND) {
			st = end_of_round(&in, round, store, &digest, &sum);
			if (st == NULL)
				*ret_round = sum;
			return st;
		}
		if (in.kind != HAUL__V1__FRAME_KIND__FRAME_BATCH)
			return status_errorf(STATUS_DATA_LOSS, "memory pipe: unexpected frame %d", in.kind);
		st = memory_batch_apply(in.body, in.size, store, &sum);
		if (st != NULL)
			return st;
		memcpy(&told, in.body + in.size - DIGEST_BYTES, sizeof(told));
		digest_add(&digest, le64toh(told));
	}
}
