/* SPDX-License-Identifier: Apache-2.0 */
/* shares: two processes share anonymous memory, write in it and take pages out of it, and each
 * looks that its own pages have what it wrote last. MIB of it, through two mappings, with a hole
 * that nobody ever touches; 64 KiB besides; with --memfd also an open memfd that is mapped, whose
 * place is in its middle.
 *
 * usage: shares STATUS_FILE MIB [--memfd] */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lab/workloads/heartbeat.h"

enum {
	PAGE = 4096,
	WORDS = PAGE / 8,
	SMALL_PAGES = 16,
	HOLE_PAGES = 64,  /* from the middle on */
	DROP_PAGES = 128, /* behind it: the parent's, in or out as a whole */
	FILE_PAGES = 512,
	FILE_PLACE = 12345,
	WRITES_A_BEAT = 8,
};

struct share {
	uint64_t *memory, *view; /* the same twice */
	size_t pages;
};

struct file {
	int fd; /* -1: none */
	uint64_t *memory;
};

/* One of the two processes: it owns every other page. */
struct part {
	struct share large, small;
	uint64_t *written; /* of each page of large, what its owner wrote last; 0: nothing */
	unsigned number;
	bool is_dropped;
	uint64_t next;
};

static uint64_t *map_shared(size_t pages)
{
	void *memory =
	    mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		heartbeat_die("mmap");
	return memory;
}

static struct share share_new(size_t pages)
{
	struct share share = {.memory = map_shared(pages), .pages = pages};

	/* An old size of 0 maps shared memory once more. */
	share.view = mremap(share.memory, 0, pages * PAGE, MREMAP_MAYMOVE);
	if (share.view == MAP_FAILED)
		heartbeat_die("mremap");
	return share;
}

static void write_page(uint64_t *page, uint64_t value)
{
	for (size_t i = 0; i < WORDS; i++)
		page[i] = value * 0x9e3779b97f4a7c15 + i;
}

static void check_page(const uint64_t *page, uint64_t value, const char *what, size_t number)
{
	for (size_t i = 0; i < WORDS; i++) {
		uint64_t want = value == 0 ? 0 : value * 0x9e3779b97f4a7c15 + i;
		if (page[i] != want)
			heartbeat_corrupt("%s page %zu of %d has %#llx for %#llx", what, number,
					  (int)getpid(), (unsigned long long)page[i],
					  (unsigned long long)want);
	}
}

static size_t hole(const struct part *part)
{
	return part->large.pages / 2;
}

static bool is_mine(const struct part *part, size_t page)
{
	size_t first = hole(part);

	if (page >= first && page < first + HOLE_PAGES)
		return false;
	if (page >= first + HOLE_PAGES && page < first + HOLE_PAGES + DROP_PAGES)
		return part->number == 0;
	return page % 2 == part->number;
}

static void put(struct part *part, size_t page)
{
	part->written[page] = ++part->next * 2 + part->number;
	write_page(part->large.memory + page * WORDS, part->written[page]);
}

/* A page's memory goes, and comes back as zeros. */
static void toggle_drop(struct part *part)
{
	size_t first = hole(part) + HOLE_PAGES;

	part->is_dropped = !part->is_dropped;
	if (part->is_dropped &&
	    madvise(part->large.memory + first * WORDS, DROP_PAGES * PAGE, MADV_REMOVE) != 0)
		heartbeat_die("madvise");
	for (size_t page = first; page < first + DROP_PAGES; page++) {
		part->written[page] = 0;
		if (!part->is_dropped && page % 3 == 0)
			put(part, page);
	}
}

static void check(const struct part *part)
{
	size_t first = hole(part);

	for (size_t page = 0; page < part->large.pages; page++)
		if (is_mine(part, page))
			check_page(part->large.view + page * WORDS, part->written[page], "large",
				   page);
	for (size_t page = first; page < first + HOLE_PAGES; page++)
		check_page(part->large.view + page * WORDS, 0, "hole's", page);
	for (size_t page = part->number; page < part->small.pages; page += 2)
		check_page(part->small.view + page * WORDS, page + 1, "small", page);
}

static void step(struct part *part, unsigned beat)
{
	for (int i = 0; i < WRITES_A_BEAT; i++) {
		size_t page = (size_t)random() % part->large.pages;
		if (is_mine(part, page) && part->written[page] != 0)
			put(part, page);
	}
	if (part->number == 0 && beat % 24 == 0)
		toggle_drop(part);
	if (beat % 32 == part->number * 16)
		check(part);
}

static struct file file_new(void)
{
	struct file file = {.fd = memfd_create("shares", MFD_CLOEXEC)};

	if (file.fd < 0 || ftruncate(file.fd, FILE_PAGES * PAGE) != 0 ||
	    lseek(file.fd, FILE_PLACE, SEEK_SET) != FILE_PLACE)
		heartbeat_die("memfd");
	file.memory = mmap(NULL, FILE_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
	if (file.memory == MAP_FAILED)
		heartbeat_die("mmap");
	for (size_t page = 0; page < FILE_PAGES; page++)
		write_page(file.memory + page * WORDS, page + 1);
	return file;
}

static void check_file(const struct file *file)
{
	if (file->fd < 0)
		return;
	if (lseek(file->fd, 0, SEEK_CUR) != FILE_PLACE)
		heartbeat_corrupt("the memfd is at %lld", (long long)lseek(file->fd, 0, SEEK_CUR));
	for (size_t page = 0; page < FILE_PAGES; page++)
		check_page(file->memory + page * WORDS, page + 1, "memfd's", page);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		(void)fprintf(stderr, "usage: shares STATUS_FILE MIB [--memfd]\n");
		return 2;
	}
	struct part part = {.large = share_new((size_t)atoi(argv[2]) * 256),
			    .small = share_new(SMALL_PAGES)};
	struct file file = {.fd = -1};
	if (argc > 3 && strcmp(argv[3], "--memfd") == 0)
		file = file_new();
	part.written = calloc(part.large.pages, sizeof(*part.written));
	if (part.written == NULL)
		heartbeat_die("calloc");
	heartbeat_open(argv[1]);
	pid_t child = fork();
	if (child < 0)
		heartbeat_die("fork");
	part.number = child == 0;
	if (child == 0)
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t page = 0; page < part.large.pages; page++)
		if (is_mine(&part, page))
			put(&part, page);
	for (size_t page = part.number; page < part.small.pages; page += 2)
		write_page(part.small.memory + page * WORDS, page + 1);
	for (unsigned beat = 1;; beat++) {
		int ended;
		step(&part, beat);
		if (child == 0) {
			heartbeat_sleep(10);
			continue;
		}
		check_file(&file);
		if (waitpid(child, &ended, WNOHANG) == child)
			heartbeat_corrupt("the other process has ended");
		heartbeat_beat("ok", "");
		heartbeat_sleep(10);
	}
}
