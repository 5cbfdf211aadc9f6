/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "engine/criu/image_records.h"
#include "engine/criu/page_store.h"
#include "engine/criu/shared_memory.h"
#include "engine/host/files.h"
#include "memfd.pb-c.h"
#include "tests/unit/engine/pipe_pair.h"

enum {
	MAGIC_MEMFD = 0x48453499,
	MAGIC_FDINFO = 0x56213732,
	PAGES = 700,
	ROUNDS = 6,
	ID = 77,
	RECORD_BYTES = 256,
};

/* A segment as the source has it: of each page its value; ABSENT: it has none. */
enum { ABSENT = -1, ZERO = 0 };

struct scene {
	char dir[64];
	struct page_store *store;
	struct shared_memory *memory;
	unsigned round;
	int here[PAGES], there[PAGES]; /* at the source; what it has sent */
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	scratch_make(scene->dir);
	assert_ok(page_store_new(scene->dir, &scene->store));
	assert_ok(shared_memory_new(scene->dir, &scene->memory));
	for (size_t i = 0; i < PAGES; i++)
		scene->here[i] = scene->there[i] = ABSENT;
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	page_store_free(scene->store);
	shared_memory_free(scene->memory);
	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

static void begin_round(struct scene *scene)
{
	assert_ok(page_store_begin(scene->store, ++scene->round));
}

static void open_segment(struct scene *scene, uint32_t id)
{
	const struct page_header open = {.command = PAGE_OPEN,
					 .image = (uint64_t)id << 8 | PAGE_SHMEM};

	assert_ok(page_store_record(scene->store, &open, NULL));
}

static void put(struct scene *scene, uint32_t id, uint32_t flags, size_t page, int value)
{
	uint8_t data[PAGE_BYTES];
	const struct page_header add = {PAGE_ADD, flags, 1, page * PAGE_BYTES,
					(uint64_t)id << 8 | PAGE_SHMEM};

	memset(data, value, sizeof(data));
	assert_ok(page_store_record(scene->store, &add, data));
}

/* The first `most` of the segment's pages as the source would send them. */
static void send_segment(struct scene *scene, uint32_t id, size_t most)
{
	open_segment(scene, id);
	for (size_t i = 0; i < most; i++) {
		int value = scene->here[i];
		if (value == ABSENT)
			scene->there[i] = ABSENT;
		else if (value == scene->there[i])
			put(scene, id, PAGE_IN_PARENT, i, 0);
		else
			put(scene, id, PAGE_PRESENT | (value == ZERO ? PAGE_ZERO : 0), i, value);
		scene->there[i] = value;
	}
}

static void end_round(struct scene *scene, bool is_last)
{
	uint64_t pages;

	assert_ok(page_store_end(scene->store, &pages));
	assert_ok(shared_memory_add(scene->memory, scene->round, is_last, PAGES));
}

static void send_round(struct scene *scene, bool is_last)
{
	begin_round(scene);
	send_segment(scene, ID, PAGES);
	end_round(scene, is_last);
}

static void fill(struct scene *scene)
{
	for (size_t i = 0; i < PAGES; i++)
		scene->here[i] = (int)(i % 100 + 1);
}

static void change_some(struct scene *scene)
{
	for (size_t i = 0; i < PAGES / 3; i++) {
		size_t page = (size_t)random() % PAGES, pages = (size_t)random() % 20;
		int value = (int)(random() % 6) - 1;
		for (; pages > 0 && page < PAGES; pages--, page++)
			scene->here[page] = value;
	}
}

static void expect_content(const struct scene *scene, unsigned number, const int *pages)
{
	static uint8_t got[PAGE_BYTES], want[PAGE_BYTES];
	int fd = shared_memory_fds(scene->memory)[number];

	for (size_t i = 0; i < PAGES; i++) {
		memset(got, 0, sizeof(got)); /* behind the file's end */
		assert_true(pread(fd, got, sizeof(got), (off_t)(i * PAGE_BYTES)) >= 0);
		memset(want, pages[i] == ABSENT ? 0 : pages[i], sizeof(want));
		assert_memory_equal(got, want, sizeof(want));
	}
}

/* --- the images of the last round --- */

static size_t inode_record(uint32_t id, const char *name, uint32_t hugetlb, uint8_t *out)
{
	Haul__Memfd__Inode inode = HAUL__MEMFD__INODE__INIT;
	static const uint8_t unknown[] = {0x38, 0x05}; /* inode_id = 5 */

	inode.name = (char *)name;
	inode.size = (uint64_t)PAGES * PAGE_BYTES;
	inode.shmid = id;
	inode.seals = 1;
	inode.has_mode = 1;
	inode.mode = S_IFREG | 0640;
	inode.has_hugetlb_flag = hugetlb != 0;
	inode.hugetlb_flag = hugetlb;
	size_t size = haul__memfd__inode__pack(&inode, out + IMAGE_LENGTH_BYTES);
	memcpy(out + IMAGE_LENGTH_BYTES + size, unknown, sizeof(unknown));
	uint8_t copy[RECORD_BYTES];
	memcpy(copy, out + IMAGE_LENGTH_BYTES, size + sizeof(unknown));
	return image_put_bytes(copy, (uint32_t)(size + sizeof(unknown)), out);
}

static void write_image(const struct scene *scene, const char *name, const void *data, size_t size)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%u/%s", scene->dir, scene->round, name);
	assert_ok(files_write(path, data, size));
}

static void write_memfd(const struct scene *scene, const char *name, uint32_t hugetlb)
{
	uint8_t image[4 * RECORD_BYTES];
	size_t size = image_put_header(MAGIC_MEMFD, image);

	size += inode_record(ID + 1, "/dev/zero", 0, image + size);
	size += inode_record(ID, name, hugetlb, image + size);
	write_image(scene, "memfd.img", image, size);
}

static void write_fdinfo(const struct scene *scene, uint32_t type)
{
	uint8_t image[RECORD_BYTES];
	Haul__Memfd__Descriptor descriptor = HAUL__MEMFD__DESCRIPTOR__INIT;
	size_t size = image_put_header(MAGIC_FDINFO, image);

	descriptor.type = type;
	size += image_put_message(&descriptor.base, image + size);
	write_image(scene, "fdinfo-2.img", image, size);
}

static void expect_finish(struct scene *scene, size_t want)
{
	struct criu_inherit inherits[SHARED_MEMORY_MOST];
	size_t count = 99;
	uint64_t pages = 99;

	assert_ok(shared_memory_finish(scene->memory, inherits, &count, &pages));
	assert_int_equal(count, want);
	assert_int_equal(pages > 0, want > 0);
}

/* --- tests --- */

static void it_follows_the_rounds(void **state)
{
	struct scene *scene = *state;

	for (unsigned seed = 1; seed <= 4; seed++) {
		srandom(seed);
		fill(scene);
		for (int round = 1; round <= ROUNDS; round++) {
			send_round(scene, round == ROUNDS);
			if (round > 1 || seed == 1)
				expect_content(scene, 0, scene->here);
			change_some(scene);
		}
		shared_memory_free(TAKE(scene->memory));
		assert_ok(shared_memory_new(scene->dir, &scene->memory));
		for (size_t i = 0; i < PAGES; i++)
			scene->there[i] = ABSENT;
	}
}

static void a_round_that_was_cut_is_followed_too(void **state)
{
	struct scene *scene = *state;
	uint64_t pages;

	fill(scene);
	send_round(scene, false);
	for (size_t i = 0; i < PAGES; i += 3)
		scene->here[i] = 7;
	begin_round(scene);
	send_segment(scene, ID, PAGES / 2);
	assert_ok(page_store_cut(scene->store, &pages));
	assert_ok(shared_memory_add(scene->memory, scene->round, false, PAGES));
	expect_content(scene, 0, scene->there);
	send_round(scene, true);
	expect_content(scene, 0, scene->here);
}

static void criu_is_to_inherit_it_by_its_name(void **state)
{
	struct scene *scene = *state;
	struct criu_inherit inherits[SHARED_MEMORY_MOST];
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	struct image_records records;
	const uint8_t *message;
	char path[128];
	uint32_t length;
	size_t count = 0;
	uint64_t pages = 0;
	struct stat info;

	fill(scene);
	for (size_t i = PAGES - 10; i < PAGES; i++)
		scene->here[i] = ABSENT;
	send_round(scene, false);
	send_round(scene, true);
	write_memfd(scene, "/dev/zero", 0);
	write_fdinfo(scene, 1);
	assert_ok(shared_memory_finish(scene->memory, inherits, &count, &pages));
	assert_int_equal(count, 1);
	assert_int_equal(pages, PAGES - 10);
	assert_int_equal(inherits[0].number, 0);
	assert_string_equal(inherits[0].key, "/memfd:haul-77");
	(void)snprintf(path, sizeof(path), "%s/%u/memfd.img", scene->dir, scene->round);
	assert_ok(files_read(path, 4096, &image));
	assert_ok(image_records_open("memfd.img", MAGIC_MEMFD, image.data, image.size, &records));
	static const char *const names[] = {"/dev/zero", "haul-77"};
	for (size_t i = 0; i < array_len(names); i++) {
		assert_true(image_records_next(&records, &message, &length));
		Haul__Memfd__Inode *inode = haul__memfd__inode__unpack(NULL, length, message);
		assert_non_null(inode);
		assert_string_equal(inode->name, names[i]);
		assert_int_equal(inode->base.n_unknown_fields, 1);
		haul__memfd__inode__free_unpacked(inode, NULL);
	}
	assert_false(image_records_next(&records, &message, &length));
	/* As CRIU would have made it. */
	assert_int_equal(fstat(shared_memory_fds(scene->memory)[0], &info), 0);
	assert_int_equal(info.st_size, PAGES * PAGE_BYTES);
	assert_int_equal(info.st_mode & 07777, 0640);
}

static void what_is_not_anonymous_is_left_to_criu(void **state)
{
	struct scene *scene = *state;

	fill(scene);
	send_round(scene, false);
	send_round(scene, true);
	expect_finish(scene, 0); /* no memfd.img */
	write_memfd(scene, "shares", 0);
	expect_finish(scene, 0);
	write_memfd(scene, "/dev/zero", 4);
	expect_finish(scene, 0);
	write_memfd(scene, "/dev/zero", 0);
	write_fdinfo(scene, 18);
	expect_finish(scene, 0);
}

static void a_tree_in_a_user_namespace_is_left_to_criu(void **state)
{
	struct scene *scene = *state;

	fill(scene);
	send_round(scene, false);
	send_round(scene, true);
	write_memfd(scene, "/dev/zero", 0);
	write_image(scene, "userns-9.img", "", 0);
	expect_finish(scene, 0);
}

static void what_the_last_round_brings_first_is_left_to_criu(void **state)
{
	struct scene *scene = *state;

	fill(scene);
	send_round(scene, true);
	write_memfd(scene, "/dev/zero", 0);
	expect_finish(scene, 0);
}

static void what_there_is_no_memory_for_is_left_to_criu(void **state)
{
	struct scene *scene = *state;
	uint64_t pages;

	fill(scene);
	begin_round(scene);
	send_segment(scene, ID, PAGES);
	assert_ok(page_store_end(scene->store, &pages));
	assert_ok(shared_memory_add(scene->memory, scene->round, false, PAGES - 1));
	send_round(scene, true);
	write_memfd(scene, "/dev/zero", 0);
	expect_finish(scene, 0);
}

static void what_cannot_be_filled_is_left_to_criu(void **state)
{
	struct scene *scene = *state;
	char path[128];
	uint64_t pages;

	fill(scene);
	send_round(scene, false);
	scene->here[0] = 99;
	begin_round(scene);
	send_segment(scene, ID, PAGES);
	assert_ok(page_store_end(scene->store, &pages));
	(void)snprintf(path, sizeof(path), "%s/%u/pages-1.img", scene->dir, scene->round);
	assert_int_equal(truncate(path, 0), 0);
	assert_ok(shared_memory_add(scene->memory, scene->round, true, PAGES));
	write_memfd(scene, "/dev/zero", 0);
	expect_finish(scene, 0);
}

static void what_is_gone_gives_its_place_to_others(void **state)
{
	struct scene *scene = *state;
	struct stat info;

	for (uint32_t id = ID; id < ID + SHARED_MEMORY_MOST + 3; id++) {
		begin_round(scene);
		fill(scene);
		for (size_t i = 0; i < PAGES; i++)
			scene->there[i] = ABSENT;
		send_segment(scene, id, PAGES);
		end_round(scene, false);
		/* The one before gives its place back when this one has its own. */
		expect_content(scene, (id - ID) % 2, scene->here);
	}
	begin_round(scene);
	end_round(scene, false);
	for (size_t i = 0; i < SHARED_MEMORY_MOST; i++) {
		assert_int_equal(fstat(shared_memory_fds(scene->memory)[i], &info), 0);
		assert_int_equal(info.st_size, 0);
	}
}

static void there_may_be_more_than_have_a_place(void **state)
{
	struct scene *scene = *state;

	fill(scene);
	begin_round(scene);
	for (uint32_t id = ID; id < ID + SHARED_MEMORY_MOST + 3; id++) {
		for (size_t i = 0; i < PAGES; i++)
			scene->there[i] = ABSENT;
		send_segment(scene, id, PAGES);
	}
	end_round(scene, false);
	for (unsigned i = 0; i < SHARED_MEMORY_MOST; i++)
		expect_content(scene, i, scene->here);
}

static void a_damaged_image_is_refused(void **state)
{
	struct scene *scene = *state;
	struct criu_inherit inherits[SHARED_MEMORY_MOST];
	size_t count;
	uint64_t pages;

	fill(scene);
	send_round(scene, false);
	send_round(scene, true);
	write_image(scene, "memfd.img", "\x19\x43\x56\x54\x99\x34\x45\x48\x05", 9);
	assert_code(shared_memory_finish(scene->memory, inherits, &count, &pages),
		    STATUS_DATA_LOSS);
	write_image(scene, "pagemap-shmem-77.img", "\x19", 1);
	assert_code(shared_memory_add(scene->memory, scene->round, true, PAGES), STATUS_DATA_LOSS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(it_follows_the_rounds, make, end),
	    cmocka_unit_test_setup_teardown(a_round_that_was_cut_is_followed_too, make, end),
	    cmocka_unit_test_setup_teardown(criu_is_to_inherit_it_by_its_name, make, end),
	    cmocka_unit_test_setup_teardown(what_is_not_anonymous_is_left_to_criu, make, end),
	    cmocka_unit_test_setup_teardown(a_tree_in_a_user_namespace_is_left_to_criu, make, end),
	    cmocka_unit_test_setup_teardown(what_the_last_round_brings_first_is_left_to_criu, make,
					    end),
	    cmocka_unit_test_setup_teardown(what_there_is_no_memory_for_is_left_to_criu, make, end),
	    cmocka_unit_test_setup_teardown(what_cannot_be_filled_is_left_to_criu, make, end),
	    cmocka_unit_test_setup_teardown(what_is_gone_gives_its_place_to_others, make, end),
	    cmocka_unit_test_setup_teardown(there_may_be_more_than_have_a_place, make, end),
	    cmocka_unit_test_setup_teardown(a_damaged_image_is_refused, make, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
