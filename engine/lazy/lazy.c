/* SPDX-License-Identifier: Apache-2.0 */
/* One thread does all that touches the fill. Others see the state, and give two orders: to begin
 * (lazy_restored), and to let the tree run (lazy_let_run). */
#include "engine/lazy/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "engine/lazy/lazy_guard.h"
#include "engine/lazy/lazy_shared.h"
#include "engine/lazy/lazy_socket.h"
#include "proto/clock.h"

enum { GROUP_MS = 10000 };

struct lazy {
	char tree_group[CGROUP_PATH], images[FILES_PATH], work_dir[FILES_PATH], marker[FILES_PATH];
	struct lazy_guard guard;
	struct lazy_index *index;
	struct lazy_shared *shared;
	struct lazy_map map;
	struct late_store *late; /* NULL: nothing is at the source */
	pthread_t thread;
	bool has_thread;
	int wake; /* eventfd: an order */

	/* The thread's: */
	struct lazy_fill *fill;
	int listening, criu;
	bool is_guarded;
	bool has_nothing; /* to fill, until pages come */
	bool is_lost;	  /* they do not come any more */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* By the lock: */
	enum lazy_state state;
	status *error;
	bool all_came; /* CRIU said that it is done */
	bool may_fill;
	bool may_run;
	bool is_thawed;
	bool is_holding; /* the thread has frozen the tree, or is about to */
	atomic_bool is_stopping;
	double begun_ms;
	struct lazy_report report;
};

/* --- new, free --- */

status *lazy_probe(void)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
					     UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP};
	scoped(fd) int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0)
		return status_errnof(errno, "this kernel has no userfaultfd with events");
	return NULL;
}

status *lazy_new(const struct lazy_options *options, struct lazy **ret_lazy)
{
	scoped(lazy) struct lazy *lazy = calloc(1, sizeof(*lazy));

	if (lazy == NULL)
		return status_errnof(ENOMEM, "lazy restore");
	lazy->listening = lazy->criu = lazy->guard.socket = -1;
	lazy->guard.child.pidfd = -1;
	(void)pthread_mutex_init(&lazy->lock, NULL);
	clock_cond_init(&lazy->changed);
	(void)snprintf(lazy->tree_group, sizeof(lazy->tree_group), "%s", options->tree_group);
	(void)snprintf(lazy->images, sizeof(lazy->images), "%s", options->images);
	(void)snprintf(lazy->work_dir, sizeof(lazy->work_dir), "%s", options->work_dir);
	(void)snprintf(lazy->marker, sizeof(lazy->marker), "%s", options->marker);
	lazy->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (lazy->wake < 0)
		return status_errnof(errno, "lazy restore");
	status *st = lazy_index_new(options->images, &lazy->index);
	if (st == NULL)
		st = lazy_guard_start(options->program, options->guard_group, &lazy->guard);
	if (st == NULL)
		*ret_lazy = TAKE(lazy);
	return st;
}

static void order(struct lazy *lazy)
{
	(void)eventfd_write(lazy->wake, 1);
}

static void stop(struct lazy *lazy)
{
	(void)pthread_mutex_lock(&lazy->lock);
	atomic_store(&lazy->is_stopping, true);
	(void)pthread_mutex_unlock(&lazy->lock);
	order(lazy);
	if (lazy->has_thread)
		(void)pthread_join(lazy->thread, NULL);
	lazy->has_thread = false;
}

void lazy_abandon(struct lazy *lazy)
{
	if (lazy == NULL)
		return;
	stop(lazy);
	lazy->state = LAZY_STATE_IDLE;
	lazy_free(lazy);
}

void lazy_free(struct lazy *lazy)
{
	if (lazy == NULL)
		return;
	stop(lazy);
	bool is_left = lazy->state == LAZY_STATE_FILLING;
	if (lazy->guard.socket >= 0)
		lazy_guard_leave(&lazy->guard, !is_left);
	close_if_open(lazy->guard.child.pidfd);
	lazy_fill_free(lazy->fill);
	late_store_free(lazy->late);
	lazy_shared_free(lazy->shared);
	lazy_index_free(lazy->index);
	close_if_open(lazy->listening);
	close_if_open(lazy->criu);
	close_if_open(lazy->wake);
	status_free(lazy->error);
	(void)pthread_cond_destroy(&lazy->changed);
	(void)pthread_mutex_destroy(&lazy->lock);
	free(lazy);
}

/* --- the thread --- */

static void set_state(struct lazy *lazy, enum lazy_state state, status *error)
{
	(void)pthread_mutex_lock(&lazy->lock);
	lazy->state = state;
	lazy->error = status_first(lazy->error, error);
	if (state == LAZY_STATE_FILLED)
		lazy->report.fill_ms = clock_monotonic_fine_ms() - lazy->begun_ms;
	(void)pthread_cond_broadcast(&lazy->changed);
	(void)pthread_mutex_unlock(&lazy->lock);
}

/* A tree that runs, or could, dies while its memory is still held. */
static void break_off(struct lazy *lazy, status *why)
{
	(void)pthread_mutex_lock(&lazy->lock);
	bool may_run = lazy->may_run;
	lazy->is_holding = true; /* nobody thaws it any more */
	(void)pthread_mutex_unlock(&lazy->lock);
	if (lazy->shared != NULL)
		atomic_store(&lazy->shared->phase, LAZY_BROKEN);
	/* Known before it dies: it is not to look as if it had ended by itself. */
	set_state(lazy, LAZY_STATE_BROKEN, why);
	if (!may_run)
		return;
	status_free(cgroup_freeze(lazy->tree_group, 0));
	status_free(cgroup_kill(lazy->tree_group, GROUP_MS));
}

static void note_counts(struct lazy *lazy)
{
	struct lazy_counts counts;

	lazy_fill_counts(lazy->fill, &counts);
	(void)pthread_mutex_lock(&lazy->lock);
	lazy->report.pages = counts.pages;
	lazy->report.faults = counts.faults;
	(void)pthread_mutex_unlock(&lazy->lock);
}

/* The tree is whole, or both hold what it lacks. A group that does not thaw can be thawed by hand.
 */
static void thaw_if_wanted(struct lazy *lazy)
{
	(void)pthread_mutex_lock(&lazy->lock);
	lazy->is_holding = lazy->is_lost;
	if (lazy->may_run && !lazy->is_thawed && !lazy->is_lost)
		status_free(cgroup_thaw(lazy->tree_group, GROUP_MS));
	lazy->is_thawed = lazy->may_run && !lazy->is_lost;
	(void)pthread_cond_broadcast(&lazy->changed);
	(void)pthread_mutex_unlock(&lazy->lock);
}

/* Every page is in its place, and both let the memory go: what the tree waits for from now on is
 * the kernel's. */
static status *finish(struct lazy *lazy)
{
	note_counts(lazy);
	if (unlink(lazy->marker) != 0 && errno != ENOENT)
		return status_errnof(errno, "cannot remove %s", lazy->marker);
	atomic_store(&lazy->shared->phase, LAZY_FILLED);
	lazy_fill_free(TAKE(lazy->fill));
	lazy_guard_leave(&lazy->guard, true);
	return NULL;
}

/* Not thawed before thaw_if_wanted. Whether it ran. */
static bool hold(struct lazy *lazy)
{
	(void)pthread_mutex_lock(&lazy->lock);
	lazy->is_holding = true;
	bool has_run = lazy->is_thawed;
	lazy->is_thawed = false;
	(void)pthread_cond_broadcast(&lazy->changed);
	(void)pthread_mutex_unlock(&lazy->lock);
	if (has_run)
		status_free(cgroup_freeze(lazy->tree_group, 0));
	return has_run;
}

/* Without a guard, or with events to be read: not while it runs. */
static status *complete(struct lazy *lazy)
{
	bool has_run = hold(lazy);

	(void)pthread_mutex_lock(&lazy->lock);
	lazy->report.was_frozen = lazy->report.was_frozen || has_run;
	(void)pthread_mutex_unlock(&lazy->lock);
	atomic_store(&lazy->shared->phase, LAZY_SETTLING);
	status *st = lazy_fill_complete(lazy->fill, has_run ? lazy->tree_group : NULL);
	if (st == NULL)
		st = finish(lazy);
	if (st != NULL)
		return st;
	thaw_if_wanted(lazy);
	return NULL;
}

/* Events to be read while pages are still at the source: they may be long in coming. Both holders
 * know of each event, so the tree can go on, which the next turn sees to if the guard lives. */
static status *settle(struct lazy *lazy)
{
	bool has_run = hold(lazy);

	atomic_store(&lazy->shared->phase, LAZY_SETTLING);
	status *st = lazy_fill_settle(lazy->fill, has_run ? lazy->tree_group : NULL);
	if (st != NULL)
		return st;
	atomic_store(&lazy->shared->phase, LAZY_FILLING);
	return NULL;
}

/* The source has said that it has lost what is missing: nobody but an operator ends the tree. */
static void hold_if_lost(struct lazy *lazy)
{
	if (lazy->is_lost || !atomic_load(&lazy->shared->is_late_lost) ||
	    lazy_map_missing(&lazy->map) == 0)
		return;
	(void)hold(lazy);
	(void)pthread_mutex_lock(&lazy->lock);
	lazy->is_lost = true;
	(void)pthread_mutex_unlock(&lazy->lock);
}

static status *hear_criu(struct lazy *lazy)
{
	struct lazy_said said;
	status *st = lazy_socket_hear(lazy->criu, &said);

	if (st != NULL)
		return st;
	if (said.is_end) {
		(void)close(TAKE_FD(lazy->criu));
		(void)pthread_mutex_lock(&lazy->lock);
		lazy->all_came = lazy_fill_is_whole(lazy->fill);
		(void)pthread_cond_broadcast(&lazy->changed);
		(void)pthread_mutex_unlock(&lazy->lock);
		return NULL;
	}
	if (said.uffd < 0)
		return NULL;
	scoped(fd) int uffd = said.uffd;
	if (lazy->is_guarded)
		st = lazy_guard_hold(&lazy->guard, said.pid, uffd);
	return st == NULL ? lazy_fill_add(lazy->fill, said.pid, TAKE_FD(uffd)) : st;
}

static status *accept_criu(struct lazy *lazy)
{
	lazy->criu = accept4(lazy->listening, NULL, NULL, SOCK_CLOEXEC);
	if (lazy->criu < 0)
		return errno == EINTR ? NULL : status_errnof(errno, "a lazy restore's socket");
	(void)close(TAKE_FD(lazy->listening));
	return NULL;
}

/* Waits for something to do; at once back when there is filling to be done. */
static status *wait_for_work(struct lazy *lazy, bool may_fill, bool *ret_lost)
{
	struct pollfd fds[] = {
	    {.fd = lazy_fill_fd(lazy->fill), .events = POLLIN},
	    {.fd = lazy->wake, .events = POLLIN},
	    {.fd = lazy->is_guarded ? lazy->guard.socket : -1, .events = POLLIN},
	    {.fd = lazy->criu >= 0 ? lazy->criu : lazy->listening, .events = POLLIN},
	};
	eventfd_t count;

	if (poll(fds, array_len(fds), may_fill && !lazy->has_nothing ? 0 : -1) < 0 &&
	    errno != EINTR)
		return status_errnof(errno, "lazy restore");
	if (fds[1].revents != 0)
		(void)eventfd_read(lazy->wake, &count);
	*ret_lost = fds[2].revents != 0;
	if (fds[3].revents == 0)
		return NULL;
	return lazy->criu >= 0 ? hear_criu(lazy) : accept_criu(lazy);
}

/* One turn; *ret_done: filled. */
static status *work(struct lazy *lazy, bool may_fill, bool *ret_done)
{
	enum lazy_step step = LAZY_MORE;
	bool is_lost = false;
	status *st = wait_for_work(lazy, may_fill, &is_lost);

	if (st == NULL)
		st = lazy_fill_serve(lazy->fill, &step);
	if (st == NULL && step == LAZY_MORE && may_fill)
		st = lazy_fill_some(lazy->fill, &step);
	if (st != NULL)
		return st;
	lazy->has_nothing = step == LAZY_WAIT;
	lazy->is_guarded = lazy->is_guarded && !is_lost;
	hold_if_lost(lazy);
	if (step == LAZY_EVENT && may_fill && lazy->is_guarded && lazy_map_missing(&lazy->map) > 0)
		return settle(lazy);
	if (step == LAZY_EVENT && !may_fill)
		return status_errorf(STATUS_DATA_LOSS,
				     "the tree changes its mappings while it is restored");
	*ret_done = step == LAZY_DONE;
	if (step == LAZY_DONE)
		return finish(lazy);
	if (step != LAZY_EVENT && lazy->is_guarded)
		thaw_if_wanted(lazy);
	if (step != LAZY_EVENT && (lazy->is_guarded || !may_fill))
		return NULL;
	*ret_done = true;
	return complete(lazy);
}

static void *run(void *self)
{
	struct lazy *lazy = self;
	bool is_done = false;

	for (;;) {
		(void)pthread_mutex_lock(&lazy->lock);
		bool may_fill = lazy->may_fill, is_stopping = atomic_load(&lazy->is_stopping);
		(void)pthread_mutex_unlock(&lazy->lock);
		if (is_stopping)
			return NULL;
		status *st = work(lazy, may_fill, &is_done);
		if (status_code_of(st) == STATUS_CANCELLED && atomic_load(&lazy->is_stopping)) {
			status_free(st);
			return NULL;
		}
		if (st != NULL) {
			break_off(lazy, status_wrapf(st, "lazy restore"));
			return NULL;
		}
		if (is_done) {
			set_state(lazy, LAZY_STATE_FILLED, NULL);
			return NULL;
		}
	}
}

/* --- before the restore --- */

status *lazy_add_round(struct lazy *lazy, unsigned round)
{
	return lazy_index_add(lazy->index, round);
}

static status *tell_guard(void *self, size_t memory, const struct uffd_msg *event)
{
	struct lazy *lazy = self;
	scoped(status) status *st =
	    lazy->is_guarded ? lazy_guard_tell(&lazy->guard, memory, event) : NULL;

	/* It has died: this process is alone, and does not let the tree run before all is filled.
	 */
	lazy->is_guarded = lazy->is_guarded && st == NULL;
	return NULL;
}

static void want(void *self, const struct late_range *range)
{
	struct lazy *lazy = self;

	late_store_want(lazy->late, range);
}

static void tell_arrival(void *self)
{
	order(self);
}

static status *share(struct lazy *lazy, const struct lazy_map *map)
{
	scoped(fd) int fd = -1;
	status *st = lazy_shared_new(map, &fd, &lazy->shared);

	if (st != NULL)
		return st;
	struct lazy_shared *shared = lazy->shared;
	(void)snprintf(shared->group, sizeof(shared->group), "%s", lazy->tree_group);
	(void)snprintf(shared->images, sizeof(shared->images), "%s", lazy->images);
	(void)snprintf(shared->marker, sizeof(shared->marker), "%s", lazy->marker);
	lazy_shared_map(shared, &lazy->map);
	st = lazy_fill_new(&lazy->map, lazy->images, &lazy->fill);
	if (st != NULL)
		return st;
	if (map->late_pages > 0)
		st = late_store_new(shared, &lazy->late);
	if (st != NULL)
		return st;
	if (lazy->late != NULL)
		late_store_on_arrival(lazy->late, tell_arrival, lazy);
	const struct lazy_watch watch = {.event = tell_guard,
					 .self = lazy,
					 .is_reading = &shared->is_reading,
					 .wanted = lazy->late != NULL ? want : NULL,
					 .is_stopping = &lazy->is_stopping};
	lazy_fill_watch(lazy->fill, &watch);
	return lazy_guard_share(&lazy->guard, fd);
}

static status *start(struct lazy *lazy)
{
	status *st = files_write(lazy->marker, "", 0);

	if (st == NULL)
		st = lazy_socket_listen(lazy->work_dir, &lazy->listening);
	if (st != NULL)
		return st;
	lazy->is_guarded = true;
	lazy->state = LAZY_STATE_FILLING;
	int failed = pthread_create(&lazy->thread, NULL, run, lazy);
	lazy->has_thread = failed == 0;
	return failed == 0 ? NULL : status_errnof(failed, "cannot start a thread");
}

/* Before CRIU begins: what it leaves out is held, and served, from its first word on. */
static status *begin_with(struct lazy *lazy, const struct lazy_map *map)
{
	status *st = share(lazy, map);

	if (st == NULL)
		st = lazy_index_mark(lazy->index);
	return st == NULL ? start(lazy) : st;
}

status *lazy_begin(struct lazy *lazy, uint64_t least, uint64_t most, bool *ret_is_lazy,
		   uint64_t *ret_pages)
{
	struct lazy_map map = {0};
	status *st = lazy_index_finish(lazy->index, &map);

	if (st != NULL)
		return st;
	*ret_pages = map.pages;
	*ret_is_lazy = map.late_pages > 0 || (map.pages >= least && map.pages <= most);
	if (*ret_is_lazy)
		st = begin_with(lazy, &map);
	lazy_map_free(&map);
	return st;
}

struct late_store *lazy_late(struct lazy *lazy)
{
	return lazy->late;
}

/* --- orders --- */

status *lazy_restored(struct lazy *lazy)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&lazy->lock);
	/* CRIU said so before it asked for us to freeze the tree: only our thread may lag. */
	struct timespec until = clock_at(clock_monotonic_ms() + GROUP_MS);
	int failed = 0;
	while (!lazy->all_came && lazy->error == NULL && failed == 0)
		failed = pthread_cond_timedwait(&lazy->changed, &lazy->lock, &until);
	if (lazy->error != NULL)
		st = status_copy(lazy->error);
	else if (!lazy->all_came)
		st = status_errorf(STATUS_DATA_LOSS, "not all memories of the tree came");
	if (st == NULL) {
		atomic_store(&lazy->shared->phase, LAZY_FILLING);
		lazy->may_fill = true;
		lazy->begun_ms = clock_monotonic_fine_ms();
	}
	(void)pthread_mutex_unlock(&lazy->lock);
	order(lazy);
	return st;
}

/* Only the thread knows whether the guard is still there, without which the tree is filled first.
 * When it has nothing more to do, the tree is whole. With the lock. */
static status *await_thaw(struct lazy *lazy)
{
	struct timespec until = clock_at(clock_monotonic_ms() + GROUP_MS);
	int failed = 0;

	while (lazy->state == LAZY_STATE_FILLING && !lazy->is_thawed && !lazy->is_holding &&
	       failed == 0)
		failed = pthread_cond_timedwait(&lazy->changed, &lazy->lock, &until);
	if (failed != 0)
		return status_errorf(STATUS_DEADLINE_EXCEEDED, "its memory's thread hangs");
	if (lazy->state != LAZY_STATE_FILLED || lazy->is_thawed)
		return NULL;
	lazy->is_thawed = true;
	return cgroup_thaw(lazy->tree_group, GROUP_MS);
}

status *lazy_let_run(struct lazy *lazy)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&lazy->lock);
	if (lazy->state == LAZY_STATE_BROKEN)
		st = status_errorf(STATUS_DATA_LOSS, "its memory cannot be filled");
	else {
		lazy->may_run = true;
		atomic_store(&lazy->shared->may_run, true);
		order(lazy);
		st = await_thaw(lazy);
	}
	(void)pthread_mutex_unlock(&lazy->lock);
	return st;
}

enum lazy_state lazy_state_of(struct lazy *lazy)
{
	(void)pthread_mutex_lock(&lazy->lock);
	enum lazy_state state = lazy->state;
	(void)pthread_mutex_unlock(&lazy->lock);
	return state;
}

status *lazy_error(struct lazy *lazy)
{
	(void)pthread_mutex_lock(&lazy->lock);
	status *error = lazy->error != NULL ? status_copy(lazy->error) : NULL;
	(void)pthread_mutex_unlock(&lazy->lock);
	return error;
}

void lazy_report_of(struct lazy *lazy, struct lazy_report *ret_report)
{
	(void)pthread_mutex_lock(&lazy->lock);
	*ret_report = lazy->report;
	(void)pthread_mutex_unlock(&lazy->lock);
}
