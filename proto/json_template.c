/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json_internal.h"
#include "proto/limits.h"

/* The messages around one. */
struct around {
	const struct schema_message *type;
	const struct around *up;
	unsigned depth;
};

static cJSON *template_message(const struct around *around, size_t *nodes);

/* Without memory, or beyond the bound, NULL. */
static cJSON *template_value(const struct schema_field *field, const struct around *around,
			     size_t *nodes)
{
	static const uint8_t nothing[1];
	const struct wire_field wire = {
	    .type = scalar_wire_type(field->type),
	    .value = field->type == SCHEMA_ENUM
			 ? (uint64_t)(int64_t)field->enumeration->values[0].number
			 : 0,
	    .bytes = {.at = nothing},
	};
	cJSON *json = NULL;

	if (*nodes == 0 || field->type == SCHEMA_GROUP)
		return NULL;
	--*nodes;
	if (field->type != SCHEMA_MESSAGE) {
		status_free(scalar_to_json(field, &wire, &json));
		return json;
	}
	if (special_of(field->message) == SPECIAL_TIMESTAMP)
		return cJSON_CreateString("1970-01-01T00:00:00Z");
	if (special_of(field->message) == SPECIAL_DURATION)
		return cJSON_CreateString("0s");
	if (special_of(field->message) != SPECIAL_NONE) {
		status_free(json_special_template(field->message, &json));
		return json;
	}
	const struct around inside = {field->message, around, around->depth + 1};
	return template_message(&inside, nodes);
}

static cJSON *template_field(const struct schema_field *field, const struct around *around,
			     size_t *nodes)
{
	const struct schema_field *value = field->is_map ? &field->message->fields[1] : field;
	cJSON *item = template_value(value, around, nodes);

	if (item == NULL || !field->is_repeated)
		return item;
	cJSON *container = field->is_map ? cJSON_CreateObject() : cJSON_CreateArray();
	enum schema_type key = field->is_map ? field->message->fields[0].type : SCHEMA_GROUP;
	const char *name = key == SCHEMA_STRING ? "" : key == SCHEMA_BOOL ? "false" : "0";
	if (field->is_map ? cJSON_AddItemToObject(container, name, item)
			  : cJSON_AddItemToArray(container, item))
		return container;
	cJSON_Delete(item);
	cJSON_Delete(container);
	return NULL;
}

static bool is_around(const struct around *around, const struct schema_message *type)
{
	for (const struct around *at = around; at != NULL; at = at->up)
		if (at->type == type)
			return true;
	return false;
}

static bool is_first_of_oneof(const struct schema_message *type, size_t at)
{
	for (size_t i = 0; type->fields[at].oneof >= 0 && i < at; i++)
		if (type->fields[i].oneof == type->fields[at].oneof)
			return false;
	return true;
}

static cJSON *template_message(const struct around *around, size_t *nodes)
{
	cJSON *object = cJSON_CreateObject();

	if (around->depth > LIMIT_JSON_DEPTH || is_around(around->up, around->type))
		return object;
	for (size_t i = 0; i < around->type->field_count; i++) {
		const struct schema_field *field = &around->type->fields[i];
		if (!is_first_of_oneof(around->type, i))
			continue;
		cJSON *item = template_field(field, around, nodes);
		if (item == NULL && field->type == SCHEMA_GROUP)
			continue;
		if (item == NULL || !cJSON_AddItemToObject(object, field->json_name, item)) {
			cJSON_Delete(item);
			cJSON_Delete(object);
			return NULL;
		}
	}
	return object;
}

status *json_template(const struct schema_message *type, cJSON **ret_json)
{
	const struct around top = {type, NULL, 1};
	size_t nodes = LIMIT_JSON_NODES;
	cJSON *json = NULL;

	if (special_of(type) != SPECIAL_NONE) {
		const struct schema_field field = {.type = SCHEMA_MESSAGE, .message = type};
		json = template_value(&field, &top, &nodes);
	} else {
		json = template_message(&top, &nodes);
	}
	if (json == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "a template of %s would be too large", type->name);
	*ret_json = json;
	return NULL;
}
