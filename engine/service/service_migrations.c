/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/service/services.h"

#include <string.h>

#include "haul/v1/migrations.pb-c.h"

void *response_new(const ProtobufCMessageDescriptor *descriptor)
{
	void *message = calloc(1, descriptor->sizeof_message);

	if (message == NULL)
		abort();
	descriptor->message_init(message);
	return message;
}

static status *start(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const Haul__V1__StartRequest *wanted = (const Haul__V1__StartRequest *)request;
	status *st = core_check_destination(services->core, wanted->to);

	return st != NULL ? st
			  : sources_start(services->sources, call, wanted,
					  (Haul__V1__Migration **)ret_response);
}

static status *get(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		   ProtobufCMessage **ret_response)
{
	struct services *services = self;

	(void)call;
	return registry_get(services->core->registry, ((const Haul__V1__GetRequest *)request)->id,
			    (Haul__V1__Migration **)ret_response);
}

static status *list(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		    ProtobufCMessage **ret_response)
{
	struct services *services = self;

	(void)call;
	return registry_list(services->core->registry, (const Haul__V1__ListRequest *)request,
			     (Haul__V1__ListResponse **)ret_response);
}

/* What only the source of a migration that runs can do. */
static status *act_at_source(struct services *services, const char *id, const char *verb,
			     status *(*act)(struct sources *sources, const char *id),
			     ProtobufCMessage **ret_response)
{
	scoped(migration_view) Haul__V1__Migration *view = NULL;
	status *st = registry_get(services->core->registry, id, &view);

	if (st != NULL)
		return st;
	if (migration_is_over(view))
		return status_errorf(STATUS_FAILED_PRECONDITION, "migration %s is over", id);
	st = act(services->sources, id);
	if (st != NULL)
		return strcmp(view->role, "destination") == 0
			   ? status_detailf(st, "next", "%s it at its source, %s", verb, view->peer)
			   : st;
	return registry_get(services->core->registry, id, (Haul__V1__Migration **)ret_response);
}

static status *cancel(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		      ProtobufCMessage **ret_response)
{
	(void)call;
	return act_at_source(self, ((const Haul__V1__CancelRequest *)request)->id, "cancel",
			     sources_cancel, ret_response);
}

static status *recover(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		       ProtobufCMessage **ret_response)
{
	(void)call;
	return act_at_source(self, ((const Haul__V1__RecoverRequest *)request)->id, "recover",
			     sources_recover_one, ret_response);
}

static status *watch(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     struct stream *stream)
{
	const struct services *services = self;
	const Haul__V1__WatchRequest *wanted = (const Haul__V1__WatchRequest *)request;

	(void)call;
	return watch_migration(services->core->registry, wanted->id, wanted->after_sequence,
			       stream);
}

static status *resolve(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		       ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const Haul__V1__ResolveRequest *wanted = (const Haul__V1__ResolveRequest *)request;

	(void)call;
	if (wanted->act != HAUL__V1__RESOLVE_REQUEST__ACT__RESUME &&
	    wanted->act != HAUL__V1__RESOLVE_REQUEST__ACT__KILL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "resolve: --resume or --kill");
	status *st = sources_resolve(services->sources, wanted);
	if (status_code_of(st) == STATUS_NOT_FOUND) {
		status_free(st);
		st = incomings_resolve(services->incomings, wanted);
	}
	if (st != NULL)
		return st;
	return registry_get(services->core->registry, wanted->id,
			    (Haul__V1__Migration **)ret_response);
}

static bool is_wanted(void *call)
{
	return !rpc_call_is_cancelled(call);
}

static status *wait_for(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const Haul__V1__WaitRequest *wanted = (const Haul__V1__WaitRequest *)request;
	int64_t timeout_ms = wanted->timeout_ms;

	if (timeout_ms == 0 || timeout_ms > LIMIT_WAIT_MS)
		timeout_ms = LIMIT_WAIT_MS;
	/* In time for the answer to arrive. */
	timeout_ms = rpc_call_budget_ms(call, timeout_ms);
	return registry_await_end(services->core->registry, wanted->id, timeout_ms, is_wanted,
				  (void *)call, (Haul__V1__Migration **)ret_response);
}

static status *delete_one(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			  ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const char *id = ((const Haul__V1__DeleteRequest *)request)->id;
	status *st = registry_delete(services->core->registry, id);

	(void)call;
	if (st == NULL)
		*ret_response = response_new(&haul__v1__delete_response__descriptor);
	return st;
}

static status *adjust(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		      ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const Haul__V1__AdjustRequest *wanted = (const Haul__V1__AdjustRequest *)request;
	scoped(migration_view) Haul__V1__Migration *view = NULL;

	(void)call;
	status *st = registry_get(services->core->registry, wanted->id, &view);
	if (st != NULL)
		return st;
	if (migration_is_over(view))
		return status_errorf(STATUS_FAILED_PRECONDITION, "migration %s is over",
				     wanted->id);
	st = sources_adjust(services->sources, wanted);
	if (st != NULL)
		return st;
	return registry_get(services->core->registry, wanted->id,
			    (Haul__V1__Migration **)ret_response);
}

/* A migration will come over sockets of the caller's. */
static status *accept_sockets(void *self, const struct rpc_call *call,
			      const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	const Haul__V1__AcceptRequest *wanted = (const Haul__V1__AcceptRequest *)request;
	const Haul__V1__Sockets *handed = wanted->sockets;
	scoped(fd) int calls = -1;
	scoped(fd) int memory = -1;
	scoped(fd) int images = -1;

	(void)self;
	if (handed == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "accept: which sockets?");
	status *st = rpc_call_fetch_socket(call, (int)handed->calls, &calls);
	if (st == NULL)
		st = rpc_call_fetch_socket(call, (int)handed->memory, &memory);
	if (st == NULL)
		st = rpc_call_fetch_socket(call, (int)handed->images, &images);
	if (st != NULL)
		return st;
	int sockets[RPC_SOCKETS] = {[RPC_SOCKET_CALLS] = TAKE_FD(calls),
				    [RPC_SOCKET_MEMORY] = TAKE_FD(memory),
				    [RPC_SOCKET_IMAGES] = TAKE_FD(images)};
	st = rpc_call_hand_over(call, wanted->identity, sockets);
	if (st == NULL)
		*ret_response = response_new(&haul__v1__accept_response__descriptor);
	return st;
}

enum { METHODS = 11, WATCH = 4 };

static const rpc_handler handlers[METHODS] = {start,   get,	 list,	     cancel, NULL,
					      resolve, wait_for, delete_one, adjust, accept_sockets,
					      recover};
static const rpc_stream_handler streams[METHODS] = {[WATCH] = watch};

struct rpc_service services_migrations(struct services *services)
{
	return (struct rpc_service){.descriptor = &haul__v1__migrations__descriptor,
				    .handlers = handlers,
				    .self = services,
				    .streams = streams};
}
