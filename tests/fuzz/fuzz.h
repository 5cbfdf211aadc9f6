/* SPDX-License-Identifier: Apache-2.0 */
/* What the fuzz targets share. A target must not crash, leak or hang, and what it claims with
 * `must` must hold, for any bytes. */
#ifndef HAUL_TESTS_FUZZ_FUZZ_H
#define HAUL_TESTS_FUZZ_FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/host/files.h"
#include "proto/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define must(claim)                                                                                \
	do {                                                                                       \
		if (!(claim)) {                                                                    \
			(void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #claim);  \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

/* A text of these bytes, ended by NUL: free it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	must(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* A private directory, emptied by fuzz_directory_clear. Below /dev/shm: thousands of runs a second.
 */
static inline const char *fuzz_directory(void)
{
	static char path[64];

	if (path[0] == '\0') {
		(void)snprintf(path, sizeof(path), "/dev/shm/haul-fuzz-XXXXXX");
		if (mkdtemp(path) == NULL) {
			(void)snprintf(path, sizeof(path), "/tmp/haul-fuzz-XXXXXX");
			must(mkdtemp(path) != NULL);
		}
	}
	return path;
}

static inline void fuzz_directory_clear(void)
{
	status_free(files_remove_tree(fuzz_directory()));
}

/* Takes the next piece (one length byte or two before it) off the input; false at the end. */
static inline bool fuzz_piece(const uint8_t **data, size_t *size, size_t head,
			      const uint8_t **ret_piece, size_t *ret_size)
{
	if (*size < head)
		return false;
	size_t length = (*data)[0];
	if (head == 2)
		length |= (size_t)(*data)[1] << 8;
	*data += head;
	*size -= head;
	length = length > *size ? *size : length;
	*ret_piece = *data;
	*ret_size = length;
	*data += length;
	*size -= length;
	return true;
}

#endif
