/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a frozen tree in its cgroup, page by page: what it was dumped with, as long as it
 * stays frozen. */
#ifndef HAUL_ENGINE_CRIU_TREE_MEMORY_H
#define HAUL_ENGINE_CRIU_TREE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "proto/status.h"

struct tree_memory;

/* group: of the tree's fence. FAILED_PRECONDITION when it is not frozen. */
must_check status *tree_memory_new(const char *group, struct tree_memory **ret_memory);
/* pid: as the tree sees it. Also what the process itself may not read. FAILED_PRECONDITION when the
 * group was not frozen all the while, NOT_FOUND for a process that is not in it, DATA_LOSS for what
 * cannot be read. */
must_check status *tree_memory_read(struct tree_memory *memory, int64_t pid, uint64_t address,
				    size_t bytes, uint8_t *data);
void tree_memory_free(struct tree_memory *memory);

DEFINE_SCOPE(tree_memory, struct tree_memory *, tree_memory_free);

#endif
