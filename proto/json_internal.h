/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the JSON mapping. */
#ifndef HAUL_PROTO_JSON_INTERNAL_H
#define HAUL_PROTO_JSON_INTERNAL_H

#include "proto/json.h"
#include "proto/wire.h"

/* How a scalar of this type travels. */
enum wire_type scalar_wire_type(enum schema_type type);

bool is_scalar_packable(enum schema_type type);

/* A value from the wire, to JSON: `wire` has the type's own wire type. DATA_LOSS for a text that is
 * none. */
must_check status *scalar_to_json(const struct schema_field *field, const struct wire_field *wire,
				  cJSON **ret_json);

/* JSON to a value for the wire. For texts and bytes, what ret_wire borrows is *ret_bytes or the
 * JSON. */
must_check status *scalar_from_json(const struct schema_field *field, const cJSON *json,
				    struct wire_field *ret_wire, struct buffer *ret_bytes);

/* Zero, or empty. */
bool is_scalar_default(const struct wire_field *wire);

/* UTF-8 without a NUL, which no text of ours can have. */
bool is_text(const uint8_t *data, size_t size);

char *base64_encode(const uint8_t *data, size_t size);

/* Both alphabets, with or without padding. false = it is none. */
bool base64_decode(const char *text, struct buffer *ret_bytes);

/* Messages of google.protobuf whose JSON is not an object of their fields. */
enum special {
	SPECIAL_NONE,
	SPECIAL_TIMESTAMP,
	SPECIAL_DURATION,
	SPECIAL_WRAPPER,
	SPECIAL_STRUCT,
	SPECIAL_VALUE,
	SPECIAL_LIST,
	SPECIAL_MASK,
	SPECIAL_ANY,
};
enum special special_of(const struct schema_message *type);

/* The enum whose one value is null. */
bool is_null_value(const struct schema_enum *type);

/* Is null one of its values? Otherwise it says "unset". */
bool takes_null(const struct schema_field *field);

/* Of all but the moments: JSON to the fields of the message. */
must_check status *special_from_json(enum special kind, const struct schema_message *type,
				     const cJSON *json, unsigned depth, struct wire_out *out);
/* And back, but for Any, from an object of its fields, of which it takes what it needs. */
must_check status *special_to_json(enum special kind, const struct schema_message *type,
				   cJSON *object, cJSON **ret_json);

/* What an Any holds; type NULL: nothing. Borrows from the wire. INVALID_ARGUMENT for a type that
 * the schema does not have. */
struct any {
	struct wire url, content;
	const struct schema_message *type;
};
must_check status *any_read(const struct schema_message *any, struct wire wire,
			    struct any *ret_any);
/* With its content as JSON, which is taken. */
must_check status *any_join(const struct any *any, cJSON *content, cJSON **ret_json);

/* One of them that is empty. */
must_check status *json_special_template(const struct schema_message *type, cJSON **ret_json);

/* json_read.c: */
must_check status *json_put_value(const struct schema_field *field, const cJSON *json,
				  unsigned depth, struct wire_out *out);
must_check status *json_put_list(const struct schema_field *field, const cJSON *array,
				 unsigned depth, struct wire_out *out);
must_check status *json_put_map(const struct schema_field *field, const cJSON *object,
				unsigned depth, struct wire_out *out);
must_check status *json_put_message(const struct schema_message *type, const cJSON *json,
				    unsigned depth, struct wire_out *out);

/* The default of a scalar. */
must_check status *json_default(const struct schema_field *field, cJSON **ret_json);

struct moment {
	int64_t seconds;
	int32_t nanos;
};

/* As text: DATA_LOSS or INVALID_ARGUMENT when it is out of the type's range. Heap. */
must_check status *moment_to_text(enum special kind, const struct moment *moment, char **ret_text);
must_check status *moment_from_text(enum special kind, const char *text, struct moment *ret_moment);

/* "is not of a kind that …" for a value: names what it is. */
must_check status *wrong_kind(const cJSON *json, const char *wanted);

#endif
