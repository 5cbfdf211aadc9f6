/* SPDX-License-Identifier: Apache-2.0 */
/* A journal's bytes: as they are, and as the payloads of well-framed records. */
#include <xxhash.h>

#include "engine/migration/journal.h"
#include "tests/fuzz/fuzz.h"

static const uint8_t header[16] = {'h', 'a', 'u', 'l', '-', 'j', 'n', 'l', 1};

static void count(void *self, const Haul__V1__JournalRecord *record)
{
	must(record->id != NULL && record->reason != NULL);
	++*(size_t *)self;
}

/* Scans; a journal that is fine is still fine when it is cut at the end of its good part. */
static void scan(const uint8_t *data, size_t size)
{
	size_t good = 0, again = 0, records = 0, same = 0;
	scoped(status) status *st = journal_scan(data, size, &good, count, &records);

	must(st == NULL || status_code_of(st) == STATUS_DATA_LOSS ||
	     status_code_of(st) == STATUS_FAILED_PRECONDITION);
	if (st != NULL)
		return;
	must(good >= sizeof(header) && good <= size);
	scoped(status) status *cut = journal_scan(data, good, &again, count, &same);
	must(cut == NULL && again == good && same == records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *piece;
	size_t length, at = sizeof(header);

	scan(data, size);
	/* Each piece costs at most one byte of head and gets eight. */
	scoped(bytes) uint8_t *framed = malloc(sizeof(header) + size * 8 + 8);
	must(framed != NULL);
	memcpy(framed, header, sizeof(header));
	while (fuzz_piece(&data, &size, 1, &piece, &length)) {
		uint32_t sum = (uint32_t)XXH3_64bits(piece, length), bytes = (uint32_t)length;
		memcpy(framed + at, &bytes, 4);
		memcpy(framed + at + 4, &sum, 4);
		if (length > 0)
			memcpy(framed + at + 8, piece, length);
		at += 8 + length;
	}
	scan(framed, at);
	return 0;
}
