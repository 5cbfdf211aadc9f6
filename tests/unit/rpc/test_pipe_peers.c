/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers, liars and attackers at a pipe. */
#include "tests/unit/test.h"

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <string.h>

#include "rpc/seal.h"
#include "tests/unit/rpc/pipe_pair.h"

/* A raw PAIR peer with the listener's address. It comes once: nng loses what it has of a connection
 * that is being made when the test closes the peer. */
static nng_socket raw_peer(const char *url)
{
	nng_socket peer;
	assert_int_equal(nng_pair0_open(&peer), 0);
	assert_int_equal(nng_socket_set_ms(peer, NNG_OPT_SENDTIMEO, 20000), 0);
	assert_int_equal(nng_socket_set_ms(peer, NNG_OPT_RECVTIMEO, 20000), 0);
	assert_int_equal(nng_socket_set_size(peer, NNG_OPT_RECVMAXSZ, 0), 0);
	assert_int_equal(nng_socket_set_ms(peer, NNG_OPT_RECONNMINT, 24 * 3600 * 1000), 0);
	assert_int_equal(nng_dial(peer, url, NULL, 0), 0);
	return peer;
}

static void wrong_peers_are_dropped_and_the_right_one_attaches(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct dialing right;
	struct dialing wrong;
	pthread_t thread;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	struct sending accepting = {.pipe = listener};
	assert_int_equal(pthread_create(&thread, NULL, run_accept, &accepting), 0);
	nng_socket garbage = raw_peer(address->url);
	char bytes[] = "seventeen bytes..";
	(void)nng_send(garbage, bytes, sizeof(bytes) - 1, 0);
	Haul__V1__PipeAddress bad = *address;
	uint8_t key[SEAL_KEY_BYTES] = {1};
	bad.key_to_listener.data = key;
	start_dial(&wrong, &bad, 3000);
	start_dial(&right, address, PLENTY_MS);
	assert_ok(join_dial(&right));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(accepting.st);
	assert_code(join_dial(&wrong), STATUS_UNAVAILABLE);
	send_bytes(right.pipe, 5, 5);
	expect_bytes(listener, 5, 5);
	send_bytes(listener, 6, 6);
	expect_bytes(right.pipe, 6, 6);
	(void)nng_socket_close(garbage);
	pipe_free(right.pipe);
}

static void a_silent_peer_does_not_keep_the_place(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct dialing right;
	pthread_t thread;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	struct sending accepting = {.pipe = listener};
	assert_int_equal(pthread_create(&thread, NULL, run_accept, &accepting), 0);
	nng_socket silent = raw_peer(address->url);
	start_dial(&right, address, PLENTY_MS);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(accepting.st);
	assert_ok(join_dial(&right));
	pipe_free(right.pipe);
	(void)nng_socket_close(silent);
}

static void nobody_else_gets_in_after_the_right_one(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct dialing right;
	struct pipe *second = NULL;
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	start_dial(&right, address, PLENTY_MS);
	assert_ok(pipe_accept(listener, PLENTY_MS));
	assert_ok(join_dial(&right));
	assert_code(pipe_dial(address, 700, &second), STATUS_UNAVAILABLE);
	send_bytes(right.pipe, 5, 5);
	expect_bytes(listener, 5, 5);
	pipe_free(right.pipe);
	assert_code(pipe_receive(listener, PLENTY_MS, &in), STATUS_UNAVAILABLE);
	/* Not even the right keys bring a lost pipe back. */
	assert_code(pipe_dial(address, 700, &second), STATUS_UNAVAILABLE);
}

/* The dialer's side by hand, to send what no pipe would. */
struct hand {
	nng_socket peer;
	struct seal *out;
	struct pipe *listener;
	Haul__V1__PipeAddress *address;
};

static nng_msg *sealed(struct hand *hand, uint8_t kind, const void *body, size_t size)
{
	nng_msg *msg = NULL;
	assert_int_equal(nng_msg_alloc(&msg, 1 + size + SEAL_TAG_BYTES), 0);
	uint8_t *bytes = nng_msg_body(msg);
	bytes[0] = kind;
	if (size > 0)
		memcpy(bytes + 1, body, size);
	assert_ok(seal_close(hand->out, bytes, 1 + size));
	return msg;
}

static void send_hand(struct hand *hand, nng_msg *msg)
{
	assert_int_equal(nng_sendmsg(hand->peer, msg, 0), 0);
}

static void open_hand(struct hand *hand)
{
	nng_msg *hello = NULL;
	pthread_t thread;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &hand->listener, &hand->address));
	struct sending accepting = {.pipe = hand->listener};
	assert_int_equal(pthread_create(&thread, NULL, run_accept, &accepting), 0);
	assert_ok(seal_new(HAUL__V1__SEAL__SEAL_AES_256_GCM, hand->address->key_to_listener.data,
			   hand->address->pipe_id.data, true, &hand->out));
	hand->peer = raw_peer(hand->address->url);
	send_hand(hand, sealed(hand, HAUL__V1__FRAME_KIND__FRAME_HELLO, NULL, 0));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(accepting.st);
	assert_int_equal(nng_recvmsg(hand->peer, &hello, 0), 0);
	nng_msg_free(hello);
	send_hand(hand, sealed(hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, "good", 4));
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(hand->listener, PLENTY_MS, &in));
	assert_memory_equal(in.body, "good", 4);
}

/* What was sent must be DATA_LOSS, and stay so. */
static void close_hand_with_data_loss(struct hand *hand)
{
	scoped(pipe_in) struct pipe_in in = {0};
	assert_code(pipe_receive(hand->listener, PLENTY_MS, &in), STATUS_DATA_LOSS);
	assert_code(pipe_receive(hand->listener, PLENTY_MS, &in), STATUS_DATA_LOSS);
	pipe_free(hand->listener);
	(void)nng_socket_close(hand->peer);
	seal_free(hand->out);
	free_address(hand->address);
}

static void a_repeated_message_is_data_loss(void **state)
{
	(void)state;
	struct hand hand;
	nng_msg *again = NULL;
	open_hand(&hand);
	nng_msg *msg = sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, "data", 4);
	assert_int_equal(nng_msg_dup(&again, msg), 0);
	send_hand(&hand, msg);
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(hand.listener, PLENTY_MS, &in));
	send_hand(&hand, again);
	close_hand_with_data_loss(&hand);
}

static void reordered_messages_are_data_loss(void **state)
{
	(void)state;
	struct hand hand;
	open_hand(&hand);
	nng_msg *first = sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, "one", 3);
	nng_msg *second = sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, "two", 3);
	send_hand(&hand, second);
	send_hand(&hand, first);
	close_hand_with_data_loss(&hand);
}

static void a_cut_message_is_data_loss(void **state)
{
	(void)state;
	struct hand hand;
	open_hand(&hand);
	nng_msg *msg = sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, "data", 4);
	assert_int_equal(nng_msg_chop(msg, 1), 0);
	send_hand(&hand, msg);
	close_hand_with_data_loss(&hand);
	open_hand(&hand);
	assert_int_equal(nng_msg_alloc(&msg, 0), 0);
	send_hand(&hand, msg);
	close_hand_with_data_loss(&hand);
}

static void an_altered_message_is_data_loss(void **state)
{
	(void)state;
	struct hand hand;
	open_hand(&hand);
	nng_msg *msg = sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, "data", 4);
	((uint8_t *)nng_msg_body(msg))[2] ^= 1;
	send_hand(&hand, msg);
	close_hand_with_data_loss(&hand);
}

static void an_end_that_counts_wrong_is_data_loss(void **state)
{
	(void)state;
	struct hand hand;
	uint8_t bytes[32];
	open_hand(&hand);
	Haul__V1__PipeEnd end = HAUL__V1__PIPE_END__INIT;
	end.messages = 3; /* it is number 2 */
	size_t size = haul__v1__pipe_end__pack(&end, bytes);
	send_hand(&hand, sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_END, bytes, size));
	close_hand_with_data_loss(&hand);
}

static void a_second_hello_is_data_loss(void **state)
{
	(void)state;
	struct hand hand;
	open_hand(&hand);
	send_hand(&hand, sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_HELLO, NULL, 0));
	close_hand_with_data_loss(&hand);
}

static void an_oversized_message_is_data_loss(void **state)
{
	(void)state;
	struct hand hand;
	open_hand(&hand);
	scoped(mem) void *large = calloc(1, 2 * LIMIT_BULK_BYTES);
	send_hand(&hand,
		  sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, large, 2 * LIMIT_BULK_BYTES));
	close_hand_with_data_loss(&hand);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(wrong_peers_are_dropped_and_the_right_one_attaches),
	    cmocka_unit_test(a_silent_peer_does_not_keep_the_place),
	    cmocka_unit_test(nobody_else_gets_in_after_the_right_one),
	    cmocka_unit_test(a_repeated_message_is_data_loss),
	    cmocka_unit_test(reordered_messages_are_data_loss),
	    cmocka_unit_test(a_cut_message_is_data_loss),
	    cmocka_unit_test(an_altered_message_is_data_loss),
	    cmocka_unit_test(an_end_that_counts_wrong_is_data_loss),
	    cmocka_unit_test(a_second_hello_is_data_loss),
	    cmocka_unit_test(an_oversized_message_is_data_loss),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
