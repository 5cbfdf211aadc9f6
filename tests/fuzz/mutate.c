/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzz target without libFuzzer, for the tests of every build with sanitizers: each seed as it
 * is, and damaged in a few hundred ways that are the same every time.
 *
 * usage: fuzz_NAME CORPUS */
#include <dirent.h>

#include "tests/fuzz/fuzz.h"

enum { VARIANTS = 400, DAMAGES_MOST = 4, SEED_MOST = 1024 * 1024, GROWTH_MOST = 64 };

struct input {
	uint8_t *data; /* with room for all that the damages may add */
	size_t size;
	uint64_t random;
};

static size_t below(struct input *input, size_t limit)
{
	/* xorshift64: nobody needs better randomness here. */
	input->random ^= input->random << 13;
	input->random ^= input->random >> 7;
	input->random ^= input->random << 17;
	return limit == 0 ? 0 : (size_t)(input->random % limit);
}

/* Makes room for `count` bytes at `at`. */
static void insert(struct input *input, size_t at, size_t count)
{
	memmove(input->data + at + count, input->data + at, input->size - at);
	input->size += count;
}

static void damage(struct input *input)
{
	static const uint8_t bytes[] = {0, 1, 0x7f, 0x80, 0xff, '.', '/', '\n'};
	size_t at = below(input, input->size), count = 1 + below(input, GROWTH_MOST);

	switch (below(input, 6)) {
	case 0: /* a bit */
		if (input->size > 0)
			input->data[at] ^= (uint8_t)(1U << below(input, 8));
		break;
	case 1: /* a byte that is at the edge of something */
		if (input->size > 0)
			input->data[at] = bytes[below(input, sizeof(bytes))];
		break;
	case 2: /* cut off */
		input->size = at;
		break;
	case 3: /* a piece is missing */
		count = count < input->size - at ? count : input->size - at;
		memmove(input->data + at, input->data + at + count, input->size - at - count);
		input->size -= count;
		break;
	case 4: /* a piece twice */
		count = count < input->size - at ? count : input->size - at;
		insert(input, at, count);
		memcpy(input->data + at, input->data + at + count, count);
		break;
	default: /* something in between */
		insert(input, at, count);
		for (size_t i = 0; i < count; i++)
			input->data[at + i] = (uint8_t)below(input, 256);
	}
}

/* From a buffer of just this size, so that one byte too far is seen. */
static void give(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size > 0 ? size : 1);

	must(exact != NULL);
	if (size > 0)
		memcpy(exact, data, size);
	(void)LLVMFuzzerTestOneInput(exact, size);
	free(exact);
}

static void run_seed(const char *path)
{
	struct buffer seed __attribute__((cleanup(scope_buffer))) = {0};
	scoped(status) status *st = files_read(path, SEED_MOST, &seed);

	must(st == NULL);
	give(seed.data, seed.size);
	struct input input = {.data = malloc(seed.size + (size_t)DAMAGES_MOST * GROWTH_MOST),
			      .random = 0x9e3779b97f4a7c15u};
	must(input.data != NULL);
	for (unsigned variant = 0; variant < VARIANTS; variant++) {
		input.size = seed.size;
		if (seed.size > 0)
			memcpy(input.data, seed.data, seed.size);
		for (size_t left = 1 + below(&input, DAMAGES_MOST); left > 0; left--)
			damage(&input);
		give(input.data, input.size);
	}
	free(input.data);
}

int main(int argc, char **argv)
{
	unsigned seeds = 0;
	DIR *corpus = opendir(argc == 2 ? argv[1] : "");

	must(corpus != NULL);
	for (struct dirent *entry = readdir(corpus); entry != NULL; entry = readdir(corpus)) {
		char path[FILES_PATH];
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s", argv[1], entry->d_name);
		run_seed(path);
		seeds++;
	}
	(void)closedir(corpus);
	must(seeds > 0);
	(void)printf("%u seeds, %u inputs\n", seeds, seeds * (1 + VARIANTS));
	return 0;
}
