/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that are fetched after the commit: no run of the simulation leaves any at the source. */
#include "engine/criu/page_store.h"
#include "engine/criu/tree_memory.h"
#include "engine/lazy/lazy.h"
#include "engine/lazy/lazy_guard.h"
#include "engine/pipe/late_pipe.h"

#include <stdlib.h>

void page_store_allow_late(struct page_store *store)
{
	(void)store;
	abort();
}

struct late_store *lazy_late(struct lazy *lazy)
{
	(void)lazy;
	return NULL;
}

status *lazy_guard_find(const char *cgroup, int *ret_shared)
{
	(void)cgroup;
	(void)ret_shared;
	return status_errorf(STATUS_NOT_FOUND, "its guard waits for nobody");
}

status *lazy_shared_open(int fd, struct lazy_shared **ret_shared)
{
	(void)fd;
	(void)ret_shared;
	abort();
}

void lazy_shared_free(struct lazy_shared *shared)
{
	(void)shared;
}

status *late_store_new(struct lazy_shared *shared, struct late_store **ret_store)
{
	(void)shared;
	(void)ret_store;
	abort();
}

void late_store_counts(struct late_store *store, struct late_counts *ret_counts)
{
	(void)store;
	(void)ret_counts;
	abort();
}

void late_store_lose(struct late_store *store)
{
	(void)store;
	abort();
}

void late_store_free(struct late_store *store)
{
	(void)store;
}

status *late_fetcher_new(struct late_fetcher **ret_fetcher)
{
	(void)ret_fetcher;
	abort();
}

void late_fetcher_offer(struct late_fetcher *fetcher, struct pipe *pipe)
{
	(void)fetcher;
	(void)pipe;
	abort();
}

void late_fetcher_feed(struct late_fetcher *fetcher, struct late_store *store)
{
	(void)fetcher;
	(void)store;
	abort();
}

bool late_fetcher_is_connected(struct late_fetcher *fetcher)
{
	(void)fetcher;
	abort();
}

status *late_fetcher_error(struct late_fetcher *fetcher)
{
	(void)fetcher;
	abort();
}

void late_fetcher_free(struct late_fetcher *fetcher)
{
	(void)fetcher;
}

status *late_serve(struct pipe *pipe, const struct late_source *source)
{
	(void)pipe;
	(void)source;
	abort();
}

status *tree_memory_new(const char *group, struct tree_memory **ret_memory)
{
	(void)group;
	(void)ret_memory;
	abort();
}

status *tree_memory_read(struct tree_memory *memory, int64_t pid, uint64_t address, size_t bytes,
			 uint8_t *data)
{
	(void)memory;
	(void)pid;
	(void)address;
	(void)bytes;
	(void)data;
	abort();
}

void tree_memory_free(struct tree_memory *memory)
{
	(void)memory;
}
