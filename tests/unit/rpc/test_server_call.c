/* SPDX-License-Identifier: Apache-2.0 */
/* What a server makes of a request's envelope: requests here are made by hand. */
#include "tests/unit/test.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <stdio.h>
#include <string.h>

#include "proto/envelope.h"
#include "tests/unit/rpc/echo.h"

enum { TIMEOUT_MS = 60000 };

struct raw {
	struct echo echo;
	nng_socket socket;
};

static int raw_start(void **state)
{
	static struct raw raw;
	echo_start(&raw.echo);
	echo_listen(&raw.echo, "ipc", NULL, 4);
	assert_int_equal(nng_req0_open(&raw.socket), 0);
	assert_int_equal(nng_dial(raw.socket, raw.echo.url, NULL, 0), 0);
	*state = &raw;
	return 0;
}

static int raw_stop(void **state)
{
	struct raw *raw = *state;
	(void)nng_socket_close(raw->socket);
	echo_stop(&raw->echo);
	return 0;
}

/* Sends a request of this method under an id of our choice; fills in the rest. */
static status *ask(nng_socket socket, char *method, unsigned id, const ProtobufCMessage *message,
		   Haul__V1__Reply **ret_reply)
{
	uint8_t request_id[REQUEST_ID_BYTES] = {0};
	scoped(buffer) struct buffer payload = {0};
	scoped(buffer) struct buffer whole = {0};
	Haul__V1__Request request = HAUL__V1__REQUEST__INIT;
	status *verdict = NULL;
	nng_msg *msg = NULL;
	memcpy(request_id, &id, sizeof(id));
	assert_ok(pack_message(message, 1000, &payload));
	request.version = ENVELOPE_VERSION;
	request.method = method;
	request.timeout_ms = TIMEOUT_MS;
	request.request_id = (ProtobufCBinaryData){.len = sizeof(request_id), .data = request_id};
	request.payload = (ProtobufCBinaryData){.len = payload.size, .data = payload.data};
	assert_ok(pack_message(&request.base, 4000, &whole));
	assert_int_equal(nng_send(socket, whole.data, whole.size, 0), 0);
	assert_int_equal(nng_recvmsg(socket, &msg, 0), 0);
	assert_ok(reply_decode(nng_msg_body(msg), nng_msg_len(msg), ret_reply, &verdict));
	nng_msg_free(msg);
	return verdict;
}

/* Query says how often it was carried out. */
static int query(nng_socket socket, unsigned id)
{
	char method[] = "/haul.v1.Peer/Query";
	Haul__V1__QueryRequest message = HAUL__V1__QUERY_REQUEST__INIT;
	Haul__V1__Reply *reply = NULL;
	assert_ok(ask(socket, method, id, &message.base, &reply));
	assert_false(reply->is_final);
	Haul__V1__QueryResponse *response =
	    haul__v1__query_response__unpack(NULL, reply->payload.len, reply->payload.data);
	int count = response->pid;
	haul__v1__query_response__free_unpacked(response, NULL);
	haul__v1__reply__free_unpacked(reply, NULL);
	return count;
}

static void a_read_is_carried_out_each_time(void **state)
{
	struct raw *raw = *state;
	assert_int_equal(query(raw->socket, 1), 1);
	assert_int_equal(query(raw->socket, 1), 2);
}

static void busy_readers_leave_the_memory_of_requests_to_changes(void **state)
{
	char method[] = "/haul.v1.Peer/Abort";
	struct raw *raw = *state;
	Haul__V1__AbortRequest message = HAUL__V1__ABORT_REQUEST__INIT;
	Haul__V1__Reply *reply = NULL;
	/* A quarter is all that one caller may have, and their time is not over. */
	for (unsigned id = 1; id <= LIMIT_REQUESTS_KEPT / 4 + 1; id++)
		(void)query(raw->socket, id);
	assert_ok(ask(raw->socket, method, 0, &message.base, &reply));
	assert_true(reply->is_final);
	haul__v1__reply__free_unpacked(reply, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_read_is_carried_out_each_time, raw_start, raw_stop),
	    cmocka_unit_test_setup_teardown(busy_readers_leave_the_memory_of_requests_to_changes,
					    raw_start, raw_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
