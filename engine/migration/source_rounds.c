/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds of memory: pre-copy, and what the final dump shares with it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "engine/criu/frames.h"
#include "engine/criu/inventory.h"
#include "engine/criu/live_pages.h"
#include "engine/criu/stats.h"
#include "engine/host/files.h"
#include "engine/host/hold.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/migration/source_internal.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"

enum { HOLD_MS = 200 };

static void show_round(void *self, Haul__V1__Migration *view)
{
	const struct round_view *round = self;

	Haul__V1__Round **grown = realloc(view->rounds, (view->n_rounds + 1) * sizeof(*grown));
	Haul__V1__Round *shown = malloc(sizeof(*shown));
	if (grown == NULL || shown == NULL)
		abort();
	haul__v1__round__init(shown);
	shown->pages_sent = round->memory.pages_sent;
	shown->pages_skipped = round->memory.pages_skipped;
	shown->pages_same = round->memory.pages_same;
	shown->pages_zero = round->memory.pages_zero;
	shown->pages_late = round->memory.pages_late;
	shown->bytes = round->memory.bytes;
	shown->duration_ms = round->duration_ms;
	shown->frozen_ms = round->frozen_ms;
	grown[view->n_rounds++] = shown;
	view->rounds = grown;
	if (round->duration_ms > 0)
		view->rate_bytes_per_s =
		    (uint64_t)((double)round->memory.bytes * 1000 / round->duration_ms);
	view->bytes_on_wire += round->memory.bytes;
	if (round->predicted_ms > 0)
		view->predicted_downtime_ms = round->predicted_ms;
}

bool source_is_tracked(const struct source *source)
{
	return source->tracking == TRACKING_SOFT_DIRTY && !source->is_untracked;
}

status *source_begin_round(struct source *source, bool is_last, int live_fd,
			   struct live_pages *live, char ret_dir[FILES_PATH])
{
	Haul__V1__BeginRoundRequest request = HAUL__V1__BEGIN_ROUND_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	char below[32];

	source->round++;
	(void)snprintf(below, sizeof(below), "images/%u", source->round);
	core_path(source->core, "out", source->id, below, ret_dir);
	request.id = source->id;
	request.round = source->round;
	request.last = is_last;
	status *st = files_make_directory(ret_dir);
	double asked = clock_monotonic_fine_ms();
	if (st == NULL)
		st = source_call(source, "BeginRound", &request.base,
				 source->core->config.call_timeout_ms, &response);
	if (st == NULL)
		source_note_call(source, clock_monotonic_fine_ms() - asked);
	const struct memory_feed feed = {
	    .live_fd = live_fd,
	    .read_live = live_pages_read,
	    .live = live,
	    .is_criu = is_last || (source->tracking == TRACKING_SOFT_DIRTY && !source->is_live),
	    .is_tracked = source_is_tracked(source),
	    .frames = source->frames,
	    .was_named = source->mode == MODE_POST_COPY,
	    .is_last = is_last,
	    .late = source_late_pages(source, is_last),
	};
	return st == NULL ? memory_sender_begin(source->sender, source->round, &feed) : st;
}

/* Both sides must have counted the same. */
status *source_end_round(struct source *source, const struct memory_round *sent)
{
	Haul__V1__EndRoundRequest request = HAUL__V1__END_ROUND_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = source->id;
	request.round = source->round;
	status *st =
	    source_call(source, "EndRound", &request.base, source->limits.long_ms, &response);
	if (st != NULL)
		return st;
	const Haul__V1__EndRoundResponse *there = (const Haul__V1__EndRoundResponse *)response;
	if (there->pages != sent->pages_sent || there->digest != sent->digest)
		return status_errorf(
		    STATUS_DATA_LOSS,
		    "round %u: %llu pages left, %llu arrived, or their digests differ",
		    source->round, (unsigned long long)sent->pages_sent,
		    (unsigned long long)there->pages);
	return NULL;
}

void source_fill_dump(const struct source *source, const char *dir, struct criu_dump *dump,
		      struct source_dump_paths *paths)
{
	bool is_tracked = source->tracking == TRACKING_SOFT_DIRTY;

	(void)snprintf(paths->log, sizeof(paths->log), "dump-%u.log", source->round);
	(void)snprintf(paths->parent, sizeof(paths->parent), "../%u", source->round - 1);
	core_path(source->core, "out", source->id, "work", paths->work);
	*dump = (struct criu_dump){
	    .pid = source->pid,
	    .images_dir = dir,
	    .parent = source_is_tracked(source) && source->round > 1 ? paths->parent : NULL,
	    .work_dir = paths->work,
	    .log_file = paths->log,
	    .shell_job = source->options.shell_job,
	    .tcp_close = source->options.tcp == HAUL__V1__TCP_MODE__TCP_CLOSE,
	    .track_mem = is_tracked,
	    .limits = &source->limits,
	};
}

void source_show_round(struct source *source, struct round_view *round)
{
	registry_change(source->core->registry, source->id, show_round, round);
}

/* --- a round that is read live --- */

static status *reset_one(struct source *source, pid_t pid)
{
	pid_t task = 0;
	status *st = proc_innermost_pid(pid, &task);

	if (st == NULL)
		st = frames_look(source->frames, (uint64_t)task, source->round + 1, false);
	if (st == NULL)
		st = proc_reset_dirty(pid);
	if (status_code_of(st) == STATUS_NOT_FOUND) /* it has ended: nothing of it is sent */
		status_free(TAKE(st));
	return st;
}

static status *reset_each(struct source *source)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = proc_tree(source->pid, &pids, &count);

	for (size_t i = 0; i < count && st == NULL; i++)
		st = reset_one(source, pids[i]);
	free(pids);
	return st;
}

/* What is written from now on is dirty to CRIU's next dump. The tree stands still meanwhile: a
 * system call that reads from a disk past the page cache writes to memory without touching the
 * bits, and is only noticed by the kernel (which leaves such a page dirty) when it has pinned the
 * page before. */
static status *reset_dirty(struct source *source, double *ret_frozen_ms)
{
	scoped(hold) struct hold *hold = NULL;
	status *st = criu_uptime_now(&source->reset_uptime_us);
	double begun = clock_monotonic_fine_ms();

	if (st == NULL)
		st = hold_tree(source->pid, HOLD_MS, &hold);
	if (st == NULL)
		st = reset_each(source);
	hold_release(TAKE(hold));
	*ret_frozen_ms = clock_monotonic_fine_ms() - begun;
	return st;
}

/* Where no dirty bits tell what is there (at first, and after a round that was cut), CRIU would
 * stop the tree for as long as it takes to get hold of all its memory. So the bits are reset and
 * the memory is read here, while the tree runs; CRIU's next round sends what was written since, and
 * names what would have been sent by it and was not found here, so there must be one before the
 * freeze. */
static bool begin_live(struct source *source, double *ret_frozen_ms)
{
	if (source->tracking != TRACKING_SOFT_DIRTY || source->mode == MODE_POST_COPY ||
	    (source->round != 0 && !source->is_untracked) ||
	    source->round + 2 > source_most_rounds(source))
		return false;
	scoped(status) status *st = reset_dirty(source, ret_frozen_ms);
	if (st == NULL)
		return true;
	/* What CRIU will reset instead is noted then. */
	frames_forget(source->frames);
	log_status(LOG_LEVEL_INFO, source->id, "its memory is not read while it runs", st);
	return false;
}

/* --- a round of pre-copy --- */

/* Offers the sender the tree's memory while it runs. */
static status *send_live(struct source *source, const char *dir, struct live_pages *live, int fd)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = source->is_live ? criu_inventory_write(dir, source->reset_uptime_us) : NULL;

	if (st == NULL)
		st = proc_tree(source->pid, &pids, &count);
	if (st == NULL)
		st = live_pages_send(live, fd, pids, count);
	free(pids);
	return st;
}

/* What CRIU tracks, after what is read live. */
static status *send_tracked(struct source *source, const char *dir, double *ret_frozen_ms)
{
	struct source_dump_paths paths;
	struct criu_dump dump;

	double frozen_ms = 0;

	source_fill_dump(source, dir, &dump, &paths);
	status *st = source_blame_disk(source, criu_pre_dump(source->swrk, &dump));
	if (st != NULL)
		swrk_shut_memory(source->swrk); /* nothing more will come */
	else
		criu_stats_frozen_ms(paths.work, &frozen_ms);
	*ret_frozen_ms += frozen_ms; /* to a hold that has failed */
	return st;
}

/* Moves one round's memory: what is read while the tree runs (all of it where content is compared
 * or CRIU does not make this round, else what CRIU does not pre-dump) is offered at fds[0], and
 * read by the sender, who hears of it at fds[1]. */
static status *move_memory(struct source *source, const int fds[2], struct round_view *shown)
{
	char dir[FILES_PATH];
	const struct live_options options = {
	    .is_private = source->is_live || source->tracking == TRACKING_HASH,
	    .is_shared = true,
	    .frames = source->is_live ? source->frames : NULL,
	};
	scoped(live_pages) struct live_pages *live = NULL;
	status *st = live_pages_new(&options, &live);

	if (st == NULL)
		st = source_begin_round(source, false, fds[1], live, dir);
	if (st != NULL)
		return st;
	scoped(status) status *unread = send_live(source, dir, live, fds[0]);
	if (unread != NULL)
		(void)shutdown(fds[0], SHUT_RDWR);
	else if (source->tracking == TRACKING_SOFT_DIRTY && !source->is_live)
		st = send_tracked(source, dir, &shown->frozen_ms);
	scoped(status) status *sent =
	    memory_sender_end(source->sender, source->limits.long_ms, &shown->memory);
	/* The reader mostly fails because the sender did, and says ABORTED then. */
	bool is_readers = unread != NULL && status_code_of(unread) != STATUS_ABORTED;
	if (st == NULL)
		return sent != NULL && !is_readers ? TAKE(sent) : TAKE(unread);
	return sent != NULL && status_code_of(sent) != STATUS_CANCELLED
		   ? status_detailf(st, "cause", "%s", status_message(sent))
		   : st;
}

status *source_one_round(struct source *source)
{
	struct round_view shown = {0};
	int live[2];
	double begun = clock_monotonic_fine_ms();

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, live) != 0)
		return status_errnof(errno, "sockets for a round of memory");
	source->is_live = begin_live(source, &shown.frozen_ms);
	status *st = move_memory(source, live, &shown);
	(void)close(live[0]);
	(void)close(live[1]);
	if (st == NULL)
		st = source_end_round(source, &shown.memory);
	if (st != NULL)
		return source_reconnect(source,
					status_wrapf(st, "pre-copy round %u", source->round),
					begun);
	source->is_untracked = false;
	source->last_sent = shown.memory.pages_sent;
	source->last_same = shown.memory.pages_same;
	shown.duration_ms = clock_monotonic_fine_ms() - begun;
	source->rounds[source->round - 1] = (struct converge_round){
	    .pages = shown.memory.pages_sent,
	    .bytes = shown.memory.bytes,
	    .begun_ms = begun,
	    .ended_ms = begun + shown.duration_ms,
	    .blocked_ms = shown.memory.blocked_ms,
	};
	shown.predicted_ms = source_predict(source).downtime_ms;
	source_show_round(source, &shown);
	return NULL;
}
