/* SPDX-License-Identifier: Apache-2.0 */
/* memory: much memory that is changed and checked all the time.
 *
 * usage: memory STATUS MIB DIRTY_MIB_PER_S|max [--shared] [--incompressible | --text] [--huge]
 *               [--random] [--zero PERCENT] [--processes N] [--open FILE] [--page-stack]
 *
 * Writes go through the memory in order, or to pages at random; at most as fast as it can ("max").
 * With --zero so many of each hundred pages stay zero; with --processes so many processes change
 * and check a part of it each, and their parent tells of them all. With --page-stack there is one
 * more thread, of which CRIU 4.1 concludes that all memory is its stack.
 *
 * The content of a page follows from its number and its generation; the generations are kept apart
 * from the pages, so that a stale page is found as surely as a damaged one. */
#include "tests/lab/workloads/heartbeat.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	PAGE_WORDS = 512,
	PAGE_BYTES = 4096,
	TICK_MS = 10,
	CHECK_MS = 2,
	PAGES_PER_MIB = 256,
	CHECK_BATCH = 64,
	WRITE_BATCH = 16,
	WRITE_MS = 8, /* of a tick, at most */
	MAX_RATE = 1000 * 1000,
	HUNDRED = 100,
	SYLLABLES = 32,
	VOCABULARY = 64,
};

enum content { CONTENT_MIXED, CONTENT_INCOMPRESSIBLE, CONTENT_TEXT };

struct memory {
	uint64_t (*pages)[PAGE_WORDS];
	uint32_t *generations;
	size_t count;
	size_t next_write;
	size_t next_check;
	uint64_t passes;
	enum content content;
	bool random;
	uint64_t writes;
	unsigned zero_percent;
};

struct options {
	bool shared;
	bool huge;
	unsigned processes;
};

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return x ^ (x >> 31);
}

/* Four syllables, some more often than others; every second time those of a word of a small
 * vocabulary: packs about as well as logs and JSON do. */
static uint64_t text_at(uint64_t x)
{
	static const char syllables[SYLLABLES * 2 + 1] =
	    "the in erand onati tees orareno so lmade. fiwisulycho, upgobeamhe";
	char text[sizeof(uint64_t)];
	uint64_t word;
	if (x >> 63 != 0)
		x = mix(x % VOCABULARY);
	for (size_t i = 0; i < sizeof(text); i += 2, x >>= 10) {
		size_t chosen = (x % SYLLABLES) * (x / SYLLABLES % SYLLABLES) / SYLLABLES;
		memcpy(text + i, syllables + 2 * chosen, 2);
	}
	memcpy(&word, text, sizeof(word));
	return word;
}

static uint64_t word_at(const struct memory *m, size_t page, size_t word)
{
	uint64_t seed = (uint64_t)page << 32 | m->generations[page];
	if (m->generations[page] == 0) /* never written */
		return 0;
	switch (m->content) {
	case CONTENT_INCOMPRESSIBLE:
		return mix(seed ^ (uint64_t)word << 54);
	case CONTENT_TEXT:
		return text_at(mix(seed ^ (uint64_t)word << 54));
	default:
		return mix(seed) + word / 64;
	}
}

static bool stays_zero(const struct memory *m, size_t page)
{
	return page % HUNDRED < m->zero_percent;
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

static void fill(struct memory *m)
{
	for (size_t page = 0; page < m->count; page++) {
		if (!stays_zero(m, page)) {
			fill_page(m, page);
			continue;
		}
		m->generations[page] = 0;
		memset(m->pages[page], 0, PAGE_BYTES); /* it is there all the same */
	}
}

static void memory_init(struct memory *m, const struct options *options)
{
	size_t bytes = m->count * PAGE_BYTES;
	int flags = MAP_ANONYMOUS | (options->shared ? MAP_SHARED : MAP_PRIVATE);
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	m->generations = calloc(m->count, sizeof(*m->generations));
	if (pages == MAP_FAILED || m->generations == NULL)
		heartbeat_die("memory");
	m->pages = pages;
	/* Without huge pages a write dirties 4 KiB, not 2 MiB. */
	(void)madvise(pages, bytes, options->huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	fill(m);
}

static void write_next(struct memory *m)
{
	size_t page = m->random ? mix(m->writes++) % m->count : m->next_write;
	m->next_write = (m->next_write + 1) % m->count;
	if (!stays_zero(m, page))
		fill_page(m, page);
}

/* One tick: what is owed is written, within limits, and some is checked. */
static void change_and_check(struct memory *m, double *owed)
{
	int64_t end = heartbeat_now() + WRITE_MS;
	while (*owed >= 1 && heartbeat_now() < end)
		for (int i = 0; i < WRITE_BATCH && *owed >= 1; i++, (*owed)--)
			write_next(m);
	check_some(m);
}

static void run(struct memory *m, double dirty_pages_per_ms, bool does_beat)
{
	double owed = 0;
	int64_t before = heartbeat_now();
	char text[64];
	for (;;) {
		int64_t now = heartbeat_now();
		/* After a stop do not catch up. */
		double due = dirty_pages_per_ms * (double)(now - before > 100 ? 100 : now - before);
		owed = dirty_pages_per_ms >= MAX_RATE ? due : owed + due;
		before = now;
		change_and_check(m, &owed);
		snprintf(text, sizeof(text), "passes=%llu", (unsigned long long)m->passes);
		if (does_beat)
			heartbeat_beat("ok", text);
		heartbeat_sleep(TICK_MS);
	}
}

/* Each process takes a part; they end with their parent. */
static void run_processes(const struct memory *m, double dirty_pages_per_ms, unsigned processes)
{
	for (unsigned i = 0; i < processes; i++) {
		pid_t pid = fork();
		if (pid < 0)
			heartbeat_die("fork");
		if (pid > 0)
			continue;
		struct memory part = *m;
		part.count = m->count / processes;
		part.pages += i * part.count;
		part.generations += i * part.count;
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		fill(&part);
		run(&part, dirty_pages_per_ms / processes, false);
	}
	for (;;) {
		int status = 0;
		pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid > 0)
			heartbeat_corrupt("process %d ended with status %x", (int)pid, status);
		heartbeat_beat("ok", "");
		heartbeat_sleep(TICK_MS);
	}
}

/* A thread that only waits, with its stack pointer where a page begins. */
static void *wait_there(void *top)
{
#ifdef __x86_64__
	__asm__ volatile("mov %0, %%rsp\n1: mov $34, %%eax\nsyscall\njmp 1b"
			 :
			 : "r"(top)
			 : "memory");
	__builtin_unreachable();
#else
	(void)top;
	heartbeat_die("no such thread on this processor");
#endif
}

static void start_page_stack(void)
{
	static _Alignas(PAGE_BYTES) char stack[2 * PAGE_BYTES];
	pthread_t thread;

	if (pthread_create(&thread, NULL, wait_there, stack + PAGE_BYTES) != 0)
		heartbeat_die("pthread_create");
}

static void parse(int argc, char **argv, struct memory *m, struct options *options)
{
	for (int i = 4; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";
		options->shared |= strcmp(argv[i], "--shared") == 0;
		options->huge |= strcmp(argv[i], "--huge") == 0;
		m->random |= strcmp(argv[i], "--random") == 0;
		if (strcmp(argv[i], "--incompressible") == 0)
			m->content = CONTENT_INCOMPRESSIBLE;
		if (strcmp(argv[i], "--text") == 0)
			m->content = CONTENT_TEXT;
		if (strcmp(argv[i], "--zero") == 0)
			m->zero_percent = (unsigned)strtoul(value, NULL, 10);
		if (strcmp(argv[i], "--processes") == 0)
			options->processes = (unsigned)strtoul(value, NULL, 10);
		if (strcmp(argv[i], "--open") == 0 && open(value, O_RDONLY) < 0)
			heartbeat_die(value);
		if (strcmp(argv[i], "--page-stack") == 0)
			start_page_stack();
	}
}

int main(int argc, char **argv)
{
	struct memory m = {0};
	struct options options = {.processes = 1};
	if (argc < 4) {
		fprintf(stderr,
			"usage: memory STATUS MIB DIRTY_MIB_PER_S|max [--shared] [--incompressible "
			"| --text] [--huge]\n              [--random] [--zero PERCENT] "
			"[--processes N] [--open FILE] [--page-stack]\n");
		return 2;
	}
	m.count = (size_t)strtoul(argv[2], NULL, 10) * PAGES_PER_MIB;
	parse(argc, argv, &m, &options);
	if (m.count == 0 || options.processes == 0)
		return 2;
	heartbeat_open(argv[1]);
	memory_init(&m, &options);
	double rate =
	    strcmp(argv[3], "max") == 0 ? MAX_RATE : strtod(argv[3], NULL) * PAGES_PER_MIB / 1000;
	if (options.processes > 1)
		run_processes(&m, rate, options.processes);
	run(&m, rate, true);
}
