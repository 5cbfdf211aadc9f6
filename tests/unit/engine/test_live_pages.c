/* SPDX-License-Identifier: Apache-2.0 */
/* This process's own memory, read while it runs and compared with what is in it. */
#include "tests/unit/test.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <xxhash.h>

#include "engine/criu/live_pages.h"
#include "engine/criu/page_stream.h"
#include "engine/host/child.h"
#include "engine/host/proc.h"

enum { PAGES = 300 };

struct scene {
	int writer, reader;
	struct live_options options;
	struct live_pages *live;
	pid_t pid;
	pthread_t thread;
	status *st;
	uint8_t *region; /* PAGES, of which the odd ones are touched */
	uint8_t seen[PAGES];
	uint8_t *copy; /* what came of it */
	unsigned images, closed;
	uint64_t image;	     /* that is open */
	uint64_t wanted, at; /* image and address of the region in the stream */
	uint64_t pages;
	XXH3_state_t *digest; /* of all that came, with where it belongs */
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	int pair[2];

	assert_non_null(scene);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	scene->writer = pair[0];
	scene->reader = pair[1];
	scene->pid = getpid();
	scene->copy = calloc(PAGES, PAGE_BYTES);
	assert_non_null(scene->copy);
	scene->digest = XXH3_createState();
	assert_non_null(scene->digest);
	(void)XXH3_64bits_reset(scene->digest);
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	if (scene->region != NULL)
		(void)munmap(scene->region, (size_t)PAGES * PAGE_BYTES);
	live_pages_free(scene->live);
	(void)close(scene->writer);
	(void)close(scene->reader);
	(void)XXH3_freeState(scene->digest);
	free(scene->copy);
	free(scene);
	return 0;
}

static void map_region(struct scene *scene, int flags)
{
	scene->region = mmap(NULL, (size_t)PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE,
			     flags | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(scene->region, MAP_FAILED);
	(void)madvise(scene->region, (size_t)PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
	for (unsigned page = 1; page < PAGES; page += 2)
		memset(scene->region + (size_t)page * PAGE_BYTES, (int)page, PAGE_BYTES);
}

static void *send_pages(void *self)
{
	struct scene *scene = self;

	scene->st = live_pages_send(scene->live, scene->writer, &scene->pid, 1);
	(void)shutdown(scene->writer, SHUT_WR);
	return NULL;
}

static void take(struct scene *scene, const struct page_header *header)
{
	uint8_t page[PAGE_BYTES];
	uint32_t got;

	assert_int_equal(header->flags, PAGE_PRESENT);
	for (uint32_t i = 0; i < header->pages; i++) {
		uint64_t address = header->address + (uint64_t)i * PAGE_BYTES;
		struct page_header one = {PAGE_ADD, PAGE_PRESENT, 1, address, header->image};
		assert_ok(live_pages_read(scene->live, &one, page, &got));
		if (got == 0) /* gone by now, or not to be read */
			continue;
		assert_int_equal(got, 1);
		scene->pages++;
		(void)XXH3_64bits_update(scene->digest, &address, sizeof(address));
		(void)XXH3_64bits_update(scene->digest, page, sizeof(page));
		if (scene->image != scene->wanted || address < scene->at ||
		    address >= scene->at + (uint64_t)PAGES * PAGE_BYTES)
			continue;
		size_t number = (address - scene->at) / PAGE_BYTES;
		scene->seen[number]++;
		memcpy(scene->copy + number * PAGE_BYTES, page, PAGE_BYTES);
	}
}

/* Plays the sender's part until the other end is done. */
static void run(struct scene *scene)
{
	uint8_t bytes[PAGE_HEADER_BYTES];
	struct page_header header;

	live_pages_free(scene->live);
	assert_ok(live_pages_new(&scene->options, &scene->live));
	assert_int_equal(pthread_create(&scene->thread, NULL, send_pages, scene), 0);
	while (recv(scene->reader, bytes, sizeof(bytes), MSG_WAITALL) == sizeof(bytes)) {
		assert_ok(page_header_decode(bytes, false, &header));
		bool is_open = header.command == PAGE_OPEN;
		if (header.command == PAGE_ADD)
			take(scene, &header);
		scene->images += is_open ? 1 : 0;
		scene->closed += header.command == PAGE_FORCE_CLOSE ? 1 : 0;
		scene->image = header.image;
		assert_true(send(scene->reader, "\0\0\0", is_open ? 1 : 4, MSG_NOSIGNAL) > 0);
	}
	assert_int_equal(pthread_join(scene->thread, NULL), 0);
}

static void expect_region(const struct scene *scene)
{
	for (unsigned page = 0; page < PAGES; page++) {
		assert_int_equal(scene->seen[page], page % 2);
		if (page % 2 == 1)
			assert_memory_equal(scene->copy + (size_t)page * PAGE_BYTES,
					    scene->region + (size_t)page * PAGE_BYTES, PAGE_BYTES);
	}
}

static void private_memory_comes_whole_and_once(void **state)
{
	struct scene *scene = *state;

	map_region(scene, MAP_PRIVATE);
	scene->options.is_private = true;
	scene->wanted = (uint64_t)getpid() << 8 | PAGE_TASK;
	scene->at = (uintptr_t)scene->region;
	run(scene);
	assert_ok(scene->st);
	assert_int_equal(scene->images, 1);
	assert_int_equal(scene->closed, 1);
	expect_region(scene);
}

/* The inode that /proc tells of the mapping at this address. */
static uint64_t inode_at(const void *address)
{
	char line[4608], begin[32];
	struct live_area area = {0};
	FILE *maps = fopen("/proc/self/maps", "re");

	assert_non_null(maps);
	(void)snprintf(begin, sizeof(begin), "%lx-", (unsigned long)(uintptr_t)address);
	while (fgets(line, sizeof(line), maps) != NULL)
		if (strncmp(line, begin, strlen(begin)) == 0)
			assert_true(live_area_parse(line, &area));
	(void)fclose(maps);
	assert_true(area.is_shared);
	return area.inode;
}

static void shared_memory_comes_once_as_a_segment(void **state)
{
	struct scene *scene = *state;

	map_region(scene, MAP_SHARED);
	/* A second, smaller view of it. */
	void *view = mremap(scene->region, 0, (size_t)10 * PAGE_BYTES, MREMAP_MAYMOVE);
	assert_ptr_not_equal(view, MAP_FAILED);
	scene->options.is_shared = true;
	scene->wanted = inode_at(scene->region) << 8 | PAGE_SHMEM;
	scene->at = 0;
	run(scene);
	assert_ok(scene->st);
	assert_int_equal(scene->images, 1);
	expect_region(scene);
	(void)munmap(view, (size_t)10 * PAGE_BYTES);
}

/* Another process, asleep: one with the address space of a sanitizer would take hours. */
static void old_kernels_tell_the_same_as_new_ones(void **state)
{
	struct scene *scene = *state;
	const char *const argv[] = {"/bin/sleep", "600", NULL};
	const int fds[] = {-1, -1, -1};
	struct child_spec spec = {.argv = argv, .fds = fds, .fd_count = 3};
	struct child child;
	struct proc_stat stat = {0};
	uint64_t digests[2];

	assert_ok(child_spawn(&spec, &child));
	/* It is done with starting when it sleeps in its own program. */
	while (stat.state != 'S' || strcmp(stat.name, "sleep") != 0)
		assert_ok(proc_stat(child.pid, &stat));
	scene->pid = child.pid;
	for (unsigned i = 0; i < 2; i++) {
		scene->options = (struct live_options){.is_private = true, .is_old_kernel = i == 1};
		(void)XXH3_64bits_reset(scene->digest);
		scene->pages = 0;
		run(scene);
		assert_ok(scene->st);
		assert_true(scene->pages > 10);
		digests[i] = XXH3_64bits_digest(scene->digest);
		(void)end(state);
		(void)make(state);
		scene = *state;
		scene->pid = child.pid;
	}
	child_kill(&child);
	assert_true(digests[0] == digests[1]);
}

static void what_the_process_may_not_read_comes_too(void **state)
{
	struct scene *scene = *state;

	map_region(scene, MAP_PRIVATE);
	assert_int_equal(mprotect(scene->region + (size_t)101 * PAGE_BYTES, PAGE_BYTES, PROT_NONE),
			 0);
	scene->options.is_private = true;
	scene->wanted = (uint64_t)getpid() << 8 | PAGE_TASK;
	scene->at = (uintptr_t)scene->region;
	run(scene);
	assert_ok(scene->st);
	assert_int_equal(mprotect(scene->region + (size_t)101 * PAGE_BYTES, PAGE_BYTES, PROT_READ),
			 0);
	expect_region(scene);
}

/* CRIU sends it whole, so it must be there when the kernel calls it clean. */
static void the_vdso_comes_whole(void **state)
{
	struct scene *scene = *state;

	scene->options.is_private = true;
	scene->wanted = (uint64_t)getpid() << 8 | PAGE_TASK;
	scene->at = getauxval(AT_SYSINFO_EHDR);
	run(scene);
	assert_ok(scene->st);
	assert_int_equal(scene->seen[0], 1);
	assert_memory_equal(scene->copy, "\177ELF", 4);
}

static void a_process_that_has_ended_is_left_out(void **state)
{
	struct scene *scene = *state;

	scene->pid = 0x3ffffe; /* above any pid_max in use here */
	scene->options = (struct live_options){.is_private = true, .is_shared = true};
	run(scene);
	assert_ok(scene->st);
	assert_int_equal(scene->images, 0);
	assert_int_equal(scene->closed, 1);
}

static void a_reader_that_goes_away_ends_it(void **state)
{
	struct scene *scene = *state;

	map_region(scene, MAP_PRIVATE);
	scene->options.is_private = true;
	assert_int_equal(shutdown(scene->reader, SHUT_RDWR), 0);
	assert_ok(live_pages_new(&scene->options, &scene->live));
	assert_code(live_pages_send(scene->live, scene->writer, &scene->pid, 1), STATUS_ABORTED);
}

static void lines_of_maps_are_understood(void **state)
{
	struct live_area area;
	static const char *const nothing[] = {
	    "",
	    "nonsense",
	    "7fff0000-7fff1000 r--p 00000000 00:00 0                          [vvar]\n",
	    "7f0000-7f2000 rw-s 00000000 08:01 77                             /tmp/file\n",
	    "7f0000-7f2000 rw-s 00000000 00:01 77                             /SYSV00 (deleted)\n",
	    "7f2000-7f0000 rw-p 00000000 00:00 0 \n",
	};
	(void)state;

	for (unsigned i = 0; i < array_len(nothing); i++)
		assert_false(live_area_parse(nothing[i], &area));
	assert_true(live_area_parse("7f0000-7f2000 rw-p 00000000 00:00 0 \n", &area));
	assert_false(area.is_shared);
	assert_true(area.start == 0x7f0000 && area.end == 0x7f2000);
	assert_false(area.is_protected);
	assert_true(live_area_parse("7f0000-7f2000 ---p 00000000 00:00 0 \n", &area));
	assert_true(area.is_protected && !area.is_vdso);
	assert_true(live_area_parse("7fff0000-7fff1000 r-xp 00000000 00:00 0    [vdso]\n", &area));
	assert_true(area.is_vdso && !area.is_protected);
	assert_true(live_area_parse("7f0000-7f2000 r-xp 00003000 08:01 77   /bin/x\n", &area));
	assert_false(area.is_shared);
	assert_true(
	    live_area_parse("7f0000-7f2000 rw-s 00003000 00:01 77   /dev/zero (deleted)\n", &area));
	assert_true(area.is_shared && area.inode == 77);
	/* The same, after it has moved. */
	assert_true(
	    live_area_parse("7f0000-7f2000 rw-s 00003000 00:01 9    /memfd:/dev/zero (deleted)\n",
			    &area));
	assert_true(area.is_shared && area.inode == 9);
}

/* As a line of maps that the tree has changed since the last one was read. */
static void areas_that_moved_meanwhile_keep_the_order(void **state)
{
	struct live_area first = {.start = 0x1000, .end = 0x4000};
	struct live_area grown = {.start = 0x2000, .end = 0x6000};
	struct live_area again = {.start = 0x5000, .end = 0x6000};
	struct live_area later = {.start = 0x8000, .end = 0x9000};
	uint64_t next = 0;
	(void)state;
	assert_true(live_area_cut(&first, &next));
	assert_int_equal(first.start, 0x1000);
	assert_true(live_area_cut(&grown, &next));
	assert_int_equal(grown.start, 0x4000);
	assert_int_equal(grown.end, 0x6000);
	assert_false(live_area_cut(&again, &next));
	assert_true(live_area_cut(&later, &next));
	assert_int_equal(later.start, 0x8000);
}

int main(void)
{
#define LIVE_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    LIVE_TEST(private_memory_comes_whole_and_once),
	    LIVE_TEST(shared_memory_comes_once_as_a_segment),
	    LIVE_TEST(old_kernels_tell_the_same_as_new_ones),
	    LIVE_TEST(what_the_process_may_not_read_comes_too),
	    LIVE_TEST(the_vdso_comes_whole),
	    LIVE_TEST(a_process_that_has_ended_is_left_out),
	    LIVE_TEST(a_reader_that_goes_away_ends_it),
	    cmocka_unit_test(lines_of_maps_are_understood),
	    cmocka_unit_test(areas_that_moved_meanwhile_keep_the_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
