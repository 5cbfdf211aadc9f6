/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <time.h>

#include "proto/pack.h"
#include "proto/raw.h"
#include "rpc/libhaul/internal.h"

enum { TIMEOUT_MS = 10000 };

static const char local_url[] = "ipc:///run/haul/hauld.sock";

const char *haul_version(void)
{
	return HAUL_VERSION;
}

status *struct_read(const void *theirs, void *known, const char *name)
{
	size_t size = 0, room = 0;

	memcpy(&size, theirs, sizeof(size));
	memcpy(&room, known, sizeof(room));
	if (size < sizeof(size))
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s was not initialised", name);
	memset(known, 0, room);
	memcpy(known, theirs, size < room ? size : room);
	memcpy(known, &room, sizeof(room));
	for (size_t i = room; i < size; i++)
		if (((const uint8_t *)theirs)[i] != 0)
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "%s has what this libhaul (%s) does not know", name,
					     HAUL_VERSION);
	return NULL;
}

static status *load_credentials(const struct haul_tls *tls, struct credentials **ret_credentials)
{
	struct haul_tls known = HAUL_TLS_INIT;
	status *st = struct_read(tls, &known, "haul_tls");

	if (st != NULL)
		return st;
	if (known.ca == NULL || known.cert == NULL || known.key == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "haul_tls needs ca, cert and key, all three");
	const struct credentials_files files = {.ca = known.ca,
						.cert = known.cert,
						.key = known.key,
						.crl = known.crl};
	return credentials_load(&files, ret_credentials);
}

struct haul_error *haul_connect(const char *url, const struct haul_tls *tls,
				struct haul_client **ret_client)
{
	struct haul_client *client = calloc(1, sizeof(*client));

	if (client == NULL)
		return give_error(status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory"));
	client->timeout_ms = TIMEOUT_MS;
	status *st = rpc_start();
	if (st == NULL && tls != NULL)
		st = load_credentials(tls, &client->credentials);
	if (st == NULL)
		st = rpc_client_new(url != NULL ? url : local_url, client->credentials,
				    &client->rpc);
	if (st != NULL) {
		haul_disconnect(client);
		return give_error(st);
	}
	/* What got lost on the way is sent again: the engine carries a request out once. */
	rpc_client_enable_retry(client->rpc);
	*ret_client = client;
	return NULL;
}

void haul_set_timeout(struct haul_client *client, int64_t timeout_ms)
{
	client->timeout_ms = timeout_ms > 0 ? timeout_ms : TIMEOUT_MS;
}

void haul_interrupt(struct haul_client *client)
{
	rpc_client_interrupt(client->rpc);
}

void haul_resume(struct haul_client *client)
{
	rpc_client_resume(client->rpc);
}

void haul_disconnect(struct haul_client *client)
{
	if (client == NULL)
		return;
	rpc_client_free(client->rpc);
	credentials_free(client->credentials);
	free(client);
}

struct haul_reply {
	struct buffer message;
	Haul__V1__Metadata *trailing; /* or NULL */
};

/* A service of one method, whose messages are not looked into. */
static status *call_raw(struct haul_client *client, const struct rpc_request *call,
			const char *service_name, ProtobufCMessage **ret_response,
			Haul__V1__Metadata **ret_trailing)
{
	const ProtobufCMethodDescriptor method = {call->method, &raw_message_descriptor,
						  &raw_message_descriptor};
	const unsigned index = 0;
	const ProtobufCServiceDescriptor service = {
	    .magic = PROTOBUF_C__SERVICE_DESCRIPTOR_MAGIC,
	    .name = service_name,
	    .short_name = service_name,
	    .c_name = service_name,
	    .package = "",
	    .n_methods = 1,
	    .methods = &method,
	    .method_indices_by_name = &index,
	};

	struct rpc_request whole = *call;

	whole.service = &service;
	whole.timeout_ms = client->timeout_ms;
	return rpc_client_request(client->rpc, &whole, ret_response, ret_trailing);
}

static status *read_metadata(const struct haul_request *request, Haul__V1__Metadata *metadata)
{
	status *st = NULL;

	for (size_t i = 0; i < request->metadata_count && st == NULL; i++)
		st = metadata_add(metadata, request->metadata[i].name, request->metadata[i].value);
	return st;
}

static status *exchange(struct haul_client *client, const struct haul_request *request,
			struct haul_reply *reply)
{
	const char *start = request->method + (request->method[0] == '/');
	const char *split = strchr(start, '/');
	scoped(message) ProtobufCMessage *asked = NULL;
	scoped(message) ProtobufCMessage *answer = NULL;
	scoped(metadata) Haul__V1__Metadata *metadata = metadata_new();

	if (split == NULL || split == start || split[1] == '\0' ||
	    strlen(request->method) > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT, "\"%.80s\" is not SERVICE/METHOD",
				     request->method);
	scoped(str) char *service = strndup(start, (size_t)(split - start));
	if (service == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");
	status *st = read_metadata(request, metadata);
	if (st == NULL)
		st = unpack_message(&raw_message_descriptor, request->message,
				    request->message_bytes, LIMIT_UNARY_BYTES, &asked);
	const struct rpc_request call = {.method = split + 1,
					 .message = asked,
					 .metadata = metadata,
					 .cancel = request->token != NULL ? &request->token->cancel
									  : NULL};
	if (st == NULL)
		st = call_raw(client, &call, service, &answer, &reply->trailing);
	return st != NULL ? st : pack_message(answer, LIMIT_UNARY_BYTES, &reply->message);
}

struct haul_error *haul_call(struct haul_client *client, const char *method, const uint8_t *request,
			     size_t request_bytes, uint8_t **ret_response,
			     size_t *ret_response_bytes)
{
	const struct haul_request whole = {.method = method,
					   .message = request,
					   .message_bytes = request_bytes};
	struct haul_reply reply = {0};
	status *st = exchange(client, &whole, &reply);

	metadata_free(reply.trailing);
	if (st != NULL)
		return give_error(st);
	*ret_response = reply.message.data;
	*ret_response_bytes = reply.message.size;
	return NULL;
}

struct haul_error *haul_exchange(struct haul_client *client, const struct haul_request *request,
				 struct haul_reply **ret_reply)
{
	struct haul_request known = HAUL_REQUEST_INIT;
	struct haul_reply *reply = calloc(1, sizeof(*reply));
	status *st = reply != NULL ? struct_read(request, &known, "haul_request")
				   : status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory");

	if (st == NULL && known.method == NULL)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "haul_request.method is missing");
	if (st == NULL)
		st = exchange(client, &known, reply);
	if (st == NULL || (reply != NULL && reply->trailing != NULL))
		*ret_reply = reply;
	else
		haul_reply_free(reply);
	return give_error(st);
}

struct haul_token *haul_token_new(void)
{
	return calloc(1, sizeof(struct haul_token));
}

void haul_token_cancel(struct haul_client *client, struct haul_token *token)
{
	rpc_client_cancel(client->rpc, &token->cancel);
}

void haul_token_free(struct haul_token *token)
{
	free(token);
}

const uint8_t *haul_reply_message(const struct haul_reply *reply, size_t *ret_bytes)
{
	*ret_bytes = reply->message.size;
	return reply->message.data;
}

bool haul_reply_trailing_at(const struct haul_reply *reply, size_t index,
			    struct haul_metadata *ret_entry)
{
	if (reply == NULL || reply->trailing == NULL || index >= reply->trailing->n_entries)
		return false;
	ret_entry->name = reply->trailing->entries[index]->key;
	ret_entry->value = reply->trailing->entries[index]->value;
	return true;
}

void haul_reply_free(struct haul_reply *reply)
{
	if (reply == NULL)
		return;
	buffer_free(&reply->message);
	metadata_free(reply->trailing);
	free(reply);
}

void haul_bytes_free(uint8_t *bytes)
{
	free(bytes);
}
