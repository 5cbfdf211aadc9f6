/* SPDX-License-Identifier: Apache-2.0 */
/* Frames through a pipe that is open, and its end. Up to SENDS_IN_FLIGHT messages are under way at
 * a time, each an operation of its own; an error shows at a later send. All operations begin under
 * the lock after a look at the state, so that pipe_interrupt and the loss of the connection can
 * cancel every one of them. */
#include "proto/clock.h"
#include "rpc/pipe_internal.h"

#include <assert.h>
#include <malloc.h>
#include <string.h>

#include "proto/envelope.h"
#include "rpc/nng_error.h"

enum { KEPT_BYTES = 8 * 1024 * 1024 }; /* of each arena */

void pipe_keep_memory(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, MESSAGE_BYTES + FRAME_ROOM);
	(void)mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

void pipe_cancel_sends(struct pipe *pipe)
{
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++)
		if (pipe->sending[i] != NULL)
			operation_cancel(pipe->sending[i]);
}

/* Why nothing can be sent or received any more, or NULL. Caller holds the lock. */
static status *state_error(const struct pipe *pipe)
{
	if (pipe->is_interrupted)
		return status_errorf(STATUS_CANCELLED, "the pipe was interrupted");
	if (pipe->is_lost)
		return status_errorf(STATUS_UNAVAILABLE,
				     "the pipe was closed by the other side or the "
				     "connection broke, before it was ended in words");
	return NULL;
}

static status *operation_error(struct pipe *pipe, int rv, const char *what)
{
	(void)pthread_mutex_lock(&pipe->lock);
	status *st = state_error(pipe);
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st != NULL)
		return st;
	if (rv == NNG_ETIMEDOUT)
		return status_errorf(STATUS_DEADLINE_EXCEEDED,
				     "%s: the other side did nothing in time", what);
	return nng_errorf(rv, "%s", what);
}

/* Waits until this place is free; what it reports is about its last message. */
static status *await_place(struct pipe *pipe, unsigned place)
{
	double begun = operation_is_running(pipe->sending[place]) ? clock_monotonic_fine_ms() : 0;
	int rv = operation_wait(pipe->sending[place]);
	if (begun > 0)
		pipe->waited_ms += clock_monotonic_fine_ms() - begun;
	return rv == 0 ? NULL : operation_error(pipe, rv, "sending into the pipe");
}

status *pipe_start_send(struct pipe *pipe, nng_msg *msg, int64_t timeout_ms)
{
	struct operation *sending = pipe->sending[pipe->next_send];
	status *st = await_place(pipe, pipe->next_send);
	if (st != NULL) {
		nng_msg_free(msg);
		return st;
	}
	size_t size = nng_msg_len(msg);
	(void)pthread_mutex_lock(&pipe->lock);
	st = state_error(pipe);
	if (st == NULL)
		nng_send_aio(pipe->socket,
			     operation_begin(sending, left_ms(clock_monotonic_ms() + timeout_ms),
					     msg));
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st != NULL) {
		nng_msg_free(msg);
		return st;
	}
	pipe->next_send = (pipe->next_send + 1) % SENDS_IN_FLIGHT;
	atomic_fetch_add(&pipe->bytes_sent, size);
	return NULL;
}

status *pipe_drain(struct pipe *pipe)
{
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++) {
		status *st = await_place(pipe, (pipe->next_send + i) % SENDS_IN_FLIGHT);
		if (st != NULL)
			return st;
	}
	return NULL;
}

/* After an error a message is missing: nothing may follow it. */
status *pipe_fail_sending(struct pipe *pipe, status *st)
{
	if (st != NULL && pipe->send_error == NULL)
		pipe->send_error = status_copy(st);
	return st;
}

status *pipe_out_new(Haul__V1__FrameKind kind, size_t size, struct pipe_out *ret_out)
{
	nng_msg *msg = NULL;
	if (size > MESSAGE_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "a frame of %zu bytes is over the limit of %d", size,
				     MESSAGE_BYTES);
	int rv = nng_msg_alloc(&msg, KIND_BYTES + size + SEAL_TAG_BYTES);
	if (rv != 0)
		return nng_errorf(rv, "no memory for a frame of %zu bytes", size);
	uint8_t *bytes = nng_msg_body(msg);
	bytes[0] = (uint8_t)kind;
	*ret_out = (struct pipe_out){.message = msg, .body = bytes + KIND_BYTES, .size = size};
	return NULL;
}

void pipe_out_drop(struct pipe_out *out)
{
	if (out->message != NULL)
		nng_msg_free(out->message);
	*out = (struct pipe_out){0};
}

/* Seals and sends, HELLO included. */
static status *send_sealed(struct pipe *pipe, struct pipe_out *out, size_t used, int64_t timeout_ms)
{
	assert(used <= out->size);
	nng_msg *msg = TAKE(out->message);
	size_t unused = out->size - used;
	*out = (struct pipe_out){0};
	status *st = unused > 0 && nng_msg_chop(msg, unused) != 0
			 ? status_errorf(STATUS_INTERNAL, "cannot shorten a frame")
			 : seal_close(pipe->out, nng_msg_body(msg), KIND_BYTES + used);
	if (st != NULL) {
		nng_msg_free(msg);
		return st;
	}
	return pipe_start_send(pipe, msg, timeout_ms);
}

status *pipe_send_frame(struct pipe *pipe, struct pipe_out *out, size_t used, int64_t timeout_ms)
{
	if (pipe->send_error != NULL) {
		pipe_out_drop(out);
		return status_copy(pipe->send_error);
	}
	return pipe_fail_sending(pipe, send_sealed(pipe, out, used, timeout_ms));
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
	return st != NULL ? st : pipe_fail_sending(pipe, pipe_drain(pipe));
}

status *pipe_receive_raw(struct pipe *pipe, int64_t timeout_ms, nng_msg **ret_msg)
{
	struct operation *receiving = pipe->receiving;
	status *st = NULL;
	(void)pthread_mutex_lock(&pipe->lock);
	if (pipe->is_interrupted) {
		st = state_error(pipe);
	} else {
		/* A lost connection may have left messages behind: they are there at once or never.
		 */
		int32_t left = pipe->is_lost ? 0 : left_ms(clock_monotonic_ms() + timeout_ms);
		nng_recv_aio(pipe->socket, operation_begin(receiving, left, NULL));
	}
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st != NULL)
		return st;
	int rv = operation_wait(receiving);
	if (rv == 0) {
		*ret_msg = operation_take_message(receiving);
		return NULL;
	}
	(void)pthread_mutex_lock(&pipe->lock);
	st = state_error(pipe);
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st == NULL && rv != NNG_ETIMEDOUT && rv != NNG_ECANCELED)
		st = nng_errorf(rv, "receiving from the pipe");
	return st;
}

void pipe_close_connection(int id)
{
	nng_pipe connection = {.id = (uint32_t)id};
	if (id > 0)
		(void)nng_pipe_close(connection);
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

/* Opens and checks a message of the proven peer; msg stays the caller's. */
static status *open_message(struct pipe *pipe, nng_msg *msg, struct pipe_in *ret_in)
{
	uint8_t *bytes = nng_msg_body(msg);
	uint64_t number = seal_count(pipe->in);
	status *st = nng_msg_len(msg) < KIND_BYTES + SEAL_TAG_BYTES
			 ? status_errorf(STATUS_DATA_LOSS, "a message of the pipe was cut short")
			 : seal_open(pipe->in, bytes, nng_msg_len(msg));
	if (st != NULL)
		return st;
	size_t size = nng_msg_len(msg) - KIND_BYTES - SEAL_TAG_BYTES;
	if (bytes[0] <= HAUL__V1__FRAME_KIND__FRAME_HELLO)
		return status_errorf(STATUS_DATA_LOSS, "a frame of kind %u has no place here",
				     bytes[0]);
	if (bytes[0] == HAUL__V1__FRAME_KIND__FRAME_END) {
		st = check_end(bytes + KIND_BYTES, size, number);
		if (st != NULL)
			return st;
	}
	*ret_in = (struct pipe_in){.message = msg,
				   .kind = (Haul__V1__FrameKind)bytes[0],
				   .body = bytes + KIND_BYTES,
				   .size = size};
	return NULL;
}

/* The next message of the proven peer; left-overs of others are dropped. */
static status *receive_of_peer(struct pipe *pipe, int64_t timeout_ms, nng_msg **ret_msg)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	for (;;) {
		nng_msg *msg = NULL;
		status *st = pipe_receive_raw(pipe, left_ms(deadline_ms), &msg);
		if (st != NULL)
			return st;
		if (msg != NULL && nng_pipe_id(nng_msg_get_pipe(msg)) == pipe->peer_id) {
			atomic_fetch_add(&pipe->bytes_received, nng_msg_len(msg));
			*ret_msg = msg;
			return NULL;
		}
		if (msg != NULL)
			nng_msg_free(msg);
		else if (left_ms(deadline_ms) == 0)
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "nothing came through the pipe for %lld ms",
					     (long long)timeout_ms);
	}
}

status *pipe_receive(struct pipe *pipe, int64_t timeout_ms, struct pipe_in *ret_in)
{
	nng_msg *msg = NULL;
	if (pipe->receive_error != NULL)
		return status_copy(pipe->receive_error);
	status *st = receive_of_peer(pipe, timeout_ms, &msg);
	if (st != NULL)
		return st;
	st = open_message(pipe, msg, ret_in);
	if (st == NULL)
		return NULL;
	/* Data that cannot be trusted ends the pipe for both sides. */
	nng_msg_free(msg);
	pipe->receive_error = status_copy(st);
	pipe_close_connection(pipe->peer_id);
	return st;
}

void pipe_in_drop(struct pipe_in *in)
{
	if (in->message != NULL)
		nng_msg_free(in->message);
	*in = (struct pipe_in){0};
}

void pipe_hang_up(struct pipe *pipe)
{
	pipe_close_connection(pipe->peer_id);
}

void pipe_interrupt(struct pipe *pipe)
{
	(void)pthread_mutex_lock(&pipe->lock);
	pipe->is_interrupted = true;
	pipe_cancel_sends(pipe);
	operation_cancel(pipe->receiving);
	(void)pthread_cond_broadcast(&pipe->changed);
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

/* The socket's callbacks find NULL from here on. */
static void free_operations(struct pipe *pipe)
{
	struct operation *receiving, *sending[SENDS_IN_FLIGHT];
	(void)pthread_mutex_lock(&pipe->lock);
	receiving = TAKE(pipe->receiving);
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++)
		sending[i] = TAKE(pipe->sending[i]);
	(void)pthread_mutex_unlock(&pipe->lock);
	operation_free(receiving);
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++)
		operation_free(sending[i]);
}

void pipe_free(struct pipe *pipe)
{
	if (pipe == NULL)
		return;
	free_operations(pipe);
	if (pipe->has_socket)
		(void)nng_socket_close(pipe->socket);
	seal_free(pipe->out);
	seal_free(pipe->in);
	status_free(pipe->send_error);
	status_free(pipe->receive_error);
	(void)pthread_cond_destroy(&pipe->changed);
	(void)pthread_mutex_destroy(&pipe->lock);
	free(pipe);
}
