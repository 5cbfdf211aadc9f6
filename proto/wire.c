/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire.h"

#include <string.h>

#include "proto/limits.h"

enum { VARINT_BYTES = 10, FIRST_BYTES = 64, TAG_TYPE_BITS = 3 };

static status *cut_off(void)
{
	return status_errorf(STATUS_INVALID_ARGUMENT, "the message is cut off or malformed");
}

static status *take_varint(struct wire *wire, uint64_t *ret_value)
{
	uint64_t value = 0;

	for (size_t i = 0; i < VARINT_BYTES && i < wire->size; i++) {
		uint8_t byte = wire->at[i];
		value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if ((byte & 0x80) != 0)
			continue;
		wire->at += i + 1;
		wire->size -= i + 1;
		*ret_value = value;
		return NULL;
	}
	return cut_off();
}

static status *take_fixed(struct wire *wire, size_t bytes, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (wire->size < bytes)
		return cut_off();
	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t)wire->at[i] << (8 * i);
	wire->at += bytes;
	wire->size -= bytes;
	*ret_value = value;
	return NULL;
}

status *wire_value(struct wire *wire, enum wire_type type, uint64_t *ret_value)
{
	switch (type) {
	case WIRE_VARINT:
		return take_varint(wire, ret_value);
	case WIRE_64:
		return take_fixed(wire, 8, ret_value);
	case WIRE_32:
		return take_fixed(wire, 4, ret_value);
	case WIRE_BYTES:
		break;
	}
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "the message has a field of a kind that is not in use (a group?)");
}

status *wire_next(struct wire *wire, struct wire_field *ret_field)
{
	struct wire_field field = {0};
	uint64_t tag = 0;

	if (wire->size == 0) {
		*ret_field = field;
		return NULL;
	}
	status *st = take_varint(wire, &tag);
	if (st != NULL)
		return st;
	if (tag >> TAG_TYPE_BITS == 0 || tag > UINT32_MAX)
		return cut_off();
	field.number = (uint32_t)(tag >> TAG_TYPE_BITS);
	field.type = (enum wire_type)(tag & 7);
	if (field.type != WIRE_BYTES) {
		st = wire_value(wire, field.type, &field.value);
	} else {
		uint64_t size = 0;
		st = take_varint(wire, &size);
		if (st == NULL && size > wire->size)
			st = cut_off();
		if (st == NULL) {
			field.bytes = (struct wire){wire->at, (size_t)size};
			wire->at += size;
			wire->size -= (size_t)size;
		}
	}
	if (st == NULL)
		*ret_field = field;
	return st;
}

static status *put(struct wire_out *out, const void *data, size_t size)
{
	struct buffer *buffer = &out->buffer;

	if (size > LIMIT_UNARY_BYTES - buffer->size)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "the message is over the limit of %d bytes",
				     LIMIT_UNARY_BYTES);
	if (buffer->size + size > out->capacity) {
		size_t capacity = out->capacity > 0 ? out->capacity : FIRST_BYTES;
		while (capacity < buffer->size + size)
			capacity *= 2;
		uint8_t *grown = realloc(buffer->data, capacity);
		if (grown == NULL)
			return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a message");
		buffer->data = grown;
		out->capacity = capacity;
	}
	if (size > 0)
		memcpy(buffer->data + buffer->size, data, size);
	buffer->size += size;
	return NULL;
}

status *wire_put_value(struct wire_out *out, enum wire_type type, uint64_t value)
{
	uint8_t bytes[VARINT_BYTES];
	size_t size = 0;

	if (type == WIRE_VARINT) {
		for (; value > 0x7f; value >>= 7)
			bytes[size++] = (uint8_t)(value | 0x80);
		bytes[size++] = (uint8_t)value;
	} else {
		for (; size < (type == WIRE_64 ? 8U : 4U); size++)
			bytes[size] = (uint8_t)(value >> (8 * size));
	}
	return put(out, bytes, size);
}

status *wire_put_tag(struct wire_out *out, uint32_t number, enum wire_type type)
{
	return wire_put_value(out, WIRE_VARINT, (uint64_t)number << TAG_TYPE_BITS | type);
}

status *wire_put_bytes(struct wire_out *out, uint32_t number, const void *data, size_t size)
{
	status *st = wire_put_tag(out, number, WIRE_BYTES);

	if (st == NULL)
		st = wire_put_value(out, WIRE_VARINT, size);
	return st != NULL ? st : put(out, data, size);
}
