/* SPDX-License-Identifier: Apache-2.0 */
/* What a lazy restore reads: pagemaps, mm images, and what CRIU says on its socket. */
#include <sys/socket.h>

#include "engine/criu/page_stream.h"
#include "engine/criu/pagemap.h"
#include "engine/lazy/lazy_map.h"
#include "engine/lazy/lazy_socket.h"
#include "tests/fuzz/fuzz.h"

enum { WORDS_MOST = 64 };

/* What is accepted ascends, and is written as it was read. */
static void check_pagemap(const uint8_t *data, size_t size)
{
	struct pagemap map = {0}, again = {0};
	struct buffer image = {0};
	uint64_t from = 0;
	scoped(status) status *st = pagemap_decode(data, size, &map);

	must(st == NULL || status_code_of(st) == STATUS_DATA_LOSS);
	for (size_t i = 0; st == NULL && i < map.count; i++) {
		must(map.runs[i].pages > 0 && map.runs[i].address >= from);
		from = map.runs[i].address + map.runs[i].pages * PAGE_BYTES;
	}
	if (st == NULL) {
		scoped(status) status *written = pagemap_encode(&map, &image);
		must(written == NULL);
		scoped(status) status *read = pagemap_decode(image.data, image.size, &again);
		must(read == NULL && again.count == map.count && again.pages_id == map.pages_id);
	}
	buffer_free(&image);
	pagemap_free(&map);
	pagemap_free(&again);
}

static void check_ranges(const uint8_t *data, size_t size)
{
	struct lazy_range *ranges = NULL;
	size_t count = 0;
	uint64_t from = 0;
	scoped(status) status *st = lazy_ranges_decode(data, size, &ranges, &count);

	must(st == NULL || status_code_of(st) == STATUS_DATA_LOSS);
	for (size_t i = 0; st == NULL && i < count; i++) {
		must(ranges[i].start >= from && ranges[i].end > ranges[i].start);
		from = ranges[i].end;
	}
	free(ranges);
}

/* Without descriptors: no task is ever heard of whole. */
static void check_socket(const uint8_t *data, size_t size)
{
	int pair[2];
	status *st = NULL;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	size = size > 4096 ? 4096 : size;
	must(size == 0 || send(pair[0], data, size, 0) == (ssize_t)size);
	(void)close(pair[0]);
	for (int i = 0; st == NULL && i < WORDS_MOST; i++) {
		struct lazy_said said = {0};
		st = lazy_socket_hear(pair[1], &said);
		must(st != NULL || (said.uffd == -1 && (said.is_end || said.pid < 0)));
	}
	status_free(st);
	(void)close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	check_pagemap(data, size);
	check_ranges(data, size);
	check_socket(data, size);
	return 0;
}
