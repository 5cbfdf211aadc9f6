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

status *described_call(struct ctl *ctl, const struct method_name *name,
		       const struct buffer *request, struct buffer *ret_response)
{
	char method[2 * LIMIT_NAME + 2];

	(void)snprintf(method, sizeof(method), "%s/%s", name->service, name->method);
	return ctl_call_bytes(ctl, method, request, ret_response);
}
