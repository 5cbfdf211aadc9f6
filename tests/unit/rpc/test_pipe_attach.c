/* SPDX-License-Identifier: Apache-2.0 */
/* The moments at which a pipe attaches, put into the order that a loaded machine gives them: some
 * of nng's calls and callbacks are held until others are through. */
#include "tests/unit/test.h"

#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "rpc/pipe_internal.h"
#include "rpc/seal.h"
#include "tests/unit/rpc/pipe_pair.h"

enum { EVENTS = NNG_PIPE_EV_NUM };

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker's names */
int __real_nng_pipe_notify(nng_socket socket, nng_pipe_ev event, nng_pipe_cb callback, void *self);
int __wrap_nng_pipe_notify(nng_socket socket, nng_pipe_ev event, nng_pipe_cb callback, void *self);
int __real_nng_pipe_close(nng_pipe connection);
int __wrap_nng_pipe_close(nng_pipe connection);
void __real_nng_send_aio(nng_socket socket, nng_aio *aio);
void __wrap_nng_send_aio(nng_socket socket, nng_aio *aio);
void __real_nng_recv_aio(nng_socket socket, nng_aio *aio);
void __wrap_nng_recv_aio(nng_socket socket, nng_aio *aio);

/* One test's arrangement; nng hands none to the wrapped calls. */
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	nng_pipe_cb callbacks[EVENTS];
	atomic_bool are_first_events_swapped;
	atomic_int first_id; /* the first connection of the socket whose events are swapped */
	atomic_bool is_first_gone, is_first_told, is_second_coming, is_second_told;
	atomic_bool is_hello_waiting, is_hello_sent;
	unsigned turns; /* of the dialer's loop since a connection was told of last */
	nng_socket held_until_readable; /* where the first HELLO arrives before a close */
	atomic_bool is_hello_held, is_closing;
} scene = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void await(atomic_bool *what)
{
	(void)pthread_mutex_lock(&scene.lock);
	while (!*what)
		(void)pthread_cond_wait(&scene.changed, &scene.lock);
	(void)pthread_mutex_unlock(&scene.lock);
}

static void set(atomic_bool *what)
{
	(void)pthread_mutex_lock(&scene.lock);
	*what = true;
	(void)pthread_cond_broadcast(&scene.changed);
	(void)pthread_mutex_unlock(&scene.lock);
}

static void told(atomic_bool *what)
{
	(void)pthread_mutex_lock(&scene.lock);
	scene.turns = 0;
	(void)pthread_mutex_unlock(&scene.lock);
	set(what);
}

/* The dialer has sent its HELLO, or has had the occasion to and did not. */
static void await_hello(void)
{
	(void)pthread_mutex_lock(&scene.lock);
	while (scene.turns < 2 && !(scene.is_hello_waiting && !scene.is_second_told))
		(void)pthread_cond_wait(&scene.changed, &scene.lock);
	while (scene.is_hello_waiting && !scene.is_hello_sent)
		(void)pthread_cond_wait(&scene.changed, &scene.lock);
	(void)pthread_mutex_unlock(&scene.lock);
}

/* The first connection is told to be there only after it is told to be gone, and a HELLO for it
 * comes to the socket when it has gone and the second is not yet there. */
static void swapped(nng_pipe connection, nng_pipe_ev event, void *self)
{
	int id = nng_pipe_id(connection);
	if (scene.first_id == 0)
		scene.first_id = id;
	if (event == NNG_PIPE_EV_ADD_PRE && id != scene.first_id && !scene.is_second_coming) {
		set(&scene.is_second_coming);
		await_hello();
	}
	if (event == NNG_PIPE_EV_ADD_POST && id == scene.first_id)
		await(&scene.is_first_gone);
	scene.callbacks[event](connection, event, self);
	if (event == NNG_PIPE_EV_ADD_POST)
		told(id == scene.first_id ? &scene.is_first_told : &scene.is_second_told);
	if (event == NNG_PIPE_EV_REM_POST && id == scene.first_id)
		set(&scene.is_first_gone);
}

int __wrap_nng_pipe_notify(nng_socket socket, nng_pipe_ev event, nng_pipe_cb callback, void *self)
{
	scene.callbacks[event] = callback;
	return __real_nng_pipe_notify(socket, event,
				      scene.are_first_events_swapped ? swapped : callback, self);
}

void __wrap_nng_send_aio(nng_socket socket, nng_aio *aio)
{
	if (scene.is_hello_held)
		await(&scene.is_closing);
	if (scene.are_first_events_swapped) {
		set(&scene.is_hello_waiting);
		await(&scene.is_second_coming);
	}
	__real_nng_send_aio(socket, aio);
	set(&scene.is_hello_sent);
}

void __wrap_nng_recv_aio(nng_socket socket, nng_aio *aio)
{
	__real_nng_recv_aio(socket, aio);
	(void)pthread_mutex_lock(&scene.lock);
	scene.turns += scene.is_first_told ? 1 : 0;
	(void)pthread_cond_broadcast(&scene.changed);
	(void)pthread_mutex_unlock(&scene.lock);
}

/* The first close waits until HELLO has come through the connection that it closes. */
int __wrap_nng_pipe_close(nng_pipe connection)
{
	if (scene.is_hello_held && !scene.is_closing) {
		struct pollfd readable = {.events = POLLIN};
		assert_int_equal(nng_socket_get_int(scene.held_until_readable, NNG_OPT_RECVFD,
						    &readable.fd),
				 0);
		set(&scene.is_closing);
		assert_int_equal(poll(&readable, 1, PLENTY_MS), 1);
	}
	return __real_nng_pipe_close(connection);
}
/* NOLINTEND(bugprone-reserved-identifier) */

/* A listener by hand, whose first connection is closed at once. */
struct hand {
	nng_socket socket;
	atomic_bool has_closed;
	struct seal *in, *out;
	char url[64];
	uint8_t id[SEAL_ID_BYTES], to_listener[SEAL_KEY_BYTES], to_dialer[SEAL_KEY_BYTES];
	Haul__V1__PipeAddress address;
};

static void close_first(nng_pipe connection, nng_pipe_ev event, void *self)
{
	struct hand *hand = self;
	(void)event;
	if (!atomic_exchange(&hand->has_closed, true))
		(void)__real_nng_pipe_close(connection);
}

static void open_hand(struct hand *hand)
{
	nng_listener listener;
	int port = 0;
	assert_int_equal(nng_pair0_open(&hand->socket), 0);
	assert_int_equal(nng_socket_set_ms(hand->socket, NNG_OPT_RECVTIMEO, PLENTY_MS), 0);
	assert_int_equal(__real_nng_pipe_notify(hand->socket, NNG_PIPE_EV_ADD_POST, close_first,
						hand),
			 0);
	assert_int_equal(nng_listen(hand->socket, "tcp://127.0.0.1:0", &listener, 0), 0);
	assert_int_equal(nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port), 0);
	(void)snprintf(hand->url, sizeof(hand->url), "tcp://127.0.0.1:%d", port);
	haul__v1__pipe_address__init(&hand->address);
	hand->address.url = hand->url;
	hand->address.pipe_id = (ProtobufCBinaryData){sizeof(hand->id), hand->id};
	hand->address.key_to_listener =
	    (ProtobufCBinaryData){sizeof(hand->to_listener), hand->to_listener};
	hand->address.key_to_dialer =
	    (ProtobufCBinaryData){sizeof(hand->to_dialer), hand->to_dialer};
	assert_ok(seal_new(hand->to_listener, hand->id, false, &hand->in));
	assert_ok(seal_new(hand->to_dialer, hand->id, true, &hand->out));
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

static void answer_hello(struct hand *hand)
{
	nng_msg *msg = NULL;
	assert_int_equal(nng_msg_alloc(&msg, KIND_BYTES + SEAL_TAG_BYTES), 0);
	*(uint8_t *)nng_msg_body(msg) = HAUL__V1__FRAME_KIND__FRAME_HELLO;
	assert_ok(seal_close(hand->out, nng_msg_body(msg), KIND_BYTES));
	assert_int_equal(nng_sendmsg(hand->socket, msg, 0), 0);
}

static void a_connection_gone_before_it_is_told_of_gets_no_hello(void **state)
{
	(void)state;
	struct hand hand = {.id = {1}, .to_listener = {2}, .to_dialer = {3}};
	struct dialing dialing;
	assert_ok(rpc_start());
	open_hand(&hand);
	scene.are_first_events_swapped = true;
	start_dial(&dialing, &hand.address, PLENTY_MS);
	expect_kind(&hand, HAUL__V1__FRAME_KIND__FRAME_HELLO);
	await(&scene.is_second_told);
	await_hello(); /* a second one, should it come */
	answer_hello(&hand);
	assert_ok(join_dial(&dialing));
	assert_true(scene.is_first_gone);
	send_bytes(dialing.pipe, 5, 5);
	expect_kind(&hand, HAUL__V1__FRAME_KIND__FRAME_BATCH);
	scene.are_first_events_swapped = false;
	pipe_free(dialing.pipe);
	(void)nng_socket_close(hand.socket);
	seal_free(hand.in);
	seal_free(hand.out);
}

static void a_hello_that_crosses_the_close_of_its_connection_is_good_at_the_next(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	struct dialing dialing;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	scene.held_until_readable = listener->socket;
	scene.is_hello_held = true;
	start_dial(&dialing, address, PLENTY_MS);
	assert_ok(pipe_accept(listener, PLENTY_MS));
	assert_ok(join_dial(&dialing));
	assert_true(scene.is_closing);
	send_bytes(dialing.pipe, 5, 5);
	expect_bytes(listener, 5, 5);
	send_bytes(listener, 6, 6);
	expect_bytes(dialing.pipe, 6, 6);
	scene.is_hello_held = false;
	pipe_free(dialing.pipe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_connection_gone_before_it_is_told_of_gets_no_hello),
	    cmocka_unit_test(a_hello_that_crosses_the_close_of_its_connection_is_good_at_the_next),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
