/* SPDX-License-Identifier: Apache-2.0 */
/* The wire to JSON. Fields are put into the object as they come: the last one of a scalar holds,
 * lists grow, messages are joined; then the object is put in the order of the schema. */
#include <stdio.h>
#include <string.h>

#include "proto/json_internal.h"
#include "proto/limits.h"

/* What is left of the bounds, and how to write. */
struct writer {
	size_t nodes;
	bool emits_defaults;
};

static status *add_fields(struct writer *writer, const struct schema_message *type,
			  struct wire wire, unsigned depth, cJSON *object);
static status *get_message(struct writer *writer, const struct schema_message *type,
			   struct wire wire, unsigned depth, cJSON **json);

static status *no_memory(void)
{
	return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for JSON");
}

static status *count_node(struct writer *writer)
{
	if (writer->nodes == 0)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "the message has more than %d values", LIMIT_JSON_NODES);
	writer->nodes--;
	return NULL;
}

/* Takes the item, also on error. */
static status *add_to_array(cJSON *array, cJSON *item)
{
	if (item != NULL && cJSON_AddItemToArray(array, item))
		return NULL;
	cJSON_Delete(item);
	return no_memory();
}

/* Takes the item, also on error. An item of that name that is there is replaced. */
static status *set_member(cJSON *object, const char *name, cJSON *item)
{
	cJSON *old = cJSON_GetObjectItemCaseSensitive(object, name);

	if (old != NULL && old == item)
		return NULL;
	if (old != NULL)
		cJSON_Delete(cJSON_DetachItemViaPointer(object, old));
	if (item != NULL && cJSON_AddItemToObject(object, name, item))
		return NULL;
	cJSON_Delete(item);
	return no_memory();
}

/* The list or map of a field, made when it is not there. */
static status *get_container(struct writer *writer, const struct schema_field *field, cJSON *object,
			     cJSON **ret_container)
{
	cJSON *found = cJSON_GetObjectItemCaseSensitive(object, field->json_name);

	if (found == NULL) {
		status *st = count_node(writer);
		found = st == NULL && field->is_map ? cJSON_CreateObject()
			: st == NULL		    ? cJSON_CreateArray()
						    : NULL;
		if (st == NULL)
			st = set_member(object, field->json_name, found);
		if (st != NULL)
			return st;
	}
	*ret_container = found;
	return NULL;
}

static status *get_scalar(struct writer *writer, const struct schema_field *field,
			  const struct wire_field *wire, cJSON **ret_json)
{
	status *st = count_node(writer);

	return st != NULL ? st : scalar_to_json(field, wire, ret_json);
}

static status *add_packed(struct writer *writer, const struct schema_field *field, struct wire wire,
			  cJSON *array)
{
	struct wire_field value = {.number = field->number, .type = scalar_wire_type(field->type)};

	while (wire.size > 0) {
		cJSON *item = NULL;
		status *st = wire_value(&wire, value.type, &value.value);
		if (st == NULL)
			st = get_scalar(writer, field, &value, &item);
		if (st == NULL)
			st = add_to_array(array, item);
		if (st != NULL)
			return st;
	}
	return NULL;
}

static status *add_to_list(struct writer *writer, const struct schema_field *field,
			   const struct wire_field *wire, unsigned depth, cJSON *object)
{
	cJSON *array = NULL, *item = NULL;
	status *st = get_container(writer, field, object, &array);

	if (st != NULL)
		return st;
	if (wire->type == WIRE_BYTES && is_scalar_packable(field->type))
		return add_packed(writer, field, wire->bytes, array);
	if (field->type == SCHEMA_MESSAGE)
		st = get_message(writer, field->message, wire->bytes, depth + 1, &item);
	else
		st = get_scalar(writer, field, wire, &item);
	return st != NULL ? st : add_to_array(array, item);
}

/* The key of an entry as the name of a member. */
static void key_name(const cJSON *key, char ret_name[24], const char **ret_text)
{
	*ret_text = ret_name;
	if (cJSON_IsString(key))
		*ret_text = key->valuestring;
	else if (cJSON_IsBool(key))
		*ret_text = cJSON_IsTrue(key) ? "true" : "false";
	else
		(void)snprintf(ret_name, 24, "%.0f", key->valuedouble);
}

/* Adds a field's default, if it has one to show. */
static status *add_default(struct writer *writer, const struct schema_field *field, cJSON *object)
{
	static const uint8_t nothing[1];
	const struct wire_field wire = {.type = scalar_wire_type(field->type),
					.bytes = {.at = nothing}};
	cJSON *item = NULL;

	if (field->is_repeated)
		return get_container(writer, field, object, &item);
	status *st = get_scalar(writer, field, &wire, &item);
	return st != NULL ? st : set_member(object, field->json_name, item);
}

static status *add_entry(struct writer *writer, const struct schema_message *type, struct wire wire,
			 unsigned depth, cJSON *map)
{
	scoped(json) cJSON *entry = cJSON_CreateObject();
	const struct schema_field *key = &type->fields[0], *value = &type->fields[1];
	char number[24];
	const char *name = NULL;
	cJSON *item = NULL;

	if (entry == NULL)
		return no_memory();
	if (cJSON_GetArraySize(map) >= LIMIT_JSON_MAP)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "a map has more than %d entries",
				     LIMIT_JSON_MAP);
	status *st = add_fields(writer, type, wire, depth, entry);
	if (st == NULL && cJSON_GetObjectItemCaseSensitive(entry, key->json_name) == NULL)
		st = add_default(writer, key, entry);
	if (st != NULL)
		return st;
	item = cJSON_DetachItemFromObjectCaseSensitive(entry, value->json_name);
	if (item == NULL && value->type == SCHEMA_MESSAGE) {
		st = get_message(writer, value->message, (struct wire){0}, depth + 1, &item);
	} else if (item == NULL) {
		st = add_default(writer, value, entry);
		item = cJSON_DetachItemFromObjectCaseSensitive(entry, value->json_name);
	}
	if (st != NULL)
		return st;
	key_name(cJSON_GetObjectItemCaseSensitive(entry, key->json_name), number, &name);
	return set_member(map, name, item);
}

static void clear_others_of_oneof(const struct schema_message *type,
				  const struct schema_field *field, cJSON *object)
{
	for (size_t i = 0; field->oneof >= 0 && i < type->field_count; i++)
		if (type->fields[i].oneof == field->oneof && &type->fields[i] != field)
			cJSON_DeleteItemFromObjectCaseSensitive(object, type->fields[i].json_name);
}

/* Does the value travel as the schema says? Otherwise it is as good as unknown. */
static bool is_of_its_kind(const struct schema_field *field, enum wire_type type)
{
	if (field->type == SCHEMA_GROUP)
		return false;
	return type == scalar_wire_type(field->type) ||
	       (type == WIRE_BYTES && field->is_repeated && is_scalar_packable(field->type));
}

static status *add_field(struct writer *writer, const struct schema_field *field,
			 const struct wire_field *wire, unsigned depth, cJSON *object)
{
	cJSON *item = NULL;
	status *st;

	if (field->is_map) {
		st = get_container(writer, field, object, &item);
		return st != NULL ? st
				  : add_entry(writer, field->message, wire->bytes, depth + 1, item);
	}
	if (field->is_repeated)
		return add_to_list(writer, field, wire, depth, object);
	if (field->type == SCHEMA_MESSAGE) {
		/* What came before is joined with it. */
		item = cJSON_DetachItemFromObjectCaseSensitive(object, field->json_name);
		st = get_message(writer, field->message, wire->bytes, depth + 1, &item);
	} else if (!field->has_presence && is_scalar_default(wire)) {
		cJSON_DeleteItemFromObjectCaseSensitive(object, field->json_name);
		return NULL;
	} else {
		st = get_scalar(writer, field, wire, &item);
	}
	return st != NULL ? st : set_member(object, field->json_name, item);
}

static const struct schema_field *field_of_number(const struct schema_message *type,
						  uint32_t number)
{
	for (size_t i = 0; i < type->field_count; i++)
		if (type->fields[i].number == number)
			return &type->fields[i];
	return NULL;
}

static status *add_fields(struct writer *writer, const struct schema_message *type,
			  struct wire wire, unsigned depth, cJSON *object)
{
	struct wire_field next = {0};
	status *st = wire_next(&wire, &next);

	while (st == NULL && next.number != 0) {
		const struct schema_field *field = field_of_number(type, next.number);
		if (field != NULL && is_of_its_kind(field, next.type)) {
			clear_others_of_oneof(type, field, object);
			st = add_field(writer, field, &next, depth, object);
		}
		if (st != NULL)
			return status_wrapf(st, "%s", field->json_name);
		st = wire_next(&wire, &next);
	}
	return st;
}

/* In the order of the schema, with the defaults that are wanted. */
static status *finish(struct writer *writer, const struct schema_message *type, cJSON *object)
{
	for (size_t i = 0; i < type->field_count; i++) {
		const struct schema_field *field = &type->fields[i];
		cJSON *item = cJSON_DetachItemFromObjectCaseSensitive(object, field->json_name);
		status *st = NULL;
		if (item != NULL)
			st = set_member(object, field->json_name, item);
		else if (writer->emits_defaults && !field->has_presence &&
			 field->type != SCHEMA_GROUP)
			st = add_default(writer, field, object);
		if (st != NULL)
			return st;
	}
	return NULL;
}

/* Joins what is on the wire with the moment that *json is, if it is one. */
static status *get_moment(enum special kind, struct wire wire, cJSON **json)
{
	struct moment moment = {0};
	struct wire_field next = {0};
	char *text = NULL;
	status *st = *json != NULL ? moment_from_text(kind, (*json)->valuestring, &moment) : NULL;

	if (st == NULL)
		st = wire_next(&wire, &next);
	while (st == NULL && next.number != 0) {
		if (next.number == 1 && next.type == WIRE_VARINT)
			moment.seconds = (int64_t)next.value;
		else if (next.number == 2 && next.type == WIRE_VARINT)
			moment.nanos = (int32_t)next.value;
		st = wire_next(&wire, &next);
	}
	if (st == NULL)
		st = moment_to_text(kind, &moment, &text);
	cJSON_Delete(*json);
	*json = text != NULL ? cJSON_CreateString(text) : NULL;
	free(text);
	return st != NULL || *json != NULL ? st : no_memory();
}

status *json_default(const struct schema_field *field, cJSON **ret_json)
{
	static const uint8_t nothing[1];
	const struct wire_field wire = {.type = scalar_wire_type(field->type),
					.bytes = {.at = nothing}};

	return scalar_to_json(field, &wire, ret_json);
}

/* What is there already, as wire again, and what follows it. Costs of the bounds, as nobody should
 * come back to a large one again and again. */
static status *join_wire(struct writer *writer, const struct schema_message *type, cJSON *json,
			 struct wire wire, struct wire_out *ret_whole)
{
	scoped(buffer) struct buffer before = {0};
	scoped(json) cJSON *parsed = NULL;
	char *text = cJSON_PrintUnformatted(json); /* its numbers may be raw texts */
	status *st = text != NULL ? json_parse(text, strlen(text), &parsed) : no_memory();

	cJSON_free(text);
	if (st == NULL)
		st = json_to_wire(type, parsed, &before);
	if (st != NULL)
		return st;
	size_t size = before.size + wire.size;
	if (writer->nodes < size)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "the message has too many pieces");
	writer->nodes -= size;
	ret_whole->buffer.data = malloc(size + 1);
	if (ret_whole->buffer.data == NULL)
		return no_memory();
	memcpy(ret_whole->buffer.data, before.data, before.size);
	memcpy(ret_whole->buffer.data + before.size, wire.at, wire.size);
	ret_whole->buffer.size = size;
	return NULL;
}

static status *get_any(struct writer *writer, const struct schema_message *type, struct wire wire,
		       unsigned depth, cJSON **ret_json)
{
	struct any any = {0};
	cJSON *content = NULL;
	status *st = any_read(type, wire, &any);

	if (st == NULL && any.type != NULL)
		st = get_message(writer, any.type, any.content, depth + 1, &content);
	return st != NULL ? st : any_join(&any, content, ret_json);
}

/* As get_message. */
static status *get_special(struct writer *writer, const struct schema_message *type,
			   struct wire wire, unsigned depth, cJSON **json)
{
	scoped(wire_out) struct wire_out whole = {0};
	scoped(json) cJSON *before = TAKE(*json);
	scoped(json) cJSON *fields = cJSON_CreateObject();
	enum special kind = special_of(type);
	status *st = fields != NULL ? NULL : no_memory();

	if (st == NULL && before != NULL) {
		st = join_wire(writer, type, before, wire, &whole);
		wire = (struct wire){.at = whole.buffer.data, .size = whole.buffer.size};
	}
	if (st == NULL && kind == SPECIAL_ANY)
		return get_any(writer, type, wire, depth, json);
	if (st == NULL)
		st = add_fields(writer, type, wire, depth, fields);
	return st != NULL ? st : special_to_json(kind, type, fields, json);
}

/* *json is NULL or what is there already; it is taken, and NULL on error. */
static status *get_message(struct writer *writer, const struct schema_message *type,
			   struct wire wire, unsigned depth, cJSON **json)
{
	enum special special = special_of(type);
	status *st = count_node(writer);

	if (st == NULL && depth > LIMIT_JSON_DEPTH)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "messages are nested too deeply");
	if (st == NULL && (special == SPECIAL_TIMESTAMP || special == SPECIAL_DURATION))
		return get_moment(special, wire, json);
	if (st == NULL && special != SPECIAL_NONE)
		return get_special(writer, type, wire, depth, json);
	if (st == NULL && *json == NULL)
		*json = cJSON_CreateObject();
	if (st == NULL && *json == NULL)
		st = no_memory();
	if (st == NULL)
		st = add_fields(writer, type, wire, depth, *json);
	if (st == NULL)
		st = finish(writer, type, *json);
	if (st != NULL)
		cJSON_Delete(TAKE(*json));
	return st;
}

status *json_of_wire(const struct schema_message *type, const uint8_t *data, size_t size,
		     bool emits_defaults, cJSON **ret_json)
{
	struct writer writer = {.nodes = LIMIT_JSON_NODES, .emits_defaults = emits_defaults};
	cJSON *json = NULL;
	status *st = get_message(&writer, type, (struct wire){.at = data, .size = size}, 1, &json);

	if (st != NULL)
		return status_wrapf(st, "%s", type->name);
	*ret_json = json;
	return NULL;
}

status *json_of_message(const struct schema *schema, const ProtobufCMessage *message,
			bool emits_defaults, cJSON **ret_json)
{
	scoped(buffer) struct buffer wire = {0};
	const struct schema_message *type = schema_message(schema, message->descriptor->name);

	if (type == NULL)
		return status_errorf(STATUS_NOT_FOUND, "there is no message %s",
				     message->descriptor->name);
	status *st = pack_message(message, LIMIT_UNARY_BYTES, &wire);
	return st != NULL ? st : json_of_wire(type, wire.data, wire.size, emits_defaults, ret_json);
}
