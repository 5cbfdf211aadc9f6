/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/reflection.h"

#include <string.h>

#include "haul/descriptor.pb-c.h"
#include "haul/v1/reflection.pb-c.h"
#include "proto/pack.h"
#include "proto/schema.h"

struct file {
	const ProtobufCBinaryData *packed;
	Haul__Descriptor__File *unpacked;
};

struct reflection {
	const struct rpc_service *services;
	size_t service_count;
	struct schema *schema;
	Haul__Descriptor__FileSet *set;
	size_t file_count;
	struct file *files; /* of the set; imports stand before what imports them */
};

static status *no_memory(void)
{
	return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for descriptors");
}

static status *unpack_files(struct reflection *reflection)
{
	const Haul__Descriptor__FileSet *set = reflection->set;

	reflection->files = calloc(set->n_file + 1, sizeof(*reflection->files));
	if (reflection->files == NULL)
		return no_memory();
	for (size_t i = 0; i < set->n_file; i++) {
		ProtobufCMessage *file = NULL;
		status *st = unpack_message(&haul__descriptor__file__descriptor, set->file[i].data,
					    set->file[i].len, LIMIT_UNARY_BYTES, &file);
		if (st != NULL)
			return st;
		reflection->files[reflection->file_count++] =
		    (struct file){&set->file[i], (Haul__Descriptor__File *)file};
	}
	return NULL;
}

status *reflection_new(const struct rpc_service *services, size_t count, const uint8_t *set,
		       size_t set_size, struct reflection **ret_reflection)
{
	struct reflection *reflection = calloc(1, sizeof(*reflection));
	ProtobufCMessage *unpacked = NULL;

	if (reflection == NULL)
		return no_memory();
	reflection->services = services;
	reflection->service_count = count;
	status *st = schema_load(set, set_size, &reflection->schema);
	if (st == NULL)
		st = unpack_message(&haul__descriptor__file_set__descriptor, set, set_size,
				    LIMIT_UNARY_BYTES, &unpacked);
	reflection->set = (Haul__Descriptor__FileSet *)unpacked;
	if (st == NULL)
		st = unpack_files(reflection);
	if (st != NULL) {
		reflection_free(reflection);
		return st;
	}
	*ret_reflection = reflection;
	return NULL;
}

static void *must_calloc(size_t count, size_t size)
{
	void *memory = calloc(count, size);

	if (memory == NULL)
		abort();
	return memory;
}

static status *list_services(void *self, const struct rpc_call *call,
			     const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	const struct reflection *reflection = self;
	Haul__V1__ListServiceResponse *response = must_calloc(1, sizeof(*response));

	(void)call;
	(void)request;
	haul__v1__list_service_response__init(response);
	response->service = must_calloc(reflection->service_count + 1, sizeof(void *));
	for (size_t i = 0; i < reflection->service_count; i++) {
		Haul__V1__ServiceResponse *service = must_calloc(1, sizeof(*service));
		haul__v1__service_response__init(service);
		service->name = text_copy(reflection->services[i].descriptor->name);
		response->service[response->n_service++] = service;
	}
	*ret_response = &response->base;
	return NULL;
}

static bool is_symbol(const struct schema *schema, const char *symbol)
{
	const char *dot = strrchr(symbol, '.');

	if (schema_message(schema, symbol) != NULL || schema_enum(schema, symbol) != NULL ||
	    schema_service(schema, symbol) != NULL)
		return true;
	if (dot == NULL)
		return false;
	scoped(str) char *name = text_copy(symbol);
	name[dot - symbol] = '\0';
	const struct schema_service *service = schema_service(schema, name);
	return service != NULL && service_method(service, dot + 1) != NULL;
}

/* Is `name` what a symbol below the package begins with? */
static bool is_within(const char *symbol, const char *name)
{
	size_t length = strlen(name);

	return strncmp(symbol, name, length) == 0 &&
	       (symbol[length] == '\0' || symbol[length] == '.');
}

static bool file_has_message(const struct file *file, const char *symbol)
{
	for (size_t i = 0; i < file->unpacked->n_message_type; i++) {
		const ProtobufCBinaryData *packed = &file->unpacked->message_type[i];
		Haul__Descriptor__Message *message =
		    haul__descriptor__message__unpack(NULL, packed->len, packed->data);
		bool is_there = message != NULL && is_within(symbol, message->name);
		haul__descriptor__message__free_unpacked(message, NULL);
		if (is_there)
			return true;
	}
	return false;
}

static bool file_has(const struct file *file, const char *symbol)
{
	const char *package = file->unpacked->package;
	size_t length = strlen(package);

	if (strncmp(symbol, package, length) != 0 || symbol[length] != '.')
		return false;
	symbol += length + 1;
	for (size_t i = 0; i < file->unpacked->n_service; i++)
		if (is_within(symbol, file->unpacked->service[i]->name))
			return true;
	for (size_t i = 0; i < file->unpacked->n_enum_type; i++)
		if (is_within(symbol, file->unpacked->enum_type[i]->name))
			return true;
	return file_has_message(file, symbol);
}

/* Marks what the wanted files import: imports stand before, so that one pass from the end does. */
static void want_imports(const struct reflection *reflection, bool *wanted)
{
	for (size_t i = reflection->file_count; i-- > 0;) {
		const Haul__Descriptor__File *file = reflection->files[i].unpacked;
		for (size_t d = 0; wanted[i] && d < file->n_dependency; d++)
			for (size_t j = 0; j < i; j++)
				if (strcmp(reflection->files[j].unpacked->name,
					   file->dependency[d]) == 0)
					wanted[j] = true;
	}
}

static status *file_containing_symbol(void *self, const struct rpc_call *call,
				      const ProtobufCMessage *request,
				      ProtobufCMessage **ret_response)
{
	const struct reflection *reflection = self;
	const char *symbol = ((const Haul__V1__FileContainingSymbolRequest *)request)->symbol;
	size_t count = reflection->file_count;

	(void)call;
	if (!is_symbol(reflection->schema, symbol))
		return status_errorf(STATUS_NOT_FOUND, "\"%.80s\" is nothing this engine knows",
				     symbol);
	bool *wanted = must_calloc(count + 1, sizeof(*wanted));
	for (size_t i = 0; i < count; i++)
		wanted[i] = file_has(&reflection->files[i], symbol);
	want_imports(reflection, wanted);
	Haul__V1__FileDescriptorResponse *response = must_calloc(1, sizeof(*response));
	haul__v1__file_descriptor_response__init(response);
	response->file_descriptor_proto =
	    must_calloc(count + 1, sizeof(*response->file_descriptor_proto));
	for (size_t i = 0; i < count; i++) {
		if (!wanted[i])
			continue;
		ProtobufCBinaryData copy = {reflection->files[i].packed->len, NULL};
		copy.data = must_calloc(1, copy.len);
		memcpy(copy.data, reflection->files[i].packed->data, copy.len);
		response->file_descriptor_proto[response->n_file_descriptor_proto++] = copy;
	}
	free(wanted);
	*ret_response = &response->base;
	return NULL;
}

static const rpc_handler handlers[] = {list_services, file_containing_symbol};

struct rpc_service reflection_service(struct reflection *reflection)
{
	return (struct rpc_service){.descriptor = &haul__v1__reflection__descriptor,
				    .handlers = handlers,
				    .self = reflection};
}

void reflection_free(struct reflection *reflection)
{
	if (reflection == NULL)
		return;
	for (size_t i = 0; i < reflection->file_count; i++)
		message_free((ProtobufCMessage *)reflection->files[i].unpacked);
	free(reflection->files);
	message_free((ProtobufCMessage *)reflection->set);
	schema_free(reflection->schema);
	free(reflection);
}
