/* SPDX-License-Identifier: Apache-2.0 */
/* A sealed pipe over an nng PAIR socket.
 *
 * A PAIR takes whoever comes first, tells a sender nothing of what was lost, and gives what is
 * queued to whoever comes next. So nothing but HELLO is sent before the peer has proven itself by
 * its own HELLO; from then on only its connection counts (`peer_id`): others are closed, and when it
 * is gone the pipe is over. Both HELLOs are the same bytes each time they are sent, so that sending
 * one again tells nobody anything.
 *
 * Sending keeps up to SENDS_IN_FLIGHT messages under way, each with an aio of its own; an error
 * shows at a later send. All aios are started under the lock after a look at the state, so that
 * pipe_interrupt and the loss of the connection can cancel every one of them. */
#include "rpc/pipe.h"

#include <assert.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/transport/ipc/ipc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "proto/envelope.h"
#include "rpc/nng_error.h"
#include "rpc/seal.h"

enum {
	SENDS_IN_FLIGHT = 4,
	KIND_BYTES = 1,
	/* On top of LIMIT_BULK_BYTES: kind, tag, and a batch's page table or an image's name. */
	FRAME_ROOM = 64 * 1024,
	MESSAGE_BYTES = LIMIT_BULK_BYTES + FRAME_ROOM,
	/* So long may a connection keep the listener's only place without saying HELLO. */
	HELLO_MS = 1000,
	RECONNECT_MS = 50,
	NEVER_MS = 24 * 3600 * 1000,
	SLICE_MS = 100,
	DIAL_SLICE_MS = 10,
	RECEIVE_BUFFER = 4,
};

struct pipe {
	nng_socket socket;
	bool has_socket;
	bool is_listener;
	nng_dialer dialer;
	struct seal *out;
	struct seal *in;
	uint8_t pipe_id[SEAL_ID_BYTES];
	nng_aio *receive_aio;
	nng_aio *send_aios[SENDS_IN_FLIGHT];
	unsigned next_send;  /* the sender's */
	status *send_error;  /* the sender's: sticky */
	status *receive_error; /* the receiver's: sticky */
	atomic_uint_fast64_t bytes_sent;
	atomic_uint_fast64_t bytes_received;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_interrupted;
	bool is_attached;
	bool is_lost;
	int peer_id;          /* nng's id of the proven connection */
	int candidate_id;     /* of the one that is connected, proven or not */
	int64_t candidate_ms; /* when it came */
	unsigned generation;  /* counts connections */
};

/* Caller holds the lock. */
static void cancel_sends(struct pipe *pipe)
{
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++)
		nng_aio_cancel(pipe->send_aios[i]);
}

static void on_pipe(nng_pipe connection, nng_pipe_ev event, void *self)
{
	struct pipe *pipe = self;
	int id = nng_pipe_id(connection);
	(void)pthread_mutex_lock(&pipe->lock);
	bool is_unwanted = event == NNG_PIPE_EV_ADD_PRE && pipe->is_attached;
	if (event == NNG_PIPE_EV_ADD_POST) {
		pipe->candidate_id = id;
		pipe->candidate_ms = monotonic_ms();
		pipe->generation++;
	} else if (event == NNG_PIPE_EV_REM_POST && pipe->candidate_id == id) {
		pipe->candidate_id = 0;
		pipe->is_lost = pipe->is_attached;
		/* What was not sent must not go to whoever comes next. */
		cancel_sends(pipe);
		if (pipe->is_lost)
			nng_aio_cancel(pipe->receive_aio);
	}
	(void)pthread_cond_broadcast(&pipe->changed);
	(void)pthread_mutex_unlock(&pipe->lock);
	if (is_unwanted)
		(void)nng_pipe_close(connection);
}

static status *open_socket(struct pipe *pipe)
{
	int rv = nng_pair0_open(&pipe->socket);
	if (rv != 0)
		return nng_errorf(rv, "cannot open a socket");
	pipe->has_socket = true;
	/* Before the endpoint: it takes the limit over when it is made. */
	rv = nng_socket_set_size(pipe->socket, NNG_OPT_RECVMAXSZ,
				 MESSAGE_BYTES + KIND_BYTES + SEAL_TAG_BYTES);
	if (rv == 0)
		rv = nng_socket_set_int(pipe->socket, NNG_OPT_SENDBUF, 0);
	if (rv == 0)
		rv = nng_socket_set_int(pipe->socket, NNG_OPT_RECVBUF, RECEIVE_BUFFER);
	for (int event = NNG_PIPE_EV_ADD_PRE; rv == 0 && event <= NNG_PIPE_EV_REM_POST; event++)
		rv = nng_pipe_notify(pipe->socket, (nng_pipe_ev)event, on_pipe, pipe);
	if (rv == 0)
		rv = nng_aio_alloc(&pipe->receive_aio, NULL, NULL);
	for (unsigned i = 0; rv == 0 && i < SENDS_IN_FLIGHT; i++)
		rv = nng_aio_alloc(&pipe->send_aios[i], NULL, NULL);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot set up a pipe");
}

static status *new_pipe(struct pipe **ret_pipe)
{
	struct pipe *pipe = calloc(1, sizeof(*pipe));
	if (pipe == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a pipe");
	pthread_condattr_t attr;
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&pipe->changed, &attr);
	(void)pthread_condattr_destroy(&attr);
	(void)pthread_mutex_init(&pipe->lock, NULL);
	atomic_init(&pipe->bytes_sent, 0);
	atomic_init(&pipe->bytes_received, 0);
	*ret_pipe = pipe;
	return NULL;
}

/* Checks an address that came from a peer, and makes the seals of our side. */
static status *make_seals(struct pipe *pipe, const Haul__V1__PipeAddress *address)
{
	if (address->pipe_id.len != SEAL_ID_BYTES || address->key_to_listener.len != SEAL_KEY_BYTES ||
	    address->key_to_dialer.len != SEAL_KEY_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the pipe's address has an id or a key of the wrong length");
	memcpy(pipe->pipe_id, address->pipe_id.data, SEAL_ID_BYTES);
	const uint8_t *to_listener = address->key_to_listener.data;
	const uint8_t *to_dialer = address->key_to_dialer.data;
	status *st = seal_new(pipe->is_listener ? to_dialer : to_listener, pipe->pipe_id, true,
			      &pipe->out);
	if (st == NULL)
		st = seal_new(pipe->is_listener ? to_listener : to_dialer, pipe->pipe_id, false,
			      &pipe->in);
	return st;
}

static status *random_bytes(size_t size, ProtobufCBinaryData *ret_data)
{
	uint8_t *data = malloc(size);
	if (data == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a key");
	if (getrandom(data, size, 0) != (ssize_t)size) {
		free(data);
		return status_errorf(STATUS_UNAVAILABLE, "the kernel gives no random numbers");
	}
	*ret_data = (ProtobufCBinaryData){.len = size, .data = data};
	return NULL;
}

static void free_address(Haul__V1__PipeAddress *address)
{
	if (address != NULL)
		haul__v1__pipe_address__free_unpacked(address, NULL);
}
DEFINE_SCOPE(address, Haul__V1__PipeAddress *, free_address);

static status *new_address(Haul__V1__PipeAddress **ret_address)
{
	scoped(address) Haul__V1__PipeAddress *address = malloc(sizeof(*address));
	if (address == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for an address");
	haul__v1__pipe_address__init(address);
	status *st = random_bytes(SEAL_ID_BYTES, &address->pipe_id);
	if (st == NULL)
		st = random_bytes(SEAL_KEY_BYTES, &address->key_to_listener);
	if (st == NULL)
		st = random_bytes(SEAL_KEY_BYTES, &address->key_to_dialer);
	if (st == NULL)
		*ret_address = TAKE(address);
	return st;
}

static int listen_at(struct pipe *pipe, const char *url)
{
	nng_listener listener;
	int rv = nng_listener_create(&listener, pipe->socket, url);
	if (rv != 0)
		return rv;
	rv = strncmp(url, "ipc:", 4) == 0
		     ? nng_listener_set_int(listener, NNG_OPT_IPC_PERMISSIONS, 0600)
		     : nng_listener_set_bool(listener, NNG_OPT_TCP_KEEPALIVE, true);
	if (rv == 0)
		rv = nng_listener_start(listener, 0);
	if (rv != 0)
		(void)nng_listener_close(listener);
	return rv;
}

static status *listen_tcp(struct pipe *pipe, const struct pipe_place *place, char *url, size_t size)
{
	bool is_v6 = strchr(place->host, ':') != NULL;
	for (unsigned port = place->port_low; port <= place->port_high; port++) {
		(void)snprintf(url, size, is_v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", place->host, port);
		int rv = listen_at(pipe, url);
		if (rv == 0)
			return NULL;
		if (rv != NNG_EADDRINUSE)
			return nng_errorf(rv, "cannot listen for a pipe at %s", url);
	}
	return status_errorf(STATUS_RESOURCE_EXHAUSTED,
			     "no port from %u to %u is free for a pipe; widen the range or wait until "
			     "another migration is over",
			     place->port_low, place->port_high);
}

static status *listen_ipc(struct pipe *pipe, const struct pipe_place *place, char *url, size_t size)
{
	char hex[2 * SEAL_ID_BYTES + 1];
	for (size_t i = 0; i < SEAL_ID_BYTES; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", pipe->pipe_id[i]);
	(void)snprintf(url, size, "ipc://%s/pipe-%s.sock", place->directory, hex);
	struct endpoint endpoint;
	status *st = endpoint_parse(url, &endpoint);
	if (st != NULL)
		return st;
	int rv = listen_at(pipe, url);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot listen for a pipe at %s", url);
}

status *pipe_listen(const struct pipe_place *place, struct pipe **ret_pipe,
		    Haul__V1__PipeAddress **ret_address)
{
	char url[LIMIT_URL + 1];
	scoped(pipe) struct pipe *pipe = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	status *st = new_pipe(&pipe);
	if (st != NULL)
		return st;
	pipe->is_listener = true;
	st = new_address(&address);
	if (st == NULL)
		st = make_seals(pipe, address);
	if (st == NULL)
		st = open_socket(pipe);
	if (st == NULL)
		st = place->host != NULL ? listen_tcp(pipe, place, url, sizeof(url))
					 : listen_ipc(pipe, place, url, sizeof(url));
	if (st != NULL)
		return st;
	address->url = text_copy(url);
	*ret_pipe = TAKE(pipe);
	*ret_address = TAKE(address);
	return NULL;
}

/* Why nothing can be sent or received any more, or NULL. Caller holds the lock. */
static status *state_error(const struct pipe *pipe)
{
	if (pipe->is_interrupted)
		return status_errorf(STATUS_CANCELLED, "the pipe was interrupted");
	if (pipe->is_lost)
		return status_errorf(STATUS_UNAVAILABLE, "the pipe was closed by the other side or the "
							 "connection broke, before it was ended in words");
	return NULL;
}

static status *aio_error(struct pipe *pipe, int rv, const char *what)
{
	(void)pthread_mutex_lock(&pipe->lock);
	status *st = state_error(pipe);
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st != NULL)
		return st;
	if (rv == NNG_ETIMEDOUT)
		return status_errorf(STATUS_DEADLINE_EXCEEDED, "%s: the other side did nothing in time",
				     what);
	return nng_errorf(rv, "%s", what);
}

/* Frees what an aio kept because it could not send it. */
static void drop_message(nng_aio *aio)
{
	nng_msg *msg = nng_aio_get_msg(aio);
	nng_aio_set_msg(aio, NULL);
	if (msg != NULL)
		nng_msg_free(msg);
}

/* Waits until the aio of this place is free; what it reports is about its last message. */
static status *await_place(struct pipe *pipe, unsigned place)
{
	nng_aio *aio = pipe->send_aios[place];
	nng_aio_wait(aio);
	int rv = nng_aio_result(aio);
	if (rv == 0)
		return NULL;
	drop_message(aio);
	return aio_error(pipe, rv, "sending into the pipe");
}

/* Puts a sealed message under way. Takes it, also on error. */
static status *start_send(struct pipe *pipe, nng_msg *msg, int64_t timeout_ms)
{
	nng_aio *aio = pipe->send_aios[pipe->next_send];
	status *st = await_place(pipe, pipe->next_send);
	if (st != NULL) {
		nng_msg_free(msg);
		return st;
	}
	size_t size = nng_msg_len(msg);
	(void)pthread_mutex_lock(&pipe->lock);
	st = state_error(pipe);
	if (st == NULL) {
		nng_aio_set_timeout(aio, left_ms(monotonic_ms() + timeout_ms));
		nng_aio_set_msg(aio, msg);
		nng_send_aio(pipe->socket, aio);
	}
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st != NULL) {
		nng_msg_free(msg);
		return st;
	}
	pipe->next_send = (pipe->next_send + 1) % SENDS_IN_FLIGHT;
	atomic_fetch_add(&pipe->bytes_sent, size);
	return NULL;
}

/* Waits until nng has taken everything that is under way. */
static status *drain(struct pipe *pipe)
{
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++) {
		status *st = await_place(pipe, (pipe->next_send + i) % SENDS_IN_FLIGHT);
		if (st != NULL)
			return st;
	}
	return NULL;
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
	nng_msg *msg = NULL;
	if (size > MESSAGE_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "a frame of %zu bytes is over the limit of %d", size, MESSAGE_BYTES);
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
	return start_send(pipe, msg, timeout_ms);
}

status *pipe_send_frame(struct pipe *pipe, struct pipe_out *out, size_t used, int64_t timeout_ms)
{
	if (pipe->send_error != NULL) {
		pipe_out_drop(out);
		return status_copy(pipe->send_error);
	}
	return fail_sending(pipe, send_sealed(pipe, out, used, timeout_ms));
}

status *pipe_send_message(struct pipe *pipe, Haul__V1__FrameKind kind, const ProtobufCMessage *message,
			  int64_t timeout_ms)
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
	Haul__V1__PipeEnd end = HAUL__V1__PIPE_END__INIT;
	end.status = status_to_wire(verdict);
	end.messages = seal_count(pipe->out);
	status *st = pipe_send_message(pipe, HAUL__V1__FRAME_KIND__FRAME_END, &end.base, timeout_ms);
	if (end.status != NULL)
		haul__v1__status__free_unpacked(end.status, NULL);
	return st != NULL ? st : fail_sending(pipe, drain(pipe));
}

/* Receives one message, of whatever connection. NULL message and NULL status: nothing in time. */
static status *receive_raw(struct pipe *pipe, int64_t timeout_ms, nng_msg **ret_msg)
{
	nng_aio *aio = pipe->receive_aio;
	status *st = NULL;
	(void)pthread_mutex_lock(&pipe->lock);
	if (pipe->is_interrupted) {
		st = state_error(pipe);
	} else {
		/* A lost connection may have left messages behind: they are there at once or never. */
		nng_aio_set_timeout(aio, pipe->is_lost ? 0 : left_ms(monotonic_ms() + timeout_ms));
		nng_recv_aio(pipe->socket, aio);
	}
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st != NULL)
		return st;
	nng_aio_wait(aio);
	int rv = nng_aio_result(aio);
	if (rv == 0) {
		*ret_msg = nng_aio_get_msg(aio);
		nng_aio_set_msg(aio, NULL);
		return NULL;
	}
	(void)pthread_mutex_lock(&pipe->lock);
	st = state_error(pipe);
	(void)pthread_mutex_unlock(&pipe->lock);
	if (st == NULL && rv != NNG_ETIMEDOUT && rv != NNG_ECANCELED)
		st = nng_errorf(rv, "receiving from the pipe");
	return st;
}

/* Is this message the HELLO of the right peer? */
static bool is_hello(struct pipe *pipe, nng_msg *msg)
{
	if (nng_msg_len(msg) != KIND_BYTES + SEAL_TAG_BYTES)
		return false;
	status *st = seal_open(pipe->in, nng_msg_body(msg), nng_msg_len(msg));
	bool is_good = st == NULL;
	status_free(st);
	/* Whoever has the key but starts otherwise has spoilt the sequence: its pipe will fail. */
	return is_good && *(const uint8_t *)nng_msg_body(msg) == HAUL__V1__FRAME_KIND__FRAME_HELLO;
}

static void attach(struct pipe *pipe, int connection_id)
{
	(void)pthread_mutex_lock(&pipe->lock);
	pipe->is_attached = true;
	pipe->peer_id = connection_id;
	pipe->is_lost = pipe->candidate_id != connection_id;
	(void)pthread_mutex_unlock(&pipe->lock);
}

static void close_connection(int id)
{
	nng_pipe connection = {.id = (uint32_t)id};
	if (id > 0)
		(void)nng_pipe_close(connection);
}

/* Closes the connection that keeps the place without proving itself. */
static void close_silent_candidate(struct pipe *pipe)
{
	(void)pthread_mutex_lock(&pipe->lock);
	bool is_silent = pipe->candidate_id != 0 && monotonic_ms() - pipe->candidate_ms > HELLO_MS;
	int id = pipe->candidate_id;
	(void)pthread_mutex_unlock(&pipe->lock);
	if (is_silent)
		close_connection(id);
}

/* The sealed HELLO of our side, to be copied as often as it is sent. */
static status *make_hello(struct pipe *pipe, nng_msg **ret_msg)
{
	struct pipe_out out = {0};
	status *st = pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_HELLO, 0, &out);
	if (st == NULL)
		st = seal_close(pipe->out, nng_msg_body(out.message), KIND_BYTES);
	if (st == NULL)
		*ret_msg = TAKE(out.message);
	pipe_out_drop(&out);
	return st;
}

static status *take_hello(struct pipe *pipe, nng_msg *msg, bool *ret_is_attached)
{
	int id = nng_pipe_id(nng_msg_get_pipe(msg));
	*ret_is_attached = is_hello(pipe, msg);
	atomic_fetch_add(&pipe->bytes_received, nng_msg_len(msg));
	nng_msg_free(msg);
	if (*ret_is_attached)
		attach(pipe, id);
	else
		close_connection(id);
	return NULL;
}

status *pipe_accept(struct pipe *pipe, int64_t timeout_ms)
{
	int64_t deadline_ms = monotonic_ms() + timeout_ms;
	bool is_attached = false;
	while (!is_attached) {
		nng_msg *msg = NULL;
		int32_t left = left_ms(deadline_ms);
		if (left == 0)
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "the other side did not connect to the pipe in time; is the "
					     "port open in the firewall?");
		status *st = receive_raw(pipe, left < SLICE_MS ? left : SLICE_MS, &msg);
		if (st == NULL && msg != NULL)
			st = take_hello(pipe, msg, &is_attached);
		if (st != NULL)
			return st;
		close_silent_candidate(pipe);
	}
	nng_msg *hello = NULL;
	status *st = make_hello(pipe, &hello);
	if (st == NULL)
		st = start_send(pipe, hello, left_ms(deadline_ms));
	return fail_sending(pipe, st != NULL ? st : drain(pipe));
}

/* Sends a copy of HELLO to the connection that is there, if it is not the one greeted before. */
static status *greet(struct pipe *pipe, nng_msg *hello, unsigned *greeted)
{
	nng_msg *copy = NULL;
	nng_aio *aio = pipe->send_aios[0];
	if (nng_msg_dup(&copy, hello) != 0)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a frame");
	(void)pthread_mutex_lock(&pipe->lock);
	bool is_due = pipe->candidate_id != 0 && pipe->generation != *greeted &&
		      !nng_aio_busy(aio) && !pipe->is_interrupted;
	if (is_due) {
		*greeted = pipe->generation;
		drop_message(aio);
		nng_aio_set_timeout(aio, NNG_DURATION_INFINITE); /* until the connection goes */
		nng_aio_set_msg(aio, TAKE(copy));
		nng_send_aio(pipe->socket, aio);
	}
	(void)pthread_mutex_unlock(&pipe->lock);
	if (copy != NULL)
		nng_msg_free(copy);
	return NULL;
}

/* Sends HELLO once a connection, until the answer comes. Caller frees the message. */
static status *exchange_hello(struct pipe *pipe, nng_msg *hello, const char *url, int64_t deadline_ms)
{
	unsigned greeted = 0;
	bool is_attached = false;
	while (!is_attached) {
		nng_msg *msg = NULL;
		int32_t left = left_ms(deadline_ms);
		if (left == 0)
			return status_errorf(STATUS_UNAVAILABLE,
					     greeted > 0 ? "nobody at %s answered to the pipe's keys in time"
							 : "cannot connect to the pipe at %s in time; is the "
							   "port open in the firewall?",
					     url);
		status *st = greet(pipe, hello, &greeted);
		if (st == NULL)
			st = receive_raw(pipe, left < DIAL_SLICE_MS ? left : DIAL_SLICE_MS, &msg);
		if (st == NULL && msg != NULL)
			st = take_hello(pipe, msg, &is_attached);
		if (st != NULL)
			return st;
	}
	atomic_fetch_add(&pipe->bytes_sent, nng_msg_len(hello));
	return drain(pipe);
}

static status *start_dialer(struct pipe *pipe, const char *url)
{
	int rv = nng_dialer_create(&pipe->dialer, pipe->socket, url);
	if (rv == 0)
		rv = nng_dialer_set_ms(pipe->dialer, NNG_OPT_RECONNMINT, RECONNECT_MS);
	if (rv == 0)
		rv = nng_dialer_set_ms(pipe->dialer, NNG_OPT_RECONNMAXT, RECONNECT_MS);
	if (rv == 0 && strncmp(url, "tcp:", 4) == 0)
		rv = nng_dialer_set_bool(pipe->dialer, NNG_OPT_TCP_KEEPALIVE, true);
	if (rv == 0)
		rv = nng_dialer_start(pipe->dialer, NNG_FLAG_NONBLOCK);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot connect to the pipe at %s", url);
}

status *pipe_dial(const Haul__V1__PipeAddress *address, int64_t timeout_ms, struct pipe **ret_pipe)
{
	int64_t deadline_ms = monotonic_ms() + timeout_ms;
	scoped(pipe) struct pipe *pipe = NULL;
	struct endpoint endpoint;
	nng_msg *hello = NULL;
	status *st = endpoint_parse(address->url, &endpoint);
	if (st == NULL && endpoint.transport == TRANSPORT_TLS)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "a pipe cannot be at %s", endpoint.url);
	if (st == NULL)
		st = new_pipe(&pipe);
	if (st == NULL)
		st = make_seals(pipe, address);
	if (st == NULL)
		st = open_socket(pipe);
	if (st == NULL)
		st = make_hello(pipe, &hello);
	if (st != NULL)
		return st;
	st = start_dialer(pipe, endpoint.url);
	if (st == NULL)
		st = exchange_hello(pipe, hello, endpoint.url, deadline_ms);
	nng_msg_free(hello);
	if (st != NULL)
		return st;
	/* Losing the connection must not bring another. */
	(void)nng_dialer_set_ms(pipe->dialer, NNG_OPT_RECONNMAXT, NEVER_MS);
	(void)nng_dialer_set_ms(pipe->dialer, NNG_OPT_RECONNMINT, NEVER_MS);
	*ret_pipe = TAKE(pipe);
	return NULL;
}

static status *check_end(const uint8_t *body, size_t size, uint64_t number)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__pipe_end__descriptor, body, size, MESSAGE_BYTES, &message);
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
		return status_errorf(STATUS_DATA_LOSS, "a frame of kind %u has no place here", bytes[0]);
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
	int64_t deadline_ms = monotonic_ms() + timeout_ms;
	for (;;) {
		nng_msg *msg = NULL;
		status *st = receive_raw(pipe, left_ms(deadline_ms), &msg);
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
	close_connection(pipe->peer_id);
	return st;
}

void pipe_in_drop(struct pipe_in *in)
{
	if (in->message != NULL)
		nng_msg_free(in->message);
	*in = (struct pipe_in){0};
}

void pipe_interrupt(struct pipe *pipe)
{
	(void)pthread_mutex_lock(&pipe->lock);
	pipe->is_interrupted = true;
	cancel_sends(pipe);
	nng_aio_cancel(pipe->receive_aio);
	(void)pthread_cond_broadcast(&pipe->changed);
	(void)pthread_mutex_unlock(&pipe->lock);
}

uint64_t pipe_bytes_sent(const struct pipe *pipe)
{
	return atomic_load(&pipe->bytes_sent);
}

uint64_t pipe_bytes_received(const struct pipe *pipe)
{
	return atomic_load(&pipe->bytes_received);
}

static void free_aio(nng_aio *aio)
{
	if (aio == NULL)
		return;
	nng_aio_stop(aio);
	drop_message(aio);
	nng_aio_free(aio);
}

void pipe_free(struct pipe *pipe)
{
	if (pipe == NULL)
		return;
	/* Stopped before the socket closes: an operation in nng could be left hanging otherwise. */
	if (pipe->receive_aio != NULL)
		nng_aio_stop(pipe->receive_aio);
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++)
		if (pipe->send_aios[i] != NULL)
			nng_aio_stop(pipe->send_aios[i]);
	if (pipe->has_socket)
		(void)nng_socket_close(pipe->socket);
	free_aio(pipe->receive_aio);
	for (unsigned i = 0; i < SENDS_IN_FLIGHT; i++)
		free_aio(pipe->send_aios[i]);
	seal_free(pipe->out);
	seal_free(pipe->in);
	status_free(pipe->send_error);
	status_free(pipe->receive_error);
	(void)pthread_cond_destroy(&pipe->changed);
	(void)pthread_mutex_destroy(&pipe->lock);
	free(pipe);
}
