/* SPDX-License-Identifier: Apache-2.0 */
/* Protobuf's wire format, field by field: for messages that no code was generated for. */
#ifndef HAUL_PROTO_WIRE_H
#define HAUL_PROTO_WIRE_H

#include <stdbool.h>

#include "proto/pack.h"

enum wire_type { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* What is left to read; the bytes are borrowed. */
struct wire {
	const uint8_t *at;
	size_t size;
};

struct wire_field {
	uint32_t number;
	enum wire_type type;
	uint64_t value;	   /* of all but WIRE_BYTES */
	struct wire bytes; /* of WIRE_BYTES */
};

/* Takes the next field; at the end *ret_field has number 0. INVALID_ARGUMENT for what is cut off, a
 * field number that cannot be, and groups. */
must_check status *wire_next(struct wire *wire, struct wire_field *ret_field);

/* Takes one value without a tag, as packed fields hold them. `type` is not WIRE_BYTES. */
must_check status *wire_value(struct wire *wire, enum wire_type type, uint64_t *ret_value);

/* Written bytes: grows, up to LIMIT_UNARY_BYTES. Begin with {0}; free with buffer_free. */
struct wire_out {
	struct buffer buffer;
	size_t capacity;
};

must_check status *wire_put_value(struct wire_out *out, enum wire_type type, uint64_t value);
must_check status *wire_put_tag(struct wire_out *out, uint32_t number, enum wire_type type);
must_check status *wire_put_bytes(struct wire_out *out, uint32_t number, const void *data,
				  size_t size);

static inline void scope_wire_out(struct wire_out *value)
{
	buffer_free(&value->buffer);
}

#endif
