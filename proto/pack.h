/* SPDX-License-Identifier: Apache-2.0 */
/* protobuf-c messages to bytes and back, with bounds. */
#ifndef HAUL_PROTO_PACK_H
#define HAUL_PROTO_PACK_H

#include <protobuf-c/protobuf-c.h>

#include "proto/status.h"

/* Bytes with an owner: free(data). */
struct buffer {
	uint8_t *data;
	size_t size;
};

/* Packs `message` into a new buffer. RESOURCE_EXHAUSTED above `limit` bytes or without memory. */
must_check status *pack_message(const ProtobufCMessage *message, size_t limit,
				struct buffer *ret_buffer);

/* Unpacks at most `limit` bytes; INVALID_ARGUMENT when too long or malformed, naming the message.
 * The caller frees with protobuf_c_message_free_unpacked(message, NULL). */
must_check status *unpack_message(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data,
				  size_t size, size_t limit, ProtobufCMessage **ret_message);

/* The message's text field of this name; NULL when it has none. */
const char *message_text(const ProtobufCMessage *message, const char *field);

void buffer_free(struct buffer *buffer);

/* A new copy of the text ("" for NULL), for fields of messages; aborts without memory. */
char *text_copy(const char *text);

static inline void scope_buffer(struct buffer *value)
{
	buffer_free(value);
}

static inline void message_free(ProtobufCMessage *message)
{
	if (message != NULL)
		protobuf_c_message_free_unpacked(message, NULL);
}
DEFINE_SCOPE(message, ProtobufCMessage *, message_free);

#endif
