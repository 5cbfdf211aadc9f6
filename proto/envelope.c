/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/envelope.h"

#include <stdio.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/metadata.h"

static void *must_calloc(size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (memory == NULL) {
		(void)fputs("out of memory\n", stderr);
		abort();
	}
	return memory;
}

Haul__V1__Status *status_to_wire(const status *st)
{
	if (st == NULL)
		return NULL;
	Haul__V1__Status *wire = must_calloc(1, sizeof(*wire));
	haul__v1__status__init(wire);
	wire->code = (uint32_t)status_code_of(st);
	wire->message = text_copy(status_message(st));
	size_t count = status_detail_count(st);
	if (count == 0)
		return wire;
	wire->details = must_calloc(count, sizeof(wire->details[0]));
	wire->n_details = count;
	for (size_t i = 0; i < count; i++) {
		struct status_detail detail = status_detail_at(st, i);
		wire->details[i] = must_calloc(1, sizeof(*wire->details[i]));
		haul__v1__status__detail__init(wire->details[i]);
		wire->details[i]->label = text_copy(detail.label);
		wire->details[i]->text = text_copy(detail.text);
	}
	return wire;
}

/* Control characters from a peer must not reach a terminal or split a log line. */
static char *clean_text(const char *text)
{
	char *copy = text_copy(text);
	for (char *at = copy; *at != '\0'; at++)
		if ((unsigned char)*at < 0x20 && *at != '\n' && *at != '\t')
			*at = '?';
	return copy;
}

status *status_from_wire(const Haul__V1__Status *wire)
{
	if (wire == NULL || wire->code == STATUS_OK)
		return NULL;
	scoped(str) char *message = clean_text(wire->message);
	status *st = status_errorf(status_code_from_wire(wire->code), "%s", message);
	for (size_t i = 0; i < wire->n_details && i < LIMIT_STATUS_DETAILS; i++) {
		scoped(str) char *label = clean_text(wire->details[i]->label);
		scoped(str) char *text = clean_text(wire->details[i]->text);
		st = status_detailf(st, label, "%s", text);
	}
	return st;
}

/* "/service/Method": two non-empty parts of letters, digits, '.' and '_'. */
static bool is_method(const char *text)
{
	if (text == NULL || text[0] != '/' || strlen(text) > LIMIT_NAME)
		return false;
	const char *slash = strchr(text + 1, '/');
	if (slash == NULL || slash == text + 1 || slash[1] == '\0')
		return false;
	for (const char *at = text + 1; *at != '\0'; at++) {
		bool is_letter = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z');
		bool is_other = (*at >= '0' && *at <= '9') || *at == '.' || *at == '_';
		if (at != slash && !is_letter && !is_other)
			return false;
	}
	return true;
}

static status *check_request(const Haul__V1__Request *request)
{
	if (request->version != ENVELOPE_VERSION)
		return status_errorf(
		    STATUS_UNIMPLEMENTED,
		    "the peer speaks version %u of the protocol, this side %d; use the "
		    "same release of haul on both",
		    request->version, ENVELOPE_VERSION);
	if (request->cancels.len != 0 && request->cancels.len != REQUEST_ID_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the id of what is to be cancelled has %zu bytes, not %d",
				     request->cancels.len, REQUEST_ID_BYTES);
	bool is_cancel = request->cancels.len != 0;
	if (!is_cancel && !is_method(request->method))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the request's method is not of the form /service/Method");
	if (!is_cancel && request->request_id.len != REQUEST_ID_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the request's id has %zu bytes, not %d",
				     request->request_id.len, REQUEST_ID_BYTES);
	return metadata_check(request->metadata, false);
}

status *request_decode(const uint8_t *data, size_t size, Haul__V1__Request **ret_request)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st =
	    unpack_message(&haul__v1__request__descriptor, data, size, LIMIT_UNARY_BYTES, &message);
	if (st != NULL)
		return st;
	st = check_request((const Haul__V1__Request *)message);
	if (st != NULL)
		return st;
	*ret_request = (Haul__V1__Request *)TAKE(message);
	return NULL;
}

status *reply_decode(const uint8_t *data, size_t size, Haul__V1__Reply **ret_reply,
		     status **ret_verdict)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st =
	    unpack_message(&haul__v1__reply__descriptor, data, size, LIMIT_UNARY_BYTES, &message);
	if (st != NULL)
		return status_recode(status_wrapf(st, "the server's reply"), STATUS_DATA_LOSS);
	const Haul__V1__Reply *reply = (const Haul__V1__Reply *)message;
	if (reply->version != ENVELOPE_VERSION)
		return status_errorf(STATUS_DATA_LOSS,
				     "the server's reply has version %u of the protocol, not %d",
				     reply->version, ENVELOPE_VERSION);
	st = metadata_check(reply->trailing, true);
	if (st != NULL)
		return status_recode(status_wrapf(st, "the server's reply"), STATUS_DATA_LOSS);
	*ret_verdict = status_from_wire(reply->status);
	*ret_reply = (Haul__V1__Reply *)TAKE(message);
	return NULL;
}
