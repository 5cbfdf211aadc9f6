/* SPDX-License-Identifier: Apache-2.0 */
/* How the two ends of a pipe find out that they are those: each says PAIR's header and then HELLO,
 * sealed with its key, the same bytes each time it is said, so that saying it again tells nobody
 * anything. From then on only that connection counts, and when it is gone the pipe is over. */
#include "rpc/pipe_internal.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

/* Checks an address that may come from a peer. */
static status *make_seals(struct pipe *pipe, const Haul__V1__PipeAddress *address, bool is_listener)
{
	if (address->pipe_id.len != SEAL_ID_BYTES ||
	    address->key_to_listener.len != SEAL_KEY_BYTES ||
	    address->key_to_dialer.len != SEAL_KEY_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the pipe's address has an id or a key of the wrong length");
	memcpy(pipe->pipe_id, address->pipe_id.data, SEAL_ID_BYTES);
	const uint8_t *to_listener = address->key_to_listener.data;
	const uint8_t *to_dialer = address->key_to_dialer.data;
	status *st = seal_new(address->seal, is_listener ? to_dialer : to_listener, pipe->pipe_id,
			      true, &pipe->out);
	if (st == NULL)
		st = seal_new(address->seal, is_listener ? to_listener : to_dialer, pipe->pipe_id,
			      false, &pipe->in);
	return st;
}

status *pipe_new(const Haul__V1__PipeAddress *address, bool is_listener, struct pipe **ret_pipe)
{
	scoped(pipe) struct pipe *pipe = calloc(1, sizeof(*pipe));
	if (pipe == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a pipe");
	pipe->pair.fd = -1;
	(void)pthread_mutex_init(&pipe->lock, NULL);
	atomic_init(&pipe->bytes_sent, 0);
	atomic_init(&pipe->bytes_received, 0);
	atomic_init(&pipe->is_interrupted, false);
	status *st = make_seals(pipe, address, is_listener);
	if (st == NULL)
		*ret_pipe = TAKE(pipe);
	return st;
}

size_t pipe_greeting_bytes(bool is_ipc)
{
	return PAIR_HEADER_BYTES + pair_prefix_bytes(is_ipc) + HELLO_BYTES;
}

status *pipe_greeting(struct pipe *pipe, bool is_ipc, struct greeting *ret_greeting)
{
	size_t before = PAIR_HEADER_BYTES + pair_prefix_bytes(is_ipc);
	uint8_t *hello = ret_greeting->bytes + before;

	memcpy(ret_greeting->bytes, pair_header, PAIR_HEADER_BYTES);
	hello[0] = HAUL__V1__FRAME_KIND__FRAME_HELLO;
	status *st = seal_close(pipe->out, hello, KIND_BYTES);
	if (st != NULL)
		return st;
	pair_put_prefix(is_ipc, hello, HELLO_BYTES);
	ret_greeting->size = before + HELLO_BYTES;
	return NULL;
}

/* Whoever has the key but starts otherwise has spoilt the sequence: its pipe will fail. */
static bool is_hello(struct pipe *pipe, uint8_t *message)
{
	status *st = seal_open(pipe->in, message, HELLO_BYTES);
	bool is_good = st == NULL;

	status_free(st);
	return is_good && message[0] == HAUL__V1__FRAME_KIND__FRAME_HELLO;
}

enum greeted pipe_greeted(struct pipe *pipe, bool is_ipc, uint8_t *bytes, size_t have)
{
	size_t prefix = PAIR_HEADER_BYTES + pair_prefix_bytes(is_ipc);
	size_t header = have < PAIR_HEADER_BYTES ? have : PAIR_HEADER_BYTES;
	uint64_t size = 0;

	if (memcmp(bytes, pair_header, header) != 0)
		return GREETED_ILL;
	if (have < prefix)
		return GREETED_NOT_YET;
	if (!pair_get_prefix(is_ipc, bytes + PAIR_HEADER_BYTES, &size) || size != HELLO_BYTES)
		return GREETED_ILL;
	if (have < prefix + HELLO_BYTES)
		return GREETED_NOT_YET;
	atomic_fetch_add(&pipe->bytes_received, HELLO_BYTES);
	return is_hello(pipe, bytes + prefix) ? GREETED_WELL : GREETED_ILL;
}

void pipe_attach(struct pipe *pipe, int fd, bool is_ipc)
{
	(void)pthread_mutex_lock(&pipe->lock);
	pipe->pair = (struct pair){.fd = fd, .is_ipc = is_ipc};
	if (pipe->is_interrupted)
		(void)shutdown(fd, SHUT_RD);
	(void)pthread_mutex_unlock(&pipe->lock);
}

void pipe_tune(int fd)
{
	const int on = 1;

	/* A socket that was handed over may be of another kind. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}
