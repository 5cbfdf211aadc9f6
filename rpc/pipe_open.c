/* SPDX-License-Identifier: Apache-2.0 */
/* How a pipe comes up, over an nng PAIR socket.
 *
 * A PAIR takes whoever comes first, tells a sender nothing of what was lost, and gives what is
 * queued to whoever comes next. So nothing but HELLO is sent before the peer has proven itself by
 * its own HELLO; from then on only its connection counts (`peer_id`): others are closed, and when
 * it is gone the pipe is over. Both HELLOs are the same bytes each time they are sent, so that
 * sending one again tells nobody anything. */
#include "proto/clock.h"
#include "rpc/pipe_internal.h"

#include <nng/protocol/pair0/pair.h>
#include <nng/transport/ipc/ipc.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "rpc/handover.h"
#include "rpc/nng_error.h"

enum {
	/* So long may a connection keep the listener's only place without saying HELLO. */
	HELLO_MS = 1000,
	RECONNECT_MS = 50,
	NEVER_MS = 24 * 3600 * 1000,
	SLICE_MS = 100,
	DIAL_SLICE_MS = 10,
	RECEIVE_BUFFER = 4,
	/* So long may a connection that is being made when the dialer gives up take to be made. */
	SETTLE_MS = 500,
};

/* Changes an entry of the present connections; caller holds the lock. */
static bool replace_present(struct pipe *pipe, int from, int to)
{
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		if (pipe->present[i] == from) {
			pipe->present[i] = to;
			return true;
		}
	}
	return false;
}

static bool is_present(struct pipe *pipe, int id)
{
	return replace_present(pipe, id, id);
}

/* Caller holds the lock. */
static bool has_any(const struct pipe *pipe)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (pipe->present[i] != 0)
			return true;
	return false;
}

/* Caller holds the lock. */
static void lose_connection(struct pipe *pipe, int id)
{
	if (!replace_present(pipe, id, 0))
		(void)replace_present(pipe, -id, 0);
	if (pipe->is_attached && pipe->peer_id == id)
		pipe->is_lost = true;
	/* What was not sent must not go to whoever comes next. This comes before nng forgets the
	 * connection and before it takes another. */
	if (!pipe->is_attached || pipe->is_lost)
		pipe_cancel_sends(pipe);
	if (pipe->candidate_id == id)
		pipe->candidate_id = 0;
	if (pipe->is_lost && pipe->receiving != NULL)
		operation_cancel(pipe->receiving);
}

static void on_pipe(nng_pipe connection, nng_pipe_ev event, void *self)
{
	struct pipe *pipe = self;
	int id = nng_pipe_id(connection);
	bool is_unwanted = false;
	(void)pthread_mutex_lock(&pipe->lock);
	if (event == NNG_PIPE_EV_ADD_PRE) {
		is_unwanted = pipe->is_attached || !replace_present(pipe, 0, id);
	} else if (event == NNG_PIPE_EV_ADD_POST) {
		/* A connection may be gone before nng tells, on another thread, that it is there: a
		 * HELLO for it would wait in the socket and be a second one for the next. */
		if (is_present(pipe, id)) {
			pipe->candidate_id = id;
			pipe->candidate_ms = clock_monotonic_ms();
			pipe->generation++;
		}
	} else {
		lose_connection(pipe, id);
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
		rv = operation_new(&pipe->receiving);
	for (unsigned i = 0; rv == 0 && i < SENDS_IN_FLIGHT; i++)
		rv = operation_new(&pipe->sending[i]);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot set up a pipe");
}

static status *new_pipe(struct pipe **ret_pipe)
{
	struct pipe *pipe = calloc(1, sizeof(*pipe));
	if (pipe == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a pipe");
	clock_cond_init(&pipe->changed);
	(void)pthread_mutex_init(&pipe->lock, NULL);
	atomic_init(&pipe->bytes_sent, 0);
	atomic_init(&pipe->bytes_received, 0);
	*ret_pipe = pipe;
	return NULL;
}

/* Checks an address that came from a peer, and makes the seals of our side. */
static status *make_seals(struct pipe *pipe, const Haul__V1__PipeAddress *address)
{
	if (address->pipe_id.len != SEAL_ID_BYTES ||
	    address->key_to_listener.len != SEAL_KEY_BYTES ||
	    address->key_to_dialer.len != SEAL_KEY_BYTES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "the pipe's address has an id or a key of the wrong length");
	memcpy(pipe->pipe_id, address->pipe_id.data, SEAL_ID_BYTES);
	const uint8_t *to_listener = address->key_to_listener.data;
	const uint8_t *to_dialer = address->key_to_dialer.data;
	status *st =
	    seal_new(pipe->is_listener ? to_dialer : to_listener, pipe->pipe_id, true, &pipe->out);
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
	/* From anywhere on: with a thousand open, looking from the first one would take as many
	 * tries. */
	unsigned ports = (unsigned)place->port_high - place->port_low + 1;
	unsigned first = (unsigned)pipe->pipe_id[0] << 8 | pipe->pipe_id[1];
	for (unsigned i = 0; i < ports; i++) {
		unsigned port = place->port_low + (first + i) % ports;
		(void)snprintf(url, size, is_v6 ? "tcp://[%s]:%u" : "tcp://%s:%u", place->host,
			       port);
		int rv = listen_at(pipe, url);
		if (rv == 0)
			return NULL;
		if (rv != NNG_EADDRINUSE)
			return nng_errorf(rv, "cannot listen for a pipe at %s", url);
	}
	return status_errorf(
	    STATUS_RESOURCE_EXHAUSTED,
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

static status *take_socket(struct pipe *pipe, int *fd, char *url, size_t size)
{
	nng_listener listener;
	pipe->is_given = true;
	(void)snprintf(url, size, "socket://");
	int rv = handover_to_nng(pipe->socket, fd, &listener);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot use a socket that was handed over");
}

status *pipe_listen(const struct pipe_place *place, struct pipe **ret_pipe,
		    Haul__V1__PipeAddress **ret_address)
{
	char url[LIMIT_URL + 1];
	scoped(fd) int socket = place->socket > 0 ? place->socket : -1;
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
	if (st == NULL && socket > 0)
		st = take_socket(pipe, &socket, url, sizeof(url));
	else if (st == NULL)
		st = place->host != NULL ? listen_tcp(pipe, place, url, sizeof(url))
					 : listen_ipc(pipe, place, url, sizeof(url));
	if (st != NULL)
		return st;
	address->url = text_copy(url);
	*ret_pipe = TAKE(pipe);
	*ret_address = TAKE(address);
	return NULL;
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

/* Marks a connection that we close: what still comes of it does not count. Caller holds the lock.
 */
static void dismiss(struct pipe *pipe, int id)
{
	(void)replace_present(pipe, id, -id);
	if (pipe->candidate_id == id)
		pipe->candidate_id = 0;
}

/* Closes the connection that keeps the place without proving itself. */
static void close_silent_candidate(struct pipe *pipe)
{
	(void)pthread_mutex_lock(&pipe->lock);
	bool is_silent = !pipe->is_attached && !pipe->is_given && pipe->candidate_id != 0 &&
			 clock_monotonic_ms() - pipe->candidate_ms > HELLO_MS;
	int id = pipe->candidate_id;
	if (is_silent)
		dismiss(pipe, id);
	(void)pthread_mutex_unlock(&pipe->lock);
	if (is_silent)
		pipe_close_connection(id);
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

/* Attaches to the connection of this message if it is the peer's HELLO, closes it if not; takes the
 * message. A listener lets the HELLO of a connection pass that is gone: it is not opened, so that
 * the same one is good again when the dialer, who waits for the answer, comes back. A dialer takes
 * it: the listener has attached to that connection, and what it sent may be in the socket. */
static bool take_hello(struct pipe *pipe, nng_msg *msg)
{
	int id = nng_pipe_id(nng_msg_get_pipe(msg));
	(void)pthread_mutex_lock(&pipe->lock);
	bool is_here = is_present(pipe, id);
	bool is_good = (is_here || !pipe->is_listener) && is_hello(pipe, msg);
	if (is_good) {
		pipe->is_attached = true;
		pipe->peer_id = id;
		pipe->is_lost = !is_here;
	} else {
		dismiss(pipe, id);
	}
	(void)pthread_mutex_unlock(&pipe->lock);
	atomic_fetch_add(&pipe->bytes_received, nng_msg_len(msg));
	nng_msg_free(msg);
	if (!is_good)
		pipe_close_connection(id);
	return is_good;
}

status *pipe_accept(struct pipe *pipe, int64_t timeout_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	bool is_attached = false;
	while (!is_attached) {
		nng_msg *msg = NULL;
		int32_t left = left_ms(deadline_ms);
		if (left == 0)
			return status_errorf(
			    STATUS_DEADLINE_EXCEEDED,
			    "the other side did not connect to the pipe in time; is the "
			    "port open in the firewall?");
		status *st = pipe_receive_raw(pipe, left < SLICE_MS ? left : SLICE_MS, &msg);
		if (st == NULL && msg != NULL)
			is_attached = take_hello(pipe, msg);
		if (st != NULL)
			return st;
		close_silent_candidate(pipe);
	}
	nng_msg *hello = NULL;
	status *st = make_hello(pipe, &hello);
	if (st == NULL)
		st = pipe_start_send(pipe, hello, left_ms(deadline_ms));
	return pipe_fail_sending(pipe, st != NULL ? st : pipe_drain(pipe));
}

/* Sends a copy of HELLO to the connection that is there, if it is not the one greeted before. */
static status *greet(struct pipe *pipe, nng_msg *hello, unsigned *greeted)
{
	nng_msg *copy = NULL;
	struct operation *sending = pipe->sending[0];
	if (nng_msg_dup(&copy, hello) != 0)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a frame");
	(void)pthread_mutex_lock(&pipe->lock);
	bool is_due = pipe->candidate_id != 0 && pipe->generation != *greeted &&
		      !operation_is_running(sending) && !pipe->is_interrupted;
	if (is_due) {
		*greeted = pipe->generation;
		/* Until the connection goes. */
		nng_send_aio(pipe->socket,
			     operation_begin(sending, NNG_DURATION_INFINITE, TAKE(copy)));
	}
	(void)pthread_mutex_unlock(&pipe->lock);
	if (copy != NULL)
		nng_msg_free(copy);
	return NULL;
}

/* Sends HELLO once a connection, until the answer comes. Caller frees the message. */
static status *exchange_hello(struct pipe *pipe, nng_msg *hello, const char *url,
			      int64_t deadline_ms)
{
	unsigned greeted = 0;
	bool is_attached = false;
	while (!is_attached) {
		nng_msg *msg = NULL;
		int32_t left = left_ms(deadline_ms);
		if (left == 0)
			return status_errorf(
			    STATUS_UNAVAILABLE,
			    greeted > 0 ? "nobody at %s answered to the pipe's keys in time"
					: "cannot connect to the pipe at %s in time; is the "
					  "port open in the firewall?",
			    url);
		status *st = greet(pipe, hello, &greeted);
		if (st == NULL)
			st = pipe_receive_raw(pipe, left < DIAL_SLICE_MS ? left : DIAL_SLICE_MS,
					      &msg);
		if (st == NULL && msg != NULL)
			is_attached = take_hello(pipe, msg);
		if (st != NULL)
			return st;
	}
	atomic_fetch_add(&pipe->bytes_sent, nng_msg_len(hello));
	return pipe_drain(pipe);
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

/* Losing the connection must not bring another. */
static void stop_redialing(const struct pipe *pipe)
{
	(void)nng_dialer_set_ms(pipe->dialer, NNG_OPT_RECONNMAXT, NEVER_MS);
	(void)nng_dialer_set_ms(pipe->dialer, NNG_OPT_RECONNMINT, NEVER_MS);
}

/* Before a dialer is closed that has not attached and redials no more: nng 1.10 loses a connection
 * and its descriptor for good that is closed between two steps of its negotiation, and shows it
 * only when it is there (tcptran_ep_close). None is being made while one is there, so that is
 * waited for. */
static void settle(struct pipe *pipe)
{
	int64_t deadline_ms = clock_monotonic_ms() + SETTLE_MS;
	const struct timespec until = clock_at(deadline_ms);
	int rv = 0;
	(void)pthread_mutex_lock(&pipe->lock);
	while (!has_any(pipe) && rv == 0)
		rv = pthread_cond_timedwait(&pipe->changed, &pipe->lock, &until);
	(void)pthread_mutex_unlock(&pipe->lock);
}

/* A pipe that has everything but a connection, and the HELLO for it. */
static status *prepare_to_dial(const Haul__V1__PipeAddress *address, struct pipe **ret_pipe,
			       nng_msg **ret_hello)
{
	scoped(pipe) struct pipe *pipe = NULL;
	status *st = new_pipe(&pipe);
	if (st == NULL)
		st = make_seals(pipe, address);
	if (st == NULL)
		st = open_socket(pipe);
	if (st == NULL)
		st = make_hello(pipe, ret_hello);
	if (st == NULL)
		*ret_pipe = TAKE(pipe);
	return st;
}

status *pipe_dial(const Haul__V1__PipeAddress *address, int64_t timeout_ms, struct pipe **ret_pipe)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	scoped(pipe) struct pipe *pipe = NULL;
	struct endpoint endpoint;
	nng_msg *hello = NULL;
	status *st = endpoint_parse(address->url, &endpoint);
	if (st == NULL && endpoint.transport == TRANSPORT_TLS)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "a pipe cannot be at %s", endpoint.url);
	if (st == NULL)
		st = prepare_to_dial(address, &pipe, &hello);
	if (st != NULL)
		return st;
	st = start_dialer(pipe, endpoint.url);
	if (st == NULL) {
		st = exchange_hello(pipe, hello, endpoint.url, deadline_ms);
		stop_redialing(pipe);
		if (st != NULL)
			settle(pipe);
	}
	nng_msg_free(hello);
	if (st == NULL)
		*ret_pipe = TAKE(pipe);
	return st;
}

status *pipe_dial_socket(const Haul__V1__PipeAddress *address, int fd, int64_t timeout_ms,
			 struct pipe **ret_pipe)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	char url[LIMIT_URL + 1];
	scoped(fd) int socket = fd;
	scoped(pipe) struct pipe *pipe = NULL;
	nng_msg *hello = NULL;
	status *st = prepare_to_dial(address, &pipe, &hello);
	if (st != NULL)
		return st;
	st = take_socket(pipe, &socket, url, sizeof(url));
	if (st == NULL)
		st = exchange_hello(pipe, hello, "the socket that was handed over", deadline_ms);
	nng_msg_free(hello);
	if (st == NULL)
		*ret_pipe = TAKE(pipe);
	return st;
}
