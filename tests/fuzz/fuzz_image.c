/* SPDX-License-Identifier: Apache-2.0 */
/* Image chunks from a peer: whatever their names, nothing is written outside of the directory. */
#include <dirent.h>
#include <sys/stat.h>

#include "engine/pipe/image_pipe.h"
#include "tests/fuzz/fuzz.h"

/* The directory's parent holds `in` and nothing else. */
static void check_outside(const char *base)
{
	DIR *dir = opendir(base);

	must(dir != NULL);
	for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
		must(strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		     strcmp(entry->d_name, "in") == 0);
	(void)closedir(dir);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char in[128];
	struct image_state *state = NULL;
	const uint8_t *piece;
	size_t length;
	struct image_totals totals = {0};
	unsigned pieces = 0;

	(void)snprintf(in, sizeof(in), "%s/in", fuzz_directory());
	scoped(status) status *made = files_make_directory(in);
	must(made == NULL);
	status *st = image_state_new(in, &state);
	for (; st == NULL && pieces < 16 && fuzz_piece(&data, &size, 2, &piece, &length); pieces++)
		st = image_state_chunk(state, piece, length);
	if (st == NULL)
		st = image_state_end(state, &totals);
	must(st != NULL || totals.count <= pieces);
	status_free(st);
	image_state_free(state);
	check_outside(fuzz_directory());
	fuzz_directory_clear();
	return 0;
}
