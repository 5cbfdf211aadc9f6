/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/described.h"

#include <stdio.h>
#include <string.h>

#include "haul/v1/reflection.pb-c.h"
#include "proto/wire.h"

enum { SET_FILE = 1 }; /* FileDescriptorSet.file */

static status *load_files(const Haul__V1__FileDescriptorResponse *files, struct schema **ret_schema)
{
	scoped(wire_out) struct wire_out set = {0};

	for (size_t i = 0; i < files->n_file_descriptor_proto; i++) {
		status *st = wire_put_bytes(&set, SET_FILE, files->file_descriptor_proto[i].data,
					    files->file_descriptor_proto[i].len);
		if (st != NULL)
			return st;
	}
	return schema_load(set.buffer.data, set.buffer.size, ret_schema);
}

status *described_load(struct ctl *ctl, const char *symbol, struct schema **ret_schema)
{
	Haul__V1__FileContainingSymbolRequest request =
	    HAUL__V1__FILE_CONTAINING_SYMBOL_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	scoped(str) char *copy = text_copy(symbol);

	request.symbol = copy;
	status *st = ctl_call(ctl, &haul__v1__reflection__descriptor, "FileContainingSymbol",
			      &request.base, &response);
	if (status_code_of(st) == STATUS_UNIMPLEMENTED) {
		status_free(st);
		return schema_load_own(ret_schema);
	}
	if (status_code_of(st) == STATUS_NOT_FOUND)
		st =
		    status_detailf(st, "next",
				   "haulctl list-services and haulctl describe tell what there is");
	if (st != NULL)
		return st;
	return load_files((const Haul__V1__FileDescriptorResponse *)response, ret_schema);
}

status *method_name_parse(const char *text, struct method_name *ret_name)
{
	const char *start = text + (text[0] == '/');
	const char *split = strchr(start, '/');

	if (split == NULL)
		split = strrchr(start, '.');
	if (split == NULL || split == start || split[1] == '\0' || strlen(text) > LIMIT_NAME)
		return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
						    "\"%.80s\" is not a method", text),
				      "next", "write SERVICE/METHOD, like haul.v1.Migrations/List");
	(void)snprintf(ret_name->service, sizeof(ret_name->service), "%.*s", (int)(split - start),
		       start);
	(void)snprintf(ret_name->method, sizeof(ret_name->method), "%s", split + 1);
	return NULL;
}

/* -H "name: value", which the library checks. */
static status *read_headers(const struct ctl *ctl, char **texts, struct haul_metadata *entries)
{
	for (size_t i = 0; i < ctl->headers.count; i++) {
		texts[i] = text_copy(ctl->headers.items[i]);
		char *colon = strchr(texts[i], ':');
		if (colon == NULL)
			return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
							    "-H: \"%.80s\" has no colon",
							    ctl->headers.items[i]),
					      "next", "write -H 'name: value'");
		*colon = '\0';
		entries[i].name = texts[i];
		entries[i].value = colon + 1 + strspn(colon + 1, " ");
	}
	return NULL;
}

static void print_reply(const struct haul_reply *reply)
{
	struct haul_metadata entry;

	for (size_t i = 0; haul_reply_trailing_at(reply, i, &entry); i++)
		(void)fprintf(stderr, "%s: %s\n", entry.name, entry.value);
}

static status *exchange(struct ctl *ctl, const struct haul_request *request,
			struct buffer *ret_response)
{
	struct haul_reply *reply = NULL;
	struct buffer copy = {0};
	status *st = ctl_failed(ctl, haul_exchange(ctl->client, request, &reply));
	const uint8_t *message = reply != NULL ? haul_reply_message(reply, &copy.size) : NULL;

	if (ctl->verbose)
		print_reply(reply);
	if (st == NULL && (copy.data = malloc(copy.size + 1)) == NULL)
		st = status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for an answer");
	if (st == NULL && copy.size > 0)
		memcpy(copy.data, message, copy.size);
	haul_reply_free(reply);
	if (st == NULL)
		*ret_response = copy;
	return st;
}

status *described_call(struct ctl *ctl, const struct method_name *name,
		       const struct buffer *request, struct buffer *ret_response)
{
	char method[2 * LIMIT_NAME + 2];
	char *texts[FLAG_LIST_MOST] = {0};
	struct haul_metadata entries[FLAG_LIST_MOST] = {0};
	struct haul_request whole = HAUL_REQUEST_INIT;

	(void)snprintf(method, sizeof(method), "%s/%s", name->service, name->method);
	whole.method = method;
	whole.message = request->data;
	whole.message_bytes = request->size;
	whole.metadata = entries;
	whole.metadata_count = ctl->headers.count;
	status *st = read_headers(ctl, texts, entries);
	if (st == NULL)
		st = ctl_connect(ctl);
	if (st == NULL)
		st = exchange(ctl, &whole, ret_response);
	for (size_t i = 0; i < array_len(texts); i++)
		free(texts[i]);
	return st;
}
