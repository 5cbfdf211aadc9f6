/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl criu-lease: CRIU of another node, at a socket that the caller brings. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"
#include "haul/v1/criu.pb-c.h"
#include "proto/json.h"
#include "proto/schema.h"
#include "rpc/stream.h"

enum { LOOK_MS = 60000, SEND_MS = 30000, END_MS = 2000 };

/* Both directions: the caller's messages have a thread of their own. */
struct relay {
	int fd;
	struct schema *schema;
	struct stream *stream;
	uint8_t *message;
	status *failed;
	bool has_left; /* the caller; read when the thread has ended */
};

static status *make_request(const struct ctl *ctl, const struct schema *schema,
			    ProtobufCMessage **ret_request)
{
	const char *text = ctl->data != NULL ? ctl->data : "{}";
	scoped(json) cJSON *json = NULL;
	status *st = json_parse(text, strlen(text), &json);

	if (st == NULL)
		st = json_to_message(schema, &haul__v1__lease_request__descriptor, json,
				     ret_request);
	if (st == NULL && ((const Haul__V1__LeaseRequest *)*ret_request)->socket)
		st = status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "with a socket of hauld's nothing is to be passed on: use haulctl call");
	return st != NULL ? status_wrapf(st, "-d") : NULL;
}

static status *check_socket(uint32_t number)
{
	int type = 0;
	socklen_t size = sizeof(type);

	if (number <= STDERR_FILENO)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--fd-rpc: a descriptor that is open for haulctl, from 3 on");
	if (getsockopt((int)number, SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
	    type != SOCK_SEQPACKET)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--fd-rpc %u: not a unix socket of type SEQPACKET", number);
	return NULL;
}

/* Until the caller shuts its end, or the lease ends. */
static status *pass_requests(struct relay *relay)
{
	for (;;) {
		Haul__V1__LeaseInput input = HAUL__V1__LEASE_INPUT__INIT;
		ssize_t got = recv(relay->fd, relay->message, LIMIT_CRIU_MESSAGE, MSG_TRUNC);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return NULL;
		if (got > LIMIT_CRIU_MESSAGE)
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "a message of %zd bytes for CRIU, at most %d may be",
					     got, LIMIT_CRIU_MESSAGE);
		input.message.data = relay->message;
		input.message.len = (size_t)got;
		status *st = stream_send(relay->stream, &input.base, SEND_MS);
		if (st != NULL)
			return st;
	}
}

static void *run_requests(void *self)
{
	struct relay *relay = self;

	relay->failed = pass_requests(relay);
	relay->has_left = relay->failed == NULL;
	/* No half-close: at pre-resume CRIU would take that for consent. */
	stream_stop(relay->stream);
	return NULL;
}

static status *pass_event(const struct relay *relay, const Haul__V1__LeaseEvent *event)
{
	cJSON *json = NULL;

	if (event->message.len > 0) {
		ssize_t sent =
		    send(relay->fd, event->message.data, event->message.len, MSG_NOSIGNAL);
		return sent >= 0 || errno == EPIPE || errno == ECONNRESET
			   ? NULL /* who has left may still want the lease to finish */
			   : status_errnof(errno, "--fd-rpc: cannot pass CRIU's message on");
	}
	status *st = json_of_message(relay->schema, &event->base, false, &json);
	if (st == NULL)
		json_print(stdout, json, true);
	return st;
}

static status *pass_events(const struct relay *relay)
{
	for (;;) {
		scoped(message) ProtobufCMessage *event = NULL;
		status *st = stream_receive(relay->stream, &haul__v1__lease_event__descriptor,
					    LOOK_MS, &event);
		if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED) {
			status_free(st); /* keepalives tell that the engine is there */
			continue;
		}
		if (st == NULL && event != NULL)
			st = pass_event(relay, (const Haul__V1__LeaseEvent *)event);
		if (st != NULL || event == NULL)
			return st;
	}
}

static status *pass_all(struct relay *relay)
{
	pthread_t thread;
	int failed = pthread_create(&thread, NULL, run_requests, relay);

	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	status *st = pass_events(relay);
	(void)shutdown(relay->fd, SHUT_RDWR); /* its caller sees the end, and so does our thread */
	(void)pthread_join(thread, NULL);
	if (relay->failed == NULL && !(relay->has_left && status_code_of(st) == STATUS_CANCELLED))
		return st;
	scoped(status) status *ends = st; /* by us */
	stream_end(relay->stream, ends, END_MS);
	return TAKE(relay->failed);
}

static status *open_lease(struct ctl *ctl, const ProtobufCMessage *request,
			  struct stream **ret_stream)
{
	scoped(message) ProtobufCMessage *response = NULL;
	struct pipe *pipe = NULL;
	status *st = ctl_call(ctl, &haul__v1__criu__descriptor, "Lease", request, &response);

	if (st != NULL)
		return st;
	const Haul__V1__LeaseResponse *lease = (const Haul__V1__LeaseResponse *)response;
	if (lease->pipe == NULL)
		return status_errorf(STATUS_INTERNAL, "the engine's answer names no pipe");
	st = pipe_dial(lease->pipe, ctl->timeout_ms, &pipe);
	return st == NULL ? stream_new(pipe, false, NULL, ret_stream) : st;
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	scoped(schema) struct schema *schema = NULL;
	scoped(message) ProtobufCMessage *request = NULL;
	scoped(stream) struct stream *stream = NULL;
	scoped(bytes) uint8_t *message = malloc(LIMIT_CRIU_MESSAGE);

	(void)ret_exit;
	status *st = message == NULL ? status_errnof(ENOMEM, "lease") : check_socket(ctl->fd_rpc);
	if (st == NULL)
		st = schema_load_own(&schema);
	if (st == NULL)
		st = make_request(ctl, schema, &request);
	if (st == NULL)
		st = open_lease(ctl, request, &stream);
	if (st != NULL)
		return st;
	struct relay relay = {.fd = (int)ctl->fd_rpc,
			      .schema = schema,
			      .stream = stream,
			      .message = message};
	return pass_all(&relay);
}

static const struct flag flags[] = {
    {"--fd-rpc", "N", FLAG_NUMBER, CTL_FLAG(fd_rpc),
     "descriptor of the caller's unix SEQPACKET socket, on which it talks to CRIU"},
    {"-d", "JSON", FLAG_TEXT, CTL_FLAG(data),
     "the LeaseRequest: {\"memoryFrom\": true}, {\"memoryTo\": …} (default: {})"},
};

const struct command command_criu_lease = {
    .name = "criu-lease",
    .arguments = "--fd-rpc N",
    .summary = "lend CRIU of a node to a program that speaks its RPC",
    .text =
	"Leases a CRIU from the engine (haul.v1.Criu/Lease) and passes CRIU's messages on between "
	"it and\n"
	"the socket N, unread, until the caller shuts that: then the lease ends, and CRIU with "
	"it. What else\n"
	"there is to tell of the lease (the offer, rounds of memory, CRIU's end) is printed, one "
	"object a line.\n"
	"Nothing of it is a migration of haul's: that one copy runs is the caller's business.\n\n"
	"example, with socket 3 of the program that starts it:\n"
	"  haulctl --server tls+tcp://b:7777 … criu-lease --fd-rpc 3 -d '{\"memoryFrom\": true}'\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .run = run,
};
