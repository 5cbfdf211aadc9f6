/* SPDX-License-Identifier: Apache-2.0 */
/* How a pipe attaches when connections go at bad moments, with the other side played by nng's own
 * PAIR, or by hand. */
#include "tests/unit/test.h"

#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "rpc/pipe_internal.h"
#include "tests/unit/rpc/pipe_pair.h"

/* A listener of nng's. */
struct hand {
	nng_socket socket;
	struct seal *in, *out;
	char url[64];
	uint8_t id[SEAL_ID_BYTES], to_listener[SEAL_KEY_BYTES], to_dialer[SEAL_KEY_BYTES];
	Haul__V1__PipeAddress address;
};

static void fill_address(struct hand *hand)
{
	haul__v1__pipe_address__init(&hand->address);
	hand->address.url = hand->url;
	hand->address.pipe_id = (ProtobufCBinaryData){sizeof(hand->id), hand->id};
	hand->address.key_to_listener =
	    (ProtobufCBinaryData){sizeof(hand->to_listener), hand->to_listener};
	hand->address.key_to_dialer =
	    (ProtobufCBinaryData){sizeof(hand->to_dialer), hand->to_dialer};
}

static void open_hand(struct hand *hand, const char *url)
{
	nng_listener listener;
	int port = 0;
	assert_int_equal(nng_pair0_open(&hand->socket), 0);
	assert_int_equal(nng_socket_set_ms(hand->socket, NNG_OPT_RECVTIMEO, PLENTY_MS), 0);
	assert_int_equal(nng_listen(hand->socket, url, &listener, 0), 0);
	(void)snprintf(hand->url, sizeof(hand->url), "%s", url);
	if (nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0)
		(void)snprintf(hand->url, sizeof(hand->url), "tcp://127.0.0.1:%d", port);
	fill_address(hand);
	assert_ok(seal_new(HAUL__V1__SEAL__SEAL_AES_256_GCM, hand->to_listener, hand->id, false,
			   &hand->in));
	assert_ok(seal_new(HAUL__V1__SEAL__SEAL_AES_256_GCM, hand->to_dialer, hand->id, true,
			   &hand->out));
}

/* The next message is the next one of the sequence, and of this kind. */
static void expect_kind(struct hand *hand, uint8_t kind)
{
	nng_msg *msg = NULL;
	assert_int_equal(nng_recvmsg(hand->socket, &msg, 0), 0);
	assert_ok(seal_open(hand->in, nng_msg_body(msg), nng_msg_len(msg)));
	assert_int_equal(*(const uint8_t *)nng_msg_body(msg), kind);
	nng_msg_free(msg);
}

static void send_kind(struct hand *hand, uint8_t kind, const char *text)
{
	nng_msg *msg = NULL;
	size_t size = strlen(text);
	assert_int_equal(nng_msg_alloc(&msg, KIND_BYTES + size + SEAL_TAG_BYTES), 0);
	uint8_t *bytes = nng_msg_body(msg);
	bytes[0] = kind;
	memcpy(bytes + KIND_BYTES, text, size);
	assert_ok(seal_close(hand->out, bytes, KIND_BYTES + size));
	assert_int_equal(nng_sendmsg(hand->socket, msg, 0), 0);
}

static void frames_go_to_nng_and_back(const char *url)
{
	struct hand hand = {.id = {1}, .to_listener = {2}, .to_dialer = {3}};
	struct dialing dialing;
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(rpc_start());
	open_hand(&hand, url);
	start_dial(&dialing, &hand.address, PLENTY_MS);
	expect_kind(&hand, HAUL__V1__FRAME_KIND__FRAME_HELLO);
	send_kind(&hand, HAUL__V1__FRAME_KIND__FRAME_HELLO, "");
	assert_ok(join_dial(&dialing));
	send_bytes(dialing.pipe, 5, 5);
	expect_kind(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH);
	send_kind(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH, "from nng");
	assert_ok(pipe_receive(dialing.pipe, PLENTY_MS, &in));
	assert_int_equal(in.size, 8);
	assert_memory_equal(in.body, "from nng", 8);
	pipe_free(dialing.pipe);
	(void)nng_socket_close(hand.socket);
	seal_free(hand.in);
	seal_free(hand.out);
}

static void nngs_pair_listens_at_tcp(void **state)
{
	(void)state;
	frames_go_to_nng_and_back("tcp://127.0.0.1:0");
}

static void nngs_pair_listens_at_a_socket_file(void **state)
{
	char directory[] = "/tmp/haul-pair-XXXXXX";
	char url[64];
	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(url, sizeof(url), "ipc://%s/pair.sock", directory);
	frames_go_to_nng_and_back(url);
	assert_int_equal(rmdir(directory), 0);
}

/* A plain connection to a pipe's listener. */
static int connect_raw(const Haul__V1__PipeAddress *address)
{
	unsigned port = (unsigned)strtoul(strrchr(address->url, ':') + 1, NULL, 10);
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

/* A dialer whose connection is closed before the answer comes again and says the same. */
static void a_closed_connection_is_followed_by_the_same_hello_on_another(void **state)
{
	struct hand hand = {.id = {1}, .to_listener = {2}, .to_dialer = {3}};
	struct greeting said[3];
	struct dialing dialing;
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t length = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)state;
	assert_int_equal(bind(fd, (const struct sockaddr *)&at, length), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &length), 0);
	(void)snprintf(hand.url, sizeof(hand.url), "tcp://127.0.0.1:%u", ntohs(at.sin_port));
	fill_address(&hand);
	start_dial(&dialing, &hand.address, 2000);
	for (size_t i = 0; i < array_len(said); i++) {
		int connection = accept(fd, NULL, NULL);
		said[i].size = pipe_greeting_bytes(false);
		assert_int_equal(recv(connection, said[i].bytes, said[i].size, MSG_WAITALL),
				 said[i].size);
		assert_memory_equal(said[i].bytes, said[0].bytes, said[0].size);
		(void)close(connection);
	}
	(void)close(fd);
	assert_code(join_dial(&dialing), STATUS_UNAVAILABLE);
}

/* The greeting of a dialer by hand. */
static struct greeting make_greeting(const Haul__V1__PipeAddress *address)
{
	struct greeting greeting;
	scoped(pipe) struct pipe *dialer = NULL;
	assert_ok(pipe_new(address, false, &dialer));
	assert_ok(pipe_greeting(dialer, false, &greeting));
	return greeting;
}

static void expect_closed(int fd)
{
	uint8_t bytes[64];
	struct pollfd polled = {.fd = fd, .events = POLLIN};
	ssize_t got = 1;
	while (got > 0) {
		assert_int_equal(poll(&polled, 1, PLENTY_MS), 1);
		got = recv(fd, bytes, sizeof(bytes), 0);
	}
	(void)close(fd);
}

static void a_hello_of_a_connection_that_has_gone_is_good_at_the_next(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct dialing dialing;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	struct greeting greeting = make_greeting(address);
	int fd = connect_raw(address);
	assert_int_equal(send(fd, greeting.bytes, greeting.size, 0), greeting.size);
	(void)close(fd);
	assert_code(pipe_accept(listener, 200), STATUS_DEADLINE_EXCEEDED);
	start_dial(&dialing, address, PLENTY_MS);
	assert_ok(pipe_accept(listener, PLENTY_MS));
	assert_ok(join_dial(&dialing));
	send_bytes(dialing.pipe, 5, 5);
	expect_bytes(listener, 5, 5);
	send_bytes(listener, 6, 6);
	expect_bytes(dialing.pipe, 6, 6);
	pipe_free(dialing.pipe);
}

/* The right one says its HELLO a byte at a time, among strangers who say nothing or the wrong
 * thing; these are shown the door as soon as it is clear that they are not the peer. */
static void a_hello_may_come_in_pieces_among_strangers(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	pthread_t thread;
	int strangers[4];
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	struct greeting greeting = make_greeting(address);
	struct sending accepting = {.pipe = listener};
	assert_int_equal(pthread_create(&thread, NULL, run_accept, &accepting), 0);
	for (size_t i = 0; i < array_len(strangers); i++)
		strangers[i] = connect_raw(address);
	assert_int_equal(send(strangers[1], "GET", 3, 0), 3);
	expect_closed(strangers[1]);
	/* A length that is no HELLO's. */
	assert_int_equal(send(strangers[2], greeting.bytes, PAIR_HEADER_BYTES, 0),
			 PAIR_HEADER_BYTES);
	assert_int_equal(send(strangers[2], "\xff\xff\xff\xff\xff\xff\xff\xff", 8, 0), 8);
	expect_closed(strangers[2]);
	/* The right length, the wrong key. */
	struct greeting wrong = greeting;
	wrong.bytes[wrong.size - 1] ^= 1;
	assert_int_equal(send(strangers[3], wrong.bytes, wrong.size, 0), wrong.size);
	expect_closed(strangers[3]);
	int fd = connect_raw(address);
	for (size_t i = 0; i < greeting.size; i++)
		assert_int_equal(send(fd, greeting.bytes + i, 1, 0), 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(accepting.st);
	expect_closed(strangers[0]);
	(void)close(fd);
}

static void more_strangers_than_places_only_delay(void **state)
{
	enum { MANY = 16 }; /* all places */
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct dialing dialing;
	int strangers[MANY];
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	for (size_t i = 0; i < MANY; i++)
		strangers[i] = connect_raw(address);
	start_dial(&dialing, address, PLENTY_MS);
	assert_ok(pipe_accept(listener, PLENTY_MS));
	assert_ok(join_dial(&dialing));
	for (size_t i = 0; i < MANY; i++)
		(void)close(strangers[i]);
	pipe_free(dialing.pipe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(nngs_pair_listens_at_tcp),
	    cmocka_unit_test(nngs_pair_listens_at_a_socket_file),
	    cmocka_unit_test(a_closed_connection_is_followed_by_the_same_hello_on_another),
	    cmocka_unit_test(a_hello_of_a_connection_that_has_gone_is_good_at_the_next),
	    cmocka_unit_test(a_hello_may_come_in_pieces_among_strangers),
	    cmocka_unit_test(more_strangers_than_places_only_delay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
