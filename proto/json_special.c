/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of google.protobuf whose JSON is not an object of their fields: wrappers are their
 * value, Struct, Value and ListValue any JSON, a FieldMask a text, and Any is another message with
 * its type beside it. (Timestamp and Duration: json_time.c.) A server may tell of them what it
 * likes: what does not look as it should is an ordinary message. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "proto/json_internal.h"
#include "proto/limits.h"

static const char package[] = "google.protobuf.";
static const char type_member[] = "@type";

enum { VALUE_NULL = 1, VALUE_NUMBER, VALUE_TEXT, VALUE_BOOL, VALUE_STRUCT, VALUE_LIST };
enum { VALUE_KINDS = VALUE_LIST };

static bool is_named(const struct schema_message *type, const char *name)
{
	return type != NULL && strncmp(type->name, package, sizeof(package) - 1) == 0 &&
	       strcmp(type->name + sizeof(package) - 1, name) == 0;
}

/* --- what they look like --- */

static bool has_field(const struct schema_message *type, size_t at, enum schema_type of,
		      bool is_repeated)
{
	return at < type->field_count && type->fields[at].number == at + 1 &&
	       type->fields[at].type == of && type->fields[at].is_repeated == is_repeated;
}

static bool looks_like_struct(const struct schema_message *type)
{
	if (!has_field(type, 0, SCHEMA_MESSAGE, true) || type->field_count != 1 ||
	    !type->fields[0].is_map)
		return false;
	const struct schema_message *entry = type->fields[0].message;
	return entry->fields[0].type == SCHEMA_STRING &&
	       is_named(entry->fields[1].message, "Value");
}

static bool looks_like_value(const struct schema_message *type)
{
	return type->field_count == VALUE_KINDS && has_field(type, 0, SCHEMA_ENUM, false) &&
	       has_field(type, 1, SCHEMA_DOUBLE, false) &&
	       has_field(type, 2, SCHEMA_STRING, false) && has_field(type, 3, SCHEMA_BOOL, false) &&
	       has_field(type, 4, SCHEMA_MESSAGE, false) &&
	       has_field(type, 5, SCHEMA_MESSAGE, false) &&
	       is_named(type->fields[4].message, "Struct") &&
	       is_named(type->fields[5].message, "ListValue");
}

static bool looks_like_wrapper(const struct schema_message *type)
{
	return type->field_count == 1 && type->fields[0].number == 1 &&
	       !type->fields[0].is_repeated && type->fields[0].type != SCHEMA_MESSAGE &&
	       type->fields[0].type != SCHEMA_GROUP;
}

enum special special_of(const struct schema_message *type)
{
	static const char *const wrappers[] = {"DoubleValue", "FloatValue",  "Int64Value",
					       "UInt64Value", "Int32Value",  "UInt32Value",
					       "BoolValue",   "StringValue", "BytesValue"};

	if (strncmp(type->name, package, sizeof(package) - 1) != 0)
		return SPECIAL_NONE;
	if (is_named(type, "Timestamp"))
		return SPECIAL_TIMESTAMP;
	if (is_named(type, "Duration"))
		return SPECIAL_DURATION;
	if (is_named(type, "Struct") && looks_like_struct(type))
		return SPECIAL_STRUCT;
	if (is_named(type, "Value") && looks_like_value(type))
		return SPECIAL_VALUE;
	if (is_named(type, "ListValue") && type->field_count == 1 &&
	    has_field(type, 0, SCHEMA_MESSAGE, true) && is_named(type->fields[0].message, "Value"))
		return SPECIAL_LIST;
	if (is_named(type, "FieldMask") && type->field_count == 1 &&
	    has_field(type, 0, SCHEMA_STRING, true))
		return SPECIAL_MASK;
	if (is_named(type, "Any") && type->field_count == 2 &&
	    has_field(type, 0, SCHEMA_STRING, false) && has_field(type, 1, SCHEMA_BYTES, false))
		return SPECIAL_ANY;
	for (size_t i = 0; i < array_len(wrappers); i++)
		if (is_named(type, wrappers[i]) && looks_like_wrapper(type))
			return SPECIAL_WRAPPER;
	return SPECIAL_NONE;
}

bool takes_null(const struct schema_field *field)
{
	return (field->type == SCHEMA_MESSAGE && special_of(field->message) == SPECIAL_VALUE) ||
	       (field->type == SCHEMA_ENUM && is_null_value(field->enumeration));
}

/* --- from JSON --- */

/* "fooBar.baz" to "foo_bar.baz". */
static status *put_path(const char *at, size_t size, struct wire_out *out)
{
	scoped(str) char *path = calloc(2, size + 1);
	size_t used = 0;

	if (path == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a path");
	for (size_t i = 0; i < size; i++) {
		if (at[i] == '_')
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "\"%.*s\" is not a path of a FieldMask",
					     size < 60 ? (int)size : 60, at);
		if (isupper((unsigned char)at[i]))
			path[used++] = '_';
		path[used++] = (char)tolower((unsigned char)at[i]);
	}
	return wire_put_bytes(out, 1, path, used);
}

static status *mask_from_json(const cJSON *json, struct wire_out *out)
{
	status *st = NULL;

	if (!cJSON_IsString(json))
		return wrong_kind(json, "a text");
	const char *at = json->valuestring;
	bool has_more = *at != '\0';
	while (st == NULL && has_more) {
		size_t size = strcspn(at, ",");
		st = put_path(at, size, out);
		has_more = at[size] == ',';
		at += size + 1;
	}
	return st;
}

static status *value_from_json(const struct schema_message *type, const cJSON *json, unsigned depth,
			       struct wire_out *out)
{
	unsigned number = cJSON_IsNumber(json)	 ? VALUE_NUMBER
			  : cJSON_IsString(json) ? VALUE_TEXT
			  : cJSON_IsBool(json)	 ? VALUE_BOOL
			  : cJSON_IsObject(json) ? VALUE_STRUCT
			  : cJSON_IsArray(json)	 ? VALUE_LIST
						 : VALUE_NULL;

	if (number != VALUE_NULL)
		return json_put_value(&type->fields[number - 1], json, depth, out);
	status *st = wire_put_tag(out, VALUE_NULL, WIRE_VARINT);
	return st == NULL ? wire_put_value(out, WIRE_VARINT, 0) : st;
}

/* Of "type.googleapis.com/haul.v1.Migration". */
static status *type_of_url(const struct schema_message *any, const char *url,
			   const struct schema_message **ret_type)
{
	const char *slash = strrchr(url, '/');
	const struct schema_message *type =
	    slash != NULL ? schema_message(any->schema, slash + 1) : NULL;

	if (type == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "\"%.80s\" is no type that is known here", url);
	*ret_type = type;
	return NULL;
}

/* What an Any holds, from the object without its type. */
static status *content_from_json(const struct schema_message *type, const cJSON *object,
				 unsigned depth, struct wire_out *out)
{
	const cJSON *value = object->child;

	if (special_of(type) == SPECIAL_NONE)
		return json_put_message(type, object, depth, out);
	if (value == NULL || value->next != NULL || strcmp(value->string, "value") != 0)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "%s in an Any is a member \"value\", and nothing else",
				     type->name);
	return json_put_message(type, value, depth, out);
}

static status *any_from_json(const struct schema_message *any, const cJSON *json, unsigned depth,
			     struct wire_out *out)
{
	scoped(wire_out) struct wire_out inner = {0};
	scoped(json) cJSON *object = NULL;
	const struct schema_message *type = NULL;

	if (!cJSON_IsObject(json))
		return wrong_kind(json, "an object");
	if (json->child == NULL)
		return NULL;
	const char *url = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, type_member));
	if (url == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "an Any needs \"%s\"", type_member);
	status *st = type_of_url(any, url, &type);
	if (st != NULL)
		return st;
	object = cJSON_Duplicate(json, true);
	if (object == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for JSON");
	cJSON_DeleteItemFromObjectCaseSensitive(object, type_member);
	st = content_from_json(type, object, depth + 1, &inner);
	if (st == NULL)
		st = wire_put_bytes(out, 1, url, strlen(url));
	if (st == NULL && inner.buffer.size > 0)
		st = wire_put_bytes(out, 2, inner.buffer.data, inner.buffer.size);
	return st;
}

status *special_from_json(enum special kind, const struct schema_message *type, const cJSON *json,
			  unsigned depth, struct wire_out *out)
{
	switch (kind) {
	case SPECIAL_WRAPPER:
		return json_put_value(&type->fields[0], json, depth, out);
	case SPECIAL_STRUCT:
		return json_put_map(&type->fields[0], json, depth, out);
	case SPECIAL_LIST:
		return json_put_list(&type->fields[0], json, depth, out);
	case SPECIAL_VALUE:
		return value_from_json(type, json, depth, out);
	case SPECIAL_MASK:
		return mask_from_json(json, out);
	default:
		return any_from_json(type, json, depth, out);
	}
}

/* --- to JSON, from an object of the fields --- */

static status *no_memory(void)
{
	return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for JSON");
}

/* "foo_bar.baz" to "fooBar.baz". */
static status *append_path(const char *path, bool is_first, char *text)
{
	char *at = text + strlen(text);

	if (!is_first)
		*at++ = ',';
	for (const char *from = path; *from != '\0'; from++) {
		bool is_next = *from == '_';
		from += is_next;
		if (isupper((unsigned char)*from) || (is_next && !islower((unsigned char)*from)))
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "\"%.60s\" has no form as a path in JSON", path);
		*at++ = (char)(is_next ? toupper((unsigned char)*from) : *from);
	}
	*at = '\0';
	return NULL;
}

static status *mask_to_json(const cJSON *paths, cJSON **ret_json)
{
	const cJSON *path = NULL;
	size_t size = 1;
	status *st = NULL;

	cJSON_ArrayForEach(path, paths) size += strlen(path->valuestring) + 1;
	scoped(str) char *text = calloc(1, size);
	if (text == NULL)
		return no_memory();
	cJSON_ArrayForEach(path, paths)
	{
		if (st == NULL)
			st = append_path(path->valuestring, path == paths->child, text);
	}
	if (st == NULL && (*ret_json = cJSON_CreateString(text)) == NULL)
		st = no_memory();
	return st;
}

/* Infinity and NaN are texts by now, which would be read back as such. */
static status *value_to_json(const struct schema_message *type, cJSON *object, cJSON **ret_json)
{
	for (size_t i = 1; i < VALUE_KINDS; i++) {
		cJSON *item =
		    cJSON_DetachItemFromObjectCaseSensitive(object, type->fields[i].json_name);
		if (item == NULL)
			continue;
		if (type->fields[i].type == SCHEMA_DOUBLE && cJSON_IsString(item)) {
			cJSON_Delete(item);
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "a Value that is no number JSON can have");
		}
		*ret_json = item;
		return NULL;
	}
	*ret_json = cJSON_CreateNull();
	return *ret_json != NULL ? NULL : no_memory();
}

status *special_to_json(enum special kind, const struct schema_message *type, cJSON *object,
			cJSON **ret_json)
{
	const struct schema_field *field = &type->fields[0];

	if (kind == SPECIAL_VALUE)
		return value_to_json(type, object, ret_json);
	cJSON *item = cJSON_DetachItemFromObjectCaseSensitive(object, field->json_name);
	if (kind == SPECIAL_MASK) {
		scoped(json) cJSON *paths = item;
		return mask_to_json(paths, ret_json);
	}
	if (item == NULL && kind != SPECIAL_WRAPPER)
		item = field->is_map ? cJSON_CreateObject() : cJSON_CreateArray();
	if (item == NULL && kind == SPECIAL_WRAPPER)
		return json_default(field, ret_json);
	*ret_json = item;
	return item != NULL ? NULL : no_memory();
}

status *json_special_template(const struct schema_message *type, cJSON **ret_json)
{
	scoped(json) cJSON *fields = cJSON_CreateObject();
	const struct any nothing = {0};
	enum special kind = special_of(type);

	return kind == SPECIAL_ANY ? any_join(&nothing, NULL, ret_json)
				   : special_to_json(kind, type, fields, ret_json);
}

/* --- an Any to JSON --- */

status *any_read(const struct schema_message *any, struct wire wire, struct any *ret_any)
{
	struct wire_field next = {0};
	struct any read = {0};
	status *st = wire_next(&wire, &next);

	while (st == NULL && next.number != 0) {
		if (next.number == 1 && next.type == WIRE_BYTES)
			read.url = next.bytes;
		else if (next.number == 2 && next.type == WIRE_BYTES)
			read.content = next.bytes;
		st = wire_next(&wire, &next);
	}
	if (st != NULL || (read.url.size == 0 && read.content.size == 0)) {
		*ret_any = read;
		return st;
	}
	if (read.url.size == 0 || !is_text(read.url.at, read.url.size))
		return status_errorf(STATUS_DATA_LOSS, "an Any's type is missing, or no text");
	scoped(str) char *url = strndup((const char *)read.url.at, read.url.size);
	if (url == NULL)
		return no_memory();
	st = type_of_url(any, url, &read.type);
	if (st == NULL)
		*ret_any = read;
	return st;
}

status *any_join(const struct any *any, cJSON *content, cJSON **ret_json)
{
	scoped(json) cJSON *owner = content;
	scoped(json) cJSON *object = cJSON_CreateObject();
	scoped(str) char *url =
	    any->type != NULL ? strndup((const char *)any->url.at, any->url.size) : NULL;

	if (object == NULL || (any->type != NULL && (url == NULL || content == NULL)))
		return no_memory();
	if (any->type == NULL) {
		*ret_json = TAKE(object);
		return NULL;
	}
	if (cJSON_AddStringToObject(object, type_member, url) == NULL)
		return no_memory();
	if (special_of(any->type) != SPECIAL_NONE) {
		if (!cJSON_AddItemToObject(object, "value", TAKE(owner)))
			return no_memory();
	}
	for (size_t i = 0; owner != NULL && i < any->type->field_count; i++) {
		const char *name = any->type->fields[i].json_name;
		cJSON *item = cJSON_DetachItemFromObjectCaseSensitive(owner, name);
		if (item != NULL && !cJSON_AddItemToObject(object, name, item)) {
			cJSON_Delete(item);
			return no_memory();
		}
	}
	*ret_json = TAKE(object);
	return NULL;
}
