/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/cmd/pretend.h"

#include <stdio.h>
#include <string.h>

#include "proto/envelope.h"

struct engine engine;

static Haul__V1__Migration *migration_new(Haul__V1__MigrationState state, const char *stage)
{
	Haul__V1__Migration *migration = calloc(1, sizeof(*migration));

	assert_non_null(migration);
	haul__v1__migration__init(migration);
	migration->id = text_copy("7f3a");
	migration->state = state;
	migration->stage = text_copy(stage);
	migration->workload = text_copy("pid:42");
	migration->peer = text_copy("tls+tcp://b:7777");
	migration->role = text_copy("source");
	migration->tracking = text_copy("none");
	migration->restore = text_copy("");
	migration->doubt = text_copy("");
	return migration;
}

static void send_change(Haul__V1__MigrationState state, const char *stage, enum status_code code)
{
	Haul__V1__Migration *migration = migration_new(state, stage);

	migration->restored_pid = state == HAUL__V1__MIGRATION_STATE__COMPLETED ? 42 : 0;
	if (code != STATUS_OK) {
		status *st = status_detailf(status_errorf(code, "pid 42 is used"), "state",
					    "it runs at the source");
		migration->error = status_to_wire(st);
		status_free(st);
	}
	migration->sequence = ++engine.sequence;
	status_free(stream_send(engine.stream, &migration->base, WAIT_MS));
	haul__v1__migration__free_unpacked(migration, NULL);
}

void await(const atomic_bool *flag)
{
	const struct timespec pause = {.tv_nsec = 2000000};

	while (!atomic_load(flag) && !atomic_load(&engine.is_over))
		(void)nanosleep(&pause, NULL);
}

static void play(void)
{
	send_change(HAUL__V1__MIGRATION_STATE__RUNNING, "pre-copy", STATUS_OK);
	atomic_store(&engine.is_watched, true);
	switch (engine.ending) {
	case END_COMPLETED:
		send_change(HAUL__V1__MIGRATION_STATE__COMPLETED, "over", STATUS_OK);
		break;
	case END_ABORTED:
		send_change(HAUL__V1__MIGRATION_STATE__ABORTED, "over", STATUS_ALREADY_EXISTS);
		break;
	case END_WHEN_CANCELLED:
		await(&engine.is_cancelled);
		send_change(HAUL__V1__MIGRATION_STATE__CANCELLED, "over", STATUS_CANCELLED);
		break;
	case END_NEVER:
		await(&engine.is_over);
		break;
	default: /* dies */
		if (engine.ending == END_BREAKS)
			await(&engine.may_break);
		stream_interrupt(engine.stream);
		break;
	}
}

/* Each time it is watched it goes on behind what was seen; that is told apart from what was sent.
 */
static status *serve_watch(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			   struct stream *stream)
{
	uint64_t after = ((const Haul__V1__WatchRequest *)request)->after_sequence;

	(void)self;
	(void)call;
	if (atomic_fetch_add(&engine.watches, 1) == 1 && engine.ending == END_BREAKS)
		engine.ending = END_COMPLETED;
	engine.seen = after;
	if (engine.ending == END_DIES && atomic_load(&engine.watches) > 1)
		return status_errorf(STATUS_UNAVAILABLE, "still dead");
	engine.stream = stream;
	play();
	return NULL;
}

static status *serve_start(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			   ProtobufCMessage **ret_response)
{
	(void)self;
	(void)call;
	if (strcmp(((const Haul__V1__StartRequest *)request)->workload, "pid:42") != 0)
		return status_detailf(status_errorf(STATUS_NOT_FOUND, "there is no process"),
				      "next", "look again");
	*ret_response = &migration_new(HAUL__V1__MIGRATION_STATE__RUNNING, "preflight")->base;
	return NULL;
}

/* "attend" is answered when its caller wants no answer any more. */
static status *serve_get(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			 ProtobufCMessage **ret_response)
{
	(void)self;
	if (request->descriptor == &haul__v1__get_request__descriptor &&
	    strcmp(((const Haul__V1__GetRequest *)request)->id, "attend") == 0) {
		atomic_store(&engine.is_attending, true);
		while (!rpc_call_is_cancelled(call) && !atomic_load(&engine.is_over))
			(void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
		atomic_store(&engine.is_attending, false);
	}
	*ret_response = &migration_new(HAUL__V1__MIGRATION_STATE__RUNNING, "pre-copy")->base;
	return NULL;
}

static status *serve_list(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			  ProtobufCMessage **ret_response)
{
	const Haul__V1__ListRequest *asked = (const Haul__V1__ListRequest *)request;
	Haul__V1__ListResponse *list = calloc(1, sizeof(*list));

	(void)self;
	(void)call;
	haul__v1__list_response__init(list);
	/* Three pages of one each, or the last of them for ever. */
	int page = asked->page_token[0] != '\0' ? atoi(asked->page_token) : 0;
	if (page < 2 || strcmp(asked->workload, "endless") == 0)
		list->next_page_token = text_copy(page == 0 ? "1" : "2");
	list->migrations = calloc(1, sizeof(*list->migrations));
	list->migrations[0] = migration_new(HAUL__V1__MIGRATION_STATE__RUNNING, "pre-copy");
	list->n_migrations = 1;
	*ret_response = &list->base;
	return NULL;
}

static status *serve_cancel(void *self, const struct rpc_call *call,
			    const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	atomic_store(&engine.is_cancelled, true);
	return serve_get(self, call, request, ret_response);
}

static status *serve_resolve(void *self, const struct rpc_call *call,
			     const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	return serve_get(self, call, request, ret_response);
}

/* Over with the second question. */
static status *serve_wait(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			  ProtobufCMessage **ret_response)
{
	if (atomic_fetch_add(&engine.waits, 1) == 0 || engine.ending == END_NEVER)
		return serve_get(self, call, request, ret_response);
	*ret_response = &migration_new(HAUL__V1__MIGRATION_STATE__COMPLETED, "over")->base;
	return NULL;
}

static status *serve_delete(void *self, const struct rpc_call *call,
			    const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	Haul__V1__DeleteResponse *response = calloc(1, sizeof(*response));

	(void)self;
	(void)call;
	haul__v1__delete_response__init(response);
	*ret_response = &response->base;
	if (strcmp(((const Haul__V1__DeleteRequest *)request)->id, "7f3a") == 0)
		return NULL;
	free(TAKE(*ret_response));
	return status_errorf(STATUS_FAILED_PRECONDITION, "it is not over");
}

static status *serve_adjust(void *self, const struct rpc_call *call,
			    const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	const Haul__V1__AdjustRequest *asked = (const Haul__V1__AdjustRequest *)request;

	atomic_store(&engine.bandwidth,
		     asked->no_bandwidth_limit ? UINT64_MAX : asked->bandwidth_bytes_per_s);
	atomic_store(&engine.max_downtime_ms, asked->max_downtime_ms);
	return serve_get(self, call, request, ret_response);
}

static status *serve_accept(void *self, const struct rpc_call *call,
			    const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	const Haul__V1__AcceptRequest *asked = (const Haul__V1__AcceptRequest *)request;

	(void)self;
	(void)call;
	(void)ret_response;
	return status_errorf(STATUS_INVALID_ARGUMENT, "%s by %u, %u and %u", asked->identity,
			     asked->sockets->calls, asked->sockets->memory, asked->sockets->images);
}

static status *allow(void *self, const struct identity *caller, const char *method)
{
	(void)self;
	(void)caller;
	(void)method;
	return NULL;
}

static void ignore_call(void *self, const struct rpc_call *call, const status *st, int64_t took_us)
{
	(void)self;
	(void)call;
	(void)st;
	(void)took_us;
}

static void ignore_refusal(void *self, const char *listener, const char *peer, const char *why)
{
	(void)self;
	(void)listener;
	(void)peer;
	(void)why;
}

void engine_start(enum ending ending)
{
	static const rpc_handler handlers[] = {serve_start,  serve_get,	   serve_list,
					       serve_cancel, NULL,	   serve_resolve,
					       serve_wait,   serve_delete, serve_adjust,
					       serve_accept};
	static const rpc_stream_handler streams[10] = {[4] = serve_watch};
	static struct rpc_service service;
	const struct rpc_server_config config = {.services = &service,
						 .service_count = 1,
						 .authorize = allow,
						 .observer = {.called = ignore_call,
							      .refused = ignore_refusal},
						 .stream_place = {.directory = engine.directory}};

	service = (struct rpc_service){.descriptor = &haul__v1__migrations__descriptor,
				       .handlers = handlers,
				       .streams = streams};
	memset(&engine, 0, sizeof(engine));
	engine.ending = ending;
	(void)snprintf(engine.directory, sizeof(engine.directory), "/tmp/haulctl-XXXXXX");
	assert_non_null(mkdtemp(engine.directory));
	(void)snprintf(engine.url, sizeof(engine.url), "ipc://%s/hauld.sock", engine.directory);
	assert_ok(rpc_start());
	assert_ok(rpc_server_new(&config, &engine.server));
	assert_ok(rpc_server_listen(engine.server, engine.url, NULL, 4));
}

void engine_stop(void)
{
	char command[128];

	atomic_store(&engine.is_over, true);
	/* The server's threads wrote what is read below. */
	rpc_server_stop(engine.server, WAIT_MS);
	rpc_server_free(engine.server);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", engine.directory);
	assert_int_equal(system(command), 0);
}

struct started haulctl_start(const char *const arguments[ARGUMENTS])
{
	return program_start(engine.url, arguments, NULL);
}

struct outcome haulctl(const char *const arguments[ARGUMENTS])
{
	struct started started = haulctl_start(arguments);

	return program_end(&started);
}
