/* SPDX-License-Identifier: Apache-2.0 */
/* Requests, replies and statuses as a peer may send them. */
#include "proto/envelope.h"
#include "proto/limits.h"
#include "proto/metadata.h"
#include "tests/fuzz/fuzz.h"

static void check_status(status *st)
{
	must(strlen(status_message(st)) <= LIMIT_STATUS_TEXT);
	must(status_detail_count(st) <= LIMIT_STATUS_DETAILS);
	for (size_t i = 0; i < status_detail_count(st); i++)
		must(strlen(status_detail_at(st, i).text) <= LIMIT_STATUS_TEXT);
	/* There and back it is the same. */
	Haul__V1__Status *wire = status_to_wire(st);
	scoped(status) status *again = status_from_wire(wire);
	must(status_code_of(again) == status_code_of(st));
	must(strcmp(status_message(again), status_message(st)) == 0);
	if (wire != NULL)
		haul__v1__status__free_unpacked(wire, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	Haul__V1__Request *request = NULL;
	Haul__V1__Reply *reply = NULL;
	scoped(status) status *verdict = NULL;

	scoped(status) status *st = request_decode(data, size, &request);
	must((st == NULL) == (request != NULL));
	if (request != NULL) {
		scoped(status) status *odd = metadata_check(request->metadata, false);
		must(odd == NULL);
		must(request->cancels.len == REQUEST_ID_BYTES ||
		     (request->method[0] == '/' && request->request_id.len == REQUEST_ID_BYTES));
		haul__v1__request__free_unpacked(request, NULL);
	}
	scoped(status) status *frame = reply_decode(data, size, &reply, &verdict);
	must((frame == NULL) == (reply != NULL));
	must(frame == NULL || verdict == NULL);
	if (reply != NULL) {
		scoped(status) status *odd = metadata_check(reply->trailing, true);
		must(odd == NULL);
		haul__v1__reply__free_unpacked(reply, NULL);
	}
	if (verdict != NULL)
		check_status(verdict);
	Haul__V1__Status *wire = haul__v1__status__unpack(NULL, size, data);
	scoped(status) status *travelled = status_from_wire(wire);
	if (travelled != NULL)
		check_status(travelled);
	if (wire != NULL)
		haul__v1__status__free_unpacked(wire, NULL);
	return 0;
}
