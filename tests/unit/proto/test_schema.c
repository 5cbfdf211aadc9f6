/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/schema.h"

#include <stdio.h>
#include <string.h>

#include "grpc/health/v1/health.pb-c.h"
#include "haul/v1/criu.pb-c.h"
#include "haul/v1/migrations.pb-c.h"
#include "haul/v1/node.pb-c.h"
#include "haul/v1/peer.pb-c.h"
#include "haul/v1/reflection.pb-c.h"
#include "proto/limits.h"
#include "proto/wire.h"
#include "tests/unit/test.h"

/* Numbers of google/protobuf/descriptor.proto. */
enum {
	SET_FILE = 1,
	FILE_PACKAGE = 2,
	FILE_MESSAGE = 4,
	FILE_ENUM = 5,
	FILE_SERVICE = 6,
	FILE_SYNTAX = 12,
	NAME = 1,
	MESSAGE_FIELD = 2,
	MESSAGE_NESTED = 3,
	MESSAGE_OPTIONS = 7,
	OPTIONS_MAP_ENTRY = 7,
	FIELD_NUMBER = 3,
	FIELD_LABEL = 4,
	FIELD_TYPE = 5,
	FIELD_TYPE_NAME = 6,
	ENUM_VALUE = 2,
	SERVICE_METHOD = 2,
	METHOD_INPUT = 2,
	METHOD_OUTPUT = 3,
};

static void put_text(struct wire_out *out, uint32_t number, const char *text)
{
	assert_ok(wire_put_bytes(out, number, text, strlen(text)));
}

static void put_number(struct wire_out *out, uint32_t number, uint64_t value)
{
	assert_ok(wire_put_tag(out, number, WIRE_VARINT));
	assert_ok(wire_put_value(out, WIRE_VARINT, value));
}

/* Takes `inner`. */
static void put_inner(struct wire_out *out, uint32_t number, struct wire_out *inner)
{
	assert_ok(wire_put_bytes(out, number, inner->buffer.data, inner->buffer.size));
	buffer_free(&inner->buffer);
	*inner = (struct wire_out){0};
}

static void put_field(struct wire_out *message, const char *name, uint32_t number, int type,
		      const char *type_name)
{
	struct wire_out field = {0};

	put_text(&field, NAME, name);
	put_number(&field, FIELD_NUMBER, number);
	put_number(&field, FIELD_LABEL, 1);
	put_number(&field, FIELD_TYPE, (uint64_t)(int64_t)type);
	if (type_name != NULL)
		put_text(&field, FIELD_TYPE_NAME, type_name);
	put_inner(message, MESSAGE_FIELD, &field);
}

/* Takes what stands in the file. */
static status *load(struct wire_out *file, struct schema **ret_schema)
{
	struct wire_out set = {0};

	put_inner(&set, SET_FILE, file);
	status *st = schema_load(set.buffer.data, set.buffer.size, ret_schema);
	buffer_free(&set.buffer);
	return st;
}

static void our_own_is_known_with_its_services(void **state)
{
	scoped(schema) struct schema *schema = NULL;
	(void)state;

	assert_ok(schema_load_own(&schema));
	const struct schema_service *service = schema_service(schema, "haul.v1.Migrations");
	assert_non_null(service);
	const struct schema_method *start = service_method(service, "Start");
	assert_non_null(start);
	assert_string_equal(start->input->name, "haul.v1.StartRequest");
	assert_string_equal(start->output->name, "haul.v1.Migration");
	assert_null(method_event(start));
	assert_null(service_method(service, "start"));
	assert_null(schema_service(schema, "haul.v1.Nothing"));
	assert_null(schema_message(schema, "haul.v1.Migrations"));
	assert_non_null(schema_enum(schema, "haul.v1.ResolveRequest.Act"));
	size_t count = 0;
	for (; schema_service_at(schema, count) != NULL; count++)
		if (count > 0)
			assert_true(strcmp(schema_service_at(schema, count - 1)->name,
					   schema_service_at(schema, count)->name) < 0);
	assert_int_equal(count, 6);
}

static void fields_have_names_types_and_presence(void **state)
{
	scoped(schema) struct schema *schema = NULL;
	(void)state;

	assert_ok(schema_load_own(&schema));
	const struct schema_message *message = schema_message(schema, "haul.v1.StartRequest");
	assert_int_equal(message->field_count, 4);
	assert_false(message->fields[0].has_presence);
	assert_true(message->fields[2].has_presence);
	assert_string_equal(message->fields[2].message->name, "haul.v1.MigrateOptions");
	message = message->fields[2].message;
	assert_string_equal(message->fields[0].name, "max_downtime_ms");
	assert_string_equal(message->fields[0].json_name, "maxDowntimeMs");
	assert_int_equal(message->fields[3].type, SCHEMA_ENUM);
	assert_string_equal(message->fields[3].enumeration->values[1].name, "TCP_CLOSE");
}

static void check_field(const struct schema_field *field, const ProtobufCFieldDescriptor *compiled)
{
	static const ProtobufCType types[] = {
	    [SCHEMA_DOUBLE] = PROTOBUF_C_TYPE_DOUBLE, [SCHEMA_INT64] = PROTOBUF_C_TYPE_INT64,
	    [SCHEMA_UINT64] = PROTOBUF_C_TYPE_UINT64, [SCHEMA_INT32] = PROTOBUF_C_TYPE_INT32,
	    [SCHEMA_UINT32] = PROTOBUF_C_TYPE_UINT32, [SCHEMA_BOOL] = PROTOBUF_C_TYPE_BOOL,
	    [SCHEMA_STRING] = PROTOBUF_C_TYPE_STRING, [SCHEMA_BYTES] = PROTOBUF_C_TYPE_BYTES,
	    [SCHEMA_ENUM] = PROTOBUF_C_TYPE_ENUM,     [SCHEMA_MESSAGE] = PROTOBUF_C_TYPE_MESSAGE,
	};

	assert_string_equal(field->name, compiled->name);
	assert_int_equal(field->number, compiled->id);
	assert_int_equal(types[field->type], compiled->type);
	assert_int_equal(field->is_repeated, compiled->label == PROTOBUF_C_LABEL_REPEATED);
	if (field->type == SCHEMA_MESSAGE)
		assert_string_equal(
		    field->message->name,
		    ((const ProtobufCMessageDescriptor *)compiled->descriptor)->name);
}

/* The descriptors that are built in and those of the generated code are of the same files. */
static void the_generated_code_says_the_same(void **state)
{
	static const ProtobufCServiceDescriptor *const services[] = {
	    &haul__v1__migrations__descriptor, &haul__v1__peer__descriptor,
	    &haul__v1__node__descriptor,       &haul__v1__criu__descriptor,
	    &haul__v1__reflection__descriptor, &grpc__health__v1__health__descriptor};
	scoped(schema) struct schema *schema = NULL;
	(void)state;

	assert_ok(schema_load_own(&schema));
	for (size_t i = 0; i < array_len(services); i++) {
		const struct schema_service *service = schema_service(schema, services[i]->name);
		assert_non_null(service);
		assert_int_equal(service->method_count, services[i]->n_methods);
		for (size_t j = 0; j < service->method_count; j++) {
			const ProtobufCMessageDescriptor *output = services[i]->methods[j].output;
			const struct schema_message *message = service->methods[j].output;
			assert_string_equal(service->methods[j].name, services[i]->methods[j].name);
			assert_string_equal(service->methods[j].input->name,
					    services[i]->methods[j].input->name);
			assert_string_equal(message->name, output->name);
			assert_int_equal(message->field_count, output->n_fields);
			/* Those of the generated code are sorted by number, as ours are written. */
			for (size_t f = 0; f < message->field_count; f++)
				check_field(&message->fields[f], &output->fields[f]);
		}
	}
}

static void methods_that_only_read_are_marked(void **state)
{
	static const char *const reads[] = {"haul.v1.Migrations Get",
					    "haul.v1.Migrations List",
					    "haul.v1.Migrations Wait",
					    "haul.v1.Peer Query",
					    "haul.v1.Node Info",
					    "haul.v1.Node Check",
					    "haul.v1.Reflection ListServices",
					    "haul.v1.Reflection FileContainingSymbol",
					    "grpc.health.v1.Health Check"};
	scoped(schema) struct schema *schema = NULL;
	const struct schema_service *service = NULL;
	size_t found = 0;
	(void)state;

	assert_ok(schema_load_own(&schema));
	for (size_t i = 0; (service = schema_service_at(schema, i)) != NULL; i++)
		for (size_t j = 0; j < service->method_count; j++) {
			char name[128];
			bool is_read = false;
			(void)snprintf(name, sizeof(name), "%s %s", service->name,
				       service->methods[j].name);
			for (size_t k = 0; k < array_len(reads); k++)
				is_read |= strcmp(reads[k], name) == 0;
			assert_int_equal(service->methods[j].has_no_side_effects, is_read);
			found += is_read ? 1 : 0;
		}
	assert_int_equal(found, array_len(reads));
}

/* What is cut off anywhere, or has another byte somewhere, is refused or read, never more. */
static void damaged_descriptors_do_no_harm(void **state)
{
	scoped(bytes) uint8_t *copy = malloc(own_descriptor_set_size);
	(void)state;

	assert_non_null(copy);
	for (size_t at = 0; at < own_descriptor_set_size; at += 7) {
		struct schema *schema = NULL;
		memcpy(copy, own_descriptor_set, own_descriptor_set_size);
		status_free(schema_load(copy, at, &schema));
		schema_free(schema);
		schema = NULL;
		copy[at] ^= (uint8_t)(1 + at % 255);
		status_free(schema_load(copy, own_descriptor_set_size, &schema));
		schema_free(schema);
	}
}

static void messages_may_not_be_nested_without_end(void **state)
{
	(void)state;

	for (unsigned depth = LIMIT_JSON_DEPTH; depth <= 4 * LIMIT_JSON_DEPTH; depth *= 4) {
		struct wire_out inner = {0}, file = {0};
		scoped(schema) struct schema *schema = NULL;
		put_text(&inner, NAME, "A");
		for (unsigned i = 1; i < depth; i++) {
			struct wire_out outer = {0};
			put_text(&outer, NAME, "A");
			put_inner(&outer, MESSAGE_NESTED, &inner);
			inner = outer;
		}
		put_inner(&file, FILE_MESSAGE, &inner);
		if (depth == LIMIT_JSON_DEPTH)
			assert_ok(load(&file, &schema));
		else
			assert_code(load(&file, &schema), STATUS_INVALID_ARGUMENT);
	}
}

/* A message A of one field, as the case wants it. */
static void what_cannot_be_is_refused(void **state)
{
	static const struct {
		const char *package, *message, *field, *type_name;
		uint32_t number;
		int type;
		bool is_good;
	} cases[] = {
	    {"p.q", "A", "f", NULL, 1, SCHEMA_STRING, true},
	    {"", "A", "f", ".A", 1, SCHEMA_MESSAGE, true},
	    {"p", "A", "f", "p.A", 1, SCHEMA_MESSAGE, false},
	    {"p", "A", "f", ".p.B", 1, SCHEMA_MESSAGE, false},
	    {"p", "A", "f", NULL, 1, SCHEMA_MESSAGE, false},
	    {"p", "A", "f", ".p.A", 1, SCHEMA_ENUM, false},
	    {"p", "A", "f", NULL, 0, SCHEMA_STRING, false},
	    {"p", "A", "f", NULL, 1U << 29, SCHEMA_STRING, false},
	    {"p", "A", "f", NULL, 1, 0, false},
	    {"p", "A", "f", NULL, 1, 19, false},
	    {"p", "A", "f", NULL, 1, -1, false},
	    {"p", "A", "", NULL, 1, SCHEMA_STRING, false},
	    {"p", "A", "f\033[2J", NULL, 1, SCHEMA_STRING, false},
	    {"p", "A.B", "f", NULL, 1, SCHEMA_STRING, false},
	    {"p", "", "f", NULL, 1, SCHEMA_STRING, false},
	    {"p q", "A", "f", NULL, 1, SCHEMA_STRING, false},
	};
	(void)state;

	for (size_t i = 0; i < array_len(cases); i++) {
		struct wire_out file = {0}, message = {0};
		scoped(schema) struct schema *schema = NULL;
		put_text(&message, NAME, cases[i].message);
		put_field(&message, cases[i].field, cases[i].number, cases[i].type,
			  cases[i].type_name);
		put_text(&file, FILE_PACKAGE, cases[i].package);
		put_inner(&file, FILE_MESSAGE, &message);
		if (cases[i].is_good)
			assert_ok(load(&file, &schema));
		else
			assert_code(load(&file, &schema), STATUS_INVALID_ARGUMENT);
	}
}

static void what_is_there_twice_is_refused(void **state)
{
	struct wire_out file = {0}, message = {0};
	struct schema *schema = NULL;
	(void)state;

	for (int i = 0; i < 2; i++) {
		put_text(&message, NAME, "A");
		put_inner(&file, FILE_MESSAGE, &message);
	}
	assert_code(load(&file, &schema), STATUS_INVALID_ARGUMENT);
	file = (struct wire_out){0};
	put_text(&message, NAME, "A");
	put_field(&message, "f", 1, SCHEMA_STRING, NULL);
	put_field(&message, "g", 1, SCHEMA_STRING, NULL);
	put_inner(&file, FILE_MESSAGE, &message);
	assert_code(load(&file, &schema), STATUS_INVALID_ARGUMENT);
	assert_null(schema);
}

/* Another message that calls itself an entry of a map would be read beyond its fields. */
static void entries_of_maps_have_a_key_and_a_value(void **state)
{
	static const int keys[] = {SCHEMA_STRING, SCHEMA_DOUBLE, SCHEMA_BYTES, 0};
	(void)state;

	for (size_t i = 0; i < array_len(keys); i++) {
		struct wire_out file = {0}, message = {0}, entry = {0}, options = {0}, field = {0};
		scoped(schema) struct schema *schema = NULL;
		put_text(&entry, NAME, "E");
		if (keys[i] != 0) {
			put_field(&entry, "key", 1, keys[i], NULL);
			put_field(&entry, "value", 2, SCHEMA_STRING, NULL);
		}
		put_number(&options, OPTIONS_MAP_ENTRY, 1);
		put_inner(&entry, MESSAGE_OPTIONS, &options);
		put_inner(&file, FILE_MESSAGE, &entry);
		put_text(&message, NAME, "A");
		put_text(&field, NAME, "map");
		put_number(&field, FIELD_NUMBER, 1);
		put_number(&field, FIELD_LABEL, 3);
		put_number(&field, FIELD_TYPE, SCHEMA_MESSAGE);
		put_text(&field, FIELD_TYPE_NAME, ".E");
		put_inner(&message, MESSAGE_FIELD, &field);
		put_inner(&file, FILE_MESSAGE, &message);
		if (keys[i] == SCHEMA_STRING)
			assert_ok(load(&file, &schema));
		else
			assert_code(load(&file, &schema), STATUS_INVALID_ARGUMENT);
	}
}

static void services_need_their_messages_and_enums_a_value(void **state)
{
	struct wire_out file = {0}, service = {0}, method = {0}, enumeration = {0};
	struct schema *schema = NULL;
	(void)state;

	put_text(&service, NAME, "S");
	put_text(&method, NAME, "M");
	put_text(&method, METHOD_INPUT, ".A");
	put_text(&method, METHOD_OUTPUT, ".A");
	put_inner(&service, SERVICE_METHOD, &method);
	put_inner(&file, FILE_SERVICE, &service);
	assert_code(load(&file, &schema), STATUS_INVALID_ARGUMENT);
	file = (struct wire_out){0};
	put_text(&enumeration, NAME, "E");
	put_inner(&file, FILE_ENUM, &enumeration);
	assert_code(load(&file, &schema), STATUS_INVALID_ARGUMENT);
	assert_null(schema);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(our_own_is_known_with_its_services),
	    cmocka_unit_test(fields_have_names_types_and_presence),
	    cmocka_unit_test(the_generated_code_says_the_same),
	    cmocka_unit_test(methods_that_only_read_are_marked),
	    cmocka_unit_test(damaged_descriptors_do_no_harm),
	    cmocka_unit_test(messages_may_not_be_nested_without_end),
	    cmocka_unit_test(what_cannot_be_is_refused),
	    cmocka_unit_test(what_is_there_twice_is_refused),
	    cmocka_unit_test(entries_of_maps_have_a_key_and_a_value),
	    cmocka_unit_test(services_need_their_messages_and_enums_a_value),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
