/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/service/watch.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "engine/log.h"
#include "proto/reason.h"
#include "rpc/pipe.h"

enum { WATCHERS_MOST = 256, ACCEPT_MS = 10000, SEND_MS = 10000, TICK_MS = 1000 };

struct watchers {
	struct core *core;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned count;
	struct {
		struct pipe *pipe; /* to interrupt at the end; NULL: free */
		char caller[LIMIT_NAME + 1];
	} places[WATCHERS_MOST];
	bool is_closing;
	pthread_cond_t woken;
	unsigned wakes;
	bool is_ending;
};

struct watcher {
	struct watchers *watchers;
	unsigned place;
	struct pipe *pipe;
	watch_send send;
	char key[LIMIT_NAME + 1];
};

struct watchers *watchers_new(struct core *core)
{
	struct watchers *watchers = calloc(1, sizeof(*watchers));
	pthread_condattr_t attributes;

	if (watchers == NULL)
		abort();
	watchers->core = core;
	(void)pthread_mutex_init(&watchers->lock, NULL);
	(void)pthread_cond_init(&watchers->changed, NULL);
	(void)pthread_condattr_init(&attributes);
	(void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&watchers->woken, &attributes);
	(void)pthread_condattr_destroy(&attributes);
	return watchers;
}

bool watchers_wait(struct watchers *watchers, int64_t timeout_ms)
{
	struct timespec until = {0};

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	int64_t nanos = until.tv_nsec + timeout_ms % 1000 * 1000000;
	until.tv_sec += (time_t)(timeout_ms / 1000 + nanos / 1000000000);
	until.tv_nsec = (long)(nanos % 1000000000);
	(void)pthread_mutex_lock(&watchers->lock);
	unsigned wakes = watchers->wakes;
	while (wakes == watchers->wakes && !watchers->is_ending)
		if (pthread_cond_timedwait(&watchers->woken, &watchers->lock, &until) != 0)
			break;
	bool goes_on = !watchers->is_ending;
	(void)pthread_mutex_unlock(&watchers->lock);
	return goes_on;
}

void watchers_wake(struct watchers *watchers, bool is_end)
{
	(void)pthread_mutex_lock(&watchers->lock);
	watchers->wakes++;
	watchers->is_ending |= is_end;
	(void)pthread_cond_broadcast(&watchers->woken);
	(void)pthread_mutex_unlock(&watchers->lock);
}

/* Sends every change it gets to see (several may become one) until it is over. */
static status *send_changes(struct watchers *watchers, const struct core *core, struct pipe *pipe,
			    const char *id)
{
	struct registry *registry = core->registry;
	uint64_t sequence = 0;

	(void)watchers;
	for (;;) {
		scoped(migration_view) Haul__V1__Migration *view = NULL;
		status *st = registry_wait(registry, id, sequence, TICK_MS, &view);
		if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED) {
			status_free(st);
			st = registry_get(registry, id, &view); /* an unchanged one says "alive" */
		}
		if (st != NULL)
			return st;
		sequence = view->sequence;
		st = pipe_send_message(pipe, HAUL__V1__FRAME_KIND__FRAME_EVENT, &view->base,
				       SEND_MS);
		if (st != NULL || migration_is_over(view))
			return st;
	}
}

static void leave(struct watcher *watcher)
{
	struct watchers *watchers = watcher->watchers;

	(void)pthread_mutex_lock(&watchers->lock);
	watchers->places[watcher->place].pipe = NULL;
	(void)pthread_mutex_unlock(&watchers->lock);
	pipe_free(watcher->pipe);
	free(watcher);
	(void)pthread_mutex_lock(&watchers->lock);
	watchers->count--;
	(void)pthread_cond_broadcast(&watchers->changed);
	(void)pthread_mutex_unlock(&watchers->lock);
}

/* The watcher reads PipeEnd as the end and closes; waiting for that keeps the last frames from
 * being dropped with the pipe. */
static void await_goodbye(struct pipe *pipe)
{
	struct pipe_in in = {0};
	scoped(status) status *st = pipe_receive(pipe, SEND_MS, &in);

	if (st == NULL)
		pipe_in_drop(&in);
}

static void *watch(void *self)
{
	struct watcher *watcher = self;
	scoped(status) status *st = pipe_accept(watcher->pipe, ACCEPT_MS);

	if (st == NULL) {
		scoped(status) status *verdict =
		    watcher->send(watcher->watchers, watcher->watchers->core, watcher->pipe,
				  watcher->key);
		scoped(status) status *sent = pipe_send_end(watcher->pipe, verdict, SEND_MS);
		if (sent == NULL)
			await_goodbye(watcher->pipe);
	}
	leave(watcher);
	return NULL;
}

/* With the lock: how many streams the caller has. */
static unsigned count_of(const struct watchers *watchers, const char *caller)
{
	unsigned count = 0;

	for (size_t i = 0; i < WATCHERS_MOST; i++)
		count += watchers->places[i].pipe != NULL &&
				 strcmp(watchers->places[i].caller, caller) == 0
			     ? 1
			     : 0;
	return count;
}

static status *take_place(struct watcher *watcher, const struct identity *caller)
{
	struct watchers *watchers = watcher->watchers;
	unsigned most = core_limits_of(watchers->core, caller).streams;
	status *st = NULL;

	(void)pthread_mutex_lock(&watchers->lock);
	for (watcher->place = 0; watcher->place < WATCHERS_MOST; watcher->place++) {
		if (watchers->places[watcher->place].pipe == NULL)
			break;
	}
	if (watcher->place == WATCHERS_MOST || watchers->is_closing) {
		st = status_because(status_errorf(STATUS_RESOURCE_EXHAUSTED,
						  "%d are watching already", WATCHERS_MOST),
				    REASON_TOO_MANY_STREAMS);
	} else if (most != 0 && count_of(watchers, caller->name) >= most) {
		st = status_because(status_errorf(STATUS_RESOURCE_EXHAUSTED,
						  "%s has %u streams already, and the policy gives "
						  "it no more",
						  caller->name, most),
				    REASON_TOO_MANY_STREAMS);
	} else {
		watchers->places[watcher->place].pipe = watcher->pipe;
		(void)snprintf(watchers->places[watcher->place].caller,
			       sizeof(watchers->places[0].caller), "%s", caller->name);
		watchers->count++;
	}
	(void)pthread_mutex_unlock(&watchers->lock);
	return st;
}

static status *start(struct watcher *watcher, const struct identity *caller)
{
	pthread_attr_t attributes;
	pthread_t thread;
	status *st = take_place(watcher, caller);

	if (st != NULL) {
		pipe_free(watcher->pipe);
		free(watcher);
		return st;
	}
	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	int failed = pthread_create(&thread, &attributes, watch, watcher);
	(void)pthread_attr_destroy(&attributes);
	if (failed == 0)
		return NULL;
	leave(watcher);
	return status_errnof(failed, "cannot start a thread");
}

status *watchers_open(struct watchers *watchers, const struct rpc_call *call, watch_send send,
		      const char *key, Haul__V1__PipeAddress **ret_address)
{
	const struct engine_config *config = &watchers->core->config;
	Haul__V1__PipeAddress *address = NULL;
	bool is_local = call->caller->is_local;
	struct pipe_place place = {
	    .host = is_local ? NULL : call->server_host,
	    .port_low = config->port_low,
	    .port_high = config->port_high,
	    .directory = config->local_dir,
	};

	struct watcher *watcher = calloc(1, sizeof(*watcher));
	if (watcher == NULL)
		return status_errnof(ENOMEM, "watch");
	watcher->watchers = watchers;
	watcher->send = send;
	(void)snprintf(watcher->key, sizeof(watcher->key), "%s", key);
	status *st = pipe_listen(&place, &watcher->pipe, &address);
	if (st != NULL) {
		free(watcher);
		return st;
	}
	st = start(watcher, call->caller);
	if (st != NULL) {
		haul__v1__pipe_address__free_unpacked(address, NULL);
		return st;
	}
	*ret_address = address;
	return NULL;
}

status *watchers_add(struct watchers *watchers, const struct rpc_call *call, const char *id,
		     Haul__V1__PipeAddress **ret_address)
{
	scoped(migration_view) Haul__V1__Migration *view = NULL;
	status *st = registry_get(watchers->core->registry, id, &view);

	/* Of what the registry has the id is short enough. */
	return st != NULL ? st : watchers_open(watchers, call, send_changes, id, ret_address);
}

void watchers_free(struct watchers *watchers)
{
	if (watchers == NULL)
		return;
	watchers_wake(watchers, true);
	(void)pthread_mutex_lock(&watchers->lock);
	watchers->is_closing = true;
	for (size_t i = 0; i < WATCHERS_MOST; i++) {
		if (watchers->places[i].pipe != NULL)
			pipe_interrupt(watchers->places[i].pipe);
	}
	while (watchers->count > 0)
		(void)pthread_cond_wait(&watchers->changed, &watchers->lock);
	(void)pthread_mutex_unlock(&watchers->lock);
	(void)pthread_cond_destroy(&watchers->changed);
	(void)pthread_cond_destroy(&watchers->woken);
	(void)pthread_mutex_destroy(&watchers->lock);
	free(watchers);
}
