/* SPDX-License-Identifier: Apache-2.0 */
/* How a source migration begins: its id, its options, its view. */
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#include "engine/migration/sources.h"
#include "proto/clock.h"
#include "proto/envelope.h"

enum { ID_BYTES = 8 };

/* One migration of a tree at a time. */
static status *check_free_locked(struct sources *sources, pid_t pid)
{
	for (size_t i = 0; i < sources->count; i++) {
		if (sources->list[i]->pid == pid)
			return status_detailf(
			    status_errorf(STATUS_ALREADY_EXISTS,
					  "pid:%d is being migrated already, as %s", pid,
					  sources->list[i]->id),
			    "next", "`haulctl watch %s`", sources->list[i]->id);
	}
	return NULL;
}

/* Random, or for a request what is made from it: a second one like it then finds the first. */
static status *make_id(const struct rpc_call *call, char ret_id[LIMIT_ID + 1])
{
	unsigned char bytes[SHA256_DIGEST_LENGTH], seed[LIMIT_NAME + 2 + REQUEST_ID_BYTES] = {0};

	if (call == NULL) {
		if (RAND_bytes(bytes, ID_BYTES) != 1)
			return status_errorf(STATUS_INTERNAL, "no random numbers to be had");
	} else {
		seed[0] = call->caller->is_local ? 1 : 0;
		memcpy(seed + 1, call->caller->name, strlen(call->caller->name));
		memcpy(seed + sizeof(seed) - REQUEST_ID_BYTES, call->request_id, REQUEST_ID_BYTES);
		(void)SHA256(seed, sizeof(seed), bytes);
	}
	for (size_t i = 0; i < ID_BYTES; i++)
		(void)snprintf(ret_id + 2 * i, 3, "%02x", bytes[i]);
	return NULL;
}

/* The migration that an earlier request with this id has started: it is the answer again. */
static status *find_started(struct sources *sources, const char *id,
			    const Haul__V1__StartRequest *request, Haul__V1__Migration **ret_view)
{
	scoped(migration_view) Haul__V1__Migration *view = NULL;
	status *st = registry_get(sources->core->registry, id, &view);

	if (st != NULL) {
		status_free(st);
		return NULL;
	}
	if (strcmp(view->workload, request->workload) != 0 || strcmp(view->peer, request->to) != 0)
		return status_errorf(
		    STATUS_ALREADY_EXISTS,
		    "the same request id has started migration %s of %s to %s; nothing was done",
		    id, view->workload, view->peer);
	*ret_view = TAKE(view);
	return NULL;
}

static const char *const tracking_names[] = {
    [TRACKING_AUTO] = "auto",
    [TRACKING_SOFT_DIRTY] = "soft-dirty",
    [TRACKING_HASH] = "hash",
    [TRACKING_NONE] = "none",
};

const char *tracking_name(enum tracking tracking)
{
	return tracking_names[tracking];
}

status *tracking_parse(const char *text, enum tracking *ret_tracking)
{
	*ret_tracking = TRACKING_AUTO;
	if (text[0] == '\0')
		return NULL;
	for (size_t i = 0; i < array_len(tracking_names); i++) {
		if (strcmp(text, tracking_names[i]) == 0) {
			*ret_tracking = (enum tracking)i;
			return NULL;
		}
	}
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "--tracking: \"%.40s\" is none of auto, soft-dirty, hash, none", text);
}

static status *check_on_timeout(Haul__V1__OnTimeout strategy)
{
	if (strategy == HAUL__V1__ON_TIMEOUT__ABORT ||
	    strategy == HAUL__V1__ON_TIMEOUT__STOP_COPY ||
	    strategy == HAUL__V1__ON_TIMEOUT__POST_COPY)
		return NULL;
	return status_detailf(
	    status_errorf(
		STATUS_UNIMPLEMENTED,
		"--on-timeout: this version does not know the strategy; nothing was done"),
	    "next", "use --on-timeout abort, stop-copy or post-copy");
}

static const char *const mode_names[] = {
    [MODE_PRE_COPY] = "pre-copy",
    [MODE_POST_COPY] = "post-copy",
    [MODE_HYBRID] = "hybrid",
    [MODE_STOP_COPY] = "stop-copy",
};

const char *source_mode_name(enum source_mode mode)
{
	return mode_names[mode];
}

status *source_mode_parse(const char *text, enum source_mode *ret_mode)
{
	*ret_mode = MODE_PRE_COPY;
	if (text[0] == '\0')
		return NULL;
	for (size_t i = 0; i < array_len(mode_names); i++) {
		if (strcmp(text, mode_names[i]) == 0) {
			*ret_mode = (enum source_mode)i;
			return NULL;
		}
	}
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "--mode: \"%.40s\" is none of pre-copy, post-copy, hybrid, stop-copy",
			     text);
}

static bool is_late(enum source_mode mode, const Haul__V1__MigrateOptions *options)
{
	return mode == MODE_POST_COPY || mode == MODE_HYBRID ||
	       (mode == MODE_PRE_COPY && options->on_timeout == HAUL__V1__ON_TIMEOUT__POST_COPY);
}

/* What goes with a mode, and what does not. */
static status *check_mode(const Haul__V1__StartRequest *request, enum source_mode mode,
			  Haul__V1__RestoreMode restore)
{
	const Haul__V1__MigrateOptions *options = request->options;

	if (mode == MODE_HYBRID && options->no_precopy)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--mode hybrid and --no-precopy exclude each other");
	if (mode == MODE_STOP_COPY && options->auto_converge)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--mode stop-copy and --auto-converge exclude each other");
	if (!is_late(mode, options))
		return NULL;
	if (restore == HAUL__V1__RESTORE_MODE__RESTORE_EAGER)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--restore eager and fetching memory after the commit "
				     "(--mode, --on-timeout) exclude each other");
	if (request->sockets != NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "over sockets that were handed over no memory can be fetched "
				     "after the commit (--mode, --on-timeout): a lost one could "
				     "not be replaced");
	return NULL;
}

status *restore_mode_parse(const char *text, Haul__V1__RestoreMode *ret_mode)
{
	static const char *const names[] = {
	    [HAUL__V1__RESTORE_MODE__RESTORE_EAGER] = "eager",
	    [HAUL__V1__RESTORE_MODE__RESTORE_AUTO] = "auto",
	    [HAUL__V1__RESTORE_MODE__RESTORE_LAZY] = "lazy",
	};

	*ret_mode = HAUL__V1__RESTORE_MODE__RESTORE_AUTO;
	if (text[0] == '\0')
		return NULL;
	for (size_t i = 0; i < array_len(names); i++) {
		if (strcmp(text, names[i]) == 0) {
			*ret_mode = (Haul__V1__RestoreMode)i;
			return NULL;
		}
	}
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "--restore: \"%.40s\" is none of auto, lazy, eager", text);
}

static status *check_options(const Haul__V1__StartRequest *request)
{
	const Haul__V1__MigrateOptions *options = request->options;
	struct endpoint endpoint;

	status *st = endpoint_parse(request->to, &endpoint);
	if (st != NULL)
		return status_wrapf(st, "--to");
	if (options == NULL)
		return NULL;
	if (options->max_rounds > LIMIT_ROUNDS)
		return status_errorf(STATUS_INVALID_ARGUMENT, "--max-rounds: at most %d",
				     LIMIT_ROUNDS);
	status *unknown = check_on_timeout(options->on_timeout);
	if (unknown != NULL)
		return unknown;
	if (options->streams > (request->sockets != NULL ? 1 : LIMIT_STRIPES))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--streams: at most %d, and 1 over sockets that were handed "
				     "over",
				     LIMIT_STRIPES);
	struct batch_codecs codecs;
	enum tracking tracking;
	Haul__V1__RestoreMode restore;
	enum source_mode mode;
	st = batch_codecs_parse(options->compression, &codecs);
	if (st == NULL)
		st = tracking_parse(options->tracking, &tracking);
	if (st == NULL)
		st = restore_mode_parse(options->restore, &restore);
	if (st == NULL)
		st = source_mode_parse(options->mode, &mode);
	if (st == NULL)
		st = check_mode(request, mode, restore);
	if (st != NULL)
		return st;
	if (options->dest_root[0] != '\0' &&
	    (options->dest_root[0] != '/' || strlen(options->dest_root) > 1000))
		return status_errorf(STATUS_INVALID_ARGUMENT, "--dest-root: an absolute path");
	return NULL;
}

/* What the strategy lets end: all of it, or copying ahead. */
static void take_timeout(struct source *source, int64_t until_ms)
{
	if (source->options.on_timeout != HAUL__V1__ON_TIMEOUT__ABORT)
		source->precopy_until_ms = until_ms;
	else
		source->deadline_ms = until_ms;
}

static void take_options(struct source *source, const Haul__V1__StartRequest *request)
{
	if (request->options != NULL) {
		source->options = *request->options;
		(void)snprintf(source->dest_root, sizeof(source->dest_root), "%s",
			       request->options->dest_root);
	}
	/* Checked before. */
	status_free(
	    batch_codecs_parse(request->options != NULL ? request->options->compression : "",
			       &source->codecs));
	status_free(tracking_parse(request->options != NULL ? request->options->tracking : "",
				   &source->tracking));
	source->may_throttle = source->options.auto_converge;
	atomic_init(&source->is_promise, source->options.max_downtime_ms != 0);
	status_free(restore_mode_parse(request->options != NULL ? request->options->restore : "",
				       &source->restore_mode));
	status_free(source_mode_parse(request->options != NULL ? request->options->mode : "",
				      &source->mode));
	source->may_be_late = is_late(source->mode, &source->options);
	source->is_late = source->mode == MODE_POST_COPY || source->mode == MODE_HYBRID;
	source->options.compression = source->options.tracking = source->options.restore =
	    source->options.mode = NULL;
	source->options.dest_root = source->dest_root;
	atomic_init(&source->max_downtime_ms,
		    source->options.max_downtime_ms != 0 ? source->options.max_downtime_ms : 300);
	atomic_init(&source->bandwidth, source->options.bandwidth_bytes_per_s);
	source->begun_ms = clock_monotonic_fine_ms();
	if (source->options.timeout_ms != 0)
		take_timeout(source, clock_monotonic_ms() + source->options.timeout_ms);
	(void)snprintf(source->to, sizeof(source->to), "%s", request->to);
	(void)snprintf(source->workload, sizeof(source->workload), "%s", request->workload);
}

Haul__V1__Migration *source_view(const struct source *source)
{
	Haul__V1__Migration *view = malloc(sizeof(*view));

	if (view == NULL)
		abort();
	haul__v1__migration__init(view);
	view->id = text_copy(source->id);
	view->state = HAUL__V1__MIGRATION_STATE__RUNNING;
	view->stage = text_copy(source_row(source->stage)->name);
	view->role = text_copy("source");
	view->workload = text_copy(source->workload);
	view->peer = text_copy(source->to);
	view->started_unix_ms = clock_unix_ms();
	view->tracking = text_copy(tracking_name(source->tracking));
	view->doubt = text_copy("");
	view->restore = text_copy("");
	view->mode = text_copy(source_mode_name(source->mode));
	view->pid = source->pid;
	return view;
}

/* What the caller has connected. */
static status *fetch_sockets(struct source *source, const struct rpc_call *call,
			     const Haul__V1__Sockets *handed)
{
	status *st =
	    rpc_call_fetch_socket(call, (int)handed->calls, &source->sockets[RPC_SOCKET_CALLS]);
	if (st == NULL)
		st = rpc_call_fetch_socket(call, (int)handed->memory,
					   &source->sockets[RPC_SOCKET_MEMORY]);
	if (st == NULL)
		st = rpc_call_fetch_socket(call, (int)handed->images,
					   &source->sockets[RPC_SOCKET_IMAGES]);
	source->is_handed_over = st == NULL;
	return st;
}

static status *start_locked(struct sources *sources, struct source *source)
{
	status *st = check_free_locked(sources, source->pid);

	if (st == NULL)
		st = journal_reserve(sources->core->journal);
	if (st == NULL)
		st = rpc_client_new(source->to, sources->core->config.credentials, &source->peer);
	if (st == NULL && source->is_handed_over)
		st = rpc_client_give(source->peer, TAKE_FD(source->sockets[RPC_SOCKET_CALLS]));
	if (st == NULL)
		st = source_journal(source, HAUL__V1__JOURNAL_EVENT__J_SOURCE_BEGUN, NULL);
	if (st == NULL)
		st = registry_add(sources->core->registry, source_view(source));
	return st == NULL ? sources_add(sources, source) : st;
}

status *sources_start(struct sources *sources, const struct rpc_call *call,
		      const Haul__V1__StartRequest *request, Haul__V1__Migration **ret_view)
{
	char id[LIMIT_ID + 1];
	Haul__V1__Migration *known = NULL;
	pid_t pid = 0;
	status *st = workload_parse(request->workload, &pid);

	if (st == NULL)
		st = check_options(request);
	if (st == NULL && atomic_load(&sources->core->is_draining))
		st =
		    status_errorf(STATUS_UNAVAILABLE, "this engine is stopping: no new migrations");
	if (st == NULL)
		st = make_id(call, id);
	if (st == NULL)
		st = find_started(sources, id, request, &known);
	if (known != NULL)
		*ret_view = known;
	if (st != NULL || known != NULL)
		return st;
	struct source *source = source_new(sources->core, id);
	source->pid = pid;
	take_options(source, request);
	if (request->sockets != NULL)
		st = fetch_sockets(source, call, request->sockets);
	if (st == NULL) {
		(void)pthread_mutex_lock(&sources->lock);
		sources_reap(sources);
		st = start_locked(sources, source);
		(void)pthread_mutex_unlock(&sources->lock);
	}
	if (st != NULL) {
		source_free(source);
		return st;
	}
	return registry_get(sources->core->registry, id, ret_view);
}
