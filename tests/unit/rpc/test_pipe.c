/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed pipes: what goes through, who is let in, and how they end. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "rpc/nng_error.h"
#include "rpc/pipe.h"
#include "rpc/seal.h"

enum { PLENTY_MS = 60000, FRAME = 256 * 1024 };

static const struct pipe_place tcp_place = {
	.host = "127.0.0.1", .port_low = 21000, .port_high = 29999};

static void free_address(Haul__V1__PipeAddress *address)
{
	haul__v1__pipe_address__free_unpacked(address, NULL);
}
DEFINE_SCOPE(address, Haul__V1__PipeAddress *, free_address);

struct dialing {
	pthread_t thread;
	Haul__V1__PipeAddress *address;
	struct pipe *pipe;
	status *st;
	int64_t timeout_ms;
};

static void *run_dial(void *argument)
{
	struct dialing *dialing = argument;
	dialing->st = pipe_dial(dialing->address, dialing->timeout_ms, &dialing->pipe);
	return NULL;
}

static void start_dial(struct dialing *dialing, Haul__V1__PipeAddress *address, int64_t timeout_ms)
{
	*dialing = (struct dialing){.address = address, .timeout_ms = timeout_ms};
	assert_int_equal(pthread_create(&dialing->thread, NULL, run_dial, dialing), 0);
}

static status *join_dial(struct dialing *dialing)
{
	assert_int_equal(pthread_join(dialing->thread, NULL), 0);
	return dialing->st;
}

/* Both ends of a new pipe. */
static void open_pair(const struct pipe_place *place, struct pipe **ret_listener,
		      struct pipe **ret_dialer)
{
	struct dialing dialing;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(place, ret_listener, &address));
	start_dial(&dialing, address, PLENTY_MS);
	assert_ok(pipe_accept(*ret_listener, PLENTY_MS));
	assert_ok(join_dial(&dialing));
	*ret_dialer = dialing.pipe;
}

static void send_bytes(struct pipe *pipe, uint8_t fill, size_t size)
{
	struct pipe_out out = {0};
	assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, size + 10, &out));
	memset(out.body, fill, size);
	assert_ok(pipe_send_frame(pipe, &out, size, PLENTY_MS));
}

static void expect_bytes(struct pipe *pipe, uint8_t fill, size_t size)
{
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(pipe, PLENTY_MS, &in));
	assert_int_equal(in.kind, HAUL__V1__FRAME_KIND__FRAME_BATCH);
	assert_int_equal(in.size, size);
	if (size > 0) {
		assert_int_equal(in.body[0], fill);
		assert_memory_equal(in.body, in.body + 1, size - 1);
	}
}

static void frames_go_both_ways(const struct pipe_place *place)
{
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	open_pair(place, &listener, &dialer);
	for (unsigned i = 0; i < 5; i++) {
		send_bytes(dialer, (uint8_t)i, i * 1000);
		send_bytes(listener, (uint8_t)(100 + i), i);
		expect_bytes(listener, (uint8_t)i, i * 1000);
		expect_bytes(dialer, (uint8_t)(100 + i), i);
	}
	send_bytes(dialer, 7, LIMIT_BULK_BYTES);
	expect_bytes(listener, 7, LIMIT_BULK_BYTES);
	assert_int_equal(pipe_bytes_sent(dialer), pipe_bytes_received(listener));
	assert_true(pipe_bytes_sent(dialer) > LIMIT_BULK_BYTES);
	assert_ok(pipe_send_end(dialer, NULL, PLENTY_MS));
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(listener, PLENTY_MS, &in));
	assert_int_equal(in.kind, HAUL__V1__FRAME_KIND__FRAME_END);
}

static void frames_go_both_ways_over_tcp(void **state)
{
	(void)state;
	frames_go_both_ways(&tcp_place);
}

static void frames_go_both_ways_over_a_socket_file(void **state)
{
	char directory[] = "/tmp/haul-pipe-XXXXXX";
	(void)state;
	assert_non_null(mkdtemp(directory));
	const struct pipe_place place = {.directory = directory};
	frames_go_both_ways(&place);
	assert_int_equal(rmdir(directory), 0); /* the file went with the pipe */
}

struct sending {
	struct pipe *pipe;
	unsigned frames;
	status *st;
};

static void *run_send(void *argument)
{
	struct sending *sending = argument;
	for (unsigned i = 0; i < sending->frames && sending->st == NULL; i++) {
		struct pipe_out out = {0};
		sending->st = pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, FRAME, &out);
		if (sending->st == NULL)
			sending->st = pipe_send_frame(sending->pipe, &out, FRAME, PLENTY_MS);
	}
	if (sending->st == NULL)
		sending->st = pipe_send_end(sending->pipe, NULL, PLENTY_MS);
	return NULL;
}

static void a_mass_of_frames_arrives_whole_and_in_order(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	pthread_t thread;
	struct timespec begin;
	struct timespec end;
	open_pair(&tcp_place, &listener, &dialer);
	struct sending sending = {.pipe = dialer, .frames = 400};
	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	assert_int_equal(pthread_create(&thread, NULL, run_send, &sending), 0);
	unsigned count = 0;
	for (bool is_end = false; !is_end;) {
		scoped(pipe_in) struct pipe_in in = {0};
		assert_ok(pipe_receive(listener, PLENTY_MS, &in));
		is_end = in.kind == HAUL__V1__FRAME_KIND__FRAME_END;
		count += is_end ? 0 : 1;
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	(void)clock_gettime(CLOCK_MONOTONIC, &end);
	assert_ok(sending.st);
	assert_int_equal(count, sending.frames);
	double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
	print_message("%.2f GiB/s\n", (double)count * FRAME / seconds / (1 << 30));
}

static void a_slow_receiver_holds_the_sender_until_its_time_is_over(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	status *st = NULL;
	open_pair(&tcp_place, &listener, &dialer);
	unsigned count = 0;
	while (st == NULL && count++ < 1000) {
		struct pipe_out out = {0};
		assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, FRAME, &out));
		st = pipe_send_frame(dialer, &out, FRAME, 500);
	}
	assert_code(st, STATUS_DEADLINE_EXCEEDED);
	/* A message is missing now: nothing may follow. */
	assert_code(pipe_send_end(dialer, NULL, 500), STATUS_DEADLINE_EXCEEDED);
}

static void a_pipe_that_just_closes_is_unavailable(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	struct pipe *dialer = NULL;
	scoped(pipe_in) struct pipe_in in = {0};
	open_pair(&tcp_place, &listener, &dialer);
	send_bytes(dialer, 1, 10);
	expect_bytes(listener, 1, 10);
	pipe_free(dialer);
	assert_code(pipe_receive(listener, PLENTY_MS, &in), STATUS_UNAVAILABLE);
	status *st = NULL;
	while (st == NULL) {
		struct pipe_out out = {0};
		assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, 10, &out));
		st = pipe_send_frame(listener, &out, 10, PLENTY_MS);
	}
	assert_code(st, STATUS_UNAVAILABLE);
}

static void what_was_sent_before_the_end_is_still_received(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	struct pipe *dialer = NULL;
	open_pair(&tcp_place, &listener, &dialer);
	send_bytes(dialer, 1, 1000);
	send_bytes(dialer, 2, 1000);
	scoped(status) status *verdict = status_errorf(STATUS_ABORTED, "changed my mind");
	assert_ok(pipe_send_end(dialer, verdict, PLENTY_MS));
	expect_bytes(listener, 1, 1000);
	expect_bytes(listener, 2, 1000);
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(listener, PLENTY_MS, &in));
	Haul__V1__PipeEnd *end = haul__v1__pipe_end__unpack(NULL, in.size, in.body);
	assert_int_equal(end->status->code, STATUS_ABORTED);
	haul__v1__pipe_end__free_unpacked(end, NULL);
	pipe_free(dialer);
}

static void silence_is_not_waited_for_longer_than_asked(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	scoped(pipe_in) struct pipe_in in = {0};
	open_pair(&tcp_place, &listener, &dialer);
	assert_code(pipe_receive(listener, 50, &in), STATUS_DEADLINE_EXCEEDED);
	send_bytes(dialer, 3, 3);
	expect_bytes(listener, 3, 3);
}

static void *run_receive(void *argument)
{
	struct sending *receiving = argument;
	struct pipe_in in = {0};
	receiving->st = pipe_receive(receiving->pipe, PLENTY_MS, &in);
	pipe_in_drop(&in);
	return NULL;
}

static void an_interrupt_wakes_sender_and_receiver(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(pipe) struct pipe *dialer = NULL;
	pthread_t sender;
	pthread_t receiver;
	open_pair(&tcp_place, &listener, &dialer);
	struct sending sending = {.pipe = dialer, .frames = 100000};
	struct sending receiving = {.pipe = dialer};
	assert_int_equal(pthread_create(&sender, NULL, run_send, &sending), 0);
	assert_int_equal(pthread_create(&receiver, NULL, run_receive, &receiving), 0);
	expect_bytes(listener, 0, FRAME);
	pipe_interrupt(dialer);
	pipe_interrupt(dialer);
	assert_int_equal(pthread_join(sender, NULL), 0);
	assert_int_equal(pthread_join(receiver, NULL), 0);
	assert_code(sending.st, STATUS_CANCELLED);
	assert_code(receiving.st, STATUS_CANCELLED);
}

static void *run_accept(void *argument)
{
	struct sending *accepting = argument;
	accepting->st = pipe_accept(accepting->pipe, PLENTY_MS);
	return NULL;
}

static void an_interrupt_wakes_a_waiting_accept(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	pthread_t thread;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	struct sending accepting = {.pipe = listener};
	assert_int_equal(pthread_create(&thread, NULL, run_accept, &accepting), 0);
	pipe_interrupt(listener);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_code(accepting.st, STATUS_CANCELLED);
}

static void nobody_comes_is_a_deadline_and_nobody_there_is_unavailable(void **state)
{
	(void)state;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct pipe *listener = NULL;
	struct pipe *dialer = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	assert_code(pipe_accept(listener, 100), STATUS_DEADLINE_EXCEEDED);
	pipe_free(listener);
	assert_code(pipe_dial(address, 300, &dialer), STATUS_UNAVAILABLE);
	address->key_to_dialer.len = 31;
	assert_code(pipe_dial(address, 300, &dialer), STATUS_INVALID_ARGUMENT);
}

static void all_ports_taken_is_resource_exhausted(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *first = NULL;
	struct pipe *second = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	Haul__V1__PipeAddress *none = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &first, &address));
	unsigned port = (unsigned)strtoul(strrchr(address->url, ':') + 1, NULL, 10);
	const struct pipe_place place = {
		.host = "127.0.0.1", .port_low = (uint16_t)port, .port_high = (uint16_t)port};
	assert_code(pipe_listen(&place, &second, &none), STATUS_RESOURCE_EXHAUSTED);
}

/* A raw PAIR peer with the listener's address. */
static nng_socket raw_peer(const char *url)
{
	nng_socket peer;
	assert_int_equal(nng_pair0_open(&peer), 0);
	assert_int_equal(nng_socket_set_ms(peer, NNG_OPT_SENDTIMEO, 20000), 0);
	assert_int_equal(nng_socket_set_ms(peer, NNG_OPT_RECVTIMEO, 20000), 0);
	assert_int_equal(nng_socket_set_size(peer, NNG_OPT_RECVMAXSZ, 0), 0);
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
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	nng_socket silent = raw_peer(address->url);
	assert_int_equal(nng_socket_set_ms(silent, NNG_OPT_RECONNMINT, 60000), 0);
	start_dial(&right, address, PLENTY_MS);
	assert_ok(pipe_accept(listener, PLENTY_MS));
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
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &hand->listener, &hand->address));
	assert_ok(seal_new(hand->address->key_to_listener.data, hand->address->pipe_id.data, true,
			   &hand->out));
	hand->peer = raw_peer(hand->address->url);
	send_hand(hand, sealed(hand, HAUL__V1__FRAME_KIND__FRAME_HELLO, NULL, 0));
	assert_ok(pipe_accept(hand->listener, PLENTY_MS));
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

static void an_oversized_message_ends_the_pipe(void **state)
{
	(void)state;
	struct hand hand;
	open_hand(&hand);
	scoped(mem) void *large = calloc(1, 2 * LIMIT_BULK_BYTES);
	send_hand(&hand, sealed(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, large, 2 * LIMIT_BULK_BYTES));
	scoped(pipe_in) struct pipe_in in = {0};
	assert_code(pipe_receive(hand.listener, PLENTY_MS, &in), STATUS_UNAVAILABLE);
	pipe_free(hand.listener);
	(void)nng_socket_close(hand.peer);
	seal_free(hand.out);
	free_address(hand.address);
}

static int count_fds(void)
{
	int count = 0;
	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
	return count;
}

static void pipes_closed_in_mid_transfer_leave_no_descriptors(void **state)
{
	(void)state;
	int before = 0;
	for (int round = 0; round < 105; round++) {
		struct pipe *listener = NULL;
		struct pipe *dialer = NULL;
		pthread_t thread;
		open_pair(&tcp_place, &listener, &dialer);
		struct sending sending = {.pipe = dialer, .frames = 100000};
		assert_int_equal(pthread_create(&thread, NULL, run_send, &sending), 0);
		expect_bytes(listener, 0, FRAME);
		if (round % 2 == 0) {
			pipe_free(listener);
			assert_int_equal(pthread_join(thread, NULL), 0);
			assert_code(sending.st, STATUS_UNAVAILABLE);
		} else {
			pipe_interrupt(dialer);
			assert_int_equal(pthread_join(thread, NULL), 0);
			assert_code(sending.st, STATUS_CANCELLED);
			pipe_free(listener);
		}
		pipe_free(dialer);
		if (round == 5)
			before = count_fds();
	}
	for (int i = 0; i < 4000 && count_fds() > before; i++)
		(void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	assert_true(count_fds() <= before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_go_both_ways_over_tcp),
		cmocka_unit_test(frames_go_both_ways_over_a_socket_file),
		cmocka_unit_test(a_mass_of_frames_arrives_whole_and_in_order),
		cmocka_unit_test(a_slow_receiver_holds_the_sender_until_its_time_is_over),
		cmocka_unit_test(a_pipe_that_just_closes_is_unavailable),
		cmocka_unit_test(what_was_sent_before_the_end_is_still_received),
		cmocka_unit_test(silence_is_not_waited_for_longer_than_asked),
		cmocka_unit_test(an_interrupt_wakes_sender_and_receiver),
		cmocka_unit_test(an_interrupt_wakes_a_waiting_accept),
		cmocka_unit_test(nobody_comes_is_a_deadline_and_nobody_there_is_unavailable),
		cmocka_unit_test(all_ports_taken_is_resource_exhausted),
		cmocka_unit_test(wrong_peers_are_dropped_and_the_right_one_attaches),
		cmocka_unit_test(a_silent_peer_does_not_keep_the_place),
		cmocka_unit_test(nobody_else_gets_in_after_the_right_one),
		cmocka_unit_test(a_repeated_message_is_data_loss),
		cmocka_unit_test(reordered_messages_are_data_loss),
		cmocka_unit_test(a_cut_message_is_data_loss),
		cmocka_unit_test(an_altered_message_is_data_loss),
		cmocka_unit_test(an_end_that_counts_wrong_is_data_loss),
		cmocka_unit_test(a_second_hello_is_data_loss),
		cmocka_unit_test(an_oversized_message_ends_the_pipe),
		cmocka_unit_test(pipes_closed_in_mid_transfer_leave_no_descriptors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
