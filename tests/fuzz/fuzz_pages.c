/* SPDX-License-Identifier: Apache-2.0 */
/* Pages from a peer: headers, and batches into a page store over two rounds. */
#define XXH_STATIC_LINKING_ONLY
#include <endian.h>
#include <xxhash.h>

#include "engine/pipe/memory_pipe.h"
#include "tests/fuzz/fuzz.h"

enum { ROUNDS = 2, BATCH_MOST = 16384 };

static void check_header(const uint8_t *data, bool on_wire)
{
	struct page_header header, again;
	uint8_t bytes[PAGE_HEADER_BYTES];
	scoped(status) status *st = page_header_decode(data, on_wire, &header);

	must(st == NULL || status_code_of(st) == STATUS_DATA_LOSS);
	if (st != NULL)
		return;
	page_header_encode(&header, bytes);
	scoped(status) status *same = page_header_decode(bytes, on_wire, &again);
	must(same == NULL && again.command == header.command && again.flags == header.flags &&
	     again.pages == header.pages && again.address == header.address &&
	     again.image == header.image);
}

/* One batch with its digest, so that what lies behind the digest is reached. */
static status *apply(struct page_store *store, const uint8_t *data, size_t size,
		     struct memory_round *round)
{
	uint8_t batch[BATCH_MOST + 8];

	size = size > BATCH_MOST ? BATCH_MOST : size;
	if (size > 0)
		memcpy(batch, data, size);
	uint64_t digest = htole64(XXH3_64bits(batch, size));
	memcpy(batch + size, &digest, sizeof(digest));
	return memory_batch_apply(batch, size + sizeof(digest), store, round);
}

/* The same input as a packed batch: refused, or exactly as long as it says. */
static void unpack(const uint8_t *data, size_t size)
{
	static uint8_t unpacked[MEMORY_BATCH_BYTES];
	scoped(batch_packer) struct batch_packer *packer = NULL;
	size_t got = 0;
	scoped(status) status *made = batch_packer_new(0, &packer);

	must(made == NULL);
	scoped(status) status *st =
	    memory_batch_unpack(packer, data, size, unpacked, sizeof(unpacked), &got);
	must(st != NULL || got <= sizeof(unpacked));
	must(st == NULL || status_code_of(st) == STATUS_DATA_LOSS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	scoped(page_store) struct page_store *store = NULL;
	const char *base = fuzz_directory();
	const uint8_t *piece;
	size_t length;

	if (size >= PAGE_HEADER_BYTES) {
		check_header(data, true);
		check_header(data, false);
	}
	unpack(data, size);
	scoped(status) status *made = files_make_directory(base);
	must(made == NULL);
	scoped(status) status *opened = page_store_new(base, &store);
	must(opened == NULL);
	for (unsigned number = 1; number <= ROUNDS; number++) {
		struct memory_round round = {0};
		uint64_t pages = 0;
		scoped(status) status *begun = page_store_begin(store, number);
		must(begun == NULL);
		scoped(status) status *raw = memory_batch_apply(data, size, store, &round);
		must(raw != NULL || size == 8);
		status *st = NULL;
		for (unsigned i = 0;
		     i < 4 && st == NULL && fuzz_piece(&data, &size, 2, &piece, &length); i++)
			st = apply(store, piece, length, &round);
		if (st == NULL)
			st = page_store_end(store, &pages);
		must(st != NULL || pages == round.pages_sent);
		status_free(st);
	}
	fuzz_directory_clear();
	return 0;
}
