/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/follow.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include "cmd/haulctl/render.h"
#include "haul/v1/pipe.pb-c.h"
#include "proto/envelope.h"
#include "rpc/pipe.h"

/* An engine says something every second, also when nothing changes. */
enum { SILENCE_MS = 30000 };

struct follower {
	const struct follow *follow;
	struct pipe *pipe;
	int stop; /* eventfd: the listener shall end */
	int signals;
	atomic_bool has_left;
	int64_t doubt_since_ms; /* 0 = not in doubt */
	bool has_ended;
	Haul__V1__Migration *last;
};

static void cancel(struct follower *follower)
{
	Haul__V1__CancelRequest request = HAUL__V1__CANCEL_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	char id[LIMIT_ID + 1];

	follower->follow->say(follower->follow->self,
			      "cancelling; press Ctrl-C again to leave it to itself");
	(void)snprintf(id, sizeof(id), "%s", follower->follow->id);
	request.id = id;
	scoped(status) status *st =
	    ctl_call(follower->follow->ctl, &haul__v1__migrations__descriptor, "Cancel",
		     &request.base, &response);
	if (st != NULL)
		follower->follow->say(follower->follow->self, status_message(st));
}

static void *listen_to_signals(void *self)
{
	struct follower *follower = self;
	struct pollfd fds[2] = {{.fd = follower->stop, .events = POLLIN},
				{.fd = follower->signals, .events = POLLIN}};
	bool may_cancel = follower->follow->cancels;

	for (;;) {
		struct signalfd_siginfo info;
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[0].revents != 0)
			return NULL;
		if (fds[1].revents == 0 ||
		    read(follower->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
			continue;
		if (may_cancel) {
			may_cancel = false;
			cancel(follower);
			continue;
		}
		atomic_store(&follower->has_left, true);
		pipe_interrupt(follower->pipe);
		return NULL;
	}
}

static status *take_event(struct follower *follower, const struct pipe_in *in)
{
	ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__migration__descriptor, in->body, in->size,
				    LIMIT_UNARY_BYTES, &message);

	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	if (follower->last != NULL)
		haul__v1__migration__free_unpacked(follower->last, NULL);
	follower->last = (Haul__V1__Migration *)message;
	if (follower->last->state != HAUL__V1__MIGRATION_STATE__IN_DOUBT)
		follower->doubt_since_ms = 0;
	else if (follower->doubt_since_ms == 0)
		follower->doubt_since_ms = ctl_now_ms();
	follower->follow->changed(follower->follow->self, follower->last);
	return NULL;
}

static status *take_end(struct follower *follower, const struct pipe_in *in)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__pipe_end__descriptor, in->body, in->size,
				    LIMIT_UNARY_BYTES, &message);

	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	follower->has_ended = true;
	return status_from_wire(((const Haul__V1__PipeEnd *)message)->status);
}

static status *receive(struct follower *follower, int64_t timeout_ms)
{
	struct pipe_in in = {0};
	status *st = pipe_receive(follower->pipe, timeout_ms, &in);

	if (st != NULL)
		return st;
	if (in.kind == HAUL__V1__FRAME_KIND__FRAME_EVENT)
		st = take_event(follower, &in);
	else if (in.kind == HAUL__V1__FRAME_KIND__FRAME_END)
		st = take_end(follower, &in);
	pipe_in_drop(&in);
	return st;
}

/* What is left of the patience with a doubt. */
static int64_t patience_ms(const struct follower *follower)
{
	int64_t most = follower->follow->doubt_ms;

	if (follower->doubt_since_ms == 0 || most == 0)
		return SILENCE_MS;
	int64_t left = follower->doubt_since_ms + most - ctl_now_ms();
	if (left > SILENCE_MS)
		return SILENCE_MS;
	return left > 0 ? left : 0;
}

static status *receive_all(struct follower *follower)
{
	while (!follower->has_ended && !atomic_load(&follower->has_left)) {
		int64_t patience = patience_ms(follower);
		if (patience == 0)
			return NULL;
		status *st = receive(follower, patience);
		if (atomic_load(&follower->has_left)) {
			status_free(st);
			return NULL;
		}
		if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED && patience < SILENCE_MS) {
			status_free(st);
			continue;
		}
		if (st != NULL)
			return st;
	}
	return NULL;
}

static status *open_stream(struct follower *follower)
{
	Haul__V1__WatchRequest request = HAUL__V1__WATCH_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	char id[LIMIT_ID + 1];

	(void)snprintf(id, sizeof(id), "%s", follower->follow->id);
	request.id = id;
	status *st = ctl_call(follower->follow->ctl, &haul__v1__migrations__descriptor, "Watch",
			      &request.base, &response);
	if (st != NULL)
		return st;
	const Haul__V1__WatchResponse *answer = (const Haul__V1__WatchResponse *)response;
	if (answer->pipe == NULL)
		return status_errorf(STATUS_INTERNAL, "the engine's answer to Watch names no pipe");
	return pipe_dial(answer->pipe, follower->follow->ctl->timeout_ms, &follower->pipe);
}

/* The thread is the only reader of the signals; it ends by the event. */
static status *receive_and_listen(struct follower *follower)
{
	pthread_t listener;
	sigset_t set;
	const uint64_t one = 1;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGTERM);
	scoped(fd) int signals = signalfd(-1, &set, SFD_CLOEXEC);
	scoped(fd) int stop = eventfd(0, EFD_CLOEXEC);
	if (signals < 0 || stop < 0)
		return status_errnof(errno, "cannot listen to signals");
	follower->signals = signals;
	follower->stop = stop;
	int failed = pthread_create(&listener, NULL, listen_to_signals, follower);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	status *st = receive_all(follower);
	(void)!write(stop, &one, sizeof(one));
	(void)pthread_join(listener, NULL);
	return st;
}

/* Was the watch refused, rather than cut off? */
static bool is_refusal(enum status_code code)
{
	return code == STATUS_NOT_FOUND || code == STATUS_INVALID_ARGUMENT ||
	       code == STATUS_PERMISSION_DENIED || code == STATUS_UNAUTHENTICATED;
}

static status *lost(status *st, const char *id)
{
	enum status_code code = status_code_of(st);

	if (is_refusal(code))
		return st;
	if (code == STATUS_DEADLINE_EXCEEDED || code == STATUS_CANCELLED ||
	    code == STATUS_DATA_LOSS)
		st = status_recode(st, STATUS_UNAVAILABLE);
	st = status_wrapf(st, "lost sight of migration %s", id);
	if (status_code_of(st) == STATUS_UNAVAILABLE)
		st = status_detailf(st, "state",
				    "the migration goes on without us, or is taken up again when "
				    "its engine is back");
	return status_detailf(st, "next", "haulctl show %s", id);
}

status *follow_migration(const struct follow *follow, Haul__V1__Migration **ret_last,
			 bool *ret_left)
{
	struct follower follower = {.follow = follow, .stop = -1, .signals = -1};
	status *st = open_stream(&follower);

	if (st == NULL)
		st = receive_and_listen(&follower);
	if (follower.pipe != NULL)
		pipe_free(follower.pipe);
	if (st == NULL && follower.last == NULL && !atomic_load(&follower.has_left))
		st = status_errorf(STATUS_UNAVAILABLE,
				   "the engine ended the watch before it said anything");
	if (st == NULL && follower.has_ended && follower.last != NULL &&
	    follower.last->state == HAUL__V1__MIGRATION_STATE__RUNNING)
		st = status_errorf(STATUS_UNAVAILABLE, "the engine ended the watch early");
	if (st != NULL) {
		if (follower.last != NULL)
			haul__v1__migration__free_unpacked(follower.last, NULL);
		return lost(st, follow->id);
	}
	*ret_last = follower.last;
	*ret_left = atomic_load(&follower.has_left);
	return NULL;
}
