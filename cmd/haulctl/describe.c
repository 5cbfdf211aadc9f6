/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl describe: services, methods, messages and enums, as their file says. */
#include <string.h>

#include "cmd/haulctl/described.h"
#include "cmd/haulctl/render_json.h"
#include "proto/json.h"

static const char *const type_names[] = {
    [SCHEMA_DOUBLE] = "double",	    [SCHEMA_FLOAT] = "float",	    [SCHEMA_INT64] = "int64",
    [SCHEMA_UINT64] = "uint64",	    [SCHEMA_INT32] = "int32",	    [SCHEMA_FIXED64] = "fixed64",
    [SCHEMA_FIXED32] = "fixed32",   [SCHEMA_BOOL] = "bool",	    [SCHEMA_STRING] = "string",
    [SCHEMA_GROUP] = "group",	    [SCHEMA_BYTES] = "bytes",	    [SCHEMA_UINT32] = "uint32",
    [SCHEMA_SFIXED32] = "sfixed32", [SCHEMA_SFIXED64] = "sfixed64", [SCHEMA_SINT32] = "sint32",
    [SCHEMA_SINT64] = "sint64",
};

static const char *type_of(const struct schema_field *field)
{
	if (field->type == SCHEMA_MESSAGE)
		return field->message->name;
	return field->type == SCHEMA_ENUM ? field->enumeration->name : type_names[field->type];
}

static cJSON *json_of_method(const struct schema_method *method)
{
	const struct schema_message *event = method_event(method);
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "name", method->name);
	(void)cJSON_AddStringToObject(json, "input", method->input->name);
	(void)cJSON_AddStringToObject(json, "output",
				      event != NULL ? event->name : method->output->name);
	(void)cJSON_AddBoolToObject(json, "streams", event != NULL);
	(void)cJSON_AddBoolToObject(json, "noSideEffects", method->has_no_side_effects);
	return json;
}

static cJSON *json_of_field(const struct schema_field *field)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "name", field->name);
	(void)cJSON_AddStringToObject(json, "jsonName", field->json_name);
	(void)cJSON_AddNumberToObject(json, "number", field->number);
	if (field->is_map) {
		(void)cJSON_AddStringToObject(json, "key", type_of(&field->message->fields[0]));
		(void)cJSON_AddStringToObject(json, "type", type_of(&field->message->fields[1]));
	} else {
		(void)cJSON_AddStringToObject(json, "type", type_of(field));
	}
	(void)cJSON_AddBoolToObject(json, "repeated", field->is_repeated && !field->is_map);
	if (field->oneof >= 0)
		(void)cJSON_AddNumberToObject(json, "oneof", field->oneof);
	return json;
}

static cJSON *json_of_value(const struct schema_value *value)
{
	cJSON *json = cJSON_CreateObject();

	(void)cJSON_AddStringToObject(json, "name", value->name);
	(void)cJSON_AddNumberToObject(json, "number", value->number);
	return json;
}

static void print_method(const struct schema_method *method)
{
	const struct schema_message *event = method_event(method);

	(void)printf("rpc %s(%s) returns (%s%s)%s\n", method->name, method->input->name,
		     event != NULL ? "stream " : "",
		     event != NULL ? event->name : method->output->name,
		     method->has_no_side_effects
			 ? " { option idempotency_level = NO_SIDE_EFFECTS; }"
			 : ";");
}

static void print_service(const struct schema_service *service, bool is_json)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *methods = cJSON_AddArrayToObject(json, "methods");

	(void)cJSON_AddStringToObject(json, "service", service->name);
	if (!is_json)
		(void)printf("service %s {\n", service->name);
	for (size_t i = 0; i < service->method_count; i++) {
		const struct schema_method *method = &service->methods[i];
		(void)cJSON_AddItemToArray(methods, json_of_method(method));
		if (is_json)
			continue;
		(void)printf("  ");
		print_method(method);
	}
	if (is_json) {
		json_print(stdout, json, false);
		return;
	}
	(void)printf("}\n");
	cJSON_Delete(json);
}

static void print_field(const struct schema_field *field)
{
	if (field->is_map)
		(void)printf("  map<%s, %s>", type_of(&field->message->fields[0]),
			     type_of(&field->message->fields[1]));
	else
		(void)printf("  %s%s", field->is_repeated ? "repeated " : "", type_of(field));
	(void)printf(" %s = %u;%s\n", field->name, field->number,
		     field->oneof >= 0 ? "  // one of several" : "");
}

static void print_message_type(const struct schema_message *message, bool is_json)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *fields = cJSON_AddArrayToObject(json, "fields");

	(void)cJSON_AddStringToObject(json, "message", message->name);
	if (!is_json)
		(void)printf("message %s {\n", message->name);
	for (size_t i = 0; i < message->field_count; i++) {
		(void)cJSON_AddItemToArray(fields, json_of_field(&message->fields[i]));
		if (!is_json)
			print_field(&message->fields[i]);
	}
	if (is_json) {
		json_print(stdout, json, false);
		return;
	}
	(void)printf("}\n");
	cJSON_Delete(json);
}

static void print_enum(const struct schema_enum *enumeration, bool is_json)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *values = cJSON_AddArrayToObject(json, "values");

	(void)cJSON_AddStringToObject(json, "enum", enumeration->name);
	if (!is_json)
		(void)printf("enum %s {\n", enumeration->name);
	for (size_t i = 0; i < enumeration->value_count; i++) {
		(void)cJSON_AddItemToArray(values, json_of_value(&enumeration->values[i]));
		if (!is_json)
			(void)printf("  %s = %d;\n", enumeration->values[i].name,
				     enumeration->values[i].number);
	}
	if (is_json) {
		json_print(stdout, json, false);
		return;
	}
	(void)printf("}\n");
	cJSON_Delete(json);
}

static status *print_template(const struct schema *schema, const char *symbol)
{
	const struct schema_message *message = schema_message(schema, symbol);
	cJSON *json = NULL;

	if (message == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "--template: %.80s is not a message",
				     symbol);
	status *st = json_template(message, &json);
	if (st == NULL)
		json_print(stdout, json, false);
	return st;
}

static status *print_as_method(const struct schema *schema, const char *symbol, bool is_json)
{
	const struct schema_method *method = NULL;
	struct method_name name = {0};
	scoped(status) status *no_name = method_name_parse(symbol, &name);
	const struct schema_service *service = schema_service(schema, name.service);

	if (no_name == NULL && service != NULL)
		method = service_method(service, name.method);
	if (method == NULL)
		return status_errorf(STATUS_NOT_FOUND, "there is no %.80s", symbol);
	if (is_json)
		json_print(stdout, json_of_method(method), false);
	else
		print_method(method);
	return NULL;
}

static status *print_symbol(const struct schema *schema, const char *symbol, bool is_json)
{
	const struct schema_service *service = schema_service(schema, symbol);
	const struct schema_message *message = schema_message(schema, symbol);
	const struct schema_enum *enumeration = schema_enum(schema, symbol);

	if (service != NULL)
		print_service(service, is_json);
	else if (message != NULL)
		print_message_type(message, is_json);
	else if (enumeration != NULL)
		print_enum(enumeration, is_json);
	else
		return print_as_method(schema, symbol, is_json);
	return NULL;
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	scoped(schema) struct schema *schema = NULL;
	const char *symbol = ctl->words.words[0];
	status *st = NULL;

	(void)ret_exit;
	if (strlen(symbol) > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT, "the name is too long");
	/* Of a method that is written as for haulctl call, ask for the service. */
	struct method_name name = {0};
	if (strchr(symbol, '/') != NULL)
		st = method_name_parse(symbol, &name);
	if (st == NULL)
		st = described_load(ctl, name.service[0] != '\0' ? name.service : symbol, &schema);
	if (st != NULL)
		return st;
	return ctl->wants_template ? print_template(schema, symbol)
				   : print_symbol(schema, symbol, ctl->is_json);
}

static const struct flag flags[] = {
    {"--template", NULL, FLAG_SWITCH, CTL_FLAG(wants_template),
     "print the message as JSON with all its fields, to be filled in for haulctl call -d"},
};

const struct command command_describe = {
    .name = "describe",
    .arguments = "NAME",
    .summary = "show a service, method, message or enum",
    .text =
	"Shows the methods of a service, one method, the fields of a message or the values of an "
	"enum, by\n"
	"its full name, as the engine describes it.\n\n"
	"example:\n"
	"  haulctl describe haul.v1.Migrations\n"
	"  haulctl describe --template haul.v1.StartRequest\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .word_count = 1,
    .run = run,
};
