/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/lazy/late_store.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>

#include "engine/criu/page_stream.h"
#include "proto/clock.h"

/* More are not remembered: they come in their turn. */
enum { WANTED_MOST = 256 };

struct late_store {
	struct lazy_shared *shared;
	struct lazy_map map;
	int images;
	int *files; /* -1: not open yet; the thread's that puts */

	pthread_mutex_t lock;
	pthread_cond_t changed; /* CLOCK_MONOTONIC */
	/* By the lock: */
	struct late_range wanted[WANTED_MOST]; /* a ring */
	size_t wanted_first, wanted_count;
	uint64_t run, page; /* where going ahead has come to: page of the run */
	uint64_t faults;
	bool is_woken;
	void (*told)(void *self);
	void *self;
};

/* --- new, free --- */

status *late_store_new(struct lazy_shared *shared, struct late_store **ret_store)
{
	scoped(late_store) struct late_store *store = calloc(1, sizeof(*store));

	if (store == NULL)
		return status_errnof(ENOMEM, "late pages");
	(void)pthread_mutex_init(&store->lock, NULL);
	clock_cond_init(&store->changed);
	store->shared = shared;
	lazy_shared_map(shared, &store->map);
	store->images = open(shared->images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (store->images < 0)
		return status_errnof(errno, "cannot open directory %s", shared->images);
	store->files = calloc(store->map.file_count + 1, sizeof(*store->files));
	if (store->files == NULL)
		return status_errnof(ENOMEM, "late pages");
	for (uint64_t i = 0; i < store->map.file_count; i++)
		store->files[i] = -1;
	*ret_store = TAKE(store);
	return NULL;
}

void late_store_free(struct late_store *store)
{
	if (store == NULL)
		return;
	for (uint64_t i = 0; store->files != NULL && i < store->map.file_count; i++)
		close_if_open(store->files[i]);
	close_if_open(store->images);
	free(store->files);
	(void)pthread_cond_destroy(&store->changed);
	(void)pthread_mutex_destroy(&store->lock);
	free(store);
}

void late_store_on_arrival(struct late_store *store, void (*told)(void *self), void *self)
{
	(void)pthread_mutex_lock(&store->lock);
	store->told = told;
	store->self = self;
	(void)pthread_mutex_unlock(&store->lock);
}

/* With the lock: whoever is told only sets a flag. */
static void tell_locked(struct late_store *store)
{
	if (store->told != NULL)
		store->told(store->self);
}

/* --- what is asked for --- */

void late_store_want(struct late_store *store, const struct late_range *range)
{
	(void)pthread_mutex_lock(&store->lock);
	if (store->wanted_count < WANTED_MOST) {
		size_t place = (store->wanted_first + store->wanted_count++) % WANTED_MOST;
		store->wanted[place] = *range;
		store->wanted[place].is_urgent = true;
	}
	(void)pthread_cond_broadcast(&store->changed);
	(void)pthread_mutex_unlock(&store->lock);
}

static const struct lazy_task *task_of_run(const struct lazy_map *map, uint64_t run)
{
	for (uint64_t i = 0; i < map->task_count; i++)
		if (run - map->tasks[i].first_run < map->tasks[i].run_count)
			return &map->tasks[i];
	return NULL;
}

static uint64_t missing_from(const struct lazy_map *map, const struct lazy_task *task,
			     uint64_t page, uint64_t limit)
{
	uint64_t pages = 0;

	while (page + pages < limit && !lazy_map_is_there(map, task, page + pages))
		pages++;
	return pages;
}

/* The next missing pages from where it has come to. */
static bool go_ahead(struct late_store *store, struct late_range *ret_range)
{
	const struct lazy_map *map = &store->map;

	for (; store->run < map->run_count; store->run++, store->page = 0) {
		const struct lazy_run *run = &map->runs[store->run];
		const struct lazy_task *task =
		    run->is_late != 0 ? task_of_run(map, store->run) : NULL;
		if (task == NULL)
			continue;
		store->page +=
		    lazy_map_there(map, task, run->first + store->page, run->first + run->pages);
		uint64_t limit = run->pages - store->page < LATE_RANGE_PAGES
				     ? run->pages
				     : store->page + LATE_RANGE_PAGES;
		uint64_t pages =
		    missing_from(map, task, run->first + store->page, run->first + limit);
		if (pages == 0)
			continue;
		*ret_range = (struct late_range){.pid = task->pid,
						 .address = run->address + store->page * PAGE_BYTES,
						 .pages = (uint32_t)pages};
		store->page += pages;
		return true;
	}
	return false;
}

/* The part of the range that is still missing; false when nothing is. */
static bool still_missing(const struct late_store *store, struct late_range *range)
{
	const struct lazy_task *task = lazy_map_task(&store->map, range->pid);
	const struct lazy_run *run =
	    task != NULL ? lazy_map_find(&store->map, task, range->address) : NULL;

	if (run == NULL)
		return false;
	uint64_t page = run->first + (range->address - run->address) / PAGE_BYTES;
	uint64_t limit = run->first + run->pages;
	if (limit > page + range->pages)
		limit = page + range->pages;
	range->pages = (uint32_t)missing_from(&store->map, task, page, limit);
	return range->pages > 0;
}

static bool take_wanted(struct late_store *store, struct late_range *ret_range)
{
	while (store->wanted_count > 0) {
		*ret_range = store->wanted[store->wanted_first];
		store->wanted_first = (store->wanted_first + 1) % WANTED_MOST;
		store->wanted_count--;
		if (still_missing(store, ret_range)) {
			store->faults += ret_range->pages;
			return true;
		}
	}
	return false;
}

bool late_store_next(struct late_store *store, bool may_go_ahead, int64_t timeout_ms,
		     struct late_range *ret_range)
{
	const struct timespec until = clock_at(clock_monotonic_ms() + timeout_ms);
	bool found = false, is_late = false;

	(void)pthread_mutex_lock(&store->lock);
	for (;;) {
		found =
		    take_wanted(store, ret_range) || (may_go_ahead && go_ahead(store, ret_range));
		if (found || is_late || store->is_woken)
			break;
		is_late = pthread_cond_timedwait(&store->changed, &store->lock, &until) != 0;
	}
	store->is_woken = false;
	(void)pthread_mutex_unlock(&store->lock);
	return found;
}

void late_store_wake(struct late_store *store)
{
	(void)pthread_mutex_lock(&store->lock);
	store->is_woken = true;
	(void)pthread_cond_broadcast(&store->changed);
	(void)pthread_mutex_unlock(&store->lock);
}

void late_store_restart(struct late_store *store)
{
	(void)pthread_mutex_lock(&store->lock);
	store->run = store->page = 0;
	(void)pthread_mutex_unlock(&store->lock);
}

/* --- what comes --- */

static status *open_file(struct late_store *store, uint64_t number, int *ret_fd)
{
	char name[48];

	if (store->files[number] < 0) {
		const struct lazy_file *file = &store->map.files[number];
		(void)snprintf(name, sizeof(name), "%u/pages-%u.img", file->round, file->pages_id);
		store->files[number] =
		    openat(store->images, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
		if (store->files[number] < 0)
			return status_errnof(errno, "cannot open %s", name);
	}
	*ret_fd = store->files[number];
	return NULL;
}

static status *write_page(int fd, const uint8_t *data, uint64_t offset)
{
	size_t done = 0;

	while (done < PAGE_BYTES) {
		ssize_t wrote = pwrite(fd, data + done, PAGE_BYTES - done, (off_t)(offset + done));
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0)
			return status_errnof(wrote < 0 ? errno : EIO, "cannot write pages");
		done += (size_t)wrote;
	}
	return NULL;
}

/* Its bit is set when its content is in the file, and never taken back. */
static status *put_page(struct late_store *store, const struct lazy_task *task,
			const struct lazy_run *run, uint64_t index, const uint8_t *data)
{
	uint64_t bit = task->first_page + run->first + index;
	int fd = -1;

	if (lazy_map_is_there(&store->map, task, run->first + index))
		return NULL;
	status *st = open_file(store, run->file, &fd);
	if (st == NULL && data != NULL) /* else it stays a hole */
		st = write_page(fd, data, run->offset + index * PAGE_BYTES);
	if (st != NULL)
		return st;
	uint64_t before = atomic_fetch_or_explicit(&store->map.there[bit / 64], 1ULL << (bit % 64),
						   memory_order_acq_rel);
	if ((before >> (bit % 64) & 1) == 0)
		(void)atomic_fetch_sub(store->map.missing, 1);
	return NULL;
}

status *late_store_put(struct late_store *store, const struct late_range *range,
		       const uint8_t *data)
{
	const struct lazy_task *task = lazy_map_task(&store->map, range->pid);
	const struct lazy_run *run =
	    task != NULL ? lazy_map_find(&store->map, task, range->address) : NULL;

	if (run == NULL || run->is_late == 0 || range->address % PAGE_BYTES != 0 ||
	    range->pages > run->pages - (range->address - run->address) / PAGE_BYTES)
		return status_errorf(STATUS_DATA_LOSS,
				     "pages came later that were not to, at %#llx of process %lld",
				     (unsigned long long)range->address, (long long)range->pid);
	uint64_t first = (range->address - run->address) / PAGE_BYTES;
	status *st = NULL;
	for (uint32_t i = 0; st == NULL && i < range->pages; i++)
		st = put_page(store, task, run, first + i,
			      data != NULL ? data + (size_t)i * PAGE_BYTES : NULL);
	(void)pthread_mutex_lock(&store->lock);
	tell_locked(store);
	(void)pthread_mutex_unlock(&store->lock);
	return st;
}

void late_store_lose(struct late_store *store)
{
	atomic_store(&store->shared->is_late_lost, true);
	(void)pthread_mutex_lock(&store->lock);
	tell_locked(store);
	(void)pthread_mutex_unlock(&store->lock);
}

void late_store_counts(struct late_store *store, struct late_counts *ret_counts)
{
	*ret_counts = (struct late_counts){
	    .pages = store->map.late_pages,
	    .missing = lazy_map_missing(&store->map),
	    .is_lost = atomic_load(&store->shared->is_late_lost),
	};
	(void)pthread_mutex_lock(&store->lock);
	ret_counts->faults = store->faults;
	(void)pthread_mutex_unlock(&store->lock);
}
