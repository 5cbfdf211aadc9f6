/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/schema_load.h"

#include <stdio.h>
#include <string.h>

#include "proto/limits.h"

enum { LABEL_REPEATED = 3, NO_SIDE_EFFECTS = 1, FIELD_NUMBER_MOST = (1 << 29) - 1 };

/* Where what is read stands. */
struct place {
	struct schema *schema;
	const char *prefix; /* package or message around it; "" = none */
	bool is_proto3;
	unsigned depth;
};

static status *no_memory(void)
{
	return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for descriptors");
}

static status *list_add(struct schema_list *list, void *item)
{
	if (list->count == list->capacity) {
		size_t capacity = list->capacity > 0 ? 2 * list->capacity : 16;
		void **grown = realloc(list->items, capacity * sizeof(*grown));
		if (grown == NULL)
			return no_memory();
		list->items = grown;
		list->capacity = capacity;
	}
	list->items[list->count++] = item;
	return NULL;
}

/* Names reach terminals and error texts. */
static bool is_name(const char *text, bool may_have_dots)
{
	size_t length = text != NULL ? strlen(text) : 0;

	for (size_t i = 0; i < length; i++) {
		bool is_letter =
		    (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z');
		bool is_digit = text[i] >= '0' && text[i] <= '9';
		if (!is_letter && !is_digit && text[i] != '_' && (text[i] != '.' || !may_have_dots))
			return false;
	}
	return length > 0 && length <= LIMIT_NAME;
}

/* Anything that is printable, as protoc has it. */
static bool is_json_name(const char *text)
{
	size_t length = strlen(text);

	for (size_t i = 0; i < length; i++)
		if (text[i] < ' ' || text[i] > '~')
			return false;
	return length > 0 && length <= LIMIT_NAME;
}

static status *full_name(const struct place *place, const char *name, char **ret_name)
{
	char *full = NULL;

	if (!is_name(name, false))
		return status_errorf(STATUS_INVALID_ARGUMENT, "a name in %s is not one",
				     place->prefix[0] != '\0' ? place->prefix : "a file");
	if (asprintf(&full, "%s%s%s", place->prefix, place->prefix[0] != '\0' ? "." : "", name) < 0)
		return no_memory();
	if (strlen(full) > LIMIT_NAME) {
		free(full);
		return status_errorf(STATUS_INVALID_ARGUMENT, "a name in %s is too long",
				     place->prefix);
	}
	*ret_name = full;
	return NULL;
}

static status *add_enum(const struct place *place, const Haul__Descriptor__Enum *from)
{
	struct schema_enum *to = calloc(1, sizeof(*to));
	status *st = to != NULL ? list_add(&place->schema->enums, to) : no_memory();

	if (st != NULL) {
		free(to);
		return st;
	}
	if (from->n_value == 0)
		return status_errorf(STATUS_INVALID_ARGUMENT, "an enum has no values");
	st = full_name(place, from->name, &to->name);
	if (st != NULL)
		return st;
	to->values = calloc(from->n_value, sizeof(*to->values));
	if (to->values == NULL)
		return no_memory();
	to->value_count = from->n_value;
	for (size_t i = 0; i < from->n_value; i++) {
		if (!is_name(from->value[i]->name, false))
			return status_errorf(STATUS_INVALID_ARGUMENT, "a name in %s is not one",
					     to->name);
		to->values[i] = (struct schema_value){from->value[i]->name, from->value[i]->number};
	}
	return NULL;
}

/* "max_rounds" to "maxRounds". */
static char *lower_camel(const char *name)
{
	char *text = text_copy(name), *to = text;
	bool is_upper = false;

	for (const char *at = name; *at != '\0'; at++) {
		if (*at == '_') {
			is_upper = true;
			continue;
		}
		*to++ = is_upper && *at >= 'a' && *at <= 'z' ? (char)(*at - 'a' + 'A') : *at;
		is_upper = false;
	}
	*to = '\0';
	return text;
}

static bool is_packable(enum schema_type type)
{
	return type != SCHEMA_STRING && type != SCHEMA_BYTES && type != SCHEMA_MESSAGE &&
	       type != SCHEMA_GROUP;
}

static status *check_field(const struct schema_message *message,
			   const Haul__Descriptor__Field *from)
{
	if (!is_name(from->name, false) ||
	    (from->json_name != NULL && !is_json_name(from->json_name)))
		return status_errorf(STATUS_INVALID_ARGUMENT, "a name in %s is not one",
				     message->name);
	if (from->number < 1 || from->number > FIELD_NUMBER_MOST || from->type < SCHEMA_DOUBLE ||
	    from->type > SCHEMA_SINT64)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "%s.%s has a number or type that cannot be", message->name,
				     from->name);
	for (size_t i = 0; i < message->field_count; i++)
		if (message->fields[i].number == (uint32_t)from->number)
			return status_errorf(STATUS_INVALID_ARGUMENT, "%s has two fields %d",
					     message->name, from->number);
	return NULL;
}

static void set_field(bool is_proto3, const Haul__Descriptor__Field *from, struct schema_field *to)
{
	bool is_in_oneof = from->has_oneof_index && !from->proto3_optional;

	to->name = from->name;
	to->json_name =
	    from->json_name != NULL ? text_copy(from->json_name) : lower_camel(from->name);
	to->number = (uint32_t)from->number;
	to->type = (enum schema_type)from->type;
	to->type_name = from->type_name;
	to->is_repeated = from->label == LABEL_REPEATED;
	to->is_packed = to->is_repeated && is_packable(to->type) && is_proto3;
	if (from->options != NULL && from->options->has_packed)
		to->is_packed = to->is_repeated && is_packable(to->type) && from->options->packed;
	to->oneof = is_in_oneof && !to->is_repeated ? from->oneof_index : -1;
	to->has_presence = !to->is_repeated && (!is_proto3 || to->type == SCHEMA_MESSAGE ||
						to->oneof >= 0 || from->proto3_optional);
}

static status *add_fields(bool is_proto3, const Haul__Descriptor__Message *from,
			  struct schema_message *to)
{
	if (from->n_field > LIMIT_SCHEMA_FIELDS)
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s has more than %d fields",
				     to->name, LIMIT_SCHEMA_FIELDS);
	to->fields = calloc(from->n_field + 1, sizeof(*to->fields));
	if (to->fields == NULL)
		return no_memory();
	for (size_t i = 0; i < from->n_field; i++) {
		status *st = check_field(to, from->field[i]);
		if (st != NULL)
			return st;
		set_field(is_proto3, from->field[i], &to->fields[to->field_count++]);
	}
	return NULL;
}

static status *add_message(const struct place *place, const ProtobufCBinaryData *packed);

/* What stands inside of a message. */
static status *add_nested(const struct place *place, const Haul__Descriptor__Message *from,
			  const char *name)
{
	const struct place inside = {place->schema, name, place->is_proto3, place->depth + 1};
	status *st = NULL;

	if (from->n_nested_type > 0 && inside.depth > LIMIT_JSON_DEPTH)
		return status_errorf(STATUS_INVALID_ARGUMENT, "messages are nested too deeply");
	for (size_t i = 0; st == NULL && i < from->n_enum_type; i++)
		st = add_enum(&inside, from->enum_type[i]);
	for (size_t i = 0; st == NULL && i < from->n_nested_type; i++)
		st = add_message(&inside, &from->nested_type[i]);
	return st;
}

static status *add_message(const struct place *place, const ProtobufCBinaryData *packed)
{
	ProtobufCMessage *unpacked = NULL;
	struct schema_message *to = calloc(1, sizeof(*to));
	status *st = to != NULL ? list_add(&place->schema->messages, to) : no_memory();

	if (st != NULL) {
		free(to);
		return st;
	}
	st = unpack_message(&haul__descriptor__message__descriptor, packed->data, packed->len,
			    LIMIT_UNARY_BYTES, &unpacked);
	if (st != NULL)
		return st;
	const Haul__Descriptor__Message *from = (const Haul__Descriptor__Message *)unpacked;
	to->unpacked = unpacked;
	to->is_map_entry = from->options != NULL && from->options->map_entry;
	st = full_name(place, from->name, &to->name);
	if (st == NULL)
		st = add_fields(place->is_proto3, from, to);
	return st != NULL ? st : add_nested(place, from, to->name);
}

static status *add_service(const struct place *place, Haul__Descriptor__Service *from)
{
	struct schema_service *to = calloc(1, sizeof(*to));
	status *st = to != NULL ? list_add(&place->schema->services, to) : no_memory();

	if (st != NULL) {
		free(to);
		return st;
	}
	st = list_add(&place->schema->read_services, from);
	if (st == NULL)
		st = full_name(place, from->name, &to->name);
	if (st != NULL)
		return st;
	to->methods = calloc(from->n_method + 1, sizeof(*to->methods));
	if (to->methods == NULL)
		return no_memory();
	to->method_count = from->n_method;
	for (size_t i = 0; i < from->n_method; i++) {
		const Haul__Descriptor__Method *method = from->method[i];
		if (!is_name(method->name, false))
			return status_errorf(STATUS_INVALID_ARGUMENT, "a name in %s is not one",
					     to->name);
		to->methods[i] = (struct schema_method){
		    .name = method->name,
		    .is_client_stream = method->client_streaming,
		    .is_server_stream = method->server_streaming,
		    .has_no_side_effects = method->options != NULL &&
					   method->options->idempotency_level == NO_SIDE_EFFECTS,
		};
	}
	return NULL;
}

status *schema_add_file(struct schema *schema, const uint8_t *data, size_t size)
{
	ProtobufCMessage *unpacked = NULL;
	status *st = unpack_message(&haul__descriptor__file__descriptor, data, size,
				    LIMIT_UNARY_BYTES, &unpacked);

	if (st != NULL)
		return st;
	st = list_add(&schema->files, unpacked);
	if (st != NULL) {
		message_free(unpacked);
		return st;
	}
	const Haul__Descriptor__File *file = (const Haul__Descriptor__File *)unpacked;
	const struct place place = {
	    .schema = schema,
	    .prefix = file->package != NULL ? file->package : "",
	    .is_proto3 = file->syntax != NULL && strcmp(file->syntax, "proto3") == 0,
	};
	if (place.prefix[0] != '\0' && !is_name(place.prefix, true))
		return status_errorf(STATUS_INVALID_ARGUMENT, "a package's name is not one");
	for (size_t i = 0; st == NULL && i < file->n_enum_type; i++)
		st = add_enum(&place, file->enum_type[i]);
	for (size_t i = 0; st == NULL && i < file->n_message_type; i++)
		st = add_message(&place, &file->message_type[i]);
	for (size_t i = 0; st == NULL && i < file->n_service; i++)
		st = add_service(&place, file->service[i]);
	return st;
}
