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
#include "proto/envelope.h"
#include "rpc/retry.h"
#include "rpc/stream.h"

/* A migration may be silent for long; a stream's keepalives tell whether its engine is there. */
enum { LOOK_MS = 60000 };

struct follower {
	const struct follow *follow;
	pthread_mutex_t lock; /* of `stream`, which the listener to signals may interrupt */
	struct stream *stream;
	int64_t lost_ms; /* since when nothing new came, for a stream that broke; 0 = it stands */
	unsigned attempts;
	bool was_open;
	int stop; /* eventfd: the listener shall end */
	int signals;
	int leaving; /* eventfd: the user leaves */
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

/* Whatever waits for the engine ends. */
static void leave(struct follower *follower)
{
	const uint64_t one = 1;

	atomic_store(&follower->has_left, true);
	(void)!write(follower->leaving, &one, sizeof(one));
	(void)pthread_mutex_lock(&follower->lock);
	if (follower->stream != NULL)
		stream_interrupt(follower->stream);
	(void)pthread_mutex_unlock(&follower->lock);
	if (follower->follow->ctl->client != NULL)
		rpc_client_interrupt(follower->follow->ctl->client);
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
		leave(follower);
		return NULL;
	}
}

/* Takes the view. */
static void take_view(struct follower *follower, Haul__V1__Migration *view)
{
	if (follower->last == NULL || follower->last->sequence != view->sequence)
		follower->lost_ms = follower->attempts = 0;
	if (follower->last != NULL)
		haul__v1__migration__free_unpacked(follower->last, NULL);
	follower->last = view;
	if (view->state != HAUL__V1__MIGRATION_STATE__IN_DOUBT)
		follower->doubt_since_ms = 0;
	else if (follower->doubt_since_ms == 0)
		follower->doubt_since_ms = ctl_now_ms();
	follower->follow->changed(follower->follow->self, view);
}

static status *receive(struct follower *follower, int64_t timeout_ms)
{
	ProtobufCMessage *view = NULL;
	status *st =
	    stream_receive(follower->stream, &haul__v1__migration__descriptor, timeout_ms, &view);

	if (st != NULL)
		return st;
	if (view != NULL)
		take_view(follower, (Haul__V1__Migration *)view);
	follower->has_ended = view == NULL;
	return NULL;
}

/* What is left of the patience with a doubt. */
static int64_t patience_ms(const struct follower *follower)
{
	int64_t most = follower->follow->doubt_ms;

	if (follower->doubt_since_ms == 0 || most == 0)
		return LOOK_MS;
	int64_t left = follower->doubt_since_ms + most - ctl_now_ms();
	if (left > LOOK_MS)
		return LOOK_MS;
	return left > 0 ? left : 0;
}

static void set_stream(struct follower *follower, struct stream *stream)
{
	(void)pthread_mutex_lock(&follower->lock);
	struct stream *old = follower->stream;
	follower->stream = stream;
	if (stream != NULL && atomic_load(&follower->has_left))
		stream_interrupt(stream);
	(void)pthread_mutex_unlock(&follower->lock);
	stream_free(old);
}

static status *open_stream(struct follower *follower)
{
	Haul__V1__WatchRequest request = HAUL__V1__WATCH_REQUEST__INIT;
	struct ctl *ctl = follower->follow->ctl;
	struct stream *stream = NULL;
	char id[LIMIT_ID + 1];

	(void)snprintf(id, sizeof(id), "%s", follower->follow->id);
	request.id = id;
	request.after_sequence = follower->last != NULL ? follower->last->sequence : 0;
	status *st = ctl_connect(ctl);
	if (st == NULL)
		st = rpc_client_open_stream(ctl->client, &haul__v1__migrations__descriptor, "Watch",
					    &request.base, ctl->timeout_ms, &stream);
	if (st == NULL)
		set_stream(follower, stream);
	follower->was_open |= st == NULL;
	return st;
}

/* Was the watch refused, rather than cut off? */
static bool is_refusal(enum status_code code)
{
	return code == STATUS_NOT_FOUND || code == STATUS_INVALID_ARGUMENT ||
	       code == STATUS_PERMISSION_DENIED || code == STATUS_UNAUTHENTICATED ||
	       code == STATUS_UNIMPLEMENTED;
}

/* The stream broke: it is opened anew, behind what was seen, for as long as a call may take. Takes
 * the status, and returns it when that was long enough, or was no accident. */
static status *try_again(struct follower *follower, status *st)
{
	int64_t pause_ms = retry_backoff_ms(++follower->attempts);

	set_stream(follower, NULL);
	if (follower->lost_ms == 0)
		follower->lost_ms = ctl_now_ms();
	if (!follower->was_open || is_refusal(status_code_of(st)) ||
	    ctl_now_ms() + pause_ms - follower->lost_ms > follower->follow->ctl->timeout_ms)
		return st;
	status_free(st);
	/* A signal ends the pause, too: it makes the event readable. */
	struct pollfd left = {.fd = follower->leaving, .events = POLLIN};
	(void)poll(&left, 1, (int)pause_ms);
	return NULL;
}

static status *receive_all(struct follower *follower)
{
	status *st = NULL;

	while (st == NULL && !follower->has_ended && !atomic_load(&follower->has_left)) {
		int64_t patience = patience_ms(follower);
		if (patience == 0)
			return NULL;
		st = follower->stream == NULL ? open_stream(follower) : receive(follower, patience);
		if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED && follower->stream != NULL) {
			status_free(st);
			st = NULL;
		}
		if (st != NULL && !atomic_load(&follower->has_left))
			st = try_again(follower, st);
	}
	if (!atomic_load(&follower->has_left))
		return st;
	status_free(st);
	return NULL;
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
	scoped(fd) int leaving = eventfd(0, EFD_CLOEXEC);
	if (signals < 0 || stop < 0 || leaving < 0)
		return status_errnof(errno, "cannot listen to signals");
	follower->signals = signals;
	follower->stop = stop;
	follower->leaving = leaving;
	int failed = pthread_create(&listener, NULL, listen_to_signals, follower);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	status *st = receive_all(follower);
	(void)!write(stop, &one, sizeof(one));
	(void)pthread_join(listener, NULL);
	return st;
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
	struct follower follower = {.follow = follow, .stop = -1, .signals = -1, .leaving = -1};

	(void)pthread_mutex_init(&follower.lock, NULL);
	status *st = receive_and_listen(&follower);
	set_stream(&follower, NULL);
	(void)pthread_mutex_destroy(&follower.lock);
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
