/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving half, and what both halves share; memory_sender.c is the other. */
#include "engine/pipe/memory_pipe.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "proto/pack.h"

enum { DIGEST_BYTES = 8 };

/* A round that is being received. */
struct receiving {
	struct page_store *store;
	struct memory_round got;
	uint64_t batches;
	XXH3_state_t digests;
};

static uint64_t digest_at(const uint8_t *at)
{
	uint64_t digest;

	memcpy(&digest, at, sizeof(digest));
	return le64toh(digest);
}

/* One record of a batch; *used bytes of it. */
static status *apply_record(const uint8_t *data, size_t size, struct page_store *store,
			    struct memory_round *round, size_t *ret_used)
{
	struct page_header header;

	if (size < PAGE_HEADER_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "a batch of pages ends inside a record");
	status *st = page_header_decode(data, true, &header);
	if (st != NULL)
		return st;
	uint64_t bytes = page_header_data(&header);
	if (bytes > size - PAGE_HEADER_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "a batch of pages ends inside a page");
	st = page_store_record(store, &header, data + PAGE_HEADER_BYTES);
	if (st != NULL)
		return st;
	if (header.command == PAGE_ADD) {
		round->pages_sent += (header.flags & PAGE_PRESENT) != 0 ? header.pages : 0;
		round->pages_zero += (header.flags & PAGE_ZERO) != 0 ? header.pages : 0;
		round->pages_late += (header.flags & PAGE_LATE) != 0 ? header.pages : 0;
		round->pages_skipped += (header.flags & PAGE_IN_PARENT) != 0 ? header.pages : 0;
	}
	*ret_used = PAGE_HEADER_BYTES + bytes;
	return NULL;
}

status *memory_batch_apply(const uint8_t *data, size_t size, struct page_store *store,
			   struct memory_round *round)
{
	if (size < DIGEST_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "a batch of pages of %zu bytes", size);
	size_t records = size - DIGEST_BYTES, used = 0;
	if (digest_at(data + records) != XXH3_64bits(data, records))
		return status_errorf(STATUS_DATA_LOSS, "a batch of pages was altered on its way");
	for (size_t at = 0; at < records; at += used) {
		status *st = apply_record(data + at, records - at, store, round, &used);
		if (st != NULL)
			return st;
	}
	return NULL;
}

status *memory_batch_unpack(struct batch_packer *packer, const uint8_t *body, size_t size,
			    uint8_t *ret_data, size_t room, size_t *ret_size)
{
	enum batch_codec codec;
	uint32_t unpacked;

	if (size < BATCH_HEADER_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "a packed batch of %zu bytes", size);
	status *st = batch_header_decode(body, &codec, &unpacked);
	if (st != NULL)
		return st;
	if (unpacked > room)
		return status_errorf(STATUS_DATA_LOSS,
				     "a packed batch says that it is %u bytes, at most %zu may be",
				     unpacked, room);
	st = batch_unpack(packer, codec, body + BATCH_HEADER_BYTES, size - BATCH_HEADER_BYTES,
			  ret_data, unpacked);
	if (st == NULL)
		*ret_size = unpacked;
	return st;
}

static status *receive_batch(struct receiving *receiving, const struct stripe_frame *frame)
{
	status *st =
	    memory_batch_apply(frame->data, frame->size, receiving->store, &receiving->got);

	if (st != NULL)
		return st;
	receiving->got.bytes += frame->wire;
	receiving->batches++;
	(void)XXH3_64bits_update(&receiving->digests, frame->data + frame->size - DIGEST_BYTES,
				 DIGEST_BYTES);
	return NULL;
}

static status *check_end(const struct stripe_frame *frame, unsigned round, uint64_t digest,
			 const struct memory_round *got)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__round_end__descriptor, frame->data, frame->size,
				    LIMIT_UNARY_BYTES, &message);

	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	const Haul__V1__RoundEnd *end = (const Haul__V1__RoundEnd *)message;
	if (end->round != round)
		return status_errorf(STATUS_DATA_LOSS, "round %u ended while round %u was received",
				     end->round, round);
	if (end->pages != got->pages_sent || end->digest != digest)
		return status_errorf(
		    STATUS_DATA_LOSS,
		    "round %u: %llu pages were sent, %llu arrived, or their digests differ", round,
		    (unsigned long long)end->pages, (unsigned long long)got->pages_sent);
	return NULL;
}

static status *receive_frames(struct receiving *receiving, struct stripes_in *in, unsigned round)
{
	for (;;) {
		struct stripe_frame frame;
		status *st = stripes_in_next(in, &frame);
		if (st != NULL)
			return st;
		if (frame.kind == HAUL__V1__FRAME_KIND__FRAME_ROUND) {
			receiving->got.digest = XXH3_64bits_digest(&receiving->digests);
			return check_end(&frame, round, receiving->got.digest, &receiving->got);
		}
		st = receive_batch(receiving, &frame);
		if (st != NULL)
			return st;
	}
}

status *memory_receive_round(const struct pipe_set *pipes, struct page_store *store, unsigned round,
			     int64_t silence_ms, struct memory_round *ret_round)
{
	struct memory_progress progress;

	return memory_receive_resumable(pipes, store, round, silence_ms, ret_round, &progress);
}

status *memory_receive_resumable(const struct pipe_set *pipes, struct page_store *store,
				 unsigned round, int64_t silence_ms, struct memory_round *ret_round,
				 struct memory_progress *ret_progress)
{
	scoped(stripes_in) struct stripes_in *in = NULL;
	struct receiving receiving = {.store = store};
	uint64_t pages = 0;

	*ret_progress = (struct memory_progress){.round = round};
	(void)XXH3_64bits_reset(&receiving.digests);
	status *st = stripes_in_new(pipes, silence_ms, &in);
	if (st == NULL)
		st = receive_frames(&receiving, in, round);
	ret_progress->batches = receiving.batches;
	ret_progress->digest = XXH3_64bits_digest(&receiving.digests);
	if (st == NULL)
		st = page_store_end(store, &pages);
	if (st == NULL && pages != receiving.got.pages_sent)
		st = status_errorf(STATUS_DATA_LOSS, "round %u: pages went astray", round);
	if (st != NULL)
		return status_wrapf(st, "memory of round %u", round);
	ret_progress->is_whole = true;
	*ret_round = receiving.got;
	return NULL;
}
