/* SPDX-License-Identifier: Apache-2.0 */
/* Content is read into a buffer and copied from there: a mapping of the file would turn a disk's
 * error into a signal. */
#include "engine/lazy/lazy_fill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "engine/lazy/lazy_fill_internal.h"
#include "proto/clock.h"

enum {
	SERVED_AT_ONCE = 64,
	POLLED_AT_ONCE = 16,
	LOOKS = 3, /* before a userfaultfd that is readable without a fault is taken for an event */
};

/* --- one memory --- */

static void close_file(int *fd)
{
	close_if_open(*fd);
	*fd = -1;
}

void lazy_end_memory(struct lazy_fill *fill, struct lazy_memory *memory)
{
	/* Another process may hold it, too: closing would not take it out. */
	if (memory->uffd >= 0)
		(void)epoll_ctl(fill->poll, EPOLL_CTL_DEL, memory->uffd, NULL);
	close_file(&memory->uffd);
	close_file(&memory->waits);
	free(memory->filled);
	free(memory->rest);
	memory->filled = NULL;
	memory->rest = NULL;
	memory->rest_count = memory->rest_room = 0;
}

static enum lazy_put put_of(int failed)
{
	switch (failed) {
	case EAGAIN:
		return PUT_BUSY;
	case EEXIST:
		return PUT_PRESENT;
	case ENOENT:
		return PUT_NOWHERE;
	default:
		return PUT_GONE;
	}
}

static bool is_expected(int failed)
{
	return failed == EAGAIN || failed == EEXIST || failed == ENOENT || failed == ESRCH ||
	       failed == ENOSPC;
}

/* What the ioctl says of its failure: done bytes (a part), or a negative error, or nothing. */
static status *judge(int64_t said, int failed, uint64_t *done, enum lazy_put *ret_put)
{
	if (said > 0) {
		*done += (uint64_t)said;
		return NULL;
	}
	failed = said < 0 ? (int)-said : failed;
	if (!is_expected(failed))
		return status_errnof(failed, "cannot fill a page of the restored tree");
	*ret_put = put_of(failed);
	return NULL;
}

static bool is_zero(const uint8_t *data, size_t size)
{
	return data[0] == 0 && memcmp(data, data + 1, size - 1) == 0;
}

static status *put_bytes(const struct lazy_memory *memory, uint64_t address, const uint8_t *data,
			 uint64_t size, uint64_t *done, enum lazy_put *ret_put)
{
	bool zero = is_zero(data, size);

	*ret_put = PUT_ALL;
	while (*done < size && *ret_put == PUT_ALL) {
		struct uffdio_copy copy = {.dst = address + *done,
					   .src = (uint64_t)(uintptr_t)data + *done,
					   .len = size - *done};
		struct uffdio_zeropage zeros = {.range = {address + *done, size - *done}};
		int failed = zero ? ioctl(memory->uffd, UFFDIO_ZEROPAGE, &zeros)
				  : ioctl(memory->uffd, UFFDIO_COPY, &copy);
		if (failed == 0) {
			*done = size;
			return NULL;
		}
		status *st = judge(zero ? zeros.zeropage : copy.copy, errno, done, ret_put);
		if (st != NULL)
			return st;
	}
	return NULL;
}

status *lazy_put_zero(const struct lazy_memory *memory, uint64_t address, enum lazy_put *ret_put)
{
	static const uint8_t nothing[PAGE_BYTES];
	uint64_t done = 0;

	return put_bytes(memory, address, nothing, PAGE_BYTES, &done, ret_put);
}

void lazy_wake(const struct lazy_memory *memory, uint64_t address, uint64_t pages)
{
	struct uffdio_range range = {address, pages * PAGE_BYTES};

	(void)ioctl(memory->uffd, UFFDIO_WAKE, &range);
}

status *lazy_read(const struct lazy_memory *memory, struct uffd_msg *ret_message, bool *ret_got)
{
	ssize_t got = read(memory->uffd, ret_message, sizeof(*ret_message));

	*ret_got = got == (ssize_t)sizeof(*ret_message);
	if (got < 0 && errno != EAGAIN && errno != EINTR && errno != ESRCH)
		return status_errnof(errno, "cannot hear what the restored tree waits for");
	return NULL;
}

/* --- content --- */

static status *open_file(struct lazy_fill *fill, uint64_t number, int *ret_fd)
{
	char name[48];

	if (fill->files[number] < 0) {
		const struct lazy_file *file = &fill->map->files[number];
		(void)snprintf(name, sizeof(name), "%u/pages-%u.img", file->round, file->pages_id);
		fill->files[number] = openat(fill->images, name, O_RDONLY | O_CLOEXEC);
		if (fill->files[number] < 0)
			return status_errnof(errno, "cannot open %s", name);
	}
	*ret_fd = fill->files[number];
	return NULL;
}

static status *read_content(struct lazy_fill *fill, const struct lazy_run *run, uint64_t origin,
			    uint64_t bytes)
{
	uint64_t offset = run->offset + (origin - run->address), done = 0;
	int fd = -1;
	status *st = open_file(fill, run->file, &fd);

	while (st == NULL && done < bytes) {
		ssize_t got = pread(fd, fill->chunk + done, bytes - done, (off_t)(offset + done));
		if (got < 0 && errno != EINTR)
			st = status_errnof(errno, "cannot read pages");
		else if (got == 0)
			st = status_errorf(STATUS_DATA_LOSS, "a pages file is too short");
		else
			done += got > 0 ? (uint64_t)got : 0;
	}
	return st;
}

status *lazy_put(struct lazy_fill *fill, struct lazy_memory *memory, const struct lazy_rest *what,
		 uint64_t *ret_done, enum lazy_put *ret_put)
{
	const struct lazy_run *run = lazy_map_find(fill->map, memory->task, what->origin);
	uint64_t bytes = what->pages * PAGE_BYTES, done = 0;

	if (run == NULL || what->pages > LAZY_CHUNK_PAGES ||
	    what->origin + bytes > run->address + run->pages * PAGE_BYTES)
		return status_errorf(STATUS_INTERNAL, "pages of no run are to be filled");
	uint64_t page = run->first + (what->origin - run->address) / PAGE_BYTES;
	bytes = lazy_map_there(fill->map, memory->task, page, page + what->pages) * PAGE_BYTES;
	if (bytes == 0) {
		*ret_done = 0;
		*ret_put = PUT_MISSING;
		return NULL;
	}
	status *st = read_content(fill, run, what->origin, bytes);
	if (st == NULL)
		st = put_bytes(memory, what->address, fill->chunk, bytes, &done, ret_put);
	*ret_done = done / PAGE_BYTES;
	fill->counts.pages += done / PAGE_BYTES;
	return st;
}

/* --- new, add, free --- */

status *lazy_fill_new(const struct lazy_map *map, const char *images, struct lazy_fill **ret_fill)
{
	scoped(lazy_fill) struct lazy_fill *fill = calloc(1, sizeof(*fill));

	if (fill == NULL)
		return status_errnof(ENOMEM, "lazy restore");
	fill->map = map;
	fill->newest_round = lazy_order_newest_round(map);
	fill->images = fill->poll = -1;
	fill->chunk = malloc((size_t)LAZY_CHUNK_PAGES * PAGE_BYTES);
	fill->files = calloc(map->file_count + 1, sizeof(*fill->files));
	if (fill->chunk == NULL || fill->files == NULL)
		return status_errnof(ENOMEM, "lazy restore");
	for (uint64_t i = 0; i < map->file_count; i++)
		fill->files[i] = -1;
	fill->images = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fill->images < 0)
		return status_errnof(errno, "cannot open directory %s", images);
	fill->poll = epoll_create1(EPOLL_CLOEXEC);
	if (fill->poll < 0)
		return status_errnof(errno, "lazy restore");
	*ret_fill = TAKE(fill);
	return NULL;
}

void lazy_fill_free(struct lazy_fill *fill)
{
	if (fill == NULL)
		return;
	for (size_t i = 0; i < fill->memory_count; i++)
		lazy_end_memory(fill, &fill->memories[i]);
	for (uint64_t i = 0; fill->files != NULL && i < fill->map->file_count; i++)
		close_if_open(fill->files[i]);
	close_if_open(fill->images);
	close_if_open(fill->poll);
	free(fill->files);
	free(fill->memories);
	free(fill->awaited);
	free(fill->chunk);
	free(fill);
}

status *lazy_add_memory(struct lazy_fill *fill, const struct lazy_task *task, int uffd,
			struct lazy_memory **ret_memory)
{
	char path[64];
	scoped(fd) int owned = uffd;
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = fill->memory_count};

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", uffd);
	scoped(fd) int waits = open(path, O_RDONLY | O_CLOEXEC);
	if (waits < 0)
		return status_errnof(errno, "cannot open %s", path);
	struct lazy_memory *grown =
	    reallocarray(fill->memories, fill->memory_count + 1, sizeof(*grown));
	if (grown == NULL)
		return status_errnof(ENOMEM, "lazy restore");
	fill->memories = grown;
	/* The descriptor must not block: several may wait for it to be read. */
	if (fcntl(uffd, F_SETFL, O_NONBLOCK) != 0 ||
	    epoll_ctl(fill->poll, EPOLL_CTL_ADD, uffd, &event) != 0)
		return status_errnof(errno, "a userfaultfd");
	struct lazy_memory *memory = &fill->memories[fill->memory_count++];
	*memory =
	    (struct lazy_memory){.task = task, .uffd = TAKE_FD(owned), .waits = TAKE_FD(waits)};
	*ret_memory = memory;
	return NULL;
}

status *lazy_fill_add(struct lazy_fill *fill, int64_t pid, int uffd)
{
	scoped(fd) int owned = uffd;
	const struct lazy_task *task = lazy_map_task(fill->map, pid);
	struct lazy_memory *memory = NULL;

	if (task == NULL)
		return status_errorf(STATUS_DATA_LOSS, "no pages of process %lld are known",
				     (long long)pid);
	for (size_t i = 0; i < fill->memory_count; i++)
		if (fill->memories[i].task == task)
			return status_errorf(STATUS_DATA_LOSS, "process %lld came twice",
					     (long long)pid);
	status *st = lazy_add_memory(fill, task, TAKE_FD(owned), &memory);
	if (st != NULL)
		return st;
	memory->filled = calloc(task->pages / 64 + 1, sizeof(*memory->filled));
	return memory->filled == NULL ? status_errnof(ENOMEM, "lazy restore") : NULL;
}

bool lazy_fill_is_whole(const struct lazy_fill *fill)
{
	return fill->memory_count >= fill->map->task_count; /* forks come on top */
}

int lazy_fill_fd(const struct lazy_fill *fill)
{
	return fill->poll;
}

void lazy_fill_watch(struct lazy_fill *fill, const struct lazy_watch *watch)
{
	fill->watch = *watch;
}

status *lazy_tell(struct lazy_fill *fill, size_t memory, const struct uffd_msg *message)
{
	if (fill->watch.event == NULL || message->event == UFFD_EVENT_PAGEFAULT)
		return NULL;
	return fill->watch.event(fill->watch.self, memory, message);
}

void lazy_fill_counts(const struct lazy_fill *fill, struct lazy_counts *ret_counts)
{
	*ret_counts = fill->counts;
}

/* --- while the tree runs --- */

static void note_filled(struct lazy_memory *memory, uint64_t page, uint64_t pages)
{
	for (uint64_t i = page; i < page + pages; i++)
		memory->filled[i / 64] |= 1ULL << (i % 64);
}

/* Fills not filled pages of a run, from `page` of the task's on. Nothing has changed any mapping,
 * and nobody else fills: what is there already, or has no place, is not what was dumped. */
static status *fill_here(struct lazy_fill *fill, struct lazy_memory *memory,
			 const struct lazy_run *run, uint64_t page, uint64_t pages,
			 enum lazy_step *ret_step)
{
	uint64_t address = run->address + (page - run->first) * PAGE_BYTES, done = 0;
	const struct lazy_rest what = {address, address, pages};
	enum lazy_put put = PUT_ALL;
	status *st = lazy_put(fill, memory, &what, &done, &put);

	if (st != NULL)
		return st;
	note_filled(memory, page, done);
	switch (put) {
	case PUT_ALL:
	case PUT_MISSING:
		break;
	case PUT_BUSY:
		*ret_step = LAZY_EVENT;
		break;
	case PUT_GONE:
		lazy_end_memory(fill, memory);
		break;
	case PUT_PRESENT:
	case PUT_NOWHERE:
		return status_errorf(STATUS_DATA_LOSS,
				     "the page at %#llx of process %lld %s before it was filled",
				     (unsigned long long)address + done * PAGE_BYTES,
				     (long long)memory->task->pid,
				     put == PUT_PRESENT ? "was there" : "had no place");
	}
	return NULL;
}

static status *serve_fault(struct lazy_fill *fill, size_t number, uint64_t address,
			   enum lazy_step *ret_step)
{
	struct lazy_memory *memory = &fill->memories[number];

	if (memory->filled == NULL)
		return lazy_moved_serve(fill, number, address, ret_step);
	address &= ~(uint64_t)(PAGE_BYTES - 1);
	const struct lazy_run *run = lazy_map_find(fill->map, memory->task, address);
	enum lazy_put put = PUT_ALL;

	if (run == NULL) { /* never used before the dump */
		status *st = lazy_put_zero(memory, address, &put);
		if (st == NULL && put == PUT_PRESENT)
			lazy_wake(memory, address, 1);
		if (st == NULL && put == PUT_BUSY)
			*ret_step = LAZY_EVENT;
		return st;
	}
	uint64_t page = run->first + (address - run->address) / PAGE_BYTES;
	if (lazy_is_filled(memory, page)) {
		lazy_wake(memory, address, 1);
		return NULL;
	}
	if (!lazy_map_is_there(fill->map, memory->task, page))
		return lazy_ask(fill, number, address, address);
	fill->counts.faults++;
	fill->fault_ms = clock_monotonic_ms();
	return fill_here(fill, memory, run, page,
			 lazy_order_unfilled(memory, run, page, LAZY_AROUND_PAGES), ret_step);
}

/* Threads that wait for a page. It does not count events, which are read by the same read. */
static bool has_fault(const struct lazy_memory *memory)
{
	char text[128];
	ssize_t got = pread(memory->waits, text, sizeof(text) - 1, 0);

	text[got > 0 ? got : 0] = '\0';
	const char *pending = strstr(text, "pending:");
	return pending != NULL && strtoull(pending + strlen("pending:"), NULL, 10) > 0;
}

static status *read_fault(struct lazy_fill *fill, size_t number, bool *ret_got,
			  enum lazy_step *ret_step)
{
	struct uffd_msg message;
	status *st = lazy_read(&fill->memories[number], &message, ret_got);

	if (st != NULL || !*ret_got)
		return st;
	if (message.event == UFFD_EVENT_PAGEFAULT)
		return serve_fault(fill, number, message.arg.pagefault.address, ret_step);
	/* The fault was taken back by a signal between the look and the reading. */
	fill->early = message;
	fill->early_memory = number;
	fill->has_early = true;
	*ret_step = LAZY_EVENT;
	return lazy_tell(fill, number, &message);
}

static bool is_readable(const struct lazy_fill *fill, size_t number)
{
	struct epoll_event events[POLLED_AT_ONCE];
	int ready = epoll_wait(fill->poll, events, POLLED_AT_ONCE, 0);

	for (int i = 0; i < ready; i++)
		if (events[i].data.u64 == number)
			return true;
	return false;
}

/* The memory's userfaultfd is readable. */
static status *serve_memory(struct lazy_fill *fill, size_t number, enum lazy_step *ret_step)
{
	unsigned looks = 0;

	for (unsigned served = 0; served < SERVED_AT_ONCE && *ret_step == LAZY_MORE;) {
		if (fill->memories[number].uffd < 0)
			return NULL;
		if (!has_fault(&fill->memories[number])) {
			if (!is_readable(fill, number))
				return NULL;
			if (++looks == LOOKS)
				*ret_step = LAZY_EVENT;
			continue;
		}
		bool got = false;
		status *st = read_fault(fill, number, &got, ret_step);
		if (st != NULL)
			return st;
		served++;
	}
	return NULL;
}

/* Those whose page has come. What cannot be filled yet is waited for again. */
static status *serve_awaited(struct lazy_fill *fill, enum lazy_step *ret_step)
{
	struct lazy_awaited *list = TAKE(fill->awaited);
	size_t count = fill->awaited_count;
	status *st = NULL;

	fill->awaited_count = fill->awaited_room = 0;
	for (size_t i = 0; st == NULL && i < count; i++) {
		if (fill->memories[list[i].memory].uffd < 0)
			continue;
		bool is_served = *ret_step == LAZY_MORE && lazy_is_there(fill, &list[i]);
		if (is_served)
			st = serve_fault(fill, list[i].memory, list[i].address, ret_step);
		if (st == NULL && (!is_served || *ret_step != LAZY_MORE))
			st = lazy_await(fill, list[i].memory, list[i].address);
	}
	free(list);
	return st;
}

status *lazy_fill_serve(struct lazy_fill *fill, enum lazy_step *ret_step)
{
	struct epoll_event events[POLLED_AT_ONCE];
	int ready = epoll_wait(fill->poll, events, POLLED_AT_ONCE, 0);

	*ret_step = LAZY_MORE;
	status *st = fill->awaited_count > 0 ? serve_awaited(fill, ret_step) : NULL;
	for (int i = 0; st == NULL && i < ready && *ret_step == LAZY_MORE; i++)
		st = serve_memory(fill, (size_t)events[i].data.u64, ret_step);
	return st;
}

/* *ret_any: there was something to fill. */
static status *fill_some_of(struct lazy_fill *fill, struct lazy_memory *memory, bool *ret_any,
			    enum lazy_step *ret_step)
{
	if (memory->filled == NULL) {
		struct lazy_rest part = {0};
		*ret_any = lazy_moved_next(fill, memory, &part);
		return *ret_any ? lazy_moved_put(fill, memory, &part, ret_step) : NULL;
	}
	struct lazy_piece piece = {0};
	*ret_any = lazy_order_next(fill, memory, &piece);
	return *ret_any ? fill_here(fill, memory, piece.run, piece.page, piece.pages, ret_step)
			: NULL;
}

static bool is_complete(const struct lazy_memory *memory)
{
	return memory->uffd < 0 || (memory->filled != NULL ? memory->next == memory->task->pages
							   : memory->rest_count == 0);
}

status *lazy_fill_some(struct lazy_fill *fill, enum lazy_step *ret_step)
{
	struct lazy_memory *newest = NULL;
	struct lazy_piece piece = {0};
	bool is_whole = true;

	*ret_step = LAZY_MORE;
	if (lazy_order_newest(fill, &newest, &piece))
		return fill_here(fill, newest, piece.run, piece.page, piece.pages, ret_step);
	for (size_t i = fill->current; i < fill->memory_count; i++) {
		struct lazy_memory *memory = &fill->memories[i];
		bool any = false;
		status *st = memory->uffd >= 0 ? fill_some_of(fill, memory, &any, ret_step) : NULL;
		if (st != NULL || any)
			return st;
		is_whole = is_whole && is_complete(memory);
		if (is_whole)
			fill->current = i + 1;
	}
	*ret_step = is_whole ? LAZY_DONE : LAZY_WAIT;
	return NULL;
}
