/* SPDX-License-Identifier: Apache-2.0 */
/* What comes through a pipe's connection before and after its peer has proven itself: a stranger's
 * greeting never is the peer's, and no length makes us take more than the limit. The first byte
 * says whether it is a socket file's and in what pieces it comes. */
#include <errno.h>
#include <sys/socket.h>

#include "rpc/pipe_internal.h"
#include "tests/fuzz/fuzz.h"

enum { LIMIT = 300 };

static struct pipe *make_pipe(void)
{
	static uint8_t id[SEAL_ID_BYTES] = {2}, keys[2][SEAL_KEY_BYTES] = {{1}, {3}};
	Haul__V1__PipeAddress address = HAUL__V1__PIPE_ADDRESS__INIT;
	struct pipe *pipe = NULL;

	address.pipe_id = (ProtobufCBinaryData){sizeof(id), id};
	address.key_to_listener = (ProtobufCBinaryData){sizeof(keys[0]), keys[0]};
	address.key_to_dialer = (ProtobufCBinaryData){sizeof(keys[1]), keys[1]};
	status_free(pipe_new(&address, true, &pipe));
	must(pipe != NULL);
	return pipe;
}

static void greet(const uint8_t *data, size_t size, bool is_ipc)
{
	scoped(pipe) struct pipe *pipe = make_pipe();
	uint8_t said[GREETING_MOST];
	enum greeted greeted = GREETED_NOT_YET;
	size_t want = pipe_greeting_bytes(is_ipc);

	for (size_t have = 1; have <= size && have <= want && greeted == GREETED_NOT_YET; have++) {
		said[have - 1] = data[have - 1];
		greeted = pipe_greeted(pipe, is_ipc, said, have);
		must(greeted != GREETED_WELL);
		must(have < want || greeted == GREETED_ILL);
	}
}

static void receive(const uint8_t *data, size_t size, bool is_ipc, size_t piece)
{
	int sockets[2];
	struct pair pair = {.is_ipc = is_ipc};
	int error = 0;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) == 0);
	pair.fd = sockets[1];
	for (size_t at = 0; at < size && (error == 0 || error == ETIMEDOUT); at += piece) {
		size_t now = size - at < piece ? size - at : piece;
		must(send(sockets[0], data + at, now, 0) == (ssize_t)now);
		do {
			uint8_t *message = NULL;
			size_t got = 0;
			error = pair_receive(&pair, LIMIT, 0, &message, &got);
			must(error != 0 || (message != NULL && got <= LIMIT));
			free(message);
		} while (error == 0);
		must(error == ETIMEDOUT || error == EMSGSIZE);
	}
	free(pair.message);
	(void)close(sockets[0]);
	(void)close(sockets[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1 || size > 4096)
		return 0;
	greet(data + 1, size - 1, (data[0] & 1) != 0);
	receive(data + 1, size - 1, (data[0] & 1) != 0, 1 + (data[0] >> 1));
	return 0;
}
