/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of PAIR over a socket: in pieces, too long, cut off, and to somebody who does not read.
 */
#include "tests/unit/test.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "rpc/pair.h"

enum { LIMIT = 100, LARGE = 4 * 1024 * 1024, SHORT_MS = 20 };

static void open_sockets(int sockets[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
}

static void close_sockets(int sockets[2])
{
	(void)close(sockets[0]);
	(void)close(sockets[1]);
}

static void a_message_in_pieces_arrives_whole(void **state)
{
	uint8_t bytes[PAIR_PREFIX_MOST + 5];
	(void)state;
	for (int is_ipc = 0; is_ipc < 2; is_ipc++) {
		uint8_t *message = bytes + PAIR_PREFIX_MOST, *got = NULL;
		size_t prefix = pair_prefix_bytes(is_ipc != 0), size = 0;
		int sockets[2];
		open_sockets(sockets);
		struct pair pair = {.fd = sockets[1], .is_ipc = is_ipc != 0};
		memcpy(message, "hello", 5);
		pair_put_prefix(is_ipc != 0, message, 5);
		for (size_t i = 0; i < prefix + 5; i++) {
			assert_int_equal(pair_receive(&pair, LIMIT, 0, &got, &size), ETIMEDOUT);
			assert_int_equal(send(sockets[0], message - prefix + i, 1, 0), 1);
		}
		assert_int_equal(pair_receive(&pair, LIMIT, 0, &got, &size), 0);
		assert_int_equal(size, 5);
		assert_memory_equal(got, "hello", 5);
		free(got);
		close_sockets(sockets);
	}
}

static void too_long_and_no_message_are_told(void **state)
{
	uint8_t bytes[PAIR_PREFIX_MOST], *got = NULL;
	size_t size = 0;
	int sockets[2];
	(void)state;
	open_sockets(sockets);
	struct pair pair = {.fd = sockets[1]};
	pair_put_prefix(false, bytes + sizeof(bytes), LIMIT + 1);
	assert_int_equal(send(sockets[0], bytes + 1, 8, 0), 8);
	assert_int_equal(pair_receive(&pair, LIMIT, 0, &got, &size), EMSGSIZE);
	struct pair file = {.fd = sockets[1], .is_ipc = true};
	assert_int_equal(send(sockets[0], "\2\0\0\0\0\0\0\0\0", 9, 0), 9);
	assert_int_equal(pair_receive(&file, LIMIT, 0, &got, &size), EMSGSIZE);
	assert_null(got);
	close_sockets(sockets);
}

static void what_is_cut_off_is_no_message(void **state)
{
	uint8_t bytes[PAIR_PREFIX_MOST + 5], *got = NULL;
	size_t size = 0;
	int sockets[2];
	(void)state;
	open_sockets(sockets);
	struct pair pair = {.fd = sockets[1]};
	memcpy(bytes + PAIR_PREFIX_MOST, "hello", 5);
	pair_put_prefix(false, bytes + PAIR_PREFIX_MOST, 5);
	assert_int_equal(send(sockets[0], bytes + 1, 8 + 4, 0), 8 + 4);
	assert_int_equal(shutdown(sockets[0], SHUT_WR), 0);
	assert_true(pair_is_gone(sockets[1]));
	assert_int_equal(pair_receive(&pair, LIMIT, 0, &got, &size), EPIPE);
	free(pair.message);
	close_sockets(sockets);
}

static void who_does_not_read_is_waited_for_in_vain(void **state)
{
	double waited_ms = 0;
	int sockets[2];
	(void)state;
	open_sockets(sockets);
	scoped(bytes) uint8_t *large = calloc(1, LARGE);
	assert_int_equal(pair_write(sockets[0], large, LARGE, SHORT_MS, &waited_ms), ETIMEDOUT);
	assert_true(waited_ms >= SHORT_MS - 1);
	(void)close(sockets[1]);
	assert_int_equal(pair_write(sockets[0], large, LARGE, SHORT_MS, &waited_ms), EPIPE);
	(void)close(sockets[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_message_in_pieces_arrives_whole),
	    cmocka_unit_test(too_long_and_no_message_are_told),
	    cmocka_unit_test(what_is_cut_off_is_no_message),
	    cmocka_unit_test(who_does_not_read_is_waited_for_in_vain),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
