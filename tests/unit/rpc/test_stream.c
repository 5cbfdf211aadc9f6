/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "tests/unit/rpc/pipe_pair.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "haul/v1/migrations.pb-c.h"
#include "rpc/nng_error.h"
#include "rpc/stream.h"
#include "tests/unit/rpc/proxy.h"

enum { WINDOW = 10000, MESSAGE = 1000, SHORT_MS = 50, WAITS_MOST = 400 };

static const struct stream_options options = {.window = WINDOW,
					      .keepalive_ms = 10000,
					      .dead_ms = 60000};
static const struct stream_options hasty = {.window = WINDOW, .keepalive_ms = 100, .dead_ms = 1000};

struct both {
	struct stream *server, *client;
};

static struct both open_both(const struct stream_options *chosen)
{
	struct pipe *listener = NULL, *dialer = NULL;
	struct both both = {0};
	open_pair(&tcp_place, &listener, &dialer);
	assert_ok(stream_new(listener, true, chosen, &both.server));
	assert_ok(stream_new(dialer, false, chosen, &both.client));
	return both;
}

static void close_both(struct both *both)
{
	stream_free(both->client);
	stream_free(both->server);
}

/* A message is a GetRequest with this text. */
static status *send_text(struct stream *stream, const char *text, int64_t timeout_ms)
{
	Haul__V1__GetRequest message = HAUL__V1__GET_REQUEST__INIT;
	message.id = (char *)text;
	return stream_send(stream, &message.base, timeout_ms);
}

/* "" at the end. */
static status *receive_text(struct stream *stream, int64_t timeout_ms, char text[MESSAGE + 1])
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st =
	    stream_receive(stream, &haul__v1__get_request__descriptor, timeout_ms, &message);
	if (st == NULL)
		(void)snprintf(text, MESSAGE + 1, "%s",
			       message != NULL ? ((Haul__V1__GetRequest *)message)->id : "");
	return st;
}

static void expect_text(struct stream *stream, const char *want)
{
	char text[MESSAGE + 1];
	assert_ok(receive_text(stream, PLENTY_MS, text));
	assert_string_equal(text, want);
}

struct ending {
	pthread_t thread;
	struct stream *stream;
	status *verdict;
};

static void *run_end(void *argument)
{
	struct ending *ending = argument;
	stream_end(ending->stream, ending->verdict, PLENTY_MS);
	return NULL;
}

static void messages_metadata_and_the_status_come_through_both_ways(void **state)
{
	(void)state;
	struct both both = open_both(&options);
	assert_ok(stream_add_metadata(both.client, "who", "client"));
	assert_ok(stream_add_metadata(both.server, "who", "server"));
	for (int i = 0; i < 200; i++) {
		char text[16];
		(void)snprintf(text, sizeof(text), "question %d", i);
		assert_ok(send_text(both.client, text, PLENTY_MS));
		expect_text(both.server, text);
		assert_ok(send_text(both.server, "answer", PLENTY_MS));
		expect_text(both.client, "answer");
	}
	scoped(str) char *client = stream_metadata(both.server, "who");
	scoped(str) char *server = stream_metadata(both.client, "who");
	assert_string_equal(client, "client");
	assert_string_equal(server, "server");
	assert_null(stream_metadata(both.client, "what"));
	assert_code(stream_add_metadata(both.client, "late", "x"), STATUS_FAILED_PRECONDITION);
	stream_half_close(both.client);
	expect_text(both.server, "");
	assert_code(send_text(both.client, "more", PLENTY_MS), STATUS_FAILED_PRECONDITION);
	/* What was sent before the end comes before it. */
	assert_ok(send_text(both.server, "last", PLENTY_MS));
	assert_ok(stream_add_trailing(both.server, "count", "201"));
	struct ending ending = {.stream = both.server,
				.verdict = status_errorf(STATUS_ABORTED, "enough")};
	assert_int_equal(pthread_create(&ending.thread, NULL, run_end, &ending), 0);
	expect_text(both.client, "last");
	char text[MESSAGE + 1];
	scoped(status) status *end = receive_text(both.client, PLENTY_MS, text);
	assert_int_equal(status_code_of(end), STATUS_ABORTED);
	assert_string_equal(status_message(end), "enough");
	scoped(str) char *count = stream_trailing(both.client, "count");
	assert_string_equal(count, "201");
	assert_int_equal(pthread_join(ending.thread, NULL), 0);
	status_free(ending.verdict);
	close_both(&both);
}

static void an_ok_end_is_no_more_messages(void **state)
{
	(void)state;
	struct both both = open_both(&options);
	struct ending ending = {.stream = both.server};
	assert_ok(send_text(both.server, "only", PLENTY_MS));
	assert_int_equal(pthread_create(&ending.thread, NULL, run_end, &ending), 0);
	expect_text(both.client, "only");
	expect_text(both.client, "");
	expect_text(both.client, "");
	assert_int_equal(pthread_join(ending.thread, NULL), 0);
	close_both(&both);
}

static void a_slow_reader_stops_the_sender_and_nothing_grows(void **state)
{
	(void)state;
	struct both both = open_both(&options);
	char text[MESSAGE + 1];
	size_t sent = 0, received = 0;
	memset(text, 'x', MESSAGE);
	text[MESSAGE] = '\0';
	for (int round = 0; round < 3; round++) {
		bool is_full = false;
		for (int waits = 0; !is_full && waits < WAITS_MOST;) {
			status *st = send_text(both.server, text, SHORT_MS);
			sent += st == NULL ? 1 : 0;
			/* Less than the window waits, and the one message that fills it. */
			assert_true((sent - received) * MESSAGE <= WINDOW + MESSAGE);
			if (st == NULL)
				continue;
			assert_code(st, STATUS_DEADLINE_EXCEEDED);
			/* Less than half a window is given back later, with more; if there is less,
			 * the credit for what was read is under way. */
			is_full = (sent - received) * (MESSAGE + 100) >= WINDOW / 2;
			waits++;
		}
		assert_true(is_full);
		for (; received < sent; received++)
			expect_text(both.client, text);
	}
	close_both(&both);
}

/* A hostile peer: what it sends by hand. */
static void expect_refusal(struct pipe *peer, struct stream *stream, const char *what)
{
	char text[MESSAGE + 1];
	status *st = NULL;
	while (st == NULL)
		st = receive_text(stream, PLENTY_MS, text);
	assert_int_equal(status_code_of(st), STATUS_DATA_LOSS);
	assert_non_null(strstr(status_message(st), what));
	status_free(st);
	assert_true(stream_is_cancelled(stream));
	stream_free(stream);
	pipe_free(peer);
}

static struct stream *open_hostile(bool is_server, struct pipe **ret_peer)
{
	struct pipe *listener = NULL;
	struct stream *stream = NULL;
	open_pair(&tcp_place, &listener, ret_peer);
	assert_ok(stream_new(listener, is_server, &options, &stream));
	return stream;
}

static void send_kind(struct pipe *peer, int kind, size_t size)
{
	struct pipe_out out = {0};
	assert_ok(pipe_out_new((Haul__V1__FrameKind)kind, size, &out));
	memset(out.body, 0, size);
	status_free(pipe_send_frame(peer, &out, size, PLENTY_MS));
}

static void a_peer_that_keeps_no_rule_is_cut_off(void **state)
{
	(void)state;
	struct pipe *peer = NULL;
	struct stream *stream = open_hostile(true, &peer);
	for (int i = 0; i < 2 * WINDOW / MESSAGE; i++)
		send_kind(peer, HAUL__V1__FRAME_KIND__FRAME_EVENT, MESSAGE);
	struct timespec pause = {.tv_nsec = 10000000};
	while (!stream_is_cancelled(stream)) /* nobody reads meanwhile */
		(void)nanosleep(&pause, NULL);
	pipe_free(peer);
	stream_free(stream);

	Haul__V1__StreamCredit credit = HAUL__V1__STREAM_CREDIT__INIT;
	credit.bytes = UINT32_MAX;
	stream = open_hostile(true, &peer);
	assert_ok(
	    pipe_send_message(peer, HAUL__V1__FRAME_KIND__FRAME_CREDIT, &credit.base, PLENTY_MS));
	expect_refusal(peer, stream, "more credit than there is");

	stream = open_hostile(false, &peer);
	send_kind(peer, HAUL__V1__FRAME_KIND__FRAME_HALF_CLOSE, 0);
	expect_refusal(peer, stream, "half-closed");

	stream = open_hostile(true, &peer);
	send_kind(peer, HAUL__V1__FRAME_KIND__FRAME_HALF_CLOSE, 0);
	send_kind(peer, HAUL__V1__FRAME_KIND__FRAME_EVENT, 0);
	struct timespec again = {.tv_nsec = 10000000};
	while (!stream_is_cancelled(stream))
		(void)nanosleep(&again, NULL);
	pipe_free(peer);
	stream_free(stream);

	stream = open_hostile(true, &peer);
	send_kind(peer, HAUL__V1__FRAME_KIND__FRAME_METADATA, 0);
	send_kind(peer, HAUL__V1__FRAME_KIND__FRAME_METADATA, 0);
	expect_refusal(peer, stream, "metadata twice");

	stream = open_hostile(true, &peer);
	send_kind(peer, HAUL__V1__FRAME_KIND__FRAME_BATCH, 10);
	expect_refusal(peer, stream, "no place in a stream");
}

static void metadata_is_bounded(void **state)
{
	(void)state;
	struct both both = open_both(&options);
	char longer[LIMIT_NAME + 2];
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_code(stream_add_metadata(both.client, longer, "x"), STATUS_INVALID_ARGUMENT);
	assert_code(stream_add_metadata(both.client, "x", longer), STATUS_INVALID_ARGUMENT);
	for (int i = 0; i < LIMIT_METADATA; i++)
		assert_ok(stream_add_metadata(both.client, "x", "y"));
	assert_code(stream_add_metadata(both.client, "x", "y"), STATUS_RESOURCE_EXHAUSTED);
	close_both(&both);
}

static void note(void *self)
{
	(void)atomic_fetch_add((atomic_int *)self, 1);
}

static void a_client_that_cancels_or_goes_ends_the_handler_where_it_waits(void **state)
{
	(void)state;
	char text[MESSAGE + 1];
	for (int goes = 0; goes < 2; goes++) {
		struct both both = open_both(&options);
		atomic_int woken;
		atomic_init(&woken, 0);
		stream_on_cancel(both.server, note, &woken);
		if (goes == 0) {
			scoped(status) status *why = status_errorf(STATUS_CANCELLED, "enough");
			stream_end(both.client, why, 0);
		} else {
			stream_free(TAKE(both.client));
		}
		/* The handler waits for a message; it has a minute. */
		scoped(status) status *st = receive_text(both.server, PLENTY_MS, text);
		assert_int_equal(status_code_of(st),
				 goes == 0 ? STATUS_CANCELLED : STATUS_UNAVAILABLE);
		assert_true(stream_is_cancelled(both.server));
		stream_on_cancel(both.server, NULL, NULL);
		assert_int_equal(atomic_load(&woken), 1);
		assert_code(send_text(both.server, "more", PLENTY_MS), status_code_of(st));
		close_both(&both);
	}
}

static void an_idle_stream_lives_by_its_keepalives(void **state)
{
	(void)state;
	struct both both = open_both(&hasty);
	char text[MESSAGE + 1];
	/* Three times what a silent one would live. */
	assert_code(receive_text(both.client, 3 * hasty.dead_ms, text), STATUS_DEADLINE_EXCEEDED);
	assert_false(stream_is_cancelled(both.server));
	assert_ok(send_text(both.server, "still here", PLENTY_MS));
	expect_text(both.client, "still here");
	close_both(&both);
}

/* Both ends through a proxy. */
static struct both open_behind(struct proxy **ret_proxy)
{
	struct pipe *listener = NULL;
	struct dialing dialing;
	struct both both = {0};
	char *colon;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	colon = strrchr(address->url, ':');
	*ret_proxy = proxy_start(&(struct proxy_config){.to_port = (unsigned)atoi(colon + 1)});
	(void)snprintf(colon, 7, ":%u", proxy_port(*ret_proxy));
	start_dial(&dialing, address, PLENTY_MS);
	assert_ok(pipe_accept(listener, PLENTY_MS));
	assert_ok(join_dial(&dialing));
	assert_ok(stream_new(listener, true, &hasty, &both.server));
	assert_ok(stream_new(dialing.pipe, false, &hasty, &both.client));
	return both;
}

static void a_peer_behind_a_dead_link_is_found(void **state)
{
	(void)state;
	struct proxy *proxy = NULL;
	struct both both = open_behind(&proxy);
	char text[MESSAGE + 1];
	assert_ok(send_text(both.client, "hello", PLENTY_MS));
	expect_text(both.server, "hello");
	proxy_stall(proxy, true);
	status *st = receive_text(both.server, PLENTY_MS, text);
	assert_non_null(strstr(status_message(st), "silent"));
	assert_code(st, STATUS_UNAVAILABLE);
	assert_code(receive_text(both.client, PLENTY_MS, text), STATUS_UNAVAILABLE);
	close_both(&both);
	proxy_stop(proxy);
}

static void an_interrupt_ends_what_waits(void **state)
{
	(void)state;
	struct both both = open_both(&options);
	char text[MESSAGE + 1];
	stream_interrupt(both.client);
	assert_code(receive_text(both.client, PLENTY_MS, text), STATUS_CANCELLED);
	assert_code(send_text(both.client, "x", PLENTY_MS), STATUS_CANCELLED);
	close_both(&both);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(messages_metadata_and_the_status_come_through_both_ways),
	    cmocka_unit_test(an_ok_end_is_no_more_messages),
	    cmocka_unit_test(a_slow_reader_stops_the_sender_and_nothing_grows),
	    cmocka_unit_test(a_peer_that_keeps_no_rule_is_cut_off),
	    cmocka_unit_test(metadata_is_bounded),
	    cmocka_unit_test(a_client_that_cancels_or_goes_ends_the_handler_where_it_waits),
	    cmocka_unit_test(an_idle_stream_lives_by_its_keepalives),
	    cmocka_unit_test(a_peer_behind_a_dead_link_is_found),
	    cmocka_unit_test(an_interrupt_ends_what_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
