/* SPDX-License-Identifier: Apache-2.0 */
/* Messages as JSON and back, as protobuf's JSON mapping defines it
 * (https://protobuf.dev/programming-guides/json/): lowerCamelCase names (on input the original ones
 * too), 64-bit integers as texts, bytes in base64, enums by name, Timestamp and Duration as texts.
 * What an Any holds must be of a type of the same schema. Works by schema on the wire format, so
 * that messages need no generated code. */
#ifndef HAUL_PROTO_JSON_H
#define HAUL_PROTO_JSON_H

#include <cjson/cJSON.h>

#include "proto/pack.h"
#include "proto/schema.h"

/* Parses a text: one value, UTF-8, at most LIMIT_UNARY_BYTES and LIMIT_JSON_DEPTH levels.
 * INVALID_ARGUMENT tells at which byte it is wrong. Free with cJSON_Delete. */
must_check status *json_parse(const char *text, size_t size, cJSON **ret_json);

/* A message to its bytes. Unknown and repeated members, values of the wrong kind or out of range,
 * two members of a oneof: INVALID_ARGUMENT, naming the way to the member. */
must_check status *json_to_wire(const struct schema_message *type, const cJSON *json,
				struct buffer *ret_wire);

/* Bytes to a message. Fields that the schema does not know are left out. With emits_defaults fields
without presence are there also when they have their default (0, "", [], {}). Floating point numbers
 * are raw texts in the tree (cJSON would round them): print and parse it to read it back. */
must_check status *json_of_wire(const struct schema_message *type, const uint8_t *data, size_t size,
				bool emits_defaults, cJSON **ret_json);

/* The same for a message with generated code; the schema must have its type. */
must_check status *json_of_message(const struct schema *schema, const ProtobufCMessage *message,
				   bool emits_defaults, cJSON **ret_json);
must_check status *json_to_message(const struct schema *schema,
				   const ProtobufCMessageDescriptor *descriptor, const cJSON *json,
				   ProtobufCMessage **ret_message);

/* A message with all its fields, to be filled in: one element in each list and map, the first
 * member of each oneof, messages inside of themselves left empty. It is valid input. */
must_check status *json_template(const struct schema_message *type, cJSON **ret_json);

DEFINE_SCOPE(json, cJSON *, cJSON_Delete);

#endif
