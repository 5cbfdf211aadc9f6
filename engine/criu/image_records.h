/* SPDX-License-Identifier: Apache-2.0 */
/* An image of CRIU's that is a list of messages: two magics, then of each its length (a little
 * endian word of 32 bits) and the message. */
#ifndef HAUL_ENGINE_CRIU_IMAGE_RECORDS_H
#define HAUL_ENGINE_CRIU_IMAGE_RECORDS_H

#include "proto/pack.h"

enum { IMAGE_HEADER_BYTES = 8, IMAGE_LENGTH_BYTES = 4 };

/* The image's bytes are the caller's, and have to outlive it. */
struct image_records {
	const uint8_t *data;
	size_t size, at, count;
};

/* DATA_LOSS, naming the image, unless it begins with its magic and all its messages are whole. */
must_check status *image_records_open(const char *name, uint32_t magic, const uint8_t *data,
				      size_t size, struct image_records *ret_records);

/* The next message; false: there was no more. */
bool image_records_next(struct image_records *records, const uint8_t **ret_message,
			uint32_t *ret_size);

/* Writes an image's beginning, or one message, at `out`; returns how many bytes that were. */
size_t image_put_header(uint32_t magic, uint8_t *out);
size_t image_put_bytes(const uint8_t *message, uint32_t size, uint8_t *out);
size_t image_put_message(const ProtobufCMessage *message, uint8_t *out);

#endif
