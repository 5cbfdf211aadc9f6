/* SPDX-License-Identifier: Apache-2.0 */
/* load_peer: many who watch a migration, and many who call.
 *
 * usage: load_peer URL CA CERT KEY ID WATCHERS CALLERS
 *
 * Opens WATCHERS streams of the migration ID, then says "watching" and calls with CALLERS threads,
 * each again as soon as it is answered, until its input ends. Then it prints one line of JSON and
 * exits; with 1 when a watch broke or went back, or a call failed. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "haul/v1/migrations.pb-c.h"
#include "proto/clock.h"
#include "rpc/client.h"
#include "rpc/stream.h"

enum { CALL_MS = 30000, OPENERS = 16, STACK_BYTES = 256 * 1024, ARGUMENTS = 8 };

struct watcher {
	struct stream *stream;
	unsigned long events;
	uint64_t sequence; /* of the last event */
	Haul__V1__MigrationState state;
	pthread_t thread;
};

struct peer {
	struct rpc_client *client;
	const char *id;
	unsigned watcher_count;
	struct watcher *watchers;
	atomic_uint next; /* to be opened */
	atomic_bool is_ending;
	atomic_ulong calls;
	_Atomic int64_t slowest_ms;
	atomic_bool has_failed;
};

static void must(status *st, const char *what)
{
	if (st == NULL)
		return;
	(void)fprintf(stderr, "load_peer: %s: %s\n", what, status_message(st));
	exit(1);
}

static void complain(struct peer *peer, status *st, const char *what)
{
	if (!atomic_exchange(&peer->has_failed, true))
		(void)fprintf(stderr, "load_peer: %s: %s\n", what,
			      st != NULL ? status_message(st) : "it ended");
	status_free(st);
}

static void *open_some(void *self)
{
	struct peer *peer = self;
	Haul__V1__WatchRequest request = HAUL__V1__WATCH_REQUEST__INIT;
	unsigned number;

	request.id = (char *)peer->id;
	while ((number = atomic_fetch_add(&peer->next, 1)) < peer->watcher_count)
		must(rpc_client_open_stream(peer->client, &haul__v1__migrations__descriptor,
					    "Watch", &request.base, CALL_MS,
					    &peer->watchers[number].stream),
		     "Watch");
	return NULL;
}

struct watch {
	struct peer *peer;
	struct watcher *watcher;
};

static void *follow(void *self)
{
	struct watch *watch = self;
	struct watcher *watcher = watch->watcher;
	struct peer *peer = watch->peer;

	free(watch);
	for (;;) {
		ProtobufCMessage *message = NULL;
		status *st = stream_receive(watcher->stream, &haul__v1__migration__descriptor,
					    CALL_MS * 10, &message);
		if (st != NULL && !atomic_load(&peer->is_ending)) {
			complain(peer, st, "a watch");
			return NULL;
		}
		status_free(st);
		if (message == NULL)
			return NULL;
		const Haul__V1__Migration *view = (const Haul__V1__Migration *)message;
		if (view->sequence <= watcher->sequence)
			complain(peer, NULL, "a watch that goes back");
		watcher->sequence = view->sequence;
		watcher->state = view->state;
		watcher->events++;
		message_free(message);
	}
}

static void *call(void *self)
{
	struct peer *peer = self;
	Haul__V1__GetRequest request = HAUL__V1__GET_REQUEST__INIT;

	request.id = (char *)peer->id;
	while (!atomic_load(&peer->is_ending)) {
		ProtobufCMessage *response = NULL;
		int64_t begun_ms = clock_monotonic_ms();
		status *st = rpc_client_call(peer->client, &haul__v1__migrations__descriptor, "Get",
					     &request.base, CALL_MS, &response);
		message_free(response);
		if (st != NULL) {
			complain(peer, st, "a call");
			return NULL;
		}
		int64_t took_ms = clock_monotonic_ms() - begun_ms;
		if (took_ms > atomic_load(&peer->slowest_ms))
			atomic_store(&peer->slowest_ms, took_ms);
		(void)atomic_fetch_add(&peer->calls, 1);
	}
	return NULL;
}

static pthread_t start(void *(*run)(void *self), void *self)
{
	pthread_attr_t attributes;
	pthread_t thread;

	(void)pthread_attr_init(&attributes);
	(void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
	if (pthread_create(&thread, &attributes, run, self) != 0) {
		(void)fprintf(stderr, "load_peer: cannot start a thread\n");
		exit(1);
	}
	(void)pthread_attr_destroy(&attributes);
	return thread;
}

static void open_watches(struct peer *peer)
{
	pthread_t openers[OPENERS];

	for (unsigned i = 0; i < OPENERS; i++)
		openers[i] = start(open_some, peer);
	for (unsigned i = 0; i < OPENERS; i++)
		(void)pthread_join(openers[i], NULL);
	for (unsigned i = 0; i < peer->watcher_count; i++) {
		struct watch *watch = malloc(sizeof(*watch));
		if (watch == NULL)
			exit(1);
		*watch = (struct watch){.peer = peer, .watcher = &peer->watchers[i]};
		peer->watchers[i].thread = start(follow, watch);
	}
}

static void close_watches(struct peer *peer)
{
	for (unsigned i = 0; i < peer->watcher_count; i++)
		stream_stop(peer->watchers[i].stream);
	for (unsigned i = 0; i < peer->watcher_count; i++)
		(void)pthread_join(peer->watchers[i].thread, NULL);
}

static void report(struct peer *peer, double seconds)
{
	unsigned long events = 0;
	unsigned completed = 0;

	for (unsigned i = 0; i < peer->watcher_count; i++) {
		events += peer->watchers[i].events;
		completed +=
		    peer->watchers[i].state == HAUL__V1__MIGRATION_STATE__COMPLETED ? 1 : 0;
	}
	(void)printf("{\"watchers\": %u, \"saw_completed\": %u, \"events\": %lu, \"calls\": %lu, "
		     "\"calls_per_second\": %.0f, \"slowest_call_ms\": %lld}\n",
		     peer->watcher_count, completed, events, atomic_load(&peer->calls),
		     (double)atomic_load(&peer->calls) / seconds,
		     (long long)atomic_load(&peer->slowest_ms));
}

int main(int argc, char **argv)
{
	struct credentials *credentials = NULL;
	char byte;

	if (argc != ARGUMENTS)
		return 2;
	struct peer peer = {.id = argv[5], .watcher_count = (unsigned)strtoul(argv[6], NULL, 10)};
	unsigned caller_count = (unsigned)strtoul(argv[7], NULL, 10);
	pthread_t *callers = calloc(caller_count + 1, sizeof(*callers));
	peer.watchers = calloc(peer.watcher_count + 1, sizeof(*peer.watchers));
	if (callers == NULL || peer.watchers == NULL)
		return 1;
	must(rpc_start(), "start");
	const struct credentials_files files = {.ca = argv[2], .cert = argv[3], .key = argv[4]};
	must(credentials_load(&files, &credentials), "credentials");
	must(rpc_client_new(argv[1], credentials, &peer.client), "client");
	open_watches(&peer);
	int64_t begun_ms = clock_monotonic_ms();
	for (unsigned i = 0; i < caller_count; i++)
		callers[i] = start(call, &peer);
	(void)printf("watching\n");
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	double seconds = (double)(clock_monotonic_ms() - begun_ms) / 1000;
	atomic_store(&peer.is_ending, true);
	for (unsigned i = 0; i < caller_count; i++)
		(void)pthread_join(callers[i], NULL);
	close_watches(&peer);
	report(&peer, seconds);
	(void)fflush(stdout);
	for (unsigned i = 0; i < peer.watcher_count; i++)
		stream_free(peer.watchers[i].stream);
	rpc_client_free(peer.client);
	credentials_free(credentials);
	free(callers);
	free(peer.watchers);
	return atomic_load(&peer.has_failed) ? 1 : 0;
}
