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
#include "proto/clock.h"
#include "proto/envelope.h"

/* A migration may be silent for long: libhaul tells when its engine is lost. */
enum { LOOK_MS = 60000 };

struct follower {
	const struct follow *follow;
	struct haul_watch *watch; /* may be stopped by the listener to signals */
	int stop;		  /* eventfd: the listener shall end */
	int signals;
	atomic_bool has_left;
	int64_t doubt_since_ms; /* 0 = not in doubt */
	bool has_ended;
	Haul__V1__Migration *last;
};

static void cancel(struct follower *follower)
{
	struct ctl *ctl = follower->follow->ctl;

	follower->follow->say(follower->follow->self,
			      "cancelling; press Ctrl-C again to leave it to itself");
	scoped(status) status *st =
	    ctl_failed(ctl, haul_cancel(ctl->client, follower->follow->id, NULL));
	if (st != NULL)
		follower->follow->say(follower->follow->self, status_message(st));
}

/* Whatever waits for the engine ends. */
static void leave(struct follower *follower)
{
	atomic_store(&follower->has_left, true);
	haul_watch_stop(follower->watch);
	haul_interrupt(follower->follow->ctl->client);
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
	if (follower->last != NULL)
		haul__v1__migration__free_unpacked(follower->last, NULL);
	follower->last = view;
	if (view->state != HAUL__V1__MIGRATION_STATE__IN_DOUBT)
		follower->doubt_since_ms = 0;
	else if (follower->doubt_since_ms == 0)
		follower->doubt_since_ms = clock_monotonic_ms();
	follower->follow->changed(follower->follow->self, view);
}

static status *receive(struct follower *follower, int64_t timeout_ms)
{
	struct haul_migration *view = NULL;
	Haul__V1__Migration *migration = NULL;
	status *st = ctl_status(haul_watch_next(follower->watch, timeout_ms, &view));

	if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED) {
		status_free(st); /* nothing new */
		return NULL;
	}
	follower->has_ended = st == NULL && view == NULL;
	if (st == NULL)
		st = ctl_migration(view, &migration);
	if (st == NULL && migration != NULL)
		take_view(follower, migration);
	return st;
}

/* What is left of the patience with a doubt. */
static int64_t patience_ms(const struct follower *follower)
{
	int64_t most = follower->follow->doubt_ms;

	if (follower->doubt_since_ms == 0 || most == 0)
		return LOOK_MS;
	int64_t left = follower->doubt_since_ms + most - clock_monotonic_ms();
	if (left > LOOK_MS)
		return LOOK_MS;
	return left > 0 ? left : 0;
}

static status *receive_all(struct follower *follower)
{
	status *st = NULL;

	while (st == NULL && !follower->has_ended && !atomic_load(&follower->has_left)) {
		int64_t patience = patience_ms(follower);
		if (patience == 0)
			return NULL;
		st = receive(follower, patience);
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

static status *lost(status *st, const char *id)
{
	enum status_code code = status_code_of(st);

	if (code == STATUS_NOT_FOUND || code == STATUS_INVALID_ARGUMENT ||
	    code == STATUS_PERMISSION_DENIED || code == STATUS_UNAUTHENTICATED ||
	    code == STATUS_UNIMPLEMENTED)
		return st; /* refused, rather than cut off */
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

	status *st = ctl_connect(follow->ctl);
	if (st == NULL)
		st = ctl_status(
		    haul_watch_open(follow->ctl->client, follow->id, 0, &follower.watch));
	if (st != NULL)
		return st;
	st = receive_and_listen(&follower);
	haul_watch_close(follower.watch);
	if (st != NULL) {
		if (follower.last != NULL)
			haul__v1__migration__free_unpacked(follower.last, NULL);
		return lost(st, follow->id);
	}
	*ret_last = follower.last;
	*ret_left = atomic_load(&follower.has_left);
	return NULL;
}
