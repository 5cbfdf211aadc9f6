/* SPDX-License-Identifier: Apache-2.0 */
/* Messages, enums and services as a FileDescriptorSet describes them: our own, which is built in,
 * or that of a server which we were not compiled with. Never changed once loaded: any thread may
 * read. */
#ifndef HAUL_PROTO_SCHEMA_H
#define HAUL_PROTO_SCHEMA_H

#include <stdbool.h>

#include "proto/status.h"

/* google.protobuf.FieldDescriptorProto.Type. */
enum schema_type {
	SCHEMA_DOUBLE = 1,
	SCHEMA_FLOAT = 2,
	SCHEMA_INT64 = 3,
	SCHEMA_UINT64 = 4,
	SCHEMA_INT32 = 5,
	SCHEMA_FIXED64 = 6,
	SCHEMA_FIXED32 = 7,
	SCHEMA_BOOL = 8,
	SCHEMA_STRING = 9,
	SCHEMA_GROUP = 10, /* refused */
	SCHEMA_MESSAGE = 11,
	SCHEMA_BYTES = 12,
	SCHEMA_UINT32 = 13,
	SCHEMA_ENUM = 14,
	SCHEMA_SFIXED32 = 15,
	SCHEMA_SFIXED64 = 16,
	SCHEMA_SINT32 = 17,
	SCHEMA_SINT64 = 18,
};

struct schema_value {
	const char *name;
	int32_t number;
};

struct schema_enum {
	char *name; /* "haul.v1.TcpMode" */
	struct schema_value *values;
	size_t value_count; /* 1 at least */
};

struct schema_field {
	const char *name;
	char *json_name;
	uint32_t number;
	enum schema_type type;
	bool is_repeated; /* maps too */
	bool is_map; /* message is the type of its entries: field 0 the key, field 1 the value */
	bool is_packed;
	bool has_presence; /* unset and default are not the same */
	int32_t oneof;	   /* members of one oneof have the same; -1 = of none */
	const char *type_name;
	const struct schema_message *message;  /* of SCHEMA_MESSAGE */
	const struct schema_enum *enumeration; /* of SCHEMA_ENUM */
};

struct schema_message {
	char *name; /* "haul.v1.Migration" */
	struct schema_field *fields;
	size_t field_count;
	bool is_map_entry;
	const struct schema *schema; /* that it is of */
	void *unpacked;		     /* what the names point into */
};

struct schema_method {
	const char *name;
	const struct schema_message *input, *output;
	bool is_client_stream, is_server_stream; /* as the file says; see method_event */
	bool has_no_side_effects;		 /* idempotency_level = NO_SIDE_EFFECTS */
};

struct schema_service {
	char *name; /* "haul.v1.Migrations" */
	struct schema_method *methods;
	size_t method_count;
};

struct schema;

/* Reads a FileDescriptorSet with all its imports. INVALID_ARGUMENT tells what is wrong with it. */
must_check status *schema_load(const uint8_t *data, size_t size, struct schema **ret_schema);

/* Of the messages and services that this program was built with. */
must_check status *schema_load_own(struct schema **ret_schema);

/* By full name; NULL when there is none. */
const struct schema_message *schema_message(const struct schema *schema, const char *name);
const struct schema_enum *schema_enum(const struct schema *schema, const char *name);
const struct schema_service *schema_service(const struct schema *schema, const char *name);

/* In the order of their names; NULL after the last. */
const struct schema_service *schema_service_at(const struct schema *schema, size_t index);

/* "Commit" of a service; NULL when there is none. */
const struct schema_method *service_method(const struct schema_service *service, const char *name);

/* A method that answers with a pipe of events says so in its response: a field `pipe`, a
 * haul.v1.PipeAddress, and a field `event` that is never sent and has the type of the events. NULL:
 * its response is all there is. */
const struct schema_message *method_event(const struct schema_method *method);

void schema_free(struct schema *schema);

DEFINE_SCOPE(schema, struct schema *, schema_free);

/* The built-in FileDescriptorSet, as protoc wrote it. */
extern const uint8_t own_descriptor_set[];
extern const size_t own_descriptor_set_size;

#endif
