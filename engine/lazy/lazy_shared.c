/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lazy/lazy_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static size_t size_of(const struct lazy_shared *shared)
{
	return sizeof(*shared) + shared->file_count * sizeof(struct lazy_file) +
	       shared->run_count * sizeof(struct lazy_run) +
	       shared->task_count * sizeof(struct lazy_task) +
	       shared->late_words * sizeof(atomic_uint_fast64_t);
}

/* All but late pages are there. */
static void mark_there(const struct lazy_map *map)
{
	for (uint64_t i = 0; i < map->task_count; i++) {
		const struct lazy_task *task = &map->tasks[i];
		for (uint64_t j = 0; j < task->run_count; j++) {
			const struct lazy_run *run = &map->runs[task->first_run + j];
			for (uint64_t page = 0; run->is_late == 0 && page < run->pages; page++) {
				uint64_t bit = task->first_page + run->first + page;
				(void)atomic_fetch_or(&map->there[bit / 64], 1ULL << (bit % 64));
			}
		}
	}
}

static status *map_it(int fd, size_t size, struct lazy_shared **ret_shared)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (at == MAP_FAILED)
		return status_errnof(errno, "cannot map the list of pages");
	*ret_shared = at;
	return NULL;
}

status *lazy_shared_new(const struct lazy_map *map, int *ret_fd, struct lazy_shared **ret_shared)
{
	struct lazy_shared sizes = {.file_count = map->file_count,
				    .run_count = map->run_count,
				    .task_count = map->task_count,
				    .pages = map->pages,
				    .late_pages = map->late_pages};
	struct lazy_map ours;
	struct lazy_shared *shared = NULL;
	scoped(fd) int fd = memfd_create("haul-lazy", MFD_CLOEXEC);

	sizes.late_words = map->late_pages > 0 ? lazy_map_words(map) : 0;
	if (fd < 0)
		return status_errnof(errno, "cannot make memory for the list of pages");
	/* Reserved: what is not there when it is written to would be a signal. */
	int failed = posix_fallocate(fd, 0, (off_t)size_of(&sizes));
	if (failed != 0)
		return status_errnof(failed, "cannot make memory for the list of pages");
	status *st = map_it(fd, size_of(&sizes), &shared);
	if (st != NULL)
		return st;
	shared->file_count = sizes.file_count;
	shared->run_count = sizes.run_count;
	shared->task_count = sizes.task_count;
	shared->pages = sizes.pages;
	shared->late_pages = sizes.late_pages;
	shared->late_words = sizes.late_words;
	atomic_store(&shared->late_missing, sizes.late_pages);
	lazy_shared_map(shared, &ours);
	if (map->file_count > 0)
		memcpy(ours.files, map->files, map->file_count * sizeof(*map->files));
	if (map->run_count > 0)
		memcpy(ours.runs, map->runs, map->run_count * sizeof(*map->runs));
	if (map->task_count > 0)
		memcpy(ours.tasks, map->tasks, map->task_count * sizeof(*map->tasks));
	if (ours.there != NULL)
		mark_there(&ours);
	*ret_fd = TAKE_FD(fd);
	*ret_shared = shared;
	return NULL;
}

status *lazy_shared_open(int fd, struct lazy_shared **ret_shared)
{
	struct stat info;
	scoped(lazy_shared) struct lazy_shared *shared = NULL;

	if (fstat(fd, &info) != 0)
		return status_errnof(errno, "cannot look at the list of pages");
	if (info.st_size < (off_t)sizeof(*shared))
		return status_errorf(STATUS_DATA_LOSS, "the list of pages is too short");
	status *st = map_it(fd, (size_t)info.st_size, &shared);
	if (st != NULL)
		return st;
	if (size_of(shared) != (size_t)info.st_size)
		return status_errorf(STATUS_DATA_LOSS, "the list of pages has another size");
	*ret_shared = TAKE(shared);
	return NULL;
}

void lazy_shared_map(struct lazy_shared *shared, struct lazy_map *ret_map)
{
	struct lazy_run *runs = (struct lazy_run *)(shared + 1);
	struct lazy_task *tasks = (struct lazy_task *)(runs + shared->run_count);
	struct lazy_file *files = (struct lazy_file *)(tasks + shared->task_count);

	*ret_map = (struct lazy_map){
	    .runs = runs,
	    .tasks = tasks,
	    .files = files,
	    .file_count = shared->file_count,
	    .run_count = shared->run_count,
	    .task_count = shared->task_count,
	    .pages = shared->pages,
	    .late_pages = shared->late_pages,
	};
	if (shared->late_words == 0)
		return;
	ret_map->there = (atomic_uint_fast64_t *)(files + shared->file_count);
	ret_map->missing = &shared->late_missing;
}

void lazy_shared_free(struct lazy_shared *shared)
{
	if (shared != NULL)
		(void)munmap(shared, size_of(shared));
}
