/* SPDX-License-Identifier: Apache-2.0 */
/* Frames through a pipe that is open, and its end. A frame is made where its message lies, with
 * room for PAIR's prefix before it, and goes out in one piece. */
#include "rpc/pipe_internal.h"

#include <assert.h>
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/socket.h>

#include "proto/envelope.h"

enum {
	KEPT_BYTES = 8 * 1024 * 1024, /* of each arena */
	/* Before a message; so much that the body lies well. */
	ROOM_BEFORE = 15,
};
static_assert((int)ROOM_BEFORE >= (int)PAIR_PREFIX_MOST,
	      "the prefix has its place before the message");

void pipe_keep_memory(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, MESSAGE_BYTES + FRAME_ROOM);
	(void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

/* What an errno of the connection means for who waits for it. */
static status *connection_error(struct pipe *pipe, int error, const char *what)
{
	if (pipe->is_interrupted)
		return status_errorf(STATUS_CANCELLED, "the pipe was interrupted");
	if (error == ETIMEDOUT)
		return status_errorf(STATUS_DEADLINE_EXCEEDED,
				     "%s: the other side did nothing in time", what);
	if (error == ENOMEM)
		return status_errnof(error, "%s", what);
	return status_errorf(STATUS_UNAVAILABLE, "the pipe was closed by the other side or the "
						 "connection broke, before it was ended in words");
}

/* After an error a message is missing: nothing may follow it. */
static status *fail_sending(struct pipe *pipe, status *st)
{
	if (st != NULL && pipe->send_error == NULL)
		pipe->send_error = status_copy(st);
	return st;
}

status *pipe_out_new(Haul__V1__FrameKind kind, size_t size, struct pipe_out *ret_out)
{
	if (size > MESSAGE_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "a frame of %zu bytes is over the limit of %d", size,
				     MESSAGE_BYTES);
	uint8_t *bytes = malloc(ROOM_BEFORE + KIND_BYTES + size + SEAL_TAG_BYTES);
	if (bytes == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "no memory for a frame of %zu bytes", size);
	bytes[ROOM_BEFORE] = (uint8_t)kind;
	*ret_out = (struct pipe_out){.message = bytes,
				     .body = bytes + ROOM_BEFORE + KIND_BYTES,
				     .size = size};
	return NULL;
}

void pipe_out_drop(struct pipe_out *out)
{
	free(out->message);
	*out = (struct pipe_out){0};
}

static status *send_sealed(struct pipe *pipe, uint8_t *message, size_t used, int64_t timeout_ms)
{
	size_t size = KIND_BYTES + used + SEAL_TAG_BYTES;
	size_t prefix = pair_prefix_bytes(pipe->pair.is_ipc);
	status *st = pipe->is_interrupted ? connection_error(pipe, 0, "")
					  : seal_close(pipe->out, message, KIND_BYTES + used);
	if (st != NULL)
		return st;
	pair_put_prefix(pipe->pair.is_ipc, message, size);
	int error = pair_write(pipe->pair.fd, message - prefix, prefix + size, timeout_ms,
			       &pipe->waited_ms);
	if (error != 0)
		return connection_error(pipe, error, "sending into the pipe");
	atomic_fetch_add(&pipe->bytes_sent, size);
	return NULL;
}

status *pipe_send_frame(struct pipe *pipe, struct pipe_out *out, size_t used, int64_t timeout_ms)
{
	assert(used <= out->size);
	status *st =
	    pipe->send_error != NULL
		? status_copy(pipe->send_error)
		: fail_sending(pipe, send_sealed(pipe, out->body - KIND_BYTES, used, timeout_ms));
	pipe_out_drop(out);
	return st;
}

status *pipe_send_message(struct pipe *pipe, Haul__V1__FrameKind kind,
			  const ProtobufCMessage *message, int64_t timeout_ms)
{
	struct pipe_out out = {0};
	status *st = pipe_out_new(kind, protobuf_c_message_get_packed_size(message), &out);
	if (st != NULL)
		return st;
	size_t used = protobuf_c_message_pack(message, out.body);
	return pipe_send_frame(pipe, &out, used, timeout_ms);
}

status *pipe_send_end(struct pipe *pipe, const status *verdict, int64_t timeout_ms)
{
	return pipe_send_trailer(pipe, verdict, NULL, timeout_ms);
}

status *pipe_send_trailer(struct pipe *pipe, const status *verdict, Haul__V1__Metadata *trailing,
			  int64_t timeout_ms)
{
	Haul__V1__PipeEnd end = HAUL__V1__PIPE_END__INIT;
	end.status = status_to_wire(verdict);
	end.messages = seal_count(pipe->out);
	end.trailing = trailing;
	status *st =
	    pipe_send_message(pipe, HAUL__V1__FRAME_KIND__FRAME_END, &end.base, timeout_ms);
	if (end.status != NULL)
		haul__v1__status__free_unpacked(end.status, NULL);
	return st;
}

static status *check_end(const uint8_t *body, size_t size, uint64_t number)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st =
	    unpack_message(&haul__v1__pipe_end__descriptor, body, size, MESSAGE_BYTES, &message);
	if (st != NULL)
		return status_recode(status_wrapf(st, "the pipe's end"), STATUS_DATA_LOSS);
	const Haul__V1__PipeEnd *end = (const Haul__V1__PipeEnd *)message;
	if (end->messages != number)
		return status_errorf(STATUS_DATA_LOSS,
				     "the other side says it sent %llu messages, %llu came",
				     (unsigned long long)end->messages, (unsigned long long)number);
	return NULL;
}

/* Opens and checks a message; it stays the caller's. */
static status *open_message(struct pipe *pipe, uint8_t *bytes, size_t length,
			    struct pipe_in *ret_in)
{
	uint64_t number = seal_count(pipe->in);
	status *st = length < KIND_BYTES + SEAL_TAG_BYTES
			 ? status_errorf(STATUS_DATA_LOSS, "a message of the pipe was cut short")
			 : seal_open(pipe->in, bytes, length);
	if (st != NULL)
		return st;
	size_t size = length - KIND_BYTES - SEAL_TAG_BYTES;
	if (bytes[0] <= HAUL__V1__FRAME_KIND__FRAME_HELLO)
		return status_errorf(STATUS_DATA_LOSS, "a frame of kind %u has no place here",
				     bytes[0]);
	if (bytes[0] == HAUL__V1__FRAME_KIND__FRAME_END) {
		st = check_end(bytes + KIND_BYTES, size, number);
		if (st != NULL)
			return st;
	}
	*ret_in = (struct pipe_in){.message = bytes,
				   .kind = (Haul__V1__FrameKind)bytes[0],
				   .body = bytes + KIND_BYTES,
				   .size = size};
	return NULL;
}

/* Data that cannot be trusted ends the pipe for both sides. */
static status *fail_receiving(struct pipe *pipe, status *st)
{
	pipe->receive_error = status_copy(st);
	pipe_hang_up(pipe);
	return st;
}

status *pipe_receive(struct pipe *pipe, int64_t timeout_ms, struct pipe_in *ret_in)
{
	scoped(bytes) uint8_t *message = NULL;
	size_t size = 0;
	if (pipe->receive_error != NULL)
		return status_copy(pipe->receive_error);
	if (pipe->is_interrupted)
		return connection_error(pipe, 0, "");
	int error =
	    pair_receive(&pipe->pair, MESSAGE_BYTES + HELLO_BYTES, timeout_ms, &message, &size);
	if (error == ETIMEDOUT && !pipe->is_interrupted)
		return status_errorf(STATUS_DEADLINE_EXCEEDED,
				     "nothing came through the pipe for %lld ms",
				     (long long)timeout_ms);
	if (error == EMSGSIZE)
		return fail_receiving(pipe, status_errorf(STATUS_DATA_LOSS,
							  "a message of the pipe is longer than "
							  "any may be"));
	if (error != 0)
		return connection_error(pipe, error, "receiving from the pipe");
	atomic_fetch_add(&pipe->bytes_received, size);
	status *st = open_message(pipe, message, size, ret_in);
	if (st != NULL)
		return fail_receiving(pipe, st);
	(void)TAKE(message);
	return NULL;
}

void pipe_in_drop(struct pipe_in *in)
{
	free(in->message);
	*in = (struct pipe_in){0};
}

void pipe_hang_up(struct pipe *pipe)
{
	(void)shutdown(pipe->pair.fd, SHUT_RDWR);
}

/* Whoever waits in poll wakes up. Over TCP the other side is told only by pipe_free. */
void pipe_interrupt(struct pipe *pipe)
{
	(void)pthread_mutex_lock(&pipe->lock);
	pipe->is_interrupted = true;
	if (pipe->pair.fd >= 0)
		(void)shutdown(pipe->pair.fd, SHUT_RD);
	(void)pthread_mutex_unlock(&pipe->lock);
}

double pipe_waited_ms(const struct pipe *pipe)
{
	return pipe->waited_ms;
}

uint64_t pipe_bytes_sent(const struct pipe *pipe)
{
	return atomic_load(&pipe->bytes_sent);
}

uint64_t pipe_bytes_received(const struct pipe *pipe)
{
	return atomic_load(&pipe->bytes_received);
}

void pipe_free(struct pipe *pipe)
{
	if (pipe == NULL)
		return;
	pipe_stop_waiting(pipe);
	close_if_open(pipe->pair.fd);
	free(pipe->pair.message);
	seal_free(pipe->out);
	seal_free(pipe->in);
	status_free(pipe->send_error);
	status_free(pipe->receive_error);
	(void)pthread_mutex_destroy(&pipe->lock);
	free(pipe);
}
