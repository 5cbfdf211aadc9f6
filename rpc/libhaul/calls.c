/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <time.h>

#include "proto/clock.h"
#include "proto/envelope.h"
#include "rpc/libhaul/internal.h"

enum {
	ASK_MS = 5000,	     /* an engine that is waited for is asked again after this */
	ASK_CALL_MS = 20000, /* so long may one such question take */
	SHORT_MS = 200,	     /* an answer that comes sooner was not waited for: many wait already */
	PAUSE_MS = 500,
	STATES = 32, /* bits of haul_filter.states */
	/* An engine keeps about a thousand migrations; one that never comes to an end is none. */
	LIST_PAGES = 1000,
	LIST_BYTES = 256 * 1024 * 1024,
};

status *id_read(const char *id, char **ret_id)
{
	if (id == NULL || id[0] == '\0' || strlen(id) > LIMIT_ID)
		return status_errorf(STATUS_INVALID_ARGUMENT, "\"%.80s\" is not a migration's id",
				     id != NULL ? id : "");
	*ret_id = text_copy(id);
	return NULL;
}

status *migrations_call(struct haul_client *client, const char *method,
			const ProtobufCMessage *request, int64_t timeout_ms,
			ProtobufCMessage **ret_response)
{
	return rpc_client_call(client->rpc, &haul__v1__migrations__descriptor, method, request,
			       timeout_ms, ret_response);
}

/* A call that answers with a migration; ret_migration may be NULL. */
static status *call_for_view(struct haul_client *client, const char *method,
			     const ProtobufCMessage *request, struct haul_migration **ret_migration)
{
	ProtobufCMessage *response = NULL;
	status *st = migrations_call(client, method, request, client->timeout_ms, &response);

	if (st != NULL)
		return st;
	if (ret_migration != NULL)
		return migration_view((Haul__V1__Migration *)response, ret_migration);
	message_free(response);
	return NULL;
}

static status *options_read(const struct haul_options *options, struct haul_options *ret_known)
{
	status *st = options != NULL ? struct_read(options, ret_known, "haul_options") : NULL;

	if (st == NULL && ret_known->tcp > HAUL_TCP_CLOSE)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "haul_options.tcp: there is no %u",
				   ret_known->tcp);
	if (st == NULL && ret_known->on_timeout > HAUL_ON_TIMEOUT_POST_COPY)
		st =
		    status_errorf(STATUS_INVALID_ARGUMENT,
				  "haul_options.on_timeout: there is no %u", ret_known->on_timeout);
	return st;
}

struct haul_error *haul_start(struct haul_client *client, const char *workload, const char *to,
			      const struct haul_options *options,
			      struct haul_migration **ret_migration)
{
	struct haul_options known = HAUL_OPTIONS_INIT;
	Haul__V1__StartRequest request = HAUL__V1__START_REQUEST__INIT;
	Haul__V1__MigrateOptions wanted = HAUL__V1__MIGRATE_OPTIONS__INIT;
	Haul__V1__Sockets sockets = HAUL__V1__SOCKETS__INIT;
	status *st = options_read(options, &known);

	if (st != NULL)
		return give_error(st);
	scoped(str) char *workload_copy = text_copy(workload);
	scoped(str) char *to_copy = text_copy(to);
	scoped(str) char *root = text_copy(known.dest_root);
	scoped(str) char *tracking = text_copy(known.tracking);
	scoped(str) char *compression = text_copy(known.compression);
	scoped(str) char *restore = text_copy(known.restore);
	scoped(str) char *mode = text_copy(known.mode);
	wanted.max_downtime_ms = known.max_downtime_ms;
	wanted.max_rounds = known.max_rounds;
	wanted.no_precopy = known.no_precopy;
	wanted.tcp = (Haul__V1__TcpMode)known.tcp;
	wanted.shell_job = known.shell_job;
	wanted.dest_root = root;
	wanted.timeout_ms = known.timeout_ms;
	wanted.tracking = tracking;
	wanted.compression = compression;
	wanted.restore = restore;
	wanted.mode = mode;
	wanted.streams = known.streams;
	wanted.bandwidth_bytes_per_s = known.bandwidth_bytes_per_s;
	wanted.on_timeout = (Haul__V1__OnTimeout)known.on_timeout;
	wanted.auto_converge = known.auto_converge;
	request.workload = workload_copy;
	request.to = to_copy;
	request.options = &wanted;
	sockets.calls = (uint32_t)known.fd_rpc;
	sockets.memory = (uint32_t)known.fd_memory;
	sockets.images = (uint32_t)known.fd_images;
	if (known.fd_rpc != 0 || known.fd_memory != 0 || known.fd_images != 0)
		request.sockets = &sockets;
	return give_error(call_for_view(client, "Start", &request.base, ret_migration));
}

/* The same about one migration: request_id is where the request has its id. */
static struct haul_error *call_about(struct haul_client *client, const char *method, const char *id,
				     const ProtobufCMessage *request, char **request_id,
				     struct haul_migration **ret_migration)
{
	scoped(str) char *copy = NULL;
	status *st = id_read(id, &copy);

	*request_id = copy;
	if (st == NULL)
		st = call_for_view(client, method, request, ret_migration);
	return give_error(st);
}

struct haul_error *haul_get(struct haul_client *client, const char *id,
			    struct haul_migration **ret_migration)
{
	Haul__V1__GetRequest request = HAUL__V1__GET_REQUEST__INIT;

	return call_about(client, "Get", id, &request.base, &request.id, ret_migration);
}

struct haul_error *haul_cancel(struct haul_client *client, const char *id,
			       struct haul_migration **ret_migration)
{
	Haul__V1__CancelRequest request = HAUL__V1__CANCEL_REQUEST__INIT;

	return call_about(client, "Cancel", id, &request.base, &request.id, ret_migration);
}

struct haul_error *haul_recover(struct haul_client *client, const char *id,
				struct haul_migration **ret_migration)
{
	Haul__V1__RecoverRequest request = HAUL__V1__RECOVER_REQUEST__INIT;

	return call_about(client, "Recover", id, &request.base, &request.id, ret_migration);
}

struct haul_error *haul_adjust(struct haul_client *client, const char *id,
			       const struct haul_limits *limits,
			       struct haul_migration **ret_migration)
{
	struct haul_limits known = HAUL_LIMITS_INIT;
	Haul__V1__AdjustRequest request = HAUL__V1__ADJUST_REQUEST__INIT;
	status *st = struct_read(limits, &known, "haul_limits");

	if (st != NULL)
		return give_error(st);
	request.bandwidth_bytes_per_s = known.bandwidth_bytes_per_s;
	request.no_bandwidth_limit = known.no_bandwidth_limit;
	request.max_downtime_ms = known.max_downtime_ms;
	return call_about(client, "Adjust", id, &request.base, &request.id, ret_migration);
}

struct haul_error *haul_accept(struct haul_client *client, const char *identity, int fd_rpc,
			       int fd_memory, int fd_images)
{
	Haul__V1__AcceptRequest request = HAUL__V1__ACCEPT_REQUEST__INIT;
	Haul__V1__Sockets sockets = HAUL__V1__SOCKETS__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(str) char *copy = text_copy(identity);

	sockets.calls = (uint32_t)fd_rpc;
	sockets.memory = (uint32_t)fd_memory;
	sockets.images = (uint32_t)fd_images;
	request.sockets = &sockets;
	request.identity = copy;
	return give_error(
	    migrations_call(client, "Accept", &request.base, client->timeout_ms, &response));
}

struct haul_error *haul_delete(struct haul_client *client, const char *id)
{
	Haul__V1__DeleteRequest request = HAUL__V1__DELETE_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(str) char *copy = NULL;
	status *st = id_read(id, &copy);

	request.id = copy;
	if (st == NULL)
		st =
		    migrations_call(client, "Delete", &request.base, client->timeout_ms, &response);
	return give_error(st);
}

static status *still_running(const Haul__V1__Migration *migration)
{
	return status_detailf(status_errorf(STATUS_DEADLINE_EXCEEDED,
					    "migration %s is %s still, in stage %s", migration->id,
					    haul_state_name((enum haul_state)migration->state),
					    migration->stage),
			      "state", "it goes on by itself");
}

static status *wait_once(struct haul_client *client, char *id, int64_t left_ms,
			 ProtobufCMessage **ret_view)
{
	Haul__V1__WaitRequest request = HAUL__V1__WAIT_REQUEST__INIT;
	int64_t begun_ms = clock_monotonic_ms();

	request.id = id;
	request.timeout_ms = (uint32_t)(left_ms < ASK_MS ? left_ms : ASK_MS);
	status *st =
	    migrations_call(client, "Wait", &request.base,
			    client->timeout_ms < ASK_CALL_MS ? ASK_CALL_MS : client->timeout_ms,
			    ret_view);
	if (st == NULL &&
	    !haul_state_is_over((enum haul_state)((Haul__V1__Migration *)*ret_view)->state) &&
	    clock_monotonic_ms() - begun_ms < SHORT_MS)
		(void)nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
	return st;
}

struct haul_error *haul_wait(struct haul_client *client, const char *id, int64_t timeout_ms,
			     struct haul_migration **ret_migration)
{
	int64_t until_ms = timeout_ms > 0 ? clock_monotonic_ms() + timeout_ms : INT64_MAX;
	scoped(str) char *copy = NULL;
	status *st = id_read(id, &copy);

	while (st == NULL) {
		scoped(message) ProtobufCMessage *view = NULL;
		int64_t left_ms = until_ms - clock_monotonic_ms();
		st = wait_once(client, copy, left_ms > 1 ? left_ms : 1, &view);
		if (st != NULL)
			break;
		Haul__V1__Migration *migration = (Haul__V1__Migration *)view;
		if (haul_state_is_over((enum haul_state)migration->state)) {
			view = NULL;
			return give_error(migration_view(migration, ret_migration));
		}
		if (clock_monotonic_ms() >= until_ms)
			st = still_running(migration);
	}
	return give_error(st);
}

struct list_owner {
	struct haul_list view; /* first */
	struct haul_migration **migrations;
	size_t bytes; /* of all of them, packed */
};

/* Moves a page's migrations to the end of the list. */
static status *take_page(struct list_owner *list, Haul__V1__ListResponse *page)
{
	size_t count = list->view.count + page->n_migrations;
	struct haul_migration **grown =
	    realloc(list->migrations, (count + 1) * sizeof(*list->migrations));

	if (grown == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	list->migrations = grown;
	list->view.migrations = grown;
	for (size_t i = 0; i < page->n_migrations; i++) {
		status *st = migration_view(TAKE(page->migrations[i]), &grown[list->view.count]);
		if (st != NULL) {
			/* What is taken is gone: the rest moves up, for the page's owner. */
			size_t left = page->n_migrations - i - 1;
			memmove(page->migrations, &page->migrations[i + 1],
				left * sizeof(*page->migrations));
			page->n_migrations = left;
			return st;
		}
		list->bytes += grown[list->view.count++]->wire_bytes;
	}
	page->n_migrations = 0;
	return NULL;
}

static status *list_all(struct haul_client *client, uint32_t limit, Haul__V1__ListRequest *request,
			struct list_owner *list)
{
	scoped(str) char *token = text_copy("");

	for (unsigned pages = 0; pages < LIST_PAGES && list->bytes < LIST_BYTES; pages++) {
		scoped(message) ProtobufCMessage *response = NULL;
		request->page_token = token;
		request->page_size = limit > 0 ? limit - (uint32_t)list->view.count : 0;
		status *st =
		    migrations_call(client, "List", &request->base, client->timeout_ms, &response);
		if (st != NULL)
			return st;
		Haul__V1__ListResponse *page = (Haul__V1__ListResponse *)response;
		st = take_page(list, page);
		if (st != NULL || page->next_page_token[0] == '\0' ||
		    (limit > 0 && list->view.count >= limit))
			return st;
		free(token);
		token = text_copy(page->next_page_token);
	}
	return status_errorf(STATUS_RESOURCE_EXHAUSTED, "the engine's list does not end");
}

struct haul_error *haul_list(struct haul_client *client, const struct haul_filter *filter,
			     struct haul_list **ret_list)
{
	struct haul_filter known = HAUL_FILTER_INIT;
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	Haul__V1__MigrationState states[STATES];
	struct list_owner *list = calloc(1, sizeof(*list));

	if (list == NULL)
		return give_error(status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory"));
	status *st = filter != NULL ? struct_read(filter, &known, "haul_filter") : NULL;
	scoped(str) char *workload = text_copy(known.workload);
	scoped(str) char *peer = text_copy(known.peer);
	request.active_only = known.active_only;
	request.workload = workload;
	request.peer = peer;
	request.since_unix_ms = known.since_unix_ms;
	request.states = states;
	for (unsigned i = 0; i < STATES; i++)
		if ((known.states >> i & 1) != 0)
			states[request.n_states++] = (Haul__V1__MigrationState)i;
	if (st == NULL)
		st = list_all(client, known.limit, &request, list);
	if (st != NULL) {
		haul_list_free(&list->view);
		return give_error(st);
	}
	*ret_list = &list->view;
	return NULL;
}

void haul_list_free(struct haul_list *list)
{
	struct list_owner *owner = (struct list_owner *)list;

	if (owner == NULL)
		return;
	for (size_t i = 0; i < owner->view.count; i++)
		haul_migration_free(owner->migrations[i]);
	free(owner->migrations);
	free(owner);
}

struct haul_error *haul_node_info(struct haul_client *client, struct haul_node **ret_node)
{
	Haul__V1__NodeInfoRequest request = HAUL__V1__NODE_INFO_REQUEST__INIT;
	ProtobufCMessage *response = NULL;
	status *st = rpc_client_call(client->rpc, &haul__v1__node__descriptor, "Info",
				     &request.base, client->timeout_ms, &response);

	if (st == NULL)
		st = node_view((Haul__V1__NodeInfo *)response, ret_node);
	return give_error(st);
}
