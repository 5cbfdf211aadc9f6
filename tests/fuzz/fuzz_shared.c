/* SPDX-License-Identifier: Apache-2.0 */
/* What shared memory at the destination is made of: a pagemap, and CRIU's images of memfds and of
 * open files. */
#include <sys/stat.h>

#include "engine/criu/page_stream.h"
#include "engine/criu/pagemap.h"
#include "engine/criu/shared_memory.h"
#include "tests/fuzz/fuzz.h"

enum { PAGES = 256, PIECES = 4 };

static const char *const names[PIECES] = {"memfd.img", "fdinfo-2.img", "pagemap-shmem-77.img",
					  "pages-1.img"};

static void make_round(unsigned round, char ret_dir[128])
{
	(void)snprintf(ret_dir, 128, "%s/%u", fuzz_directory(), round);
	scoped(status) status *st = files_make_directory(ret_dir);
	must(st == NULL);
}

static void write_file(const char *dir, const char *name, const void *data, size_t size)
{
	char path[192];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	scoped(status) status *st = files_write(path, data, size);
	must(st == NULL);
}

/* All of it there, and zeros. */
static void first_round(struct shared_memory *memory)
{
	char dir[128], path[192];
	struct pagemap_run run = {0, PAGES, PAGE_PRESENT};
	struct pagemap map = {.pages_id = 1, .runs = &run, .count = 1};

	make_round(1, dir);
	(void)snprintf(path, sizeof(path), "%s/%s", dir, names[2]);
	scoped(status) status *written = pagemap_write(path, &map);
	must(written == NULL);
	write_file(dir, names[3], "", 0);
	(void)snprintf(path, sizeof(path), "%s/%s", dir, names[3]);
	must(truncate(path, (off_t)PAGES * PAGE_BYTES) == 0);
	scoped(status) status *st = shared_memory_add(memory, 1, false, PAGES);
	must(st == NULL);
}

static void last_round(struct shared_memory *memory)
{
	struct criu_inherit inherits[SHARED_MEMORY_MOST];
	size_t count = 0;
	uint64_t pages = 0;
	scoped(status) status *added = shared_memory_add(memory, 2, true, PAGES);
	must(added == NULL || status_code_of(added) == STATUS_DATA_LOSS);
	scoped(status) status *st = shared_memory_finish(memory, inherits, &count, &pages);
	must(st == NULL || (status_code_of(st) == STATUS_DATA_LOSS && count == 0));
	must(count <= SHARED_MEMORY_MOST);
	for (size_t i = 0; i < count; i++)
		must(inherits[i].number < SHARED_MEMORY_MOST &&
		     strncmp(inherits[i].key, "/memfd:haul-", strlen("/memfd:haul-")) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	scoped(shared_memory) struct shared_memory *memory = NULL;
	char dir[128];
	const uint8_t *piece;
	size_t length;
	scoped(status) status *made = files_make_directory(fuzz_directory());
	must(made == NULL);
	scoped(status) status *st = shared_memory_new(fuzz_directory(), &memory);

	must(st == NULL);
	first_round(memory);
	make_round(2, dir);
	for (unsigned i = 0; i < PIECES && fuzz_piece(&data, &size, 2, &piece, &length); i++)
		write_file(dir, names[i], piece, length);
	last_round(memory);
	fuzz_directory_clear();
	return 0;
}
