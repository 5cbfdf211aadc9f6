/* SPDX-License-Identifier: Apache-2.0 */
/* Post-copy at the source: the frozen tree is the store of the pages that were not sent, and a
 * thread with a connection of its own serves them until the destination has all. A pipe that is
 * lost, or a destination whose hauld was restarted, is asked anew for as long as it takes. */
#include <errno.h>
#include <string.h>

#include "engine/criu/tree_memory.h"
#include "engine/log.h"
#include "engine/migration/source_internal.h"
#include "engine/pipe/late_pipe.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"
#include "proto/pack.h"
#include "rpc/seal_choice.h"

enum {
	AGAIN_FIRST_MS = 250, /* between two attempts, doubled up to */
	AGAIN_LONGEST_MS = 5000,
	DISOWN_MS = 2000,
	SAME_FEW = 4,
};

struct source_late {
	struct source *source;
	struct rpc_client *client;
	struct tree_memory *memory; /* the thread's; NULL: nothing was read yet */
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* CLOCK_MONOTONIC */
	/* By the lock: */
	struct pipe *pipe;
	bool has_served, is_nudged, is_stopping;
	status *error; /* of the last attempt */
};

/* Whether what the kernel calls dirty has mostly changed, as far as the last round tells: it is not
 * worth looking at while all stands still. (Of a huge page one write marks all.) */
static bool are_changed(const struct source *source)
{
	return source_is_tracked(source) && !source->is_live &&
	       source->last_same < source->last_sent / SAME_FEW;
}

enum memory_late source_late_pages(const struct source *source, bool is_last)
{
	if (source->mode == MODE_POST_COPY)
		return LATE_ALL;
	if (!is_last || !source->is_late)
		return LATE_NONE;
	return are_changed(source) ? LATE_ALL : LATE_CHANGED;
}

/* --- reading --- */

/* The fence is there before anything is asked for. */
static status *read_pages(void *self, int64_t pid, uint64_t address, size_t bytes, uint8_t *data)
{
	struct source_late *late = self;
	char group[CGROUP_PATH];
	status *st = NULL;

	cgroup_path(late->source->core->cgroups, "out", late->source->id, group);
	if (late->memory == NULL)
		st = tree_memory_new(group, &late->memory);
	return st == NULL ? tree_memory_read(late->memory, pid, address, bytes, data) : st;
}

/* --- a pipe --- */

static status *dial(struct source_late *late, struct pipe **ret_pipe)
{
	int64_t timeout_ms = late->source->core->config.call_timeout_ms;
	Haul__V1__FetchRequest request = HAUL__V1__FETCH_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = late->source->id;
	request.seal_rates = &late->source->core->seal_rates;
	status *st = rpc_client_call(late->client, &haul__v1__peer__descriptor, "Fetch",
				     &request.base, timeout_ms, &response);
	if (st != NULL)
		return st;
	const Haul__V1__FetchResponse *there = (const Haul__V1__FetchResponse *)response;
	if (there->late == NULL)
		return status_errorf(STATUS_DATA_LOSS, "the destination offered no pipe");
	st = seal_allow(&late->source->core->seal_rates, there->late->seal);
	return st == NULL ? pipe_dial(there->late, timeout_ms, ret_pipe) : st;
}

/* Known to who stops it; false: it is stopping. */
static bool own_pipe(struct source_late *late, struct pipe *pipe)
{
	(void)pthread_mutex_lock(&late->lock);
	bool go_on = !late->is_stopping;
	late->pipe = go_on ? pipe : NULL;
	late->has_served = late->has_served || (go_on && pipe != NULL);
	(void)pthread_cond_broadcast(&late->changed);
	(void)pthread_mutex_unlock(&late->lock);
	return go_on;
}

/* NULL: the destination has all. *ret_has_served: there was a pipe. */
static status *serve(struct source_late *late, bool *ret_has_served)
{
	const struct late_source from = {.read = read_pages,
					 .self = late,
					 .codecs = late->source->codecs,
					 .bytes_per_s = &late->source->bandwidth};
	struct pipe *pipe = NULL;
	status *st = dial(late, &pipe);

	if (st != NULL)
		return st;
	*ret_has_served = true;
	if (own_pipe(late, pipe))
		st = late_serve(pipe, &from);
	(void)own_pipe(late, NULL);
	pipe_free(pipe);
	return st;
}

/* --- the thread --- */

static bool wait_a_moment(struct source_late *late, int64_t ms)
{
	const struct timespec at = clock_at(clock_monotonic_ms() + ms);

	(void)pthread_mutex_lock(&late->lock);
	while (!late->is_stopping && !late->is_nudged &&
	       pthread_cond_timedwait(&late->changed, &late->lock, &at) != ETIMEDOUT)
		;
	bool go_on = !late->is_stopping;
	late->is_nudged = false;
	(void)pthread_mutex_unlock(&late->lock);
	return go_on;
}

static void note_error(struct source_late *late, status *st)
{
	log_status(LOG_LEVEL_INFO, late->source->id, "pages cannot be fetched for now", st);
	(void)pthread_mutex_lock(&late->lock);
	status_free(late->error);
	late->error = st;
	(void)pthread_cond_broadcast(&late->changed);
	(void)pthread_mutex_unlock(&late->lock);
}

static void *run(void *self)
{
	struct source_late *late = self;
	int64_t pause_ms = AGAIN_FIRST_MS;

	for (;;) {
		bool has_served = false;
		status *st = serve(late, &has_served);
		if (st == NULL) {
			log_line(LOG_LEVEL_INFO, late->source->id,
				 "the destination has fetched all pages");
			return NULL;
		}
		note_error(late, st);
		if (has_served)
			pause_ms = AGAIN_FIRST_MS;
		if (!wait_a_moment(late, pause_ms))
			return NULL;
		pause_ms = pause_ms * 2 > AGAIN_LONGEST_MS ? AGAIN_LONGEST_MS : pause_ms * 2;
	}
}

static void free_late(struct source_late *late)
{
	rpc_client_free(late->client);
	tree_memory_free(late->memory);
	status_free(late->error);
	(void)pthread_cond_destroy(&late->changed);
	(void)pthread_mutex_destroy(&late->lock);
	free(late);
}

status *source_late_start(struct source *source)
{

	if (source->late != NULL)
		return NULL;
	struct source_late *late = calloc(1, sizeof(*late));
	if (late == NULL)
		return status_errnof(ENOMEM, "late pages");
	late->source = source;
	(void)pthread_mutex_init(&late->lock, NULL);
	clock_cond_init(&late->changed);
	status *st = rpc_client_new(source->to, source->core->config.credentials, &late->client);
	int failed = st == NULL ? pthread_create(&late->thread, NULL, run, late) : 0;
	if (failed != 0)
		st = status_errnof(failed, "cannot start a thread");
	if (st != NULL) {
		free_late(late);
		return st;
	}
	(void)pthread_mutex_lock(&source->lock);
	source->late = late;
	(void)pthread_mutex_unlock(&source->lock);
	return NULL;
}

status *source_late_await(struct source *source, int64_t timeout_ms)
{
	struct source_late *late = source->late;
	const struct timespec until =
	    clock_at(clock_monotonic_ms() + source_budget_ms(source, timeout_ms));
	int failed = 0;

	(void)pthread_mutex_lock(&late->lock);
	while (!late->has_served && late->error == NULL && failed == 0)
		failed = pthread_cond_timedwait(&late->changed, &late->lock, &until);
	status *st = late->has_served ? NULL
		     : late->error != NULL
			 ? status_copy(late->error)
			 : status_errorf(STATUS_DEADLINE_EXCEEDED, "it did not come about in time");
	(void)pthread_mutex_unlock(&late->lock);
	return st == NULL ? NULL
			  : status_wrapf(st, "the pipe by which %s fetches pages", source->to);
}

void source_late_nudge(struct source *source)
{
	struct source_late *late = source->late;

	if (late == NULL)
		return;
	(void)pthread_mutex_lock(&late->lock);
	late->is_nudged = true;
	(void)pthread_cond_broadcast(&late->changed);
	(void)pthread_mutex_unlock(&late->lock);
}

void source_late_stop(struct source *source)
{
	(void)pthread_mutex_lock(&source->lock);
	struct source_late *late = TAKE(source->late);
	(void)pthread_mutex_unlock(&source->lock);
	if (late == NULL)
		return;
	(void)pthread_mutex_lock(&late->lock);
	late->is_stopping = true;
	if (late->pipe != NULL)
		pipe_interrupt(late->pipe);
	(void)pthread_cond_broadcast(&late->changed);
	(void)pthread_mutex_unlock(&late->lock);
	rpc_client_interrupt(late->client);
	(void)pthread_join(late->thread, NULL);
	free_late(late);
}

status *source_late_disown(struct source *source)
{
	Haul__V1__FetchRequest request = HAUL__V1__FETCH_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = source->id;
	request.gone = true;
	return source_call(source, "Fetch", &request.base, DISOWN_MS, &response);
}

static void show_running(void *self, Haul__V1__Migration *view)
{
	(void)self;
	if (view->state != HAUL__V1__MIGRATION_STATE__IN_DOUBT)
		return;
	view->state = HAUL__V1__MIGRATION_STATE__RUNNING;
	view->in_doubt_since_unix_ms = 0;
	text_set(&view->doubt, "");
	haul__v1__status__free_unpacked(view->error, NULL);
	view->error = NULL;
}

void source_late_goes_on(struct source *source)
{
	registry_change(source->core->registry, source->id, show_running, NULL);
}
