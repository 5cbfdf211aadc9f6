/* SPDX-License-Identifier: Apache-2.0 */
/* JSON to the wire. Recursion is as deep as json_parse let it be, and bounded again here for trees
 * that were made otherwise. */
#include <string.h>

#include "proto/json_internal.h"
#include "proto/limits.h"

static status *put_raw(struct wire_out *out, const struct wire_field *wire, bool has_tag)
{
	status *st = NULL;

	if (wire->type == WIRE_BYTES)
		return wire_put_bytes(out, wire->number, wire->bytes.at, wire->bytes.size);
	if (has_tag)
		st = wire_put_tag(out, wire->number, wire->type);
	return st != NULL ? st : wire_put_value(out, wire->type, wire->value);
}

/* One value with its tag. A default is left out where it says nothing. */
status *json_put_value(const struct schema_field *field, const cJSON *json, unsigned depth,
		       struct wire_out *out)
{
	scoped(wire_out) struct wire_out inner = {0};
	scoped(buffer) struct buffer bytes = {0};
	struct wire_field wire = {0};
	status *st;

	if (field->type == SCHEMA_MESSAGE) {
		st = json_put_message(field->message, json, depth + 1, &inner);
		return st != NULL ? st
				  : wire_put_bytes(out, field->number, inner.buffer.data,
						   inner.buffer.size);
	}
	st = scalar_from_json(field, json, &wire, &bytes);
	if (st != NULL || (!field->has_presence && !field->is_repeated && is_scalar_default(&wire)))
		return st;
	return put_raw(out, &wire, true);
}

static status *put_packed(const struct schema_field *field, const cJSON *array,
			  struct wire_out *out)
{
	scoped(wire_out) struct wire_out inner = {0};
	const cJSON *item = NULL;

	cJSON_ArrayForEach(item, array)
	{
		scoped(buffer) struct buffer bytes = {0};
		struct wire_field wire = {0};
		status *st = scalar_from_json(field, item, &wire, &bytes);
		if (st == NULL)
			st = put_raw(&inner, &wire, false);
		if (st != NULL)
			return st;
	}
	if (inner.buffer.size == 0)
		return NULL;
	return wire_put_bytes(out, field->number, inner.buffer.data, inner.buffer.size);
}

status *json_put_list(const struct schema_field *field, const cJSON *array, unsigned depth,
		      struct wire_out *out)
{
	const cJSON *item = NULL;
	status *st = NULL;

	if (!cJSON_IsArray(array))
		return wrong_kind(array, "an array");
	if (field->is_packed)
		return put_packed(field, array, out);
	cJSON_ArrayForEach(item, array)
	{
		if (cJSON_IsNull(item) && !takes_null(field))
			st = wrong_kind(item, "an element");
		else
			st = json_put_value(field, item, depth, out);
		if (st != NULL)
			return st;
	}
	return NULL;
}

/* The name of a member as the key that it stands for. */
static status *put_key(const struct schema_field *key, const char *name, struct wire_out *out)
{
	/* Borrowed: never freed as a tree. */
	cJSON text = {.type = cJSON_String, .valuestring = (char *)name};
	bool is_true = strcmp(name, "true") == 0;

	if (key->type != SCHEMA_BOOL)
		return json_put_value(key, &text, 0, out);
	if (!is_true && strcmp(name, "false") != 0)
		return wrong_kind(&text, "true or false");
	text.type = is_true ? cJSON_True : cJSON_False;
	return json_put_value(key, &text, 0, out);
}

static status *put_entry(const struct schema_message *type, const cJSON *item, unsigned depth,
			 struct wire_out *out)
{
	/* Entries are whole: python and Go write also the defaults in them. */
	struct schema_field key = type->fields[0], value = type->fields[1];

	key.has_presence = value.has_presence = true;
	status *st = put_key(&key, item->string, out);
	if (st == NULL && cJSON_IsNull(item) && !takes_null(&value))
		st = wrong_kind(item, "a value");
	return st != NULL ? st : json_put_value(&value, item, depth, out);
}

status *json_put_map(const struct schema_field *field, const cJSON *object, unsigned depth,
		     struct wire_out *out)
{
	const cJSON *item = NULL;
	size_t count = 0;

	if (!cJSON_IsObject(object))
		return wrong_kind(object, "an object");
	cJSON_ArrayForEach(item, object)
	{
		scoped(wire_out) struct wire_out inner = {0};
		if (++count > LIMIT_JSON_MAP)
			return status_errorf(STATUS_RESOURCE_EXHAUSTED,
					     "a map has more than %d entries", LIMIT_JSON_MAP);
		if (cJSON_GetObjectItemCaseSensitive(object, item->string) != item)
			return status_errorf(STATUS_INVALID_ARGUMENT, "\"%.40s\" is there twice",
					     item->string);
		status *st = put_entry(field->message, item, depth + 1, &inner);
		if (st != NULL)
			return status_wrapf(st, "%.40s", item->string);
		st = wire_put_bytes(out, field->number, inner.buffer.data, inner.buffer.size);
		if (st != NULL)
			return st;
	}
	return NULL;
}

static status *put_moment(enum special kind, const cJSON *json, struct wire_out *out)
{
	struct moment moment = {0};

	if (!cJSON_IsString(json))
		return wrong_kind(json, "a text");
	status *st = moment_from_text(kind, json->valuestring, &moment);
	if (st == NULL && moment.seconds != 0) {
		st = wire_put_tag(out, 1, WIRE_VARINT);
		if (st == NULL)
			st = wire_put_value(out, WIRE_VARINT, (uint64_t)moment.seconds);
	}
	if (st == NULL && moment.nanos != 0) {
		st = wire_put_tag(out, 2, WIRE_VARINT);
		if (st == NULL)
			st = wire_put_value(out, WIRE_VARINT, (uint64_t)(int64_t)moment.nanos);
	}
	return st;
}

static const struct schema_field *field_of_name(const struct schema_message *type, const char *name)
{
	for (size_t i = 0; i < type->field_count; i++)
		if (strcmp(type->fields[i].json_name, name) == 0)
			return &type->fields[i];
	for (size_t i = 0; i < type->field_count; i++)
		if (strcmp(type->fields[i].name, name) == 0)
			return &type->fields[i];
	return NULL;
}

/* null says "unset", and does not count in a oneof. */
enum seen { SEEN_NOT, SEEN_UNSET, SEEN_SET };

/* Was the field, or another of its oneof, there before? */
static status *check_seen(const struct schema_message *type, const struct schema_field *field,
			  bool is_set, enum seen *seen)
{
	size_t at = (size_t)(field - type->fields);

	if (seen[at] != SEEN_NOT)
		return status_errorf(STATUS_INVALID_ARGUMENT, "it is there twice");
	for (size_t i = 0; is_set && field->oneof >= 0 && i < type->field_count; i++)
		if (seen[i] == SEEN_SET && type->fields[i].oneof == field->oneof)
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "\"%s\" is there too, and only one of them may be",
					     type->fields[i].json_name);
	seen[at] = is_set ? SEEN_SET : SEEN_UNSET;
	return NULL;
}

static status *put_member(const struct schema_message *type, const cJSON *item, enum seen *seen,
			  unsigned depth, struct wire_out *out)
{
	const struct schema_field *field = field_of_name(type, item->string);

	if (field == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s has no such field", type->name);
	if (field->type == SCHEMA_GROUP)
		return status_errorf(STATUS_UNIMPLEMENTED, "groups are not supported");
	bool is_set = !cJSON_IsNull(item) || (takes_null(field) && !field->is_repeated);
	status *st = check_seen(type, field, is_set, seen);
	if (st != NULL || !is_set)
		return st;
	if (field->is_map)
		return json_put_map(field, item, depth, out);
	if (field->is_repeated)
		return json_put_list(field, item, depth, out);
	return json_put_value(field, item, depth, out);
}

static status *put_members(const struct schema_message *type, const cJSON *json, unsigned depth,
			   struct wire_out *out)
{
	enum seen seen[LIMIT_SCHEMA_FIELDS] = {SEEN_NOT};
	const cJSON *item = NULL;

	cJSON_ArrayForEach(item, json)
	{
		status *st = put_member(type, item, seen, depth, out);
		if (st != NULL)
			return status_wrapf(st, "%.40s", item->string);
	}
	return NULL;
}

status *json_put_message(const struct schema_message *type, const cJSON *json, unsigned depth,
			 struct wire_out *out)
{
	enum special special = special_of(type);

	if (special == SPECIAL_TIMESTAMP || special == SPECIAL_DURATION)
		return put_moment(special, json, out);
	if (depth > LIMIT_JSON_DEPTH)
		return status_errorf(STATUS_INVALID_ARGUMENT, "messages are nested too deeply");
	if (special != SPECIAL_NONE)
		return special_from_json(special, type, json, depth, out);
	if (!cJSON_IsObject(json))
		return wrong_kind(json, "an object");
	return put_members(type, json, depth, out);
}

status *json_to_wire(const struct schema_message *type, const cJSON *json, struct buffer *ret_wire)
{
	scoped(wire_out) struct wire_out out = {0};
	status *st = json_put_message(type, json, 1, &out);

	if (st != NULL)
		return status_wrapf(st, "%s", type->name);
	/* One byte at least: an empty message is not a missing one. */
	if (out.buffer.data == NULL && (out.buffer.data = malloc(1)) == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a message");
	*ret_wire = out.buffer;
	out.buffer = (struct buffer){0};
	return NULL;
}

status *json_to_message(const struct schema *schema, const ProtobufCMessageDescriptor *descriptor,
			const cJSON *json, ProtobufCMessage **ret_message)
{
	scoped(buffer) struct buffer wire = {0};
	const struct schema_message *type = schema_message(schema, descriptor->name);

	if (type == NULL)
		return status_errorf(STATUS_NOT_FOUND, "there is no message %s", descriptor->name);
	status *st = json_to_wire(type, json, &wire);
	return st != NULL ? st
			  : unpack_message(descriptor, wire.data, wire.size, LIMIT_UNARY_BYTES,
					   ret_message);
}
