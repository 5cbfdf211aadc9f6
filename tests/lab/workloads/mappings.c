/* SPDX-License-Identifier: Apache-2.0 */
/* mappings: a process that moves, drops and unmaps its memory and forks all the time, and knows
 * what must be where.
 *
 * usage: mappings STATUS MIB [PAUSE_MS]
 *
 * Memory is pieces of 64 pages with a content that follows from number and generation, or with none
 * (zeros). One step is: move a piece (mremap), drop one (MADV_DONTNEED) and find zeros, unmap one
 * and map it anew, or fork a child that checks some of all. One more piece is a vault: nobody may
 * read it, itself included (PROT_NONE), but for the moments in which it is checked and changed. And
 * there are large ones, which are never written again but change places: of these mremap moves
 * whole page tables, which leaves their dirty bits as they are. Two more pieces are alike, and may
 * be merged (KSM), which takes their dirty bits. PAUSE_MS: between steps (10). */
#include "tests/lab/workloads/heartbeat.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	PIECE_WORDS = 64 * 512,
	PIECE_BYTES = PIECE_WORDS * 8,
	PIECES_PER_MIB = 1024 * 1024 / PIECE_BYTES,
	CHECKED_BY_CHILD = 64,
	CHECKED_A_STEP = 4,
	CHILD_FOUND = 3,
	VAULT_STEPS = 50,
	LARGE_STEPS = 5,
	TWIN_STEPS = 20,
	LARGES = 4,
	LARGE_WORDS = 512 * 1024,
	LARGE_BYTES = LARGE_WORDS * 8, /* two page tables */
};

struct piece {
	uint64_t *at;
	uint32_t generation; /* 0: zeros */
};

/* Places at multiples of a page table's room, one more than there are contents. */
struct larges {
	uint64_t *places[LARGES + 1];
	size_t contents[LARGES];
};

static uint64_t state = 88172645463325252u;

static uint64_t draw(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static uint64_t word_of(size_t piece, uint32_t generation, size_t word)
{
	if (generation == 0)
		return 0;
	uint64_t x =
	    ((uint64_t)piece << 40 | (uint64_t)generation << 20 | word) * 0x9e3779b97f4a7c15u;
	return x ^ (x >> 31);
}

static void *map_piece(void)
{
	void *at =
	    mmap(NULL, PIECE_BYTES, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	if (at == MAP_FAILED)
		heartbeat_die("memory");
	return at;
}

static void fill(struct piece *pieces, size_t number)
{
	struct piece *piece = &pieces[number];
	piece->generation++;
	for (size_t word = 0; word < PIECE_WORDS; word++)
		piece->at[word] = word_of(number, piece->generation, word);
}

/* One word of each page, another each time. */
static bool is_right(const struct piece *piece, size_t number)
{
	for (size_t page = 0; page < PIECE_WORDS / 512; page++) {
		size_t word = page * 512 + draw() % 512;
		if (piece->at[word] != word_of(number, piece->generation, word))
			return false;
	}
	return true;
}

static void check(const struct piece *pieces, size_t number, const char *when)
{
	if (!is_right(&pieces[number], number))
		heartbeat_corrupt("piece %zu generation %u %s", number, pieces[number].generation,
				  when);
}

static void move(struct piece *piece)
{
	void *to = map_piece();
	if (mremap(piece->at, PIECE_BYTES, PIECE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		heartbeat_die("mremap");
	piece->at = to;
}

static void drop(struct piece *piece)
{
	if (madvise(piece->at, PIECE_BYTES, MADV_DONTNEED) != 0)
		heartbeat_die("madvise");
	piece->generation = 0;
}

static void map_anew(struct piece *piece)
{
	if (munmap(piece->at, PIECE_BYTES) != 0)
		heartbeat_die("munmap");
	piece->at = map_piece();
	piece->generation = 0;
}

static void ask_child(const struct piece *pieces, size_t count)
{
	int ended = 0;
	pid_t child = fork();
	if (child < 0)
		heartbeat_die("fork");
	if (child == 0) {
		for (int i = 0; i < CHECKED_BY_CHILD; i++) {
			size_t number = draw() % count;
			if (!is_right(&pieces[number], number))
				_exit(CHILD_FOUND);
		}
		_exit(0);
	}
	while (waitpid(child, &ended, 0) != child)
		;
	if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0)
		heartbeat_corrupt("a child ended with %#x", (unsigned)ended);
}

/* The second one's content is the first one's, number and all. */
static void write_twins(struct piece *pieces, size_t number)
{
	fill(pieces, number);
	memcpy(pieces[number + 1].at, pieces[number].at, PIECE_BYTES);
	pieces[number + 1].generation = pieces[number].generation;
}

static void make_twins(struct piece *pieces, size_t number)
{
	for (size_t i = number; i < number + 2; i++) {
		pieces[i].at = map_piece();
		(void)madvise(pieces[i].at, PIECE_BYTES, MADV_MERGEABLE); /* of this kernel? */
	}
	write_twins(pieces, number);
}

static void check_twins(const struct piece *pieces, size_t number)
{
	for (size_t i = number; i < number + 2; i++)
		if (!is_right(&pieces[i], number))
			heartbeat_corrupt("twin %zu generation %u", i - number,
					  pieces[i].generation);
}

static void reserve(void *at)
{
	if (mmap(at, LARGE_BYTES, PROT_NONE, MAP_ANONYMOUS | MAP_PRIVATE | MAP_FIXED, -1, 0) != at)
		heartbeat_die("memory");
}

static void make_larges(struct larges *larges)
{
	void *room = mmap(NULL, (LARGES + 2) * (size_t)LARGE_BYTES, PROT_NONE,
			  MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	if (room == MAP_FAILED)
		heartbeat_die("memory");
	uintptr_t first = ((uintptr_t)room + LARGE_BYTES - 1) / LARGE_BYTES * LARGE_BYTES;
	for (size_t i = 0; i <= LARGES; i++)
		larges->places[i] = (uint64_t *)(first + i * LARGE_BYTES);
	for (size_t i = 0; i < LARGES; i++) {
		larges->contents[i] = i;
		if (mprotect(larges->places[i], LARGE_BYTES, PROT_READ | PROT_WRITE) != 0)
			heartbeat_die("mprotect");
		/* A huge page is moved as such, and called dirty. */
		(void)madvise(larges->places[i], LARGE_BYTES, MADV_NOHUGEPAGE);
		for (size_t word = 0; word < LARGE_WORDS; word++)
			larges->places[i][word] = word_of(i, 1, word);
	}
}

static void move_large(void *from, void *to)
{
	if (mremap(from, LARGE_BYTES, LARGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		heartbeat_die("mremap");
}

static void swap_larges(struct larges *larges)
{
	size_t a = draw() % LARGES, b = (a + 1 + draw() % (LARGES - 1)) % LARGES, content;
	void *spare = larges->places[LARGES];

	move_large(larges->places[a], spare);
	move_large(larges->places[b], larges->places[a]);
	move_large(spare, larges->places[b]);
	reserve(spare);
	content = larges->contents[a];
	larges->contents[a] = larges->contents[b];
	larges->contents[b] = content;
}

static void check_larges(const struct larges *larges)
{
	for (size_t i = 0; i < LARGES; i++)
		for (size_t page = 0; page < LARGE_WORDS / 512; page += 1 + draw() % 16) {
			size_t word = page * 512 + draw() % 512;
			if (larges->places[i][word] != word_of(larges->contents[i], 1, word))
				heartbeat_corrupt("page %zu of large piece %zu, at place %zu", page,
						  larges->contents[i], i);
		}
}

static void step(struct piece *pieces, size_t count, uint64_t steps)
{
	size_t number = draw() % count;
	struct piece *piece = &pieces[number];
	switch (steps % 4) {
	case 0:
		move(piece);
		check(pieces, number, "after it was moved");
		break;
	case 1:
		drop(piece);
		check(pieces, number, "after it was dropped");
		fill(pieces, number);
		break;
	case 2:
		map_anew(piece);
		check(pieces, number, "after it was mapped anew");
		fill(pieces, number);
		break;
	default:
		ask_child(pieces, count);
	}
	for (int i = 0; i < CHECKED_A_STEP; i++)
		check(pieces, draw() % count, "left alone");
}

static void lock_vault(const struct piece *vault, bool is_locked)
{
	if (mprotect(vault->at, PIECE_BYTES, is_locked ? PROT_NONE : PROT_READ | PROT_WRITE) != 0)
		heartbeat_die("mprotect");
}

static void open_vault(struct piece *pieces, size_t number)
{
	lock_vault(&pieces[number], false);
	check(pieces, number, "in the vault");
	fill(pieces, number);
	lock_vault(&pieces[number], true);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: mappings STATUS MIB [PAUSE_MS]\n");
		return 2;
	}
	size_t count = (size_t)strtoul(argv[2], NULL, 10) * PIECES_PER_MIB;
	int pause = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 10;
	size_t vault = count, twins = count + 1;
	struct piece *pieces = calloc(count + 3, sizeof(*pieces));
	if (count == 0 || pieces == NULL)
		return 2;
	struct larges larges;
	heartbeat_open(argv[1]);
	for (size_t i = 0; i <= vault; i++) {
		pieces[i].at = map_piece();
		fill(pieces, i);
	}
	lock_vault(&pieces[vault], true);
	make_larges(&larges);
	make_twins(pieces, twins);
	for (uint64_t steps = 0;; steps++) {
		char text[64];
		step(pieces, count, steps);
		if (steps % VAULT_STEPS == 0)
			open_vault(pieces, vault);
		if (steps % LARGE_STEPS == 0)
			swap_larges(&larges);
		check_larges(&larges);
		check_twins(pieces, twins);
		if (steps % TWIN_STEPS == 0)
			write_twins(pieces, twins);
		snprintf(text, sizeof(text), "steps=%llu", (unsigned long long)steps);
		heartbeat_beat("ok", text);
		heartbeat_sleep(pause);
	}
}
