/* SPDX-License-Identifier: Apache-2.0 */
/* Follows one migration over a stream that may break: it is opened anew, behind what was seen. */
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "proto/clock.h"
#include "proto/envelope.h"
#include "rpc/libhaul/internal.h"
#include "rpc/retry.h"
#include "rpc/stream.h"

/* A migration may be silent for long; a stream's keepalives tell whether its engine is there. */
enum { LOOK_MS = 60000 };

struct haul_watch {
	struct haul_client *client;
	char *id;
	uint64_t sequence; /* of what was seen last */
	bool has_seen;
	int state;	 /* of what was seen last */
	int64_t lost_ms; /* since when nothing new came, for a stream that broke; 0 = it stands */
	unsigned attempts;
	bool was_open, has_ended;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t stopped;
	struct stream *stream;
	bool is_stopped;
};

struct haul_error *haul_watch_open(struct haul_client *client, const char *id,
				   uint64_t after_sequence, struct haul_watch **ret_watch)
{
	scoped(str) char *copy = NULL;
	status *st = id_read(id, &copy);

	if (st != NULL)
		return give_error(st);
	struct haul_watch *watch = calloc(1, sizeof(*watch));
	if (watch == NULL)
		return give_error(status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory"));
	watch->client = client;
	watch->id = TAKE(copy);
	watch->sequence = after_sequence;
	clock_cond_init(&watch->stopped);
	(void)pthread_mutex_init(&watch->lock, NULL);
	*ret_watch = watch;
	return NULL;
}

static bool is_stopped(struct haul_watch *watch)
{
	(void)pthread_mutex_lock(&watch->lock);
	bool is = watch->is_stopped;
	(void)pthread_mutex_unlock(&watch->lock);
	return is;
}

static void set_stream(struct haul_watch *watch, struct stream *stream)
{
	(void)pthread_mutex_lock(&watch->lock);
	struct stream *old = watch->stream;
	watch->stream = stream;
	if (stream != NULL && watch->is_stopped)
		stream_interrupt(stream);
	(void)pthread_mutex_unlock(&watch->lock);
	stream_free(old);
}

static status *open_stream(struct haul_watch *watch)
{
	Haul__V1__WatchRequest request = HAUL__V1__WATCH_REQUEST__INIT;
	struct haul_client *client = watch->client;
	struct stream *stream = NULL;
	sigset_t all, before;

	request.id = watch->id;
	request.after_sequence = watch->sequence;
	/* A stream has threads, and those must not take the program's signals. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	status *st = rpc_client_open_stream(client->rpc, &haul__v1__migrations__descriptor, "Watch",
					    &request.base, client->timeout_ms, &stream);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (st == NULL)
		set_stream(watch, stream);
	watch->was_open |= st == NULL;
	return st;
}

/* Was the watch refused or interrupted, rather than cut off? */
static bool is_final(const struct haul_watch *watch, enum status_code code)
{
	return code == STATUS_NOT_FOUND || code == STATUS_INVALID_ARGUMENT ||
	       code == STATUS_PERMISSION_DENIED || code == STATUS_UNAUTHENTICATED ||
	       code == STATUS_UNIMPLEMENTED || !watch->was_open;
}

/* Until then, or until the watch is stopped. */
static void pause_until(struct haul_watch *watch, int64_t until_ms)
{
	const struct timespec until = clock_at(until_ms);

	(void)pthread_mutex_lock(&watch->lock);
	while (!watch->is_stopped &&
	       pthread_cond_timedwait(&watch->stopped, &watch->lock, &until) == 0)
		;
	(void)pthread_mutex_unlock(&watch->lock);
}

/* The stream broke: it is opened anew for as long as a call may take. Takes the status, and returns
 * it when that was long enough, or was no accident. */
static status *try_again(struct haul_watch *watch, status *st)
{
	int64_t pause_ms = retry_backoff_ms(++watch->attempts);

	set_stream(watch, NULL);
	if (watch->lost_ms == 0)
		watch->lost_ms = clock_monotonic_ms();
	if (is_final(watch, status_code_of(st)) ||
	    clock_monotonic_ms() + pause_ms - watch->lost_ms > watch->client->timeout_ms)
		/* DEADLINE_EXCEEDED means that there is nothing new. */
		return status_code_of(st) == STATUS_DEADLINE_EXCEEDED
			   ? status_recode(st, STATUS_UNAVAILABLE)
			   : st;
	status_free(st);
	pause_until(watch, clock_monotonic_ms() + pause_ms);
	return NULL;
}

/* The server has ended it with OK. */
static status *end(struct haul_watch *watch)
{
	watch->has_ended = true;
	if (!watch->has_seen && watch->sequence == 0)
		return status_errorf(STATUS_UNAVAILABLE,
				     "the engine ended the watch before it said anything");
	if (watch->has_seen && watch->state == HAUL_STATE_RUNNING)
		return status_errorf(STATUS_UNAVAILABLE, "the engine ended the watch early");
	return NULL;
}

static status *receive(struct haul_watch *watch, int64_t until_ms,
		       struct haul_migration **ret_migration, bool *ret_is_cut)
{
	ProtobufCMessage *message = NULL;
	int64_t left_ms = until_ms - clock_monotonic_ms();
	status *st = stream_receive(watch->stream, &haul__v1__migration__descriptor,
				    left_ms > 0 ? left_ms : 0, &message);

	*ret_is_cut = st != NULL && status_code_of(st) != STATUS_DEADLINE_EXCEEDED;
	if (st != NULL)
		return st;
	if (message == NULL)
		return end(watch);
	const Haul__V1__Migration *view = (const Haul__V1__Migration *)message;
	if (!watch->has_seen || watch->sequence != view->sequence)
		watch->lost_ms = watch->attempts = 0;
	watch->has_seen = true;
	watch->sequence = view->sequence;
	watch->state = (int)view->state;
	return migration_view((Haul__V1__Migration *)message, ret_migration);
}

static status *next(struct haul_watch *watch, int64_t until_ms,
		    struct haul_migration **ret_migration)
{
	while (!is_stopped(watch)) {
		bool is_cut = false;
		if (watch->stream != NULL) {
			status *st = receive(watch, until_ms, ret_migration, &is_cut);
			if (!is_cut)
				return st;
			st = is_stopped(watch) ? st : try_again(watch, st);
			if (st != NULL)
				return st;
			continue;
		}
		status *st = open_stream(watch);
		if (st == NULL)
			continue;
		st = is_stopped(watch) ? st : try_again(watch, st);
		if (st != NULL)
			return st;
		if (clock_monotonic_ms() >= until_ms)
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "the watch has not been taken up again yet");
	}
	return status_errorf(STATUS_CANCELLED, "the watch was stopped");
}

struct haul_error *haul_watch_next(struct haul_watch *watch, int64_t timeout_ms,
				   struct haul_migration **ret_migration)
{
	struct haul_migration *migration = NULL;
	int64_t until_ms = clock_monotonic_ms() + (timeout_ms > 0 ? timeout_ms : 0);
	status *st = watch->has_ended ? NULL : next(watch, until_ms, &migration);

	if (st != NULL && is_stopped(watch)) {
		status_free(st);
		st = status_errorf(STATUS_CANCELLED, "the watch was stopped");
	}
	if (st == NULL)
		*ret_migration = migration;
	return give_error(st);
}

void haul_watch_stop(struct haul_watch *watch)
{
	(void)pthread_mutex_lock(&watch->lock);
	watch->is_stopped = true;
	if (watch->stream != NULL)
		stream_interrupt(watch->stream);
	(void)pthread_cond_broadcast(&watch->stopped);
	(void)pthread_mutex_unlock(&watch->lock);
}

void haul_watch_close(struct haul_watch *watch)
{
	if (watch == NULL)
		return;
	stream_free(watch->stream);
	(void)pthread_cond_destroy(&watch->stopped);
	(void)pthread_mutex_destroy(&watch->lock);
	free(watch->id);
	free(watch);
}

struct haul_error *haul_watch(struct haul_client *client, const char *id,
			      bool (*changed)(void *self, const struct haul_migration *migration),
			      void *self)
{
	struct haul_watch *watch = NULL;
	struct haul_error *error = haul_watch_open(client, id, 0, &watch);
	bool go_on = error == NULL;

	while (go_on) {
		struct haul_migration *migration = NULL;
		error = haul_watch_next(watch, LOOK_MS, &migration);
		if (haul_error_code(error) == HAUL_DEADLINE_EXCEEDED) {
			haul_error_free(error);
			error = NULL;
			continue;
		}
		go_on = error == NULL && migration != NULL && changed(self, migration);
		haul_migration_free(migration);
	}
	haul_watch_close(watch);
	return error;
}
