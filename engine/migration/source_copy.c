/* SPDX-License-Identifier: Apache-2.0 */
/* Stages up to the fenced, wholly copied tree. Every error here lets the tree run on. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "engine/criu/mend.h"
#include "engine/criu/stats.h"
#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/migration/keeper.h"
#include "engine/migration/source_internal.h"
#include "engine/migration/throttle.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/reason.h"
#include "rpc/seal_choice.h"

enum {
	CPUINFO_LIMIT = 64 * 1024,
	MIN_FREEZE_PAGES = 1,
	IMAGES_ROOM =
	    4 * 1024 * 1024, /* what a dump without its pages may take, and a part of the memory */
	IMAGES_MEMORY_PART = 256, /* for the lists of pages */
	ROOM_LEFT = 1024 * 1024,
	COST_MOST_MS = 3600 * 1000, /* of a restore's part; more is no measurement */
	FILL_RETRY_MS = 1000,
};

/* --- preflight --- */

static status *agree_on_codecs(struct source *source, const Haul__V1__HelloResponse *there)
{
	unsigned wanted = source->codecs.set;

	source->codecs.set &= there->batch_codecs | 1 << BATCH_RAW;
	if (source->codecs.set == wanted || wanted == BATCH_CODECS_ALL)
		return NULL;
	return status_detailf(
	    status_errorf(STATUS_FAILED_PRECONDITION,
			  "destination %s cannot unpack what --compression asks for", source->to),
	    "next", "use --compression auto, or a newer haul there");
}

static status *agree_on_late(const struct source *source, const Haul__V1__HelloResponse *there)
{
	if (!source->may_be_late || there->late_pages)
		return NULL;
	return status_detailf(
	    status_errorf(STATUS_FAILED_PRECONDITION,
			  "destination %s cannot fetch memory after the commit: %s", source->to,
			  there->lazy_trouble[0] != '\0' ? there->lazy_trouble
							 : "it does not know how"),
	    "next", "use --mode pre-copy or stop-copy, and another --on-timeout than post-copy");
}

static status *agree_on_restore(struct source *source, const Haul__V1__HelloResponse *there)
{
	if (there->lazy_restore)
		return NULL;
	if (source->restore_mode == HAUL__V1__RESTORE_MODE__RESTORE_LAZY)
		return status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION,
				  "destination %s cannot restore lazily, which --restore asks for: "
				  "%s",
				  source->to,
				  there->lazy_trouble[0] != '\0' ? there->lazy_trouble
								 : "it does not know how"),
		    "next", "use --restore auto or eager");
	source->restore_mode = HAUL__V1__RESTORE_MODE__RESTORE_EAGER;
	return NULL;
}

/* CRIU does not see pages that are not in place yet. */
static status *check_filled(const struct source *source)
{
	char own[CGROUP_PATH], guard[CGROUP_PATH], in[CGROUP_PATH];

	scoped(status) status *st = cgroup_of(source->pid, source->core->cgroup_mount, own);
	cgroup_path(source->core->cgroups, "in", "", in);
	if (st != NULL || strncmp(own, in, strlen(in)) != 0)
		return NULL;
	cgroup_path(source->core->cgroups, LAZY_GROUP, own + strlen(in), guard);
	if (!cgroup_exists(guard))
		return NULL;
	return status_retry_after(
	    status_detailf(status_errorf(STATUS_UNAVAILABLE,
					 "the workload came here a moment ago, and not all of its "
					 "memory is in place yet"),
			   "next", "migrate it again in a few seconds"),
	    FILL_RETRY_MS);
}

static status *check_destination(struct source *source)
{
	Haul__V1__HelloRequest request = HAUL__V1__HELLO_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	struct utsname here;

	request.protocol = PEER_PROTOCOL;
	request.node = (char *)source->core->config.node;
	request.version = (char *)HAUL_VERSION;
	status *st = source_call(source, "Hello", &request.base,
				 source->core->config.call_timeout_ms, &response);
	if (st != NULL)
		return status_wrapf(st, "destination %s", source->to);
	const Haul__V1__HelloResponse *there = (const Haul__V1__HelloResponse *)response;
	(void)uname(&here);
	if (there->protocol != PEER_PROTOCOL)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "destination %s speaks protocol %u, this engine %d: run the same haul on both",
		    source->to, there->protocol, PEER_PROTOCOL);
	if (!there->criu_works)
		return status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION, "destination %s cannot restore: %s",
				  source->to, there->criu_trouble),
		    "next",
		    "install CRIU there (or give its hauld --criu PATH) and restart its hauld");
	if (there->criu_version / 100 < source->core->criu_version / 100)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "destination's CRIU (%u) is older than this one's (%u): its "
				     "images could not be read",
				     there->criu_version, source->core->criu_version);
	if (strcmp(there->machine, here.machine) != 0)
		return status_errorf(STATUS_FAILED_PRECONDITION, "destination is %s, this is %s",
				     there->machine, here.machine);
	if (there->page_size != (uint64_t)sysconf(_SC_PAGESIZE))
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "destination has another page size");
	status *lacking = agree_on_late(source, there);
	if (lacking == NULL)
		lacking = agree_on_restore(source, there);
	return lacking == NULL ? agree_on_codecs(source, there) : lacking;
}

status *source_open_session(struct source *source)
{
	char group[CGROUP_PATH], dir[FILES_PATH];

	core_path(source->core, "out", source->id, "work", dir);
	cgroup_path(source->core->cgroups, CRIU_GROUP_OUT, source->id, group);
	status *st = files_make_directory(dir);
	if (st == NULL)
		st = cgroup_make(group);
	struct swrk_options options = {.criu = source->core->config.criu,
				       .cgroup = group,
				       .work_dir = dir,
				       .with_memory = true};
	struct swrk *swrk = NULL;
	if (st == NULL)
		st = swrk_open(&options, &swrk);
	if (st != NULL)
		return st;
	swrk_set_deadline(swrk, source->deadline_ms);
	source_own_session(source, swrk);
	return NULL;
}

/* CRIU does not notice that a full disk cut an image: so there must be room before, and still some
 * afterwards. */
static status *check_room(const struct source *source, uint64_t needed)
{
	const char *dir = source->core->config.state_dir;
	struct statvfs fs;

	if (statvfs(dir, &fs) != 0)
		return status_errnof(errno, "cannot look at %s", dir);
	uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (fs.f_blocks == 0 || room >= needed) /* 0: in memory, without a limit */
		return NULL;
	return status_detailf(
	    status_errorf(STATUS_RESOURCE_EXHAUSTED,
			  "no room for the images: %s has %llu KiB free, %llu are needed", dir,
			  (unsigned long long)room / 1024, (unsigned long long)needed / 1024),
	    "next", "free some space there, or give hauld another --state-dir");
}

/* On a full disk CRIU's log, which tells why it failed, is cut as well. */
status *source_blame_disk(const struct source *source, status *st)
{
	status *full = check_room(source, ROOM_LEFT);

	if (full == NULL || st == NULL)
		return full != NULL ? full : st;
	full = status_detailf(full, "cause", "%s", status_message(st));
	status_free(st);
	return full;
}

/* By the kernel's dirty tracking where it has one, else by comparing content. */
static status *choose_tracking(struct source *source)
{
	bool has = false;
	status *st = criu_has_dirty_tracking(source->swrk, &source->limits, &has);

	if (st != NULL)
		return st;
	if (source->options.no_precopy || source->mode == MODE_STOP_COPY)
		source->tracking = TRACKING_NONE;
	else if (source->mode == MODE_POST_COPY && source->tracking != TRACKING_SOFT_DIRTY)
		source->tracking =
		    has && source->tracking == TRACKING_AUTO ? TRACKING_SOFT_DIRTY : TRACKING_NONE;
	else if (source->tracking == TRACKING_AUTO)
		source->tracking = has ? TRACKING_SOFT_DIRTY : TRACKING_HASH;
	if (source->tracking == TRACKING_SOFT_DIRTY && !has)
		return status_detailf(status_errorf(STATUS_FAILED_PRECONDITION,
						    "this kernel has no dirty page tracking "
						    "(soft-dirty), which --tracking asks for"),
				      "next", "use --tracking auto or hash");
	source_show_tracking(source);
	return NULL;
}

status *source_preflight(struct source *source)
{
	const struct core *core = source->core;

	if (core->criu_version == 0)
		return status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION, "%s", core->trouble), "next",
		    "install CRIU 4.1 or give hauld --criu PATH, then restart hauld");
	status *st = check_filled(source);
	if (st == NULL)
		st = preflight_tree(source->pid, &source->options, &source->survey);
	if (st != NULL)
		return st;
	source->start_ticks = source->survey.start_ticks;
	core_limits(core, source->survey.resident_bytes, &source->limits);
	st = check_room(source, IMAGES_ROOM + source->survey.resident_bytes / IMAGES_MEMORY_PART);
	if (st == NULL)
		st = check_destination(source);
	if (st == NULL)
		st = source_open_session(source);
	unsigned version = 0;
	if (st == NULL)
		st = criu_version(source->swrk, &source->limits, &version);
	if (st == NULL)
		st = choose_tracking(source);
	if (st == NULL && source->may_throttle)
		st = throttle_check(core);
	return st;
}

/* --- prepare --- */

static status *cpuinfo(struct source *source, struct buffer *ret_cpuinfo)
{
	char dir[FILES_PATH], path[FILES_PATH + 16];

	core_path(source->core, "out", source->id, "cpu", dir);
	status *st = files_make_directory(dir);
	if (st == NULL)
		st = criu_cpuinfo_dump(source->swrk, dir, &source->limits);
	(void)snprintf(path, sizeof(path), "%s/cpuinfo.img", dir);
	return st == NULL ? files_read(path, CPUINFO_LIMIT, ret_cpuinfo) : st;
}

static void fill_files(Haul__V1__OpenFile *files, Haul__V1__OpenFile **list,
		       const struct tree_survey *survey)
{
	for (size_t i = 0; i < survey->file_count; i++) {
		haul__v1__open_file__init(&files[i]);
		files[i].path = survey->files[i].path;
		files[i].size = survey->files[i].size;
		files[i].check_size = survey->files[i].check_size;
		files[i].flock = survey->files[i].flock;
		files[i].record_lock = survey->files[i].record_lock;
		list[i] = &files[i];
	}
}

static status *open_pipe(struct source *source, enum rpc_socket which,
			 const Haul__V1__PipeAddress *address, int64_t timeout,
			 struct pipe **ret_pipe)
{
	status *st = seal_allow(&source->core->seal_rates, address->seal);
	timeout = source_budget_ms(source, timeout);
	if (st != NULL)
		return st;
	if (!source->is_handed_over)
		return pipe_dial(address, timeout, ret_pipe);
	return pipe_dial_socket(address, TAKE_FD(source->sockets[which]), timeout, ret_pipe);
}

status *source_dial(struct source *source, const struct source_pipes *there,
		    struct pipe_set *ret_memory, struct pipe **ret_images)
{
	int64_t timeout = source->core->config.call_timeout_ms;

	if (there->memory == NULL || there->images == NULL || there->more >= LIMIT_STRIPES)
		return status_errorf(STATUS_DATA_LOSS, "destination offered no pipes, or too many");
	for (size_t i = 0; i <= there->more; i++) {
		status *st = open_pipe(source, RPC_SOCKET_MEMORY,
				       i == 0 ? there->memory : there->more_memory[i - 1], timeout,
				       &ret_memory->pipes[i]);
		if (st != NULL)
			return status_wrapf(st, "memory pipe to %s", source->to);
		ret_memory->count++;
	}
	status *st = open_pipe(source, RPC_SOCKET_IMAGES, there->images, timeout, ret_images);
	return st != NULL ? status_wrapf(st, "image pipe to %s", source->to) : NULL;
}

static void show_streams(void *self, Haul__V1__Migration *view)
{
	view->streams = ((const struct pipe_set *)self)->count;
}

static status *open_pipes(struct source *source, const Haul__V1__PrepareResponse *there)
{
	const struct source_pipes pipes = {there->memory, there->images, there->more_memory,
					   there->n_more_memory};
	struct pipe_set memory __attribute__((cleanup(pipe_set_free))) = {0};
	scoped(pipe) struct pipe *images = NULL;
	status *st = source_dial(source, &pipes, &memory, &images);

	if (st != NULL)
		return st;
	source_own_pipes(source, &memory, TAKE(images));
	memory = (struct pipe_set){0};
	registry_change(source->core->registry, source->id, show_streams, &source->memory);
	st = memory_sender_new(swrk_memory_fd(source->swrk), &source->memory, &source->codecs,
			       &source->sender);
	if (st != NULL)
		return st;
	memory_sender_limit(source->sender, &source->bandwidth);
	return frames_new(source->pid, false, &source->frames);
}

/* What a destination says that knows no better, or that is not in its right mind: the own guess. */
static void take_restore_cost(struct source *source, const Haul__V1__RestoreCost *there)
{
	source->restore_cost = costs_guess(COST_RESTORE);
	if (there == NULL || !(there->fixed_ms >= 0 && there->fixed_ms < COST_MOST_MS) ||
	    !(there->ms_per_page >= 0 && there->ms_per_page < COST_MOST_MS) ||
	    !(there->ms_per_process >= 0 && there->ms_per_process < COST_MOST_MS))
		return;
	source->restore_cost = (struct cost){there->fixed_ms, there->ms_per_page,
					     there->ms_per_process, there->samples};
}

static status *call_prepare(struct source *source, const struct buffer *cpu)
{
	const struct tree_survey *survey = &source->survey;
	Haul__V1__PrepareRequest request = HAUL__V1__PREPARE_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(mem) void *files = calloc(survey->file_count + 1, sizeof(Haul__V1__OpenFile));
	scoped(mem) void *list = calloc(survey->file_count + 1, sizeof(Haul__V1__OpenFile *));

	if (files == NULL || list == NULL)
		return status_errnof(ENOMEM, "prepare");
	fill_files(files, list, survey);
	request.id = source->id;
	request.source_node = (char *)source->core->config.node;
	request.pids = survey->pids;
	request.n_pids = survey->pid_count;
	request.files = list;
	request.n_files = survey->file_count;
	request.cpuinfo.data = cpu->data;
	request.cpuinfo.len = cpu->size;
	request.memory_bytes = survey->resident_bytes;
	request.root = source->dest_root;
	request.shell_job = source->options.shell_job;
	request.tcp_close = source->options.tcp == HAUL__V1__TCP_MODE__TCP_CLOSE;
	request.restore = source->restore_mode;
	request.streams = source->options.streams;
	request.late = source->may_be_late;
	request.seal_rates = &source->core->seal_rates;
	request.lease_ms = (uint32_t)source->core->config.lease_ms;
	source->is_reserved = true;
	status *st =
	    source_call(source, "Prepare", &request.base,
			source->limits.long_ms + source->core->config.call_timeout_ms, &response);
	if (st != NULL)
		return status_wrapf(st, "destination %s", source->to);
	const Haul__V1__PrepareResponse *there = (const Haul__V1__PrepareResponse *)response;
	take_restore_cost(source, there->restore_cost);
	return open_pipes(source, there);
}

status *source_prepare(struct source *source)
{
	struct buffer cpu __attribute__((cleanup(scope_buffer))) = {0};
	status *st = cpuinfo(source, &cpu);

	if (st == NULL)
		st = source_journal(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESERVED, NULL);
	if (st == NULL)
		st = keeper_start(source);
	if (st == NULL)
		st = call_prepare(source, &cpu);
	if (st == NULL && source->may_be_late)
		st = source_late_start(source);
	if (st == NULL && source->may_be_late)
		st = source_late_await(source, source->core->config.call_timeout_ms);
	return st;
}

/* --- freeze --- */

status *source_note_origins(struct source *source, Haul__V1__JournalEvent event)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = NULL;

	/* A tree that is slowed down is not where it belongs: that was noted before. */
	if (source->throttle == NULL) {
		fence_fini(&source->fence);
		st = proc_tree(source->pid, &pids, &count);
		if (st == NULL)
			st = fence_survey(&source->fence, source->core, source->id, pids, count);
	}
	free(pids);
	return st == NULL ? source_journal(source, event, NULL) : st;
}

struct freeze_view {
	double freeze_ms;
};

static void show_freeze(void *self, Haul__V1__Migration *view)
{
	view->criu_freeze_ms = ((const struct freeze_view *)self)->freeze_ms;
}

static status *dump_and_fence(struct source *source, const char *dir, struct memory_round *ret_sent)
{
	struct source_dump_paths paths;
	struct criu_dump dump;

	source_fill_dump(source, dir, &dump, &paths);
	status *st = criu_dump_hold(source->swrk, &dump);
	source->is_dumped = st == NULL;
	st = source_blame_disk(source, st);
	if (st != NULL)
		swrk_shut_memory(source->swrk);
	if (st == NULL)
		st = fence_close(&source->fence, source->pid);
	if (st == NULL)
		st = fence_check_held(&source->fence, swrk_pid(source->swrk));
	scoped(status) status *sent =
	    memory_sender_end(source->sender, source->limits.long_ms, ret_sent);
	if (st != NULL)
		return sent != NULL && status_code_of(sent) != STATUS_CANCELLED
			   ? status_detailf(st, "cause", "%s", status_message(sent))
			   : st;
	if (sent != NULL)
		return TAKE(sent);
	return preflight_frozen(&source->survey);
}

/* What is left of the images, and what CRIU went on with after it had left. */
static status *finish_images(struct source *source, struct image_sender *sender, const char *dir,
			     uint64_t *ret_bytes)
{
	unsigned mended = 0, early = 0;
	double begun = clock_monotonic_fine_ms();
	status *st = criu_mend(dir, &mended);

	if (st == NULL)
		st = image_sender_finish(sender, &source->images_sent, ret_bytes, &early);
	if (st == NULL)
		log_line(LOG_LEVEL_DEBUG, source->id,
			 "%u images, %u of them before the dump was over, the rest in %.1f ms",
			 source->images_sent.count, early, clock_monotonic_fine_ms() - begun);
	return st;
}

status *source_freeze(struct source *source)
{
	char dir[FILES_PATH];
	struct round_view *last = &source->last;
	scoped(image_sender) struct image_sender *sender = NULL;
	uint64_t image_bytes = 0;
	/* Before the freeze: a sync to disk is not for the frozen window. */
	status *st = source_note_origins(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_FENCED);

	if (st == NULL)
		st = source_begin_round(source, true, -1, NULL, dir);
	if (st == NULL)
		st = image_sender_start(source->images, dir, CRIU_MENDED_IMAGE,
					source->limits.long_ms, &sender);
	if (st == NULL)
		st = source_interrupted(source);
	if (st != NULL)
		return st;
	source->frozen_ms = clock_monotonic_fine_ms();
	st = dump_and_fence(source, dir, &last->memory);
	if (st != NULL)
		return status_wrapf(st, "freeze");
	struct freeze_view freeze = {clock_monotonic_fine_ms() - source->frozen_ms};
	st = finish_images(source, sender, dir, &image_bytes);
	if (st != NULL)
		return status_wrapf(st, "freeze");
	throttle_free(TAKE(source->throttle)); /* the fence has it */
	source->final_bytes = last->memory.bytes;
	last->memory.bytes += image_bytes;
	last->duration_ms = clock_monotonic_fine_ms() - source->frozen_ms;
	registry_change(source->core->registry, source->id, show_freeze, &freeze);
	return NULL;
}

/* --- restore --- */

struct restore_view {
	double restore_ms;
	uint64_t lazy_pages, late_pages;
	int32_t pid;
};

static void show_restore(void *self, Haul__V1__Migration *view)
{
	const struct restore_view *restore = self;

	view->criu_restore_ms = restore->restore_ms;
	view->restored_pid = restore->pid;
	view->lazy_pages = restore->lazy_pages;
	view->late_pages = view->late_missing = restore->late_pages;
	text_set(&view->restore, restore->lazy_pages > 0 ? "lazy" : "eager");
}

/* All of the final dump was there so long after it had left. */
static void end_last_round(struct source *source, double arrival_ms)
{
	struct round_view *last = &source->last;

	last->duration_ms += arrival_ms >= 0 && arrival_ms < COST_MOST_MS ? arrival_ms : 0;
	last->frozen_ms = last->duration_ms;
	source->final_ms = last->duration_ms;
	source_show_round(source, last);
}

/* Asked for at once: the destination waits for what is still on its way, and compares it. */
status *source_restore(struct source *source)
{
	Haul__V1__RestoreRequest request = HAUL__V1__RESTORE_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = source->id;
	request.images = source->images_sent.count;
	request.images_digest = source->images_sent.digest;
	request.round = source->round;
	request.pages = source->last.memory.pages_sent;
	request.pages_digest = source->last.memory.digest;
	request.track_mem = source->tracking == TRACKING_SOFT_DIRTY;
	int64_t timeout = 2 * source->limits.long_ms + source->core->config.call_timeout_ms;
	status *st = source_call(source, "Restore", &request.base, timeout, &response);
	end_last_round(source,
		       st == NULL ? ((Haul__V1__RestoreResponse *)response)->arrival_ms : 0);
	if (st != NULL)
		return status_wrapf(st, "restore at %s", source->to);
	const Haul__V1__RestoreResponse *there = (const Haul__V1__RestoreResponse *)response;
	struct restore_view shown = {there->restore_ms, there->lazy_pages, there->late_pages,
				     there->pid};
	source->restore_ms = there->restore_ms;
	registry_change(source->core->registry, source->id, show_restore, &shown);
	return NULL;
}
