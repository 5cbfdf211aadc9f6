/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "proto/envelope.h"
#include "proto/limits.h"

static status *decode(uint32_t version, const char *method, size_t id_size)
{
	uint8_t id[32] = {1, 2, 3};
	scoped(str) char *name = text_copy(method);
	scoped(buffer) struct buffer buffer = {0};
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	Haul__V1__Request *got = NULL;
	request.version = version;
	request.method = name;
	request.request_id = (ProtobufCBinaryData){.len = id_size, .data = id};
	request.timeout_ms = 77;
	assert_ok(pack_message(&request.base, LIMIT_UNARY_BYTES, &buffer));
	status *st = request_decode(buffer.data, buffer.size, &got);
	if (st == NULL) {
		assert_string_equal(got->method, method);
		assert_int_equal(got->timeout_ms, 77);
		haul__v1__request__free_unpacked(got, NULL);
	}
	return st;
}

static void a_request_survives(void **state)
{
	(void)state;
	assert_ok(decode(ENVELOPE_VERSION, "/haul.v1.Peer/Commit", REQUEST_ID_BYTES));
}

static void another_version_is_unimplemented(void **state)
{
	(void)state;
	assert_code(decode(ENVELOPE_VERSION + 1, "/a/B", REQUEST_ID_BYTES), STATUS_UNIMPLEMENTED);
	assert_code(decode(0, "/a/B", REQUEST_ID_BYTES), STATUS_UNIMPLEMENTED);
}

static void malformed_methods_and_ids_are_invalid(void **state)
{
	static const char *const methods[] = {"",	"/",	  "//",	    "/a",      "/a/", "a/b",
					      "/a/b/c", "/a/b\n", "/a b/c", "/a/../b", "//a"};
	(void)state;
	for (size_t i = 0; i < array_len(methods); i++)
		assert_code(decode(ENVELOPE_VERSION, methods[i], REQUEST_ID_BYTES),
			    STATUS_INVALID_ARGUMENT);
	assert_code(decode(ENVELOPE_VERSION, "/a/B", REQUEST_ID_BYTES - 1),
		    STATUS_INVALID_ARGUMENT);
	assert_code(decode(ENVELOPE_VERSION, "/a/B", 0), STATUS_INVALID_ARGUMENT);
	assert_code(decode(ENVELOPE_VERSION, "/a/B", REQUEST_ID_BYTES + 1),
		    STATUS_INVALID_ARGUMENT);
}

/* What is not looked at for a cancel is not let in unchecked either. */
static void a_cancel_with_odd_metadata_is_invalid(void **state)
{
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	Haul__V1__Metadata metadata = HAUL__V1__METADATA__INIT;
	Haul__V1__Metadata__Entry entry = HAUL__V1__METADATA__ENTRY__INIT;
	Haul__V1__Metadata__Entry *entries[] = {&entry};
	scoped(buffer) struct buffer buffer = {0};
	uint8_t id[REQUEST_ID_BYTES] = {1};
	char key[] = "Two\nlines", value[] = "";
	Haul__V1__Request *got = NULL;
	(void)state;

	request.version = ENVELOPE_VERSION;
	request.cancels = (ProtobufCBinaryData){sizeof(id), id};
	entry.key = key;
	entry.value = value;
	metadata.entries = entries;
	metadata.n_entries = 1;
	request.metadata = &metadata;
	assert_ok(pack_message(&request.base, LIMIT_UNARY_BYTES, &buffer));
	assert_code(request_decode(buffer.data, buffer.size, &got), STATUS_INVALID_ARGUMENT);
}

static void a_status_travels_with_its_details(void **state)
{
	(void)state;
	scoped(status) status *st = status_errorf(STATUS_ABORTED, "gone");
	st = status_detailf(st, "criu", "Error (x.c:1)");
	st = status_detailf(st, "next", "try again");
	Haul__V1__Status *wire = status_to_wire(st);
	scoped(status) status *back = status_from_wire(wire);
	haul__v1__status__free_unpacked(wire, NULL);
	assert_int_equal(status_code_of(back), STATUS_ABORTED);
	assert_string_equal(status_message(back), "gone");
	assert_string_equal(status_detail_find(back, "criu"), "Error (x.c:1)");
	assert_string_equal(status_detail_find(back, "next"), "try again");
	assert_null(status_to_wire(NULL));
	assert_ok(status_from_wire(NULL));
}

static void a_hostile_status_is_bounded_and_printable(void **state)
{
	(void)state;
	char text[] = "a\x1b[31mb";
	Haul__V1__Status__Detail detail = HAUL__V1__STATUS__DETAIL__INIT;
	Haul__V1__Status__Detail *details[100];
	detail.label = text;
	detail.text = text;
	for (size_t i = 0; i < array_len(details); i++)
		details[i] = &detail;
	Haul__V1__Status wire = HAUL__V1__STATUS__INIT;
	wire.code = 4711;
	wire.message = text;
	wire.details = details;
	wire.n_details = array_len(details);
	scoped(status) status *st = status_from_wire(&wire);
	assert_int_equal(status_code_of(st), STATUS_UNKNOWN);
	assert_string_equal(status_message(st), "a?[31mb");
	assert_int_equal(status_detail_count(st), LIMIT_STATUS_DETAILS);
}

static void a_reply_brings_payload_or_verdict(void **state)
{
	(void)state;
	uint8_t data[] = "xyz";
	scoped(buffer) struct buffer buffer = {0};
	Haul__V1__Reply reply = HAUL__V1__REPLY__INIT;
	Haul__V1__Reply *got = NULL;
	scoped(status) status *verdict = NULL;
	reply.version = ENVELOPE_VERSION;
	reply.payload = (ProtobufCBinaryData){.len = 3, .data = data};
	assert_ok(pack_message(&reply.base, 1000, &buffer));
	assert_ok(reply_decode(buffer.data, buffer.size, &got, &verdict));
	assert_null(verdict);
	assert_int_equal(got->payload.len, 3);
	haul__v1__reply__free_unpacked(got, NULL);
	buffer_free(&buffer);
	scoped(status) status *st = status_errorf(STATUS_NOT_FOUND, "no such migration");
	reply.status = status_to_wire(st);
	assert_ok(pack_message(&reply.base, 1000, &buffer));
	haul__v1__status__free_unpacked(reply.status, NULL);
	assert_ok(reply_decode(buffer.data, buffer.size, &got, &verdict));
	assert_int_equal(status_code_of(verdict), STATUS_NOT_FOUND);
	haul__v1__reply__free_unpacked(got, NULL);
}

static void a_malformed_reply_is_data_loss(void **state)
{
	(void)state;
	static const uint8_t garbage[] = {0xFF, 0xFF, 0xFF};
	Haul__V1__Reply *got = NULL;
	status *verdict = NULL;
	assert_code(reply_decode(garbage, sizeof(garbage), &got, &verdict), STATUS_DATA_LOSS);
	assert_code(reply_decode(NULL, 0, &got, &verdict), STATUS_DATA_LOSS);
	assert_null(got);
	assert_null(verdict);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_request_survives),
	    cmocka_unit_test(another_version_is_unimplemented),
	    cmocka_unit_test(malformed_methods_and_ids_are_invalid),
	    cmocka_unit_test(a_cancel_with_odd_metadata_is_invalid),
	    cmocka_unit_test(a_status_travels_with_its_details),
	    cmocka_unit_test(a_hostile_status_is_bounded_and_printable),
	    cmocka_unit_test(a_reply_brings_payload_or_verdict),
	    cmocka_unit_test(a_malformed_reply_is_data_loss),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
