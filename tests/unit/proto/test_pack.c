/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "haul/v1/peer.pb-c.h"
#include "proto/pack.h"
#include "proto/raw.h"

static void a_message_survives_packing(void **state)
{
	(void)state;
	scoped(str) char *id = text_copy("m1");
	Haul__V1__CommitRequest request = HAUL__V1__COMMIT_REQUEST__INIT;
	request.id = id;
	request.source_is_gone = 1;
	scoped(buffer) struct buffer buffer = {0};
	assert_ok(pack_message(&request.base, 100, &buffer));
	scoped(message) ProtobufCMessage *message = NULL;
	assert_ok(unpack_message(&haul__v1__commit_request__descriptor, buffer.data, buffer.size,
				 100, &message));
	const Haul__V1__CommitRequest *got = (const Haul__V1__CommitRequest *)message;
	assert_string_equal(got->id, "m1");
	assert_true(got->source_is_gone);
}

static void an_empty_message_is_a_message(void **state)
{
	(void)state;
	Haul__V1__SettleResponse empty = HAUL__V1__SETTLE_RESPONSE__INIT;
	scoped(buffer) struct buffer buffer = {0};
	assert_ok(pack_message(&empty.base, 0, &buffer));
	assert_int_equal(buffer.size, 0);
	assert_non_null(buffer.data);
	scoped(message) ProtobufCMessage *message = NULL;
	assert_ok(unpack_message(&haul__v1__settle_response__descriptor, NULL, 0, 0, &message));
	assert_non_null(message);
}

static void limits_hold_both_ways(void **state)
{
	(void)state;
	scoped(str) char *id = text_copy("0123456789");
	Haul__V1__CommitRequest request = HAUL__V1__COMMIT_REQUEST__INIT;
	request.id = id;
	scoped(buffer) struct buffer buffer = {0};
	assert_code(pack_message(&request.base, 11, &buffer), STATUS_RESOURCE_EXHAUSTED);
	assert_null(buffer.data);
	assert_ok(pack_message(&request.base, 12, &buffer));
	ProtobufCMessage *message = NULL;
	assert_code(unpack_message(&haul__v1__commit_request__descriptor, buffer.data, buffer.size,
				   11, &message),
		    STATUS_INVALID_ARGUMENT);
	assert_null(message);
}

static void garbage_and_cut_messages_are_refused(void **state)
{
	(void)state;
	static const uint8_t garbage[] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF};
	static const uint8_t cut[] = {0x0A, 0x05, 'a', 'b'};
	ProtobufCMessage *message = NULL;
	assert_code(unpack_message(&haul__v1__commit_request__descriptor, garbage, sizeof(garbage),
				   100, &message),
		    STATUS_INVALID_ARGUMENT);
	assert_code(unpack_message(&haul__v1__commit_request__descriptor, cut, sizeof(cut), 100,
				   &message),
		    STATUS_INVALID_ARGUMENT);
}

static void a_missing_text_is_copied_as_empty(void **state)
{
	(void)state;
	scoped(str) char *text = text_copy(NULL);
	assert_string_equal(text, "");
}

static void a_text_field_is_found_by_its_name(void **state)
{
	char id[] = "m1";
	Haul__V1__CommitRequest request = HAUL__V1__COMMIT_REQUEST__INIT;
	Haul__V1__HelloResponse other = HAUL__V1__HELLO_RESPONSE__INIT;
	(void)state;
	request.id = id;
	assert_string_equal(message_text(&request.base, "id"), "m1");
	assert_null(message_text(&request.base, "source_is_gone"));
	assert_null(message_text(&other.base, "id"));
}

static void a_message_without_generated_code_is_packed_as_it_came(void **state)
{
	/* Every kind of field, a number that is longer than it need be, and a field twice. */
	static const uint8_t data[] = {0x08, 0x80, 0x00, 0x11, 1,    2, 3, 4, 5, 6,    7, 8,
				       0x1a, 2,	   'a',	 0,    0x25, 1, 2, 3, 4, 0x08, 1};
	static const uint8_t group[] = {0x0b, 0x0c};
	scoped(message) ProtobufCMessage *message = NULL;
	scoped(buffer) struct buffer buffer = {0};
	ProtobufCMessage *none = NULL;
	(void)state;

	assert_ok(unpack_message(&raw_message_descriptor, data, sizeof(data), 100, &message));
	assert_ok(pack_message(message, 100, &buffer));
	assert_int_equal(buffer.size, sizeof(data));
	assert_memory_equal(buffer.data, data, sizeof(data));
	assert_code(unpack_message(&raw_message_descriptor, group, sizeof(group), 100, &none),
		    STATUS_INVALID_ARGUMENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_message_survives_packing),
	    cmocka_unit_test(an_empty_message_is_a_message),
	    cmocka_unit_test(limits_hold_both_ways),
	    cmocka_unit_test(garbage_and_cut_messages_are_refused),
	    cmocka_unit_test(a_missing_text_is_copied_as_empty),
	    cmocka_unit_test(a_text_field_is_found_by_its_name),
	    cmocka_unit_test(a_message_without_generated_code_is_packed_as_it_came),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
