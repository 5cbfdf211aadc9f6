/* SPDX-License-Identifier: Apache-2.0 */
/* The envelope around every unary call, and the status as it travels. */
#ifndef HAUL_PROTO_ENVELOPE_H
#define HAUL_PROTO_ENVELOPE_H

#include "haul/v1/envelope.pb-c.h"
#include "proto/pack.h"

enum { ENVELOPE_VERSION = 1, REQUEST_ID_BYTES = 16 };

/* Status to its wire form (heap, owned by the caller, free with haul__v1__status__free_unpacked);
 * NULL for OK. Without memory: NULL is never returned for an error; the process aborts. */
Haul__V1__Status *status_to_wire(const status *st);

/* Wire form to a status; NULL and code 0 are OK. Texts are bounded. */
must_check status *status_from_wire(const Haul__V1__Status *wire);

/* Decodes and checks a request: version, method's form ("/service/Method"), id's length, metadata;
 * of one that cancels another only that one's id.
 * UNIMPLEMENTED for another version, INVALID_ARGUMENT otherwise. Free with
 * haul__v1__request__free_unpacked. */
must_check status *request_decode(const uint8_t *data, size_t size,
				  Haul__V1__Request **ret_request);

/* Decodes a reply: a status that travelled in it is *ret_verdict (owned by the caller). What this
 * function itself returns is about the frame: DATA_LOSS. */
must_check status *reply_decode(const uint8_t *data, size_t size, Haul__V1__Reply **ret_reply,
				status **ret_verdict);

#endif
