/* SPDX-License-Identifier: Apache-2.0 */
/* Loading: every file is unpacked and kept, since names point into it; then the lists are sorted,
 * and last the names of types become pointers. */
#include "proto/schema.h"

#include <stdio.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/schema_load.h"

static int compare_names(const void *a, const void *b)
{
	return strcmp(**(char *const *const *)a, **(char *const *const *)b);
}

static int compare_to_name(const void *name, const void *item)
{
	return strcmp(name, **(char *const *const *)item);
}

static void *find(const struct schema_list *list, const char *name)
{
	if (list->count == 0)
		return NULL;
	void **found =
	    bsearch(name, list->items, list->count, sizeof(list->items[0]), compare_to_name);
	return found != NULL ? *found : NULL;
}

const struct schema_message *schema_message(const struct schema *schema, const char *name)
{
	return find(&schema->messages, name);
}

const struct schema_enum *schema_enum(const struct schema *schema, const char *name)
{
	return find(&schema->enums, name);
}

const struct schema_service *schema_service(const struct schema *schema, const char *name)
{
	return find(&schema->services, name);
}

const struct schema_service *schema_service_at(const struct schema *schema, size_t index)
{
	return index < schema->services.count ? schema->services.items[index] : NULL;
}

const struct schema_method *service_method(const struct schema_service *service, const char *name)
{
	for (size_t i = 0; i < service->method_count; i++)
		if (strcmp(service->methods[i].name, name) == 0)
			return &service->methods[i];
	return NULL;
}

const struct schema_message *method_event(const struct schema_method *method)
{
	const struct schema_message *event = NULL;
	bool has_pipe = false;

	for (size_t i = 0; i < method->output->field_count; i++) {
		const struct schema_field *field = &method->output->fields[i];
		if (field->type != SCHEMA_MESSAGE || field->is_repeated)
			continue;
		if (strcmp(field->name, "event") == 0)
			event = field->message;
		else if (strcmp(field->name, "pipe") == 0)
			has_pipe = strcmp(field->message->name, "haul.v1.PipeAddress") == 0;
	}
	return has_pipe ? event : NULL;
}

static status *sort(struct schema_list *list)
{
	if (list->count == 0)
		return NULL;
	qsort(list->items, list->count, sizeof(list->items[0]), compare_names);
	for (size_t i = 1; i < list->count; i++)
		if (compare_names(&list->items[i - 1], &list->items[i]) == 0)
			return status_errorf(STATUS_INVALID_ARGUMENT, "%s is there twice",
					     *(char **)list->items[i]);
	return NULL;
}

/* protoc writes the names of types with a dot before them; others we need not know. */
static const void *resolve(const struct schema_list *list, const char *name)
{
	return name != NULL && name[0] == '.' ? find(list, name + 1) : NULL;
}

static status *missing_type(const char *where, const char *type)
{
	return status_errorf(STATUS_INVALID_ARGUMENT, "%s is of a type that is not there: %.80s",
			     where, type != NULL ? type : "it has no name");
}

static bool is_map_key(const struct schema_field *field)
{
	switch (field->type) {
	case SCHEMA_DOUBLE:
	case SCHEMA_FLOAT:
	case SCHEMA_BYTES:
	case SCHEMA_MESSAGE:
	case SCHEMA_GROUP:
	case SCHEMA_ENUM:
		return false;
	default:
		return true;
	}
}

static bool is_entry(const struct schema_message *message)
{
	return message->field_count == 2 && message->fields[0].number == 1 &&
	       message->fields[1].number == 2 && !message->fields[0].is_repeated &&
	       !message->fields[1].is_repeated && is_map_key(&message->fields[0]);
}

static status *resolve_field(const struct schema *schema, const struct schema_message *message,
			     struct schema_field *field)
{
	if (field->type == SCHEMA_ENUM) {
		field->enumeration = resolve(&schema->enums, field->type_name);
		return field->enumeration != NULL ? NULL
						  : missing_type(message->name, field->type_name);
	}
	if (field->type != SCHEMA_MESSAGE)
		return NULL;
	field->message = resolve(&schema->messages, field->type_name);
	if (field->message == NULL)
		return missing_type(message->name, field->type_name);
	field->is_map = field->is_repeated && field->message->is_map_entry;
	if (field->is_map && !is_entry(field->message))
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s is not an entry of a map",
				     field->message->name);
	return NULL;
}

static status *resolve_service(const struct schema *schema, struct schema_service *service,
			       const Haul__Descriptor__Service *from)
{
	for (size_t i = 0; i < service->method_count; i++) {
		struct schema_method *method = &service->methods[i];
		method->input = resolve(&schema->messages, from->method[i]->input_type);
		method->output = resolve(&schema->messages, from->method[i]->output_type);
		if (method->input == NULL)
			return missing_type(service->name, from->method[i]->input_type);
		if (method->output == NULL)
			return missing_type(service->name, from->method[i]->output_type);
	}
	return NULL;
}

static status *resolve_all(struct schema *schema)
{
	status *st = sort(&schema->messages);

	if (st == NULL)
		st = sort(&schema->enums);
	for (size_t i = 0; st == NULL && i < schema->messages.count; i++) {
		struct schema_message *message = schema->messages.items[i];
		message->schema = schema;
		for (size_t j = 0; st == NULL && j < message->field_count; j++)
			st = resolve_field(schema, message, &message->fields[j]);
	}
	/* Before they are sorted: they stand in the order of what they were read from. */
	for (size_t i = 0; st == NULL && i < schema->services.count; i++)
		st = resolve_service(schema, schema->services.items[i],
				     schema->read_services.items[i]);
	return st != NULL ? st : sort(&schema->services);
}

static status *load(const uint8_t *data, size_t size, struct schema *schema)
{
	scoped(message) ProtobufCMessage *set = NULL;
	status *st = unpack_message(&haul__descriptor__file_set__descriptor, data, size,
				    LIMIT_UNARY_BYTES, &set);

	if (st != NULL)
		return st;
	const Haul__Descriptor__FileSet *files = (const Haul__Descriptor__FileSet *)set;
	for (size_t i = 0; st == NULL && i < files->n_file; i++)
		st = schema_add_file(schema, files->file[i].data, files->file[i].len);
	return st != NULL ? st : resolve_all(schema);
}

status *schema_load(const uint8_t *data, size_t size, struct schema **ret_schema)
{
	scoped(schema) struct schema *schema = calloc(1, sizeof(*schema));

	if (schema == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for descriptors");
	status *st = load(data, size, schema);
	if (st != NULL)
		return status_wrapf(st, "the descriptors of messages and services");
	*ret_schema = TAKE(schema);
	return NULL;
}

status *schema_load_own(struct schema **ret_schema)
{
	return schema_load(own_descriptor_set, own_descriptor_set_size, ret_schema);
}

static void free_message(struct schema_message *message)
{
	for (size_t i = 0; i < message->field_count; i++)
		free(message->fields[i].json_name);
	free(message->fields);
	free(message->name);
	message_free(message->unpacked);
	free(message);
}

void schema_free(struct schema *schema)
{
	if (schema == NULL)
		return;
	for (size_t i = 0; i < schema->messages.count; i++)
		free_message(schema->messages.items[i]);
	for (size_t i = 0; i < schema->enums.count; i++) {
		struct schema_enum *enumeration = schema->enums.items[i];
		free(enumeration->values);
		free(enumeration->name);
		free(enumeration);
	}
	for (size_t i = 0; i < schema->services.count; i++) {
		struct schema_service *service = schema->services.items[i];
		free(service->methods);
		free(service->name);
		free(service);
	}
	for (size_t i = 0; i < schema->files.count; i++)
		message_free(schema->files.items[i]);
	free(schema->messages.items);
	free(schema->enums.items);
	free(schema->services.items);
	free(schema->read_services.items);
	free(schema->files.items);
	free(schema);
}
