/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/json_internal.h"

/* Beyond it a JSON number (a double) may have been another one. */
#define EXACT_MOST 9007199254740992.0

enum { NUMBER_TEXT = 40 };

enum wire_type scalar_wire_type(enum schema_type type)
{
	switch (type) {
	case SCHEMA_DOUBLE:
	case SCHEMA_FIXED64:
	case SCHEMA_SFIXED64:
		return WIRE_64;
	case SCHEMA_FLOAT:
	case SCHEMA_FIXED32:
	case SCHEMA_SFIXED32:
		return WIRE_32;
	case SCHEMA_STRING:
	case SCHEMA_BYTES:
	case SCHEMA_MESSAGE:
	case SCHEMA_GROUP:
		return WIRE_BYTES;
	default:
		return WIRE_VARINT;
	}
}

bool is_scalar_packable(enum schema_type type)
{
	return scalar_wire_type(type) != WIRE_BYTES;
}

bool is_scalar_default(const struct wire_field *wire)
{
	return wire->type == WIRE_BYTES ? wire->bytes.size == 0 : wire->value == 0;
}

status *wrong_kind(const cJSON *json, const char *wanted)
{
	const char *is = cJSON_IsString(json)	? "a text"
			 : cJSON_IsNumber(json) ? "a number"
			 : cJSON_IsBool(json)	? "a boolean"
			 : cJSON_IsArray(json)	? "an array"
			 : cJSON_IsObject(json) ? "an object"
						: "null";

	return status_errorf(STATUS_INVALID_ARGUMENT, "it is %s, not %s", is, wanted);
}

static status *bad_text(const cJSON *json, const char *wanted)
{
	return status_errorf(STATUS_INVALID_ARGUMENT, "\"%.40s\" is not %s", json->valuestring,
			     wanted);
}

static double double_of_bits(uint64_t bits)
{
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static float float_of_bits(uint64_t bits)
{
	uint32_t low = (uint32_t)bits;
	float value;

	memcpy(&value, &low, sizeof(value));
	return value;
}

/* The shortest digits that are read back as the same number; cJSON's own may be another one. */
static cJSON *json_of_double(double value, bool is_float)
{
	char text[NUMBER_TEXT];

	if (isnan(value))
		return cJSON_CreateString("NaN");
	if (isinf(value))
		return cJSON_CreateString(value > 0 ? "Infinity" : "-Infinity");
	for (int digits = is_float ? 6 : 15; digits <= 17; digits++) {
		(void)snprintf(text, sizeof(text), "%.*g", digits, value);
		if (is_float ? (double)strtof(text, NULL) == value : strtod(text, NULL) == value)
			break;
	}
	return cJSON_CreateRaw(text);
}

static cJSON *json_of_text(const char *format, uint64_t value)
{
	char text[NUMBER_TEXT];

	if (format[0] == 'd')
		(void)snprintf(text, sizeof(text), "%" PRId64, (int64_t)value);
	else
		(void)snprintf(text, sizeof(text), "%" PRIu64, value);
	return cJSON_CreateString(text);
}

static int32_t unzigzag32(uint64_t value)
{
	uint32_t low = (uint32_t)value;

	return (int32_t)(low >> 1 ^ (0 - (low & 1)));
}

bool is_null_value(const struct schema_enum *type)
{
	return strcmp(type->name, "google.protobuf.NullValue") == 0;
}

static cJSON *json_of_enum(const struct schema_enum *type, int32_t number)
{
	if (is_null_value(type))
		return cJSON_CreateNull();
	for (size_t i = 0; i < type->value_count; i++)
		if (type->values[i].number == number)
			return cJSON_CreateString(type->values[i].name);
	return cJSON_CreateNumber(number);
}

static cJSON *json_of_number(const struct schema_field *field, uint64_t value)
{
	switch (field->type) {
	case SCHEMA_DOUBLE:
		return json_of_double(double_of_bits(value), false);
	case SCHEMA_FLOAT:
		return json_of_double((double)float_of_bits(value), true);
	case SCHEMA_INT64:
	case SCHEMA_SFIXED64:
		return json_of_text("d", value);
	case SCHEMA_SINT64:
		return json_of_text("d", value >> 1 ^ (0 - (value & 1)));
	case SCHEMA_UINT64:
	case SCHEMA_FIXED64:
		return json_of_text("u", value);
	case SCHEMA_INT32:
	case SCHEMA_SFIXED32:
		return cJSON_CreateNumber((int32_t)value);
	case SCHEMA_SINT32:
		return cJSON_CreateNumber(unzigzag32(value));
	case SCHEMA_BOOL:
		return cJSON_CreateBool(value != 0);
	case SCHEMA_ENUM:
		return json_of_enum(field->enumeration, (int32_t)value);
	default:
		return cJSON_CreateNumber((uint32_t)value);
	}
}

static status *json_of_bytes(const struct wire *bytes, bool is_string, cJSON **ret_json)
{
	char *text = NULL;

	if (is_string && !is_text(bytes->at, bytes->size))
		return status_errorf(STATUS_DATA_LOSS,
				     "a text is not UTF-8, or has a NUL inside of it");
	text = is_string ? strndup((const char *)bytes->at, bytes->size)
			 : base64_encode(bytes->at, bytes->size);
	*ret_json = text != NULL ? cJSON_CreateString(text) : NULL;
	free(text);
	return NULL;
}

status *scalar_to_json(const struct schema_field *field, const struct wire_field *wire,
		       cJSON **ret_json)
{
	cJSON *json = NULL;
	status *st = NULL;

	if (wire->type == WIRE_BYTES)
		st = json_of_bytes(&wire->bytes, field->type == SCHEMA_STRING, &json);
	else
		json = json_of_number(field, wire->value);
	if (st == NULL && json == NULL)
		st = status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for JSON");
	if (st == NULL)
		*ret_json = json;
	return st;
}

/* A whole number of a JSON number or text, within limits; is_signed tells which two hold. */
struct range {
	bool is_signed;
	int64_t low;
	uint64_t high;
};

static struct range range_of(enum schema_type type)
{
	switch (type) {
	case SCHEMA_INT64:
	case SCHEMA_SINT64:
	case SCHEMA_SFIXED64:
		return (struct range){true, INT64_MIN, INT64_MAX};
	case SCHEMA_UINT64:
	case SCHEMA_FIXED64:
		return (struct range){false, 0, UINT64_MAX};
	case SCHEMA_UINT32:
	case SCHEMA_FIXED32:
		return (struct range){false, 0, UINT32_MAX};
	default:
		return (struct range){true, INT32_MIN, INT32_MAX};
	}
}

static status *out_of_range(void)
{
	return status_errorf(STATUS_INVALID_ARGUMENT, "the number is out of its type's range");
}

/* Decimal digits as JSON writes them: no sign but '-', no leading zeros. */
static bool is_decimal(const char *text)
{
	const char *digits = text + (text[0] == '-');
	size_t length = strlen(digits);

	return length > 0 && strspn(digits, "0123456789") == length &&
	       (digits[0] != '0' || length == 1);
}

static status *whole_of_text(const cJSON *json, const struct range *range, uint64_t *ret_value)
{
	const char *text = json->valuestring;

	if (!is_decimal(text))
		return bad_text(json, "a whole number");
	errno = 0;
	if (range->is_signed) {
		long long value = strtoll(text, NULL, 10);
		if (errno != 0 || value < range->low || value > (int64_t)range->high)
			return out_of_range();
		*ret_value = (uint64_t)value;
		return NULL;
	}
	unsigned long long value = text[0] != '-' ? strtoull(text, NULL, 10) : UINT64_MAX;
	if (errno != 0 || value > range->high || text[0] == '-')
		return out_of_range();
	*ret_value = value;
	return NULL;
}

static status *whole_of_json(const cJSON *json, enum schema_type type, uint64_t *ret_value)
{
	const struct range range = range_of(type);

	if (cJSON_IsString(json))
		return whole_of_text(json, &range, ret_value);
	if (!cJSON_IsNumber(json))
		return wrong_kind(json, "a whole number");
	double value = json->valuedouble;
	if (!isfinite(value) || trunc(value) != value)
		return status_errorf(STATUS_INVALID_ARGUMENT, "the number is not a whole one");
	if (fabs(value) > EXACT_MOST)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the number is not exact in JSON (beyond 2^53): write it as a "
				     "text, in quotes");
	if (value < (double)range.low || (value > 0 && (uint64_t)value > range.high))
		return out_of_range();
	*ret_value = (uint64_t)(int64_t)value;
	return NULL;
}

static bool special_double(const char *text, double *ret_value)
{
	if (strcmp(text, "NaN") == 0)
		*ret_value = (double)NAN;
	else if (strcmp(text, "Infinity") == 0)
		*ret_value = (double)INFINITY;
	else if (strcmp(text, "-Infinity") == 0)
		*ret_value = -(double)INFINITY;
	else
		return false;
	return true;
}

static status *double_of_json(const cJSON *json, bool is_float, double *ret_value)
{
	double value = 0;
	char *end = NULL;

	if (cJSON_IsString(json)) {
		const char *text = json->valuestring;
		if (special_double(text, ret_value))
			return NULL;
		if ((text[0] != '-' && (text[0] < '0' || text[0] > '9')) ||
		    strspn(text, "0123456789+-.eE") != strlen(text))
			return bad_text(json, "a number");
		value = strtod(text, &end);
		if (*end != '\0')
			return bad_text(json, "a number");
	} else if (cJSON_IsNumber(json)) {
		value = json->valuedouble;
	} else {
		return wrong_kind(json, "a number");
	}
	/* What rounds to FLT_MAX is still one. */
	if (!isfinite(value) || (is_float && isinf((float)value)))
		return out_of_range();
	*ret_value = value;
	return NULL;
}

static status *double_to_wire(const cJSON *json, bool is_float, uint64_t *ret_value)
{
	double value = 0;
	status *st = double_of_json(json, is_float, &value);

	if (st != NULL)
		return st;
	if (is_float) {
		float small = (float)value;
		uint32_t bits = 0;
		memcpy(&bits, &small, sizeof(bits));
		*ret_value = bits;
	} else {
		memcpy(ret_value, &value, sizeof(value));
	}
	return NULL;
}

static status *enum_to_wire(const struct schema_enum *type, const cJSON *json, uint64_t *ret_value)
{
	if (cJSON_IsNull(json) && is_null_value(type)) {
		*ret_value = 0;
		return NULL;
	}
	if (!cJSON_IsString(json) && is_null_value(type))
		return wrong_kind(json, "null"); /* which is all that can be printed of it */
	if (!cJSON_IsString(json))
		return whole_of_json(json, SCHEMA_ENUM, ret_value);
	for (size_t i = 0; i < type->value_count; i++)
		if (strcmp(type->values[i].name, json->valuestring) == 0) {
			*ret_value = (uint64_t)(int64_t)type->values[i].number;
			return NULL;
		}
	return status_errorf(STATUS_INVALID_ARGUMENT, "%s has no value \"%.40s\"", type->name,
			     json->valuestring);
}

static status *bytes_to_wire(const cJSON *json, bool is_string, struct wire *ret_wire,
			     struct buffer *ret_bytes)
{
	if (!cJSON_IsString(json))
		return wrong_kind(json, is_string ? "a text" : "a text of base64");
	if (is_string) {
		*ret_wire =
		    (struct wire){(const uint8_t *)json->valuestring, strlen(json->valuestring)};
		return NULL;
	}
	if (!base64_decode(json->valuestring, ret_bytes))
		return bad_text(json, "base64");
	*ret_wire = (struct wire){ret_bytes->data, ret_bytes->size};
	return NULL;
}

static uint64_t zigzag(uint64_t value)
{
	return value << 1 ^ (0 - (value >> 63));
}

static status *number_to_wire(const struct schema_field *field, const cJSON *json,
			      uint64_t *ret_value)
{
	status *st;

	switch (field->type) {
	case SCHEMA_DOUBLE:
	case SCHEMA_FLOAT:
		return double_to_wire(json, field->type == SCHEMA_FLOAT, ret_value);
	case SCHEMA_BOOL:
		if (!cJSON_IsBool(json))
			return wrong_kind(json, "true or false");
		*ret_value = cJSON_IsTrue(json) ? 1 : 0;
		return NULL;
	case SCHEMA_ENUM:
		return enum_to_wire(field->enumeration, json, ret_value);
	case SCHEMA_SINT32:
	case SCHEMA_SINT64:
		st = whole_of_json(json, field->type, ret_value);
		if (st == NULL)
			*ret_value = zigzag(*ret_value);
		return st;
	default:
		return whole_of_json(json, field->type, ret_value);
	}
}

status *scalar_from_json(const struct schema_field *field, const cJSON *json,
			 struct wire_field *ret_wire, struct buffer *ret_bytes)
{
	struct wire_field wire = {.number = field->number, .type = scalar_wire_type(field->type)};
	status *st = wire.type == WIRE_BYTES
			 ? bytes_to_wire(json, field->type == SCHEMA_STRING, &wire.bytes, ret_bytes)
			 : number_to_wire(field, json, &wire.value);

	if (st == NULL)
		*ret_wire = wire;
	return st;
}
