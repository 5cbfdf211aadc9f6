/* SPDX-License-Identifier: Apache-2.0 */
/* The copy comes in: prepare, rounds. Whatever fails here leaves the session as it was; the source
 * aborts it, or its lease ends. */
#include "engine/migration/incoming_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "engine/host/preflight.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "proto/clock.h"
#include "proto/pack.h"
#include "rpc/seal.h"
#include "rpc/seal_choice.h"

enum { LEASE_LEAST_MS = 1000, LEASE_MOST_MS = 600000 };

int64_t incoming_deadline(const struct rpc_call *call)
{
	return call->deadline_ms == 0 ? 0
				      : clock_monotonic_ms() + rpc_call_budget_ms(call, INT32_MAX);
}

/* --- what arrives, on threads --- */

static void note_arrival(struct incoming *incoming)
{
	(void)pthread_mutex_lock(&incoming->arrival_lock);
	incoming->arriving--;
	(void)pthread_cond_broadcast(&incoming->arrived);
	(void)pthread_mutex_unlock(&incoming->arrival_lock);
}

/* `run` ends with note_arrival. */
static status *start_arrival(struct incoming *incoming, void *(*run)(void *), pthread_t *ret_thread,
			     bool *ret_runs)
{
	(void)pthread_mutex_lock(&incoming->arrival_lock);
	incoming->arriving++;
	(void)pthread_mutex_unlock(&incoming->arrival_lock);
	int failed = pthread_create(ret_thread, NULL, run, incoming);
	*ret_runs = failed == 0;
	if (failed == 0)
		return NULL;
	note_arrival(incoming);
	return status_errnof(failed, "cannot start a thread");
}

/* Until all of them have ended, or the caller's time is over: they go on then. */
static status *await_arrivals(struct incoming *incoming, const struct rpc_call *call)
{
	int64_t deadline_ms = incoming_deadline(call);
	const struct timespec until = clock_at(deadline_ms);
	int failed = 0;

	(void)pthread_mutex_lock(&incoming->arrival_lock);
	while (incoming->arriving > 0 && failed == 0)
		failed = deadline_ms == 0
			     ? pthread_cond_wait(&incoming->arrived, &incoming->arrival_lock)
			     : pthread_cond_timedwait(&incoming->arrived, &incoming->arrival_lock,
						      &until);
	bool is_there = incoming->arriving == 0;
	(void)pthread_mutex_unlock(&incoming->arrival_lock);
	return is_there ? NULL
			: status_errorf(STATUS_DEADLINE_EXCEEDED,
					"the caller's time was over before all had arrived");
}

/* --- prepare --- */

static Haul__V1__Migration *view_of(const struct incoming *incoming)
{
	Haul__V1__Migration *view = malloc(sizeof(*view));

	if (view == NULL)
		abort();
	haul__v1__migration__init(view);
	view->id = text_copy(incoming->id);
	view->state = HAUL__V1__MIGRATION_STATE__RUNNING;
	view->stage = text_copy("prepared");
	view->role = text_copy("destination");
	view->workload = text_copy("");
	view->peer =
	    text_copy(incoming->source[0] != '\0' ? incoming->source : incoming->source_node);
	view->started_unix_ms = clock_unix_ms();
	view->tracking = text_copy("");
	view->doubt = text_copy("");
	view->restore = text_copy("");
	view->mode = text_copy("");
	return view;
}

static status *open_session(struct incoming *incoming, const struct rpc_call *call,
			    const Haul__V1__PrepareRequest *request)
{
	char work[FILES_PATH], images[FILES_PATH], cpuinfo[FILES_PATH + 16];
	const struct core *core = incoming->core;

	core_path(core, "in", incoming->id, "work", work);
	core_path(core, "in", incoming->id, "images", images);
	status *st = files_make_directory(work);
	if (st == NULL)
		st = files_make_directory(images);
	incoming->has_images = st == NULL;
	if (st == NULL)
		st = cgroup_make(incoming->group);
	if (st == NULL)
		st = cgroup_make(incoming->criu_group);
	struct swrk_options options = {
	    .criu = core->config.criu,
	    .cgroup = incoming->criu_group,
	    .work_dir = work,
	    .outlives_engine = true,
	    .without_huge_pages = incoming_wants_lazy(incoming) ? core->config.program : NULL,
	    .more_count = SHARED_MEMORY_MOST,
	};
	if (st == NULL)
		st = shared_memory_new(images, &incoming->shared);
	if (st == NULL)
		options.more_fds = shared_memory_fds(incoming->shared);
	if (st == NULL)
		st = incoming_open_lazy(incoming);
	if (st == NULL)
		st = swrk_open(&options, &incoming->swrk);
	if (st == NULL)
		swrk_set_deadline(incoming->swrk, incoming_deadline(call));
	(void)snprintf(cpuinfo, sizeof(cpuinfo), "%s/cpuinfo.img", work);
	if (st == NULL)
		st = files_write(cpuinfo, request->cpuinfo.data, request->cpuinfo.len);
	if (st == NULL)
		st = criu_cpuinfo_check(incoming->swrk, work, &incoming->limits);
	if (st == NULL)
		swrk_set_deadline(incoming->swrk, 0);
	if (st == NULL)
		st = page_store_new(images, &incoming->store);
	return st == NULL && request->late ? incoming_open_fetch(incoming) : st;
}

static void *accept_pipes(void *self)
{
	struct incoming *incoming = self;
	int64_t timeout = incoming->core->config.call_timeout_ms * 2;

	for (unsigned i = 0; i < incoming->memory.count && incoming->accepted == NULL; i++)
		incoming->accepted = pipe_accept(incoming->memory.pipes[i], timeout);
	if (incoming->accepted == NULL)
		incoming->accepted = pipe_accept(incoming->images, timeout);
	note_arrival(incoming);
	return NULL;
}

/* All but the first. */
static status *listen_more(struct incoming *incoming, const struct pipe_place *place,
			   const struct incoming_pipes *ret_pipes)
{
	struct pipe_set *memory = &incoming->memory;
	status *st = NULL;

	*ret_pipes->more_memory = calloc(LIMIT_STRIPES, sizeof(**ret_pipes->more_memory));
	if (*ret_pipes->more_memory == NULL)
		return status_errnof(ENOMEM, "memory pipes");
	while (st == NULL && memory->count < incoming->streams) {
		st = pipe_listen(place, &memory->pipes[memory->count],
				 &(*ret_pipes->more_memory)[*ret_pipes->more]);
		if (st == NULL) {
			memory->count++;
			(*ret_pipes->more)++;
		}
	}
	return st;
}

status *incoming_open_pipes(struct incoming *incoming, const struct rpc_call *call,
			    const struct incoming_pipes *ret_pipes)
{
	const struct engine_config *config = &incoming->core->config;
	struct pipe_place place = {
	    .host = call->server_host[0] != '\0' ? call->server_host : "127.0.0.1",
	    .port_low = config->port_low,
	    .port_high = config->port_high,
	    .seal = incoming->seal,
	};
	scoped(fd) int memory = rpc_call_take_socket(call, RPC_SOCKET_MEMORY);
	scoped(fd) int images = rpc_call_take_socket(call, RPC_SOCKET_IMAGES);
	if (rpc_call_came_by_handover(call) && (memory < 0 || images < 0))
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "the sockets that were handed over have had their migration: "
				     "each needs its own");
	place.socket = TAKE_FD(memory);
	status *st = pipe_listen(&place, &incoming->memory.pipes[0], ret_pipes->memory);
	incoming->memory.count = st == NULL ? 1 : 0;
	place.socket = TAKE_FD(images);
	if (st == NULL)
		st = pipe_listen(&place, &incoming->images, ret_pipes->images);
	else if (place.socket > 0)
		(void)close(place.socket);
	place.socket = 0;
	if (st == NULL && incoming->streams > 1)
		st = listen_more(incoming, &place, ret_pipes);
	if (st != NULL)
		return st;
	return start_arrival(incoming, accept_pipes, &incoming->accepting, &incoming->is_accepting);
}

static status *check_request(const struct core *core, const Haul__V1__PrepareRequest *request)
{
	status *st = core_check_id(request->id);

	if (st != NULL)
		return st;
	if (atomic_load(&core->is_draining))
		return status_errorf(STATUS_UNAVAILABLE, "this engine is stopping");
	if (core->criu_version == 0)
		return status_errorf(STATUS_FAILED_PRECONDITION, "%s", core->trouble);
	if (strlen(request->root) > 1000 || (request->root[0] != '\0' && request->root[0] != '/'))
		return status_errorf(STATUS_INVALID_ARGUMENT, "root: an absolute path");
	if (request->streams > LIMIT_STRIPES)
		return status_errorf(STATUS_INVALID_ARGUMENT, "streams: at most %d", LIMIT_STRIPES);
	if (strlen(request->source_node) > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT, "source's name is too long");
	scoped(journal_record) Haul__V1__JournalRecord *known =
	    journal_find(core->journal, request->id, false);
	if (known != NULL)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "migration %s has been here before (journal event %d)",
				     request->id, known->event);
	/* The journal may be a new one: a tree that came with this id before must not be taken for
	 * ours. */
	char group[CGROUP_PATH];
	cgroup_path(core->cgroups, "in", request->id, group);
	if (cgroup_exists(group))
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "migration %s has been here before: there is a cgroup %s",
				     request->id, group);
	return NULL;
}

static struct incoming *session_for(struct core *core, const struct rpc_call *call,
				    const Haul__V1__PrepareRequest *request)
{
	struct incoming *incoming = incoming_new(core, request->id);

	(void)snprintf(incoming->source, sizeof(incoming->source), "%s", call->caller->name);
	(void)snprintf(incoming->source_node, sizeof(incoming->source_node), "%s",
		       request->source_node);
	(void)snprintf(incoming->root, sizeof(incoming->root), "%s", request->root);
	incoming->shell_job = request->shell_job;
	incoming->tcp_close = request->tcp_close;
	incoming->restore_mode = request->restore;
	incoming->streams = request->streams == 0 ? 1 : request->streams;
	core_limits(core, request->memory_bytes, &incoming->limits);
	incoming->size =
	    (struct cost_size){(double)request->memory_bytes / PAGE_BYTES, (double)request->n_pids};
	if (request->lease_ms >= LEASE_LEAST_MS && request->lease_ms <= LEASE_MOST_MS)
		incoming->lease_ms = request->lease_ms;
	return incoming;
}

/* What a restore takes here, by those that were. */
static status *tell_cost(const struct incoming *incoming, Haul__V1__PrepareResponse *ret_response)
{
	struct cost cost =
	    costs_now(incoming->core->costs,
		      incoming_wants_lazy(incoming) ? COST_RESTORE_LAZY : COST_RESTORE);
	Haul__V1__RestoreCost *told = malloc(sizeof(*told));

	if (told == NULL)
		return status_errnof(ENOMEM, "prepare");
	haul__v1__restore_cost__init(told);
	told->fixed_ms = cost.fixed_ms;
	told->ms_per_page = cost.page_ms;
	told->ms_per_process = cost.process_ms;
	told->samples = cost.samples;
	ret_response->restore_cost = told;
	return NULL;
}

/* Turn held; the session is in the list. */
static status *fill_session(struct incoming *incoming, const struct rpc_call *call,
			    const Haul__V1__PrepareRequest *request,
			    Haul__V1__PrepareResponse *ret_response)
{
	char state_dir[FILES_PATH];

	(void)snprintf(state_dir, sizeof(state_dir), "%s", incoming->core->config.state_dir);
	status *st = preflight_destination(request, state_dir);
	if (st == NULL)
		st = seal_choose(&incoming->core->seal_rates, request->seal_rates, &incoming->seal);
	if (st == NULL)
		log_line(LOG_LEVEL_INFO, incoming->id, "its pipes are sealed by %s",
			 seal_name(incoming->seal));
	if (st == NULL)
		st = journal_reserve(incoming->core->journal);
	if (st == NULL)
		st = open_session(incoming, call, request);
	const struct incoming_pipes pipes = {&ret_response->memory, &ret_response->images,
					     &ret_response->more_memory,
					     &ret_response->n_more_memory};
	if (st == NULL)
		st = incoming_open_pipes(incoming, call, &pipes);
	if (st == NULL)
		st = incoming_journal(incoming, HAUL__V1__JOURNAL_EVENT__J_DEST_PREPARED, "");
	if (st == NULL)
		ret_response->swrk_pid = swrk_pid(incoming->swrk);
	return st == NULL ? tell_cost(incoming, ret_response) : st;
}

/* Nothing was journaled: as if it had never come. */
static void undo_prepare(struct incomings *incomings, struct incoming *incoming, const status *why)
{
	incoming_set_state(incomings, incoming, INCOMING_ABORTED);
	incoming_end_lazy(incoming, true);
	incoming_close_channels(incoming, true);
	if (cgroup_exists(incoming->group))
		status_free(cgroup_kill(incoming->group, GROUP_TIMEOUT_MS));
	incoming_remove_images(incoming);
	incoming_show(incomings, incoming, HAUL__V1__MIGRATION_STATE__ABORTED, "refused", why);
}

status *incoming_prepare(struct incomings *incomings, const struct rpc_call *call,
			 const Haul__V1__PrepareRequest *request,
			 Haul__V1__PrepareResponse *ret_response)
{
	status *st = check_request(incomings->core, request);

	if (st != NULL)
		return st;
	struct incoming *incoming = session_for(incomings->core, call, request);
	incoming->users = 1;
	(void)pthread_mutex_lock(&incoming->turn);
	st = incomings_add(incomings, incoming,
			   core_limits_of(incomings->core, call->caller).sessions);
	if (st != NULL) {
		(void)pthread_mutex_unlock(&incoming->turn);
		incoming_free(incoming);
		return st;
	}
	status_free(registry_add(incomings->core->registry, view_of(incoming)));
	st = fill_session(incoming, call, request, ret_response);
	(void)pthread_mutex_lock(&incomings->lock);
	incoming->is_open = st == NULL;
	(void)pthread_mutex_unlock(&incomings->lock);
	if (st != NULL)
		undo_prepare(incomings, incoming, st);
	incoming_leave(incomings, incoming);
	if (st != NULL)
		incomings_forget(incomings, incoming);
	return st;
}

/* --- rounds --- */

/* Whether it is not just that nothing came any more. */
static bool has_failed_here(const status *st)
{
	return st != NULL && status_code_of(st) != STATUS_UNAVAILABLE &&
	       status_code_of(st) != STATUS_DEADLINE_EXCEEDED &&
	       status_code_of(st) != STATUS_CANCELLED;
}

/* There is no place for what the source sends: it hears of it now, not when its patience ends. Why,
 * it is told with its Abort. */
static bool note_failure(struct incoming *incoming, const status *st)
{
	if (!has_failed_here(st))
		return false;
	(void)pthread_mutex_lock(&incoming->arrival_lock);
	if (incoming->failed == NULL)
		incoming->failed = status_copy(st);
	(void)pthread_mutex_unlock(&incoming->arrival_lock);
	return true;
}

status *incoming_failure(struct incoming *incoming)
{
	(void)pthread_mutex_lock(&incoming->arrival_lock);
	status *st = incoming->failed != NULL ? status_copy(incoming->failed) : NULL;
	(void)pthread_mutex_unlock(&incoming->arrival_lock);
	return st;
}

static void *receive_round(void *self)
{
	struct incoming *incoming = self;

	incoming->received_status =
	    memory_receive_resumable(&incoming->memory, incoming->store, incoming->round,
				     incoming->limits.long_ms, &incoming->received,
				     &incoming->progress);
	if (note_failure(incoming, incoming->received_status))
		pipe_set_hang_up(&incoming->memory);
	note_arrival(incoming);
	return NULL;
}

static void *receive_images(void *self)
{
	struct incoming *incoming = self;
	char dir[FILES_PATH], below[32];

	(void)snprintf(below, sizeof(below), "images/%u", incoming->round);
	core_path(incoming->core, "in", incoming->id, below, dir);
	incoming->images_status =
	    image_pipe_receive(incoming->images, dir, incoming->limits.long_ms * 2,
			       &incoming->images_received);
	if (note_failure(incoming, incoming->images_status))
		pipe_hang_up(incoming->images);
	note_arrival(incoming);
	return NULL;
}

static status *await_pipes(struct incoming *incoming, const struct rpc_call *call)
{
	status *st = await_arrivals(incoming, call);

	if (st != NULL)
		return st;
	if (incoming->is_accepting)
		(void)pthread_join(incoming->accepting, NULL);
	incoming->is_accepting = false;
	return incoming->accepted != NULL ? status_copy(incoming->accepted) : NULL;
}

static status *start_receiving(struct incoming *incoming)
{
	status *st =
	    start_arrival(incoming, receive_round, &incoming->receiving, &incoming->is_receiving);

	if (st == NULL && incoming->is_last)
		st = start_arrival(incoming, receive_images, &incoming->receiving_images,
				   &incoming->is_receiving_images);
	return st;
}

static status *begin_round(struct incoming *incoming, const struct rpc_call *call,
			   const Haul__V1__BeginRoundRequest *request)
{
	if (request->round != incoming->round + 1 || incoming->is_receiving || incoming->is_last ||
	    request->round > LIMIT_ROUNDS + 1)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "round %u does not follow round %u", request->round,
				     incoming->round);
	status *st = await_pipes(incoming, call);
	if (st != NULL)
		return st;
	incoming->round = request->round;
	incoming->is_last = request->last;
	incoming->is_unfinished = true;
	st = page_store_begin(incoming->store, incoming->round);
	return st == NULL ? start_receiving(incoming) : st;
}

status *incoming_begin_round(struct incomings *incomings, const struct rpc_call *call,
			     const Haul__V1__BeginRoundRequest *request)
{
	struct incoming *incoming;
	status *st =
	    incoming_enter(incomings, call, request->id, 1U << INCOMING_PREPARED, &incoming);

	if (st != NULL)
		return st;
	st = begin_round(incoming, call, request);
	incoming_leave(incomings, incoming);
	return st;
}

status *incoming_note_round(struct incoming *incoming)
{
	/* It is there twice until it is restored, as it would be while CRIU restores it. */
	uint64_t most = preflight_available_bytes() / 2 / PAGE_BYTES;
	status *st = shared_memory_add(incoming->shared, incoming->round, incoming->is_last, most);

	return st == NULL ? incoming_lazy_round(incoming) : st;
}

status *incoming_take_round(struct incoming *incoming, const struct rpc_call *call, unsigned round)
{
	if (!incoming->is_receiving || round != incoming->round)
		return status_errorf(STATUS_FAILED_PRECONDITION, "round %u is not being received",
				     round);
	status *st = await_arrivals(incoming, call);
	if (st != NULL)
		return st;
	(void)pthread_join(incoming->receiving, NULL);
	incoming->is_receiving = false;
	if (incoming->is_receiving_images)
		(void)pthread_join(incoming->receiving_images, NULL);
	incoming->is_receiving_images = false;
	if (incoming->received_status != NULL)
		return status_copy(incoming->received_status);
	if (incoming->images_status != NULL)
		return status_copy(incoming->images_status);
	incoming->is_unfinished = false;
	return incoming_note_round(incoming);
}

status *incoming_end_round(struct incomings *incomings, const struct rpc_call *call,
			   const Haul__V1__EndRoundRequest *request,
			   Haul__V1__EndRoundResponse *ret_response)
{
	struct incoming *incoming;
	status *st =
	    incoming_enter(incomings, call, request->id, 1U << INCOMING_PREPARED, &incoming);

	if (st != NULL)
		return st;
	st = incoming_take_round(incoming, call, request->round);
	if (st == NULL) {
		ret_response->pages = incoming->received.pages_sent;
		ret_response->digest = incoming->received.digest;
	}
	incoming_leave(incomings, incoming);
	return st;
}
