/* SPDX-License-Identifier: Apache-2.0 */
/* What is said to a leased CRIU. Over its unix socket it has the caller's own connection: nothing
 * is between them, so that descriptors pass, and CRIU finds the caller's credentials and
 * directories. In the stream each message is passed on as it is. */
#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "engine/relay/lease_internal.h"

enum { TOKEN_BYTES = 16, BACKLOG = 4, RECEIVE_MS = 60 * 60 * 1000 };

/* --- the socket --- */

status *lease_open_socket(struct lease *lease, int *ret_fd, char *ret_path, size_t size)
{
	unsigned char token[TOKEN_BYTES];
	char hex[2 * TOKEN_BYTES + 1];
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (RAND_bytes(token, sizeof(token)) != 1)
		return status_errorf(STATUS_INTERNAL, "no random numbers to be had");
	for (size_t i = 0; i < sizeof(token); i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", token[i]);
	int length = snprintf(address.sun_path, sizeof(address.sun_path), "%s/criu-%s.sock",
			      lease->core->config.local_dir, hex);
	if (length < 0 || (size_t)length >= sizeof(address.sun_path))
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "the directory %s is too long a name for a socket in there",
				     lease->core->config.local_dir);
	scoped(fd) int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	/* Its mode is that of the file. */
	if (listener < 0 || fchmod(listener, 0600) != 0 ||
	    bind(listener, (const struct sockaddr *)&address, sizeof(address)) != 0)
		return status_errnof(errno, "cannot make the socket %s", address.sun_path);
	if (listen(listener, BACKLOG) != 0)
		return status_errnof(errno, "cannot listen at %s", address.sun_path);
	(void)snprintf(ret_path, size, "%s", address.sun_path);
	*ret_fd = TAKE_FD(listener);
	return NULL;
}

static bool is_root(int connection)
{
	struct ucred who;
	socklen_t size = sizeof(who);

	return getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == 0;
}

/* The descriptors that came with the first message, which stays there for CRIU: they must be in
 * place when it starts. Returns how many, -1 when the caller has left. */
static int peek_descriptors(int connection, int fds[LEASE_FDS_MOST])
{
	char first;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * LEASE_FDS_MOST)];
	} control;
	struct iovec content = {&first, 1};
	struct msghdr message = {.msg_iov = &content,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};

	if (recvmsg(connection, &message, MSG_PEEK | MSG_CMSG_CLOEXEC) <= 0)
		return -1;
	const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return 0;
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(fds, CMSG_DATA(header), count * sizeof(int));
	return (int)count;
}

/* One connection from its first message to its CRIU's end. */
static status *serve_connection(struct lease *lease, int connection)
{
	struct pollfd said = {.fd = connection, .events = POLLIN};
	int extra[LEASE_FDS_MOST];

	if (!is_root(connection) || !lease_wait(lease, &said, 1))
		return NULL;
	int count = peek_descriptors(connection, extra);
	if (count < 0)
		return NULL;
	status *st = lease_start_criu(lease, connection, extra, (size_t)count);
	for (int i = 0; i < count; i++)
		(void)close(extra[i]);
	return st;
}

static status *ended(void)
{
	return status_errorf(STATUS_CANCELLED, "nobody holds the lease any more");
}

status *lease_serve_socket(struct lease *lease, int listener)
{
	for (;;) {
		struct pollfd calls = {.fd = listener, .events = POLLIN};
		if (!lease_wait(lease, &calls, 1))
			return ended();
		int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (connection < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (connection < 0)
			return status_errnof(errno, "cannot accept who wants to talk to CRIU");
		status *st = serve_connection(lease, connection);
		/* CRIU has it: when it ends, the caller sees the end. */
		(void)close(connection);
		if (st != NULL)
			return st;
		struct pollfd dies = {.fd = lease->criu.pidfd, .events = POLLIN};
		if (lease->criu.pid == 0)
			continue;
		if (!lease_wait(lease, &dies, 1))
			return ended();
		st = lease_end_criu(lease);
		if (st != NULL)
			return st;
	}
}

/* --- the stream --- */

/* A CRIU whose answers a thread of its own passes on. */
struct relay {
	struct lease *lease;
	int rpc; /* our end */
	pthread_t thread;
	bool has_thread;
	atomic_bool is_over; /* its CRIU has ended */
	uint8_t *message;
	status *failed;
};

static status *pass_answer(struct relay *relay, bool *ret_over)
{
	Haul__V1__LeaseEvent event = HAUL__V1__LEASE_EVENT__INIT;
	ssize_t got =
	    recv(relay->rpc, relay->message, LIMIT_CRIU_MESSAGE, MSG_DONTWAIT | MSG_TRUNC);

	if (got <= 0) {
		/* Its socket may be held open by what it left behind: its own end counts. */
		*ret_over = got == 0 || errno != EAGAIN;
		return NULL;
	}
	if (got > LIMIT_CRIU_MESSAGE)
		return status_errorf(STATUS_DATA_LOSS, "CRIU sent a message of %zd bytes", got);
	event.message.data = relay->message;
	event.message.len = (size_t)got;
	return lease_tell(relay->lease, &event);
}

static void *pass_answers(void *self)
{
	struct relay *relay = self;
	bool is_over = false;
	status *st = NULL;

	while (st == NULL && !is_over) {
		struct pollfd fds[] = {{.fd = relay->rpc, .events = POLLIN},
				       {.fd = relay->lease->criu.pidfd, .events = POLLIN}};
		if (!lease_wait(relay->lease, fds, array_len(fds)))
			return NULL;
		if (fds[0].revents != 0)
			st = pass_answer(relay, &is_over);
		else
			is_over = fds[1].revents != 0;
	}
	/* Before it is told: what comes then is for another CRIU. */
	atomic_store(&relay->is_over, true);
	if (st == NULL)
		st = lease_end_criu(relay->lease);
	if (st != NULL)
		stream_stop(relay->lease->stream); /* the handler waits there */
	relay->failed = st;
	return NULL;
}

static status *start(struct relay *relay)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return status_errnof(errno, "cannot make a socket for CRIU");
	/* It holds our end, too, and does not notice when that ends: at pre-resume CRIU takes that
	 * for consent, and would let the tree run. */
	status *st = lease_start_criu(relay->lease, pair[1], &pair[0], 1);
	(void)close(pair[1]);
	relay->rpc = pair[0];
	if (st != NULL)
		return st;
	atomic_store(&relay->is_over, false);
	int failed = pthread_create(&relay->thread, NULL, pass_answers, relay);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	relay->has_thread = true;
	return NULL;
}

static status *join(struct relay *relay)
{
	if (relay->has_thread)
		(void)pthread_join(relay->thread, NULL);
	relay->has_thread = false;
	close_if_open(TAKE_FD(relay->rpc));
	return TAKE(relay->failed);
}

static status *pass_request(struct relay *relay, const ProtobufCBinaryData *message)
{
	status *st = NULL;

	if (message->len == 0 || message->len > LIMIT_CRIU_MESSAGE)
		return status_errorf(STATUS_INVALID_ARGUMENT, "a message of %zu bytes for CRIU",
				     message->len);
	if (relay->has_thread && atomic_load(&relay->is_over))
		st = join(relay);
	if (st == NULL && !relay->has_thread)
		st = start(relay);
	if (st != NULL)
		return st;
	/* CRIU reads each request before the next is due: a full queue is a caller's mistake. */
	ssize_t sent = send(relay->rpc, message->data, message->len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent == (ssize_t)message->len || (sent < 0 && errno != EAGAIN && errno != EMSGSIZE))
		return NULL; /* or CRIU has ended, which its own thread tells */
	return status_errorf(STATUS_RESOURCE_EXHAUSTED, "CRIU does not take a message of %zu bytes",
			     message->len);
}

static status *pass_requests(struct relay *relay)
{
	struct lease *lease = relay->lease;

	for (;;) {
		scoped(message) ProtobufCMessage *message = NULL;
		status *st = stream_receive(lease->stream, &haul__v1__lease_input__descriptor,
					    RECEIVE_MS, &message);
		if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED) {
			status_free(st); /* keepalives tell that the caller lives */
			continue;
		}
		if (st != NULL || message == NULL)
			return st;
		st = pass_request(relay, &((const Haul__V1__LeaseInput *)message)->message);
		if (st != NULL)
			return st;
	}
}

status *lease_serve_stream(struct lease *lease)
{
	struct relay relay = {.lease = lease, .rpc = -1, .message = malloc(LIMIT_CRIU_MESSAGE)};
	status *st = relay.message == NULL ? status_errnof(ENOMEM, "lease") : pass_requests(&relay);

	/* Half-closed: what is being done may be finished, and its answers read. */
	if (st == NULL && relay.has_thread)
		(void)shutdown(relay.rpc, SHUT_WR);
	else if (st != NULL)
		lease_end(lease);
	scoped(status) status *failed = join(&relay);
	free(relay.message);
	if (failed == NULL)
		return st;
	status_free(st);
	return TAKE(failed);
}
