/* SPDX-License-Identifier: Apache-2.0 */
/* Directories and small files. */
#ifndef HAUL_ENGINE_HOST_FILES_H
#define HAUL_ENGINE_HOST_FILES_H

#include "proto/pack.h"

enum { FILES_PATH = 4096 };

/* Makes `path` and what is missing above it, 0700. */
must_check status *files_make_directory(const char *path);

/* Removes a directory and everything below, crossing no mount and following no link. Missing is
 * fine. */
must_check status *files_remove_tree(const char *path);

/* Reads a file of at most `limit` bytes; RESOURCE_EXHAUSTED when it is longer. */
must_check status *files_read(const char *path, size_t limit, struct buffer *ret_content);

/* Writes a new file 0600, without fsync. */
must_check status *files_write(const char *path, const void *data, size_t size);

/* The same in one step: whoever reads `path` finds the old content or the new one. Uses `path`.new.
 */
must_check status *files_replace(const char *path, const void *data, size_t size);

/* Calls visit(self, name) for each entry but "." and "..". Missing directory: none. */
must_check status *files_each(const char *directory, void (*visit)(void *self, const char *name),
			      void *self);

#endif
