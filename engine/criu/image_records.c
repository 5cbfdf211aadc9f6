/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/image_records.h"

#include <endian.h>
#include <string.h>

enum { MAGIC_IMAGE = 0x54564319, RECORD_MOST = 64 * 1024 };

static uint32_t word(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static void put_word(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

status *image_records_open(const char *name, uint32_t magic, const uint8_t *data, size_t size,
			   struct image_records *ret_records)
{
	struct image_records records = {data, size, IMAGE_HEADER_BYTES, 0};

	if (size < IMAGE_HEADER_BYTES || word(data) != MAGIC_IMAGE ||
	    word(data + IMAGE_LENGTH_BYTES) != magic)
		return status_errorf(STATUS_DATA_LOSS, "%s does not begin like one", name);
	for (size_t at = records.at; at < size; records.count++) {
		if (size - at < IMAGE_LENGTH_BYTES || word(data + at) > RECORD_MOST ||
		    word(data + at) > size - at - IMAGE_LENGTH_BYTES)
			return status_errorf(STATUS_DATA_LOSS, "%s ends in the middle of a record",
					     name);
		at += IMAGE_LENGTH_BYTES + word(data + at);
	}
	*ret_records = records;
	return NULL;
}

bool image_records_next(struct image_records *records, const uint8_t **ret_message,
			uint32_t *ret_size)
{
	if (records->at >= records->size)
		return false;
	*ret_size = word(records->data + records->at);
	*ret_message = records->data + records->at + IMAGE_LENGTH_BYTES;
	records->at += IMAGE_LENGTH_BYTES + (size_t)*ret_size;
	return true;
}

size_t image_put_header(uint32_t magic, uint8_t *out)
{
	put_word(out, MAGIC_IMAGE);
	put_word(out + IMAGE_LENGTH_BYTES, magic);
	return IMAGE_HEADER_BYTES;
}

size_t image_put_bytes(const uint8_t *message, uint32_t size, uint8_t *out)
{
	put_word(out, size);
	memcpy(out + IMAGE_LENGTH_BYTES, message, size);
	return IMAGE_LENGTH_BYTES + (size_t)size;
}

size_t image_put_message(const ProtobufCMessage *message, uint8_t *out)
{
	size_t size = protobuf_c_message_pack(message, out + IMAGE_LENGTH_BYTES);

	put_word(out, (uint32_t)size);
	return IMAGE_LENGTH_BYTES + size;
}
