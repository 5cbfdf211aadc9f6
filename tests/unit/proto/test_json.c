/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON mapping, against what protobuf's own for Python makes of the same messages. */
#include "proto/json.h"

#include <stdio.h>
#include <string.h>

#include "haul/v1/migrations.pb-c.h"
#include "proto/limits.h"
#include "proto/wire.h"
#include "tests/unit/test.h"

extern const uint8_t every_descriptor_set[];
extern const size_t every_descriptor_set_size;

static struct schema *every_schema;
static const struct schema_message *every;

static int load_every(void **state)
{
	(void)state;
	assert_ok(schema_load(every_descriptor_set, every_descriptor_set_size, &every_schema));
	every = schema_message(every_schema, "haul.test.Every");
	return every != NULL ? 0 : -1;
}

static int free_every(void **state)
{
	(void)state;
	schema_free(every_schema);
	return 0;
}

static char *read_file(const char *path)
{
	FILE *file = fopen(path, "re");

	assert_non_null(file);
	assert_int_equal(fseek(file, 0, SEEK_END), 0);
	long size = ftell(file);
	char *text = calloc(1, (size_t)size + 1);
	assert_non_null(text);
	assert_int_equal(fseek(file, 0, SEEK_SET), 0);
	assert_int_equal(fread(text, 1, (size_t)size, file), size);
	assert_int_equal(fclose(file), 0);
	return text;
}

static struct buffer bytes_of_hex(const char *hex)
{
	struct buffer bytes = {.data = malloc(strlen(hex) / 2 + 1), .size = strlen(hex) / 2};

	assert_non_null(bytes.data);
	for (size_t i = 0; i < bytes.size; i++) {
		char digits[3] = {hex[2 * i], hex[2 * i + 1], '\0'};
		bytes.data[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	return bytes;
}

static const char *text_of(const cJSON *vector, const char *name)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(vector, name));

	assert_non_null(text);
	return text;
}

/* cJSON_Compare takes numbers for equal that are not. The order of members says nothing. */
static bool is_same(const cJSON *a, const cJSON *b)
{
	const cJSON *item = NULL;

	if ((a->type & 0xff) != (b->type & 0xff) || cJSON_GetArraySize(a) != cJSON_GetArraySize(b))
		return false;
	if (cJSON_IsNumber(a))
		return a->valuedouble == b->valuedouble;
	if (cJSON_IsString(a))
		return strcmp(a->valuestring, b->valuestring) == 0;
	int at = 0;
	cJSON_ArrayForEach(item, a)
	{
		const cJSON *other = cJSON_IsArray(a)
					 ? cJSON_GetArrayItem(b, at++)
					 : cJSON_GetObjectItemCaseSensitive(b, item->string);
		if (other == NULL || !is_same(item, other))
			return false;
	}
	return true;
}

static void prints(const struct buffer *wire, bool emits_defaults, const char *want)
{
	scoped(json) cJSON *json = NULL;

	assert_ok(json_of_wire(every, wire->data, wire->size, emits_defaults, &json));
	char *text = cJSON_PrintUnformatted(json);
	/* Parsed again: what is compared is what was printed. */
	scoped(json) cJSON *printed = cJSON_Parse(text);
	scoped(json) cJSON *wanted = cJSON_Parse(want);
	assert_non_null(printed);
	assert_non_null(wanted);
	if (!is_same(printed, wanted))
		fail_msg("printed %s, not %s", text, want);
	cJSON_free(text);
}

static status *parse(const char *text, struct buffer *ret_wire)
{
	scoped(json) cJSON *json = NULL;
	status *st = json_parse(text, strlen(text), &json);

	return st != NULL ? st : json_to_wire(every, json, ret_wire);
}

static void parses(const char *text, const struct buffer *want)
{
	scoped(buffer) struct buffer wire = {0};
	status *st = parse(text, &wire);

	if (st != NULL)
		fail_msg("%s: %s", text, status_message(st));
	if (wire.size != want->size || memcmp(wire.data, want->data, want->size) != 0)
		fail_msg("%s is not the same bytes as Python's", text);
}

static void refuses(const char *text)
{
	scoped(buffer) struct buffer wire = {0};
	scoped(status) status *st = parse(text, &wire);

	if (status_code_of(st) != STATUS_INVALID_ARGUMENT)
		fail_msg("%s: %s", text, status_message(st));
}

static void check_vector(const cJSON *vector)
{
	const char *kind = text_of(vector, "kind");
	scoped(json) cJSON *json = NULL;

	if (strcmp(kind, "reject") == 0) {
		refuses(text_of(vector, "json"));
		return;
	}
	scoped(buffer) struct buffer wire = bytes_of_hex(text_of(vector, "wire"));
	if (strcmp(kind, "reject_wire") == 0) {
		status *st = json_of_wire(every, wire.data, wire.size, false, &json);
		if (st == NULL)
			fail_msg("%s was taken", text_of(vector, "wire"));
		status_free(st);
		return;
	}
	if (strcmp(kind, "both") == 0)
		prints(&wire, true, text_of(vector, "defaults"));
	if (strcmp(kind, "both") == 0 || strcmp(kind, "print") == 0)
		prints(&wire, false, text_of(vector, "json"));
	if (strcmp(kind, "both") == 0 || strcmp(kind, "parse") == 0)
		parses(text_of(vector, "json"), &wire);
}

static void it_is_what_python_makes_of_it(void **state)
{
	scoped(str) char *text = read_file(VECTORS);
	scoped(json) cJSON *vectors = cJSON_Parse(text);
	const cJSON *vector = NULL;
	(void)state;

	assert_true(cJSON_GetArraySize(vectors) > 180);
	cJSON_ArrayForEach(vector, vectors)
	{
		check_vector(vector);
	}
}

/* What Python lets pass, and we do not. */
static void what_is_ambiguous_is_refused(void **state)
{
	static const char *const texts[] = {
	    "[]",
	    "",
	    "{}{}",
	    "{\"anInt32\": 1, \"an_int32\": 2}",
	    "{\"anInt32\": null, \"anInt32\": 2}",
	    "{\"byName\": null, \"byNumber\": 1, \"byName\": null}",
	    "{\"anInt64\": 9007199254740994}",
	    "{\"aUint64\": 18446744073709551615}",
	    "{\"anInt32\": \" 1\"}",
	    "{\"anInt32\": \"01\"}",
	    "{\"anInt32\": \"+1\"}",
	    "{\"anInt32\": NaN}",
	    "{\"aDouble\": \"0x10\"}",
	    "{\"aDouble\": \"1e999\"}",
	    "{\"aDouble\": \"nan\"}",
	    "{\"colour\": 1.5}",
	    "{\"inner\": []}",
	    "{\"someBytes\": \"AA=\"}",
	    "{\"someBytes\": \"A A=\"}",
	    "{\"at\": \"9999-12-31T23:59:59-01:00\"}",
	    "{\"at\": \"2024-01-01T00:00:00z\"}",
	    "{\"took\": \"1.0000000001s\"}",
	    "{\"took\": \"1.s\"}",
	    "{\"aString\": \"a\\u0000b\"}",
	    "{\"aString\\u0000\": \"\"}",
	    "{\"aString\": \"line\nbreak\"}",
	    "{\"aString\": \"\xff\"}",
	    "{\"aString\": \"\xc0\x80\"}",
	    "{\"aString\": \"\xed\xa0\x80\"}",
	    "{\"aString\": \"\xf4\x90\x80\x80\"}",
	    "{\"aString\": \"\xe2\x82\"}",
	};
	(void)state;

	for (size_t i = 0; i < array_len(texts); i++)
		refuses(texts[i]);
}

static void errors_name_the_way_to_the_member(void **state)
{
	scoped(buffer) struct buffer wire = {0};
	(void)state;

	scoped(status) status *st = parse("{\"inner\": {\"deeper\": {\"txt\": 1}}}", &wire);
	assert_string_equal(
	    status_message(st),
	    "haul.test.Every: inner: deeper: txt: haul.test.Every.Inner has no such field");
}

/* `depth` messages in each other, in JSON and on the wire. */
static status *parse_nested(size_t depth, struct buffer *ret_wire)
{
	static const char open[] = "{\"deeper\":";
	scoped(str) char *text = calloc(1, depth * sizeof(open) + 32);
	char *at = stpcpy(text, "{\"inner\":");

	for (size_t i = 0; i < depth; i++)
		at = stpcpy(at, open);
	at = stpcpy(at, "{}");
	for (size_t i = 0; i < depth + 1; i++)
		at = stpcpy(at, "}");
	return parse(text, ret_wire);
}

static struct buffer wire_nested(size_t depth)
{
	struct buffer wire = {.data = calloc(1, depth * 8 + 16)};

	assert_non_null(wire.data);
	uint8_t *end = wire.data + depth * 8 + 16, *at = end;
	for (size_t i = 0; i <= depth; i++) {
		size_t size = (size_t)(end - at);
		*--at = (uint8_t)(size >> 14 & 0x7f);
		*--at = (uint8_t)((size >> 7 & 0x7f) | 0x80);
		*--at = (uint8_t)((size & 0x7f) | 0x80);
		if (i == depth) {
			*--at = 0x01; /* field 17 */
			*--at = 0x8a;
		} else {
			*--at = 0x12; /* field 2 */
		}
	}
	wire.size = (size_t)(end - at);
	memmove(wire.data, at, wire.size);
	return wire;
}

static void nesting_is_bounded_both_ways(void **state)
{
	scoped(buffer) struct buffer wire = {0};
	scoped(json) cJSON *json = NULL;
	(void)state;

	assert_ok(parse_nested(LIMIT_JSON_DEPTH - 3, &wire));
	assert_ok(json_of_wire(every, wire.data, wire.size, false, &json));
	assert_code(parse_nested(LIMIT_JSON_DEPTH, &wire), STATUS_INVALID_ARGUMENT);
	assert_code(parse_nested(60000, &wire), STATUS_INVALID_ARGUMENT);
	scoped(buffer) struct buffer few = wire_nested(LIMIT_JSON_DEPTH - 3);
	cJSON_Delete(TAKE(json));
	assert_ok(json_of_wire(every, few.data, few.size, false, &json));
	scoped(buffer) struct buffer many = wire_nested(60000);
	cJSON_Delete(TAKE(json));
	assert_code(json_of_wire(every, many.data, many.size, false, &json),
		    STATUS_INVALID_ARGUMENT);
}

static void size_is_bounded_both_ways(void **state)
{
	scoped(str) char *text = malloc(LIMIT_UNARY_BYTES + 1);
	scoped(bytes) uint8_t *wire = malloc(LIMIT_UNARY_BYTES);
	scoped(schema) struct schema *schema = NULL;
	scoped(json) cJSON *json = NULL;
	(void)state;

	assert_true(text != NULL && wire != NULL);
	memset(text, ' ', LIMIT_UNARY_BYTES + 1);
	memcpy(text, "{}", 2);
	assert_code(json_parse(text, LIMIT_UNARY_BYTES + 1, &json), STATUS_INVALID_ARGUMENT);
	assert_ok(json_parse(text, LIMIT_UNARY_BYTES, &json));
	cJSON_Delete(TAKE(json));
	/* Half a million empty migrations: with their defaults they would be gigabytes. */
	for (size_t i = 0; i < LIMIT_UNARY_BYTES; i += 2)
		memcpy(wire + i, "\x0a\x00", 2);
	assert_ok(schema_load_own(&schema));
	assert_code(json_of_wire(schema_message(schema, "haul.v1.ListResponse"), wire,
				 LIMIT_UNARY_BYTES, true, &json),
		    STATUS_RESOURCE_EXHAUSTED);
}

static void maps_are_bounded_both_ways(void **state)
{
	const size_t entries = LIMIT_JSON_MAP + 1;
	scoped(str) char *text = calloc(entries, 32);
	scoped(bytes) uint8_t *data = calloc(entries, 16);
	scoped(buffer) struct buffer wire = {0};
	scoped(json) cJSON *json = NULL;
	char *at = stpcpy(text, "{\"byInt32\": {");
	size_t size = 0;
	(void)state;

	for (size_t i = 0; i < entries; i++) {
		at += sprintf(at, "%s\"%zu\": {}", i > 0 ? "," : "", i);
		const uint8_t entry[] = {
		    0xa2, 0x03, 0x03, 0x08, (uint8_t)(i | 0x80), (uint8_t)(i >> 7)};
		memcpy(data + size, entry, sizeof(entry));
		size += sizeof(entry);
	}
	(void)stpcpy(at, "}}");
	assert_code(parse(text, &wire), STATUS_RESOURCE_EXHAUSTED);
	assert_code(json_of_wire(every, data, size, false, &json), STATUS_RESOURCE_EXHAUSTED);
	assert_ok(json_of_wire(every, data, size - 6, false, &json));
}

/* A text from the wire that JSON, or a C text, could not say. */
static void texts_that_are_none_are_not_printed(void **state)
{
	scoped(json) cJSON *json = NULL;
	(void)state;

	assert_code(json_of_wire(every, (const uint8_t *)"\x72\x03\x61\x00\x62", 5, false, &json),
		    STATUS_DATA_LOSS);
	assert_code(json_of_wire(every, (const uint8_t *)"\x72\x01\xff", 3, false, &json),
		    STATUS_DATA_LOSS);
	assert_code(json_of_wire(every,
				 (const uint8_t *)"\xea\x03\x0b\x08\xff\xff\xff\xff\xff"
						  "\xff\xff\xff\x7f",
				 13, false, &json),
		    STATUS_INVALID_ARGUMENT);
}

static void compiled_messages_go_both_ways(void **state)
{
	scoped(schema) struct schema *schema = NULL;
	scoped(json) cJSON *json = NULL;
	scoped(message) ProtobufCMessage *message = NULL;
	Haul__V1__Migration migration = HAUL__V1__MIGRATION__INIT;
	static const char input[] = "{\"id\": \"7f3a\", \"bytes_on_wire\": 5}";
	char id[] = "7f3a";
	(void)state;

	assert_ok(schema_load_own(&schema));
	migration.id = id;
	migration.state = HAUL__V1__MIGRATION_STATE__IN_DOUBT;
	migration.bytes_on_wire = UINT64_MAX;
	migration.downtime_ms = 0.1;
	assert_ok(json_of_message(schema, &migration.base, false, &json));
	char *text = cJSON_PrintUnformatted(json);
	assert_string_equal(text, "{\"id\":\"7f3a\",\"state\":\"IN_DOUBT\",\"bytesOnWire\":"
				  "\"18446744073709551615\",\"downtimeMs\":0.1}");
	cJSON_free(text);
	cJSON_Delete(TAKE(json));
	assert_ok(json_parse(input, strlen(input), &json));
	assert_ok(json_to_message(schema, &haul__v1__migration__descriptor, json, &message));
	assert_string_equal(((const Haul__V1__Migration *)message)->id, "7f3a");
	assert_int_equal(((const Haul__V1__Migration *)message)->bytes_on_wire, 5);
}

static void a_template_is_valid_input(void **state)
{
	scoped(json) cJSON *json = NULL;
	scoped(buffer) struct buffer wire = {0};
	(void)state;

	assert_ok(json_template(every, &json));
	assert_int_equal(cJSON_GetArraySize(json), (int)every->field_count - 2);
	assert_null(cJSON_GetObjectItemCaseSensitive(json, "byNumber"));
	const cJSON *inner = cJSON_GetObjectItemCaseSensitive(json, "inner");
	const cJSON *deeper = cJSON_GetObjectItemCaseSensitive(inner, "deeper");
	assert_int_equal(cJSON_GetArraySize(inner), 3);
	assert_int_equal(cJSON_GetArraySize(deeper), 0);
	assert_true(cJSON_IsObject(deeper));
	char *text = cJSON_PrintUnformatted(json);
	assert_ok(parse(text, &wire));
	cJSON_free(text);
	cJSON_Delete(TAKE(json));
	assert_ok(json_template(schema_message(every_schema, "google.protobuf.Duration"), &json));
	assert_string_equal(cJSON_GetStringValue(json), "0s");
}

static void a_known_type_that_looks_otherwise_is_an_ordinary_message(void **state)
{
	/* file { package: "google.protobuf" message_type { name: "Any" } } */
	static const uint8_t set[] = "\x0a\x18\x12\x0fgoogle.protobuf\x22\x05\x0a\x03"
				     "Any";
	scoped(schema) struct schema *schema = NULL;
	scoped(json) cJSON *object = cJSON_Parse("{\"@type\": \"a/google.protobuf.Any\"}");
	scoped(json) cJSON *json = NULL;
	scoped(buffer) struct buffer wire = {0};
	(void)state;

	assert_ok(schema_load(set, sizeof(set) - 1, &schema));
	const struct schema_message *any = schema_message(schema, "google.protobuf.Any");
	assert_non_null(any);
	assert_code(json_to_wire(any, object, &wire), STATUS_INVALID_ARGUMENT);
	assert_ok(json_of_wire(any, set, 0, false, &json));
	assert_int_equal(cJSON_GetArraySize(json), 0);
}

/* Python 3.21 prints them; the mapping does not have them. */
static void a_value_that_is_no_json_number_is_not_printed(void **state)
{
	static const char *const wires[] = {
	    "a2050911000000000000f87f", /* value: NaN */
	    "a20509110000"
	    "00000000f0ff", /* value: -Infinity */
	};
	(void)state;

	for (size_t i = 0; i < array_len(wires); i++) {
		scoped(buffer) struct buffer wire = bytes_of_hex(wires[i]);
		cJSON *json = NULL;
		assert_code(json_of_wire(every, wire.data, wire.size, false, &json),
			    STATUS_INVALID_ARGUMENT);
	}
}

static void pieces_of_a_known_type_are_bounded(void **state)
{
	/* value: a text of 64 KiB, and then many empty pieces that are joined with it. */
	enum { TEXT = 65536, PIECES = 1000 };
	scoped(wire_out) struct wire_out value = {0}, whole = {0};
	scoped(mem) void *text = calloc(1, TEXT);
	cJSON *json = NULL;
	(void)state;

	memset(text, 'x', TEXT);
	assert_ok(wire_put_bytes(&value, 3, text, TEXT));
	assert_ok(wire_put_bytes(&whole, 84, value.buffer.data, value.buffer.size));
	for (int i = 0; i < PIECES; i++)
		assert_ok(wire_put_bytes(&whole, 84, "", 0));
	assert_code(json_of_wire(every, whole.buffer.data, whole.buffer.size, false, &json),
		    STATUS_RESOURCE_EXHAUSTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(it_is_what_python_makes_of_it),
	    cmocka_unit_test(what_is_ambiguous_is_refused),
	    cmocka_unit_test(errors_name_the_way_to_the_member),
	    cmocka_unit_test(nesting_is_bounded_both_ways),
	    cmocka_unit_test(size_is_bounded_both_ways),
	    cmocka_unit_test(maps_are_bounded_both_ways),
	    cmocka_unit_test(texts_that_are_none_are_not_printed),
	    cmocka_unit_test(compiled_messages_go_both_ways),
	    cmocka_unit_test(a_template_is_valid_input),
	    cmocka_unit_test(a_known_type_that_looks_otherwise_is_an_ordinary_message),
	    cmocka_unit_test(a_value_that_is_no_json_number_is_not_printed),
	    cmocka_unit_test(pieces_of_a_known_type_are_bounded),
	};

	return cmocka_run_group_tests(tests, load_every, free_every);
}
