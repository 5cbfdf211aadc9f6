/* SPDX-License-Identifier: Apache-2.0 */
/* Late pages from a peer: a batch, with its digest made right, into the store of a small tree. */
#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "engine/criu/page_stream.h"
#include "engine/pipe/late_pipe.h"
#include "tests/fuzz/fuzz.h"

enum { PAGES = 8, LATE_FROM = 2, BATCH_MOST = 48 * 1024, PID = 42, BASE = 0x10000 };

static void make_file(const char *base)
{
	char path[FILES_PATH + 16];

	(void)snprintf(path, sizeof(path), "%s/1", base);
	scoped(status) status *made = files_make_directory(path);
	must(made == NULL);
	(void)snprintf(path, sizeof(path), "%s/1/pages-1.img", base);
	scoped(status) status *written = files_write(path, "", 0);
	must(written == NULL);
}

static struct lazy_shared *make_shared(const char *base)
{
	struct lazy_file files[] = {{1, 1}};
	struct lazy_run runs[] = {
	    {.address = BASE, .pages = LATE_FROM},
	    {.address = BASE + LATE_FROM * PAGE_BYTES,
	     .pages = PAGES - LATE_FROM,
	     .offset = LATE_FROM * PAGE_BYTES,
	     .first = LATE_FROM,
	     .is_late = 1},
	};
	struct lazy_task tasks[] = {{.run_count = 2, .pages = PAGES, .pid = PID}};
	const struct lazy_map map = {.files = files,
				     .runs = runs,
				     .tasks = tasks,
				     .file_count = 1,
				     .run_count = 2,
				     .task_count = 1,
				     .pages = PAGES,
				     .late_pages = PAGES - LATE_FROM};
	struct lazy_shared *shared = NULL;
	scoped(fd) int fd = -1;
	scoped(status) status *st = lazy_shared_new(&map, &fd, &shared);

	must(st == NULL);
	(void)snprintf(shared->images, sizeof(shared->images), "%s", base);
	return shared;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t batch[BATCH_MOST + 8];
	const char *base = fuzz_directory();
	struct late_counts counts;
	uint64_t pages = 0;

	make_file(base);
	scoped(lazy_shared) struct lazy_shared *shared = make_shared(base);
	scoped(late_store) struct late_store *store = NULL;
	scoped(status) status *made = late_store_new(shared, &store);
	must(made == NULL);
	scoped(status) status *raw = late_batch_apply(data, size, store, &pages);
	must(raw != NULL || size == 8);
	size = size > BATCH_MOST ? BATCH_MOST : size;
	if (size > 0)
		memcpy(batch, data, size);
	uint64_t digest = htole64(XXH3_64bits(batch, size));
	memcpy(batch + size, &digest, sizeof(digest));
	scoped(status) status *st = late_batch_apply(batch, size + sizeof(digest), store, &pages);
	must(st == NULL || status_code_of(st) == STATUS_DATA_LOSS);
	late_store_counts(store, &counts);
	must(counts.missing <= counts.pages && counts.pages == PAGES - LATE_FROM);
	fuzz_directory_clear();
	return 0;
}
