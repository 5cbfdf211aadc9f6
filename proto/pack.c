/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/pack.h"

#include <stdio.h>
#include <string.h>

status *pack_message(const ProtobufCMessage *message, size_t limit, struct buffer *ret_buffer)
{
	size_t size = protobuf_c_message_get_packed_size(message);
	if (size > limit)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "a %s of %zu bytes is over the limit of %zu",
				     message->descriptor->name, size, limit);
	/* One byte at least: an empty message is not a missing one. */
	uint8_t *data = malloc(size > 0 ? size : 1);
	if (data == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a %s of %zu bytes",
				     message->descriptor->name, size);
	*ret_buffer = (struct buffer){.data = data, .size = protobuf_c_message_pack(message, data)};
	return NULL;
}

status *unpack_message(const ProtobufCMessageDescriptor *descriptor, const uint8_t *data,
		       size_t size, size_t limit, ProtobufCMessage **ret_message)
{
	static const uint8_t nothing[1];
	if (size > limit)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "%zu bytes are too long for a %s (limit %zu)", size,
				     descriptor->name, limit);
	ProtobufCMessage *message =
	    protobuf_c_message_unpack(descriptor, NULL, size, size > 0 ? data : nothing);
	if (message == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "%zu bytes are not a valid %s", size,
				     descriptor->name);
	*ret_message = message;
	return NULL;
}

const char *message_text(const ProtobufCMessage *message, const char *field)
{
	const ProtobufCFieldDescriptor *found =
	    protobuf_c_message_descriptor_get_field_by_name(message->descriptor, field);
	if (found == NULL || found->type != PROTOBUF_C_TYPE_STRING ||
	    found->label == PROTOBUF_C_LABEL_REPEATED ||
	    (found->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0)
		return NULL;
	const void *place = (const char *)message + found->offset;
	return *(const char *const *)place;
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){0};
}

char *text_copy(const char *text)
{
	char *copy = strdup(text != NULL ? text : "");
	if (copy == NULL) {
		(void)fputs("out of memory\n", stderr);
		abort();
	}
	return copy;
}
