/* SPDX-License-Identifier: Apache-2.0 */
/* memory: a process with much memory that changes and checks it all the time.
 *
 * usage: memory STATUS MIB DIRTY_MIB_PER_S [--shared] [--incompressible] [--huge] [--open FILE]
 *
 * The content of a page follows from its number and its generation; the generations are kept apart
 * from the pages, so that a stale page is found as surely as a damaged one. */
#include "tests/lab/workloads/heartbeat.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
	PAGE_WORDS = 512,
	PAGE_BYTES = 4096,
	TICK_MS = 10,
	CHECK_MS = 2,
	PAGES_PER_MIB = 256,
	CHECK_BATCH = 64
};

struct memory {
	uint64_t (*pages)[PAGE_WORDS];
	uint32_t *generations;
	size_t count;
	size_t next_write;
	size_t next_check;
	uint64_t passes;
	bool incompressible;
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

static uint64_t word_at(const struct memory *m, size_t page, size_t word)
{
	uint64_t seed = (uint64_t)page << 32 | m->generations[page];
	return m->incompressible ? mix(seed ^ (uint64_t)word << 54) : mix(seed) + word / 64;
}

static void fill_page(struct memory *m, size_t page)
{
	m->generations[page]++;
	for (size_t word = 0; word < PAGE_WORDS; word++)
		m->pages[page][word] = word_at(m, page, word);
}

static void check_page(const struct memory *m, size_t page)
{
	for (size_t word = 0; word < PAGE_WORDS; word++) {
		uint64_t expected = word_at(m, page, word);
		if (m->pages[page][word] != expected)
			heartbeat_corrupt(
			    "page %zu word %zu generation %u: %016llx instead of %016llx", page,
			    word, m->generations[page], (unsigned long long)m->pages[page][word],
			    (unsigned long long)expected);
	}
}

/* Checks pages for a while only, so that a slow machine still beats. */
static void check_some(struct memory *m)
{
	int64_t end = heartbeat_now() + CHECK_MS;
	size_t left = m->count;
	while (left > 0 && heartbeat_now() < end) {
		for (int i = 0; i < CHECK_BATCH && left > 0; i++, left--) {
			check_page(m, m->next_check);
			if (++m->next_check == m->count) {
				m->next_check = 0;
				m->passes++;
			}
		}
	}
}

static void memory_init(struct memory *m, bool shared, bool huge)
{
	size_t bytes = m->count * PAGE_BYTES;
	int flags = MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE);
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	m->generations = calloc(m->count, sizeof(*m->generations));
	if (pages == MAP_FAILED || m->generations == NULL)
		heartbeat_die("memory");
	m->pages = pages;
	/* Without huge pages a write dirties 4 KiB, not 2 MiB. */
	(void)madvise(pages, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	for (size_t page = 0; page < m->count; page++)
		fill_page(m, page);
}

static void run(struct memory *m, double dirty_pages_per_ms)
{
	double owed = 0;
	int64_t before = heartbeat_now();
	char text[64];
	for (;;) {
		int64_t now = heartbeat_now();
		/* After a stop do not catch up. */
		owed += dirty_pages_per_ms * (double)(now - before > 100 ? 100 : now - before);
		before = now;
		for (; owed >= 1; owed--) {
			fill_page(m, m->next_write);
			m->next_write = (m->next_write + 1) % m->count;
		}
		check_some(m);
		snprintf(text, sizeof(text), "passes=%llu", (unsigned long long)m->passes);
		heartbeat_beat("ok", text);
		heartbeat_sleep(TICK_MS);
	}
}

int main(int argc, char **argv)
{
	struct memory m = {0};
	bool shared = false;
	bool huge = false;
	if (argc < 4) {
		fprintf(stderr,
			"usage: memory STATUS MIB DIRTY_MIB_PER_S [--shared] [--incompressible] "
			"[--huge] [--open FILE]\n");
		return 2;
	}
	m.count = (size_t)strtoul(argv[2], NULL, 10) * PAGES_PER_MIB;
	for (int i = 4; i < argc; i++) {
		shared |= strcmp(argv[i], "--shared") == 0;
		huge |= strcmp(argv[i], "--huge") == 0;
		m.incompressible |= strcmp(argv[i], "--incompressible") == 0;
		if (strcmp(argv[i], "--open") == 0 && i + 1 < argc && open(argv[++i], O_RDONLY) < 0)
			heartbeat_die(argv[i]);
	}
	if (m.count == 0)
		return 2;
	heartbeat_open(argv[1]);
	memory_init(&m, shared, huge);
	run(&m, strtod(argv[3], NULL) * PAGES_PER_MIB / 1000);
}
