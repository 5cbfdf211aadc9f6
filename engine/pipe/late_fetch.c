/* SPDX-License-Identifier: Apache-2.0 */
/* The destination's half: one thread asks, as long as there is a pipe; one a pipe takes what comes.
 */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "engine/criu/page_stream.h"
#include "engine/pipe/late_pipe.h"
#include "engine/pipe/late_window.h"
#include "engine/pipe/memory_pipe.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/limits.h"

enum {
	DIGEST_BYTES = 8,
	TICK_MS = 1000,	   /* something is said at least so often */
	SILENCE_MS = 8000, /* without an answer to what was asked */
	SEND_MS = 5000,
	ACCEPT_MS = 20000,
};

struct late_fetcher {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* By the lock: */
	struct late_store *store; /* NULL: not yet */
	struct pipe *offered;	  /* to be accepted */
	struct pipe *pipe;	  /* at work */
	unsigned asked;		  /* requests without an answer */
	struct late_window window;
	bool is_connected, is_stopping;
	bool is_lost; /* the pipe at work */
	status *error;
};

/* --- batches --- */

static status *apply_record(const uint8_t *data, size_t size, struct late_store *store,
			    uint64_t *pages, size_t *ret_used)
{
	struct page_header header;

	if (size < PAGE_HEADER_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "a batch of late pages ends too early");
	status *st = page_header_decode(data, true, &header);
	if (st != NULL)
		return st;
	uint64_t bytes = page_header_data(&header);
	bool is_zero = header.flags == (PAGE_PRESENT | PAGE_ZERO);
	if (header.command != PAGE_ADD || (!is_zero && header.flags != PAGE_PRESENT) ||
	    (header.image & 0xff) != PAGE_TASK || header.pages > LATE_RANGE_PAGES ||
	    bytes > size - PAGE_HEADER_BYTES)
		return status_errorf(STATUS_DATA_LOSS,
				     "a record that has no place among late pages");
	const struct late_range range = {.pid = (int64_t)(header.image >> 8),
					 .address = header.address,
					 .pages = header.pages};
	*pages += header.pages;
	*ret_used = PAGE_HEADER_BYTES + (size_t)bytes;
	return late_store_put(store, &range, is_zero ? NULL : data + PAGE_HEADER_BYTES);
}

status *late_batch_apply(const uint8_t *data, size_t size, struct late_store *store,
			 uint64_t *ret_pages)
{
	uint64_t digest = 0, pages = 0;
	size_t used = 0;

	if (size < DIGEST_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "a batch of late pages of %zu bytes", size);
	size_t records = size - DIGEST_BYTES;
	memcpy(&digest, data + records, sizeof(digest));
	if (le64toh(digest) != XXH3_64bits(data, records))
		return status_errorf(STATUS_DATA_LOSS,
				     "a batch of late pages was altered on its way");
	for (size_t at = 0; at < records; at += used) {
		status *st = apply_record(data + at, records - at, store, &pages, &used);
		if (st != NULL)
			return st;
	}
	*ret_pages = pages;
	return NULL;
}

/* --- what comes --- */

struct taking {
	struct late_fetcher *fetcher;
	struct pipe *pipe;
	struct late_store *store;
	struct batch_packer *packer;
	uint8_t *unpacked; /* MEMORY_BATCH_BYTES */
	int64_t heard_ms;
};

static status *take_batch(struct taking *taking, const struct pipe_in *in)
{
	const uint8_t *data = in->body;
	size_t size = in->size;
	uint64_t pages = 0;
	status *st = NULL;

	if (in->kind == HAUL__V1__FRAME_KIND__FRAME_PACKED) {
		st = memory_batch_unpack(taking->packer, in->body, in->size, taking->unpacked,
					 MEMORY_BATCH_BYTES, &size);
		data = taking->unpacked;
	}
	if (st == NULL)
		st = late_batch_apply(data, size, taking->store, &pages);
	(void)pthread_mutex_lock(&taking->fetcher->lock);
	if (taking->fetcher->asked > 0)
		taking->fetcher->asked--;
	late_window_came(&taking->fetcher->window, pages, clock_monotonic_ms());
	(void)pthread_mutex_unlock(&taking->fetcher->lock);
	late_store_wake(taking->store);
	return st;
}

/* The source could not read them. */
static status *take_end(const struct pipe_in *in)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__pipe_end__descriptor, in->body, in->size,
				    LIMIT_UNARY_BYTES, &message);

	if (st != NULL)
		return st;
	st = status_from_wire(((const Haul__V1__PipeEnd *)message)->status);
	return st != NULL ? st
			  : status_errorf(STATUS_UNAVAILABLE, "the source ended the pipe of late "
							      "pages");
}

static unsigned asked_now(struct late_fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	unsigned asked = fetcher->asked;
	(void)pthread_mutex_unlock(&fetcher->lock);
	return asked;
}

static status *take_one(struct taking *taking)
{
	scoped(pipe_in) struct pipe_in in = {0};
	status *st = pipe_receive(taking->pipe, TICK_MS, &in);

	if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED) {
		if (asked_now(taking->fetcher) == 0)
			taking->heard_ms = clock_monotonic_ms();
		if (clock_monotonic_ms() - taking->heard_ms < SILENCE_MS) {
			status_free(st);
			return NULL;
		}
	}
	if (st != NULL)
		return st;
	taking->heard_ms = clock_monotonic_ms();
	switch ((int)in.kind) {
	case HAUL__V1__FRAME_KIND__FRAME_BATCH:
	case HAUL__V1__FRAME_KIND__FRAME_PACKED:
		return take_batch(taking, &in);
	case HAUL__V1__FRAME_KIND__FRAME_END:
		return take_end(&in);
	default:
		return status_errorf(STATUS_DATA_LOSS, "a frame of kind %d came among late pages",
				     (int)in.kind);
	}
}

static void note_error(struct late_fetcher *fetcher, status *st)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	fetcher->is_lost = true;
	fetcher->is_connected = false;
	if (st != NULL && status_code_of(st) != STATUS_CANCELLED) {
		status_free(fetcher->error);
		fetcher->error = TAKE(st);
	}
	(void)pthread_cond_broadcast(&fetcher->changed);
	(void)pthread_mutex_unlock(&fetcher->lock);
	status_free(st);
}

static void *take_all(void *self)
{
	struct taking *taking = self;
	status *st = NULL;

	taking->heard_ms = clock_monotonic_ms();
	while (st == NULL)
		st = take_one(taking);
	note_error(taking->fetcher, st);
	late_store_wake(taking->store);
	return NULL;
}

/* --- what is asked for --- */

static bool goes_on(struct late_fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	bool go_on = !fetcher->is_stopping && !fetcher->is_lost && fetcher->offered == NULL;
	(void)pthread_mutex_unlock(&fetcher->lock);
	return go_on;
}

static bool is_all_there(struct late_store *store)
{
	struct late_counts counts;

	late_store_counts(store, &counts);
	return counts.missing == 0;
}

static status *send_want(struct late_fetcher *fetcher, struct pipe *pipe,
			 const struct late_range *range)
{
	Haul__V1__LateWant want = HAUL__V1__LATE_WANT__INIT;

	want.pid = (int32_t)range->pid;
	want.address = range->address;
	want.pages = range->pages;
	want.urgent = range->is_urgent;
	(void)pthread_mutex_lock(&fetcher->lock);
	fetcher->asked++;
	if (range->is_urgent)
		late_window_urgent(&fetcher->window, clock_monotonic_ms());
	(void)pthread_mutex_unlock(&fetcher->lock);
	return pipe_send_message(pipe, HAUL__V1__FRAME_KIND__FRAME_WANT, &want.base, SEND_MS);
}

static status *send_keepalive(struct pipe *pipe)
{
	struct pipe_out out;
	status *st = pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_KEEPALIVE, 0, &out);

	return st == NULL ? pipe_send_frame(pipe, &out, 0, SEND_MS) : st;
}

static bool may_go_ahead(struct late_fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	bool may = fetcher->asked < late_window_now(&fetcher->window, clock_monotonic_ms());
	(void)pthread_mutex_unlock(&fetcher->lock);
	return may;
}

static status *ask_all(struct late_fetcher *fetcher, struct pipe *pipe, struct late_store *store)
{
	int64_t said_ms = clock_monotonic_ms();
	struct late_range range;
	status *st = NULL;

	late_store_restart(store);
	(void)pthread_mutex_lock(&fetcher->lock);
	late_window_begin(&fetcher->window, said_ms);
	(void)pthread_mutex_unlock(&fetcher->lock);
	while (st == NULL && goes_on(fetcher)) {
		if (is_all_there(store))
			return pipe_send_end(pipe, NULL, SEND_MS);
		bool found = late_store_next(store, may_go_ahead(fetcher), TICK_MS, &range);
		int64_t now = clock_monotonic_ms();
		if (!found && now - said_ms < TICK_MS)
			continue;
		st = found ? send_want(fetcher, pipe, &range) : send_keepalive(pipe);
		said_ms = now;
	}
	return st;
}

/* One pipe, from its first request until it ends, or another is offered. */
static status *fetch_by(struct late_fetcher *fetcher, struct pipe *pipe, struct late_store *store)
{
	scoped(batch_packer) struct batch_packer *packer = NULL;
	scoped(mem) void *unpacked = malloc(MEMORY_BATCH_BYTES);
	struct taking taking = {fetcher, pipe, store, NULL, unpacked, 0};
	pthread_t thread;

	if (unpacked == NULL)
		return status_errnof(ENOMEM, "late pages");
	status *st = batch_packer_new(0, &packer);
	if (st != NULL)
		return st;
	taking.packer = packer;
	int failed = pthread_create(&thread, NULL, take_all, &taking);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	st = ask_all(fetcher, pipe, store);
	pipe_interrupt(pipe);
	(void)pthread_join(thread, NULL);
	return st;
}

/* --- the thread --- */

/* Waits for a pipe; NULL: it is stopping. */
static struct pipe *await_offer(struct late_fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	while (!fetcher->is_stopping && fetcher->offered == NULL)
		(void)pthread_cond_wait(&fetcher->changed, &fetcher->lock);
	if (!fetcher->is_stopping) {
		fetcher->pipe = TAKE(fetcher->offered);
		fetcher->asked = 0;
		fetcher->is_lost = false;
	}
	struct pipe *pipe = fetcher->is_stopping ? NULL : fetcher->pipe;
	(void)pthread_mutex_unlock(&fetcher->lock);
	return pipe;
}

/* Waits until there is something to fetch; NULL: it is stopping, there is another pipe, or this one
 * is lost. */
static struct late_store *await_store(struct late_fetcher *fetcher, struct pipe *pipe)
{
	struct late_store *store = NULL;
	status *st = NULL;

	(void)pthread_mutex_lock(&fetcher->lock);
	fetcher->is_connected = !fetcher->is_lost;
	while (st == NULL && !fetcher->is_stopping && fetcher->store == NULL &&
	       fetcher->offered == NULL) {
		const struct timespec at = clock_at(clock_monotonic_ms() + TICK_MS);
		if (pthread_cond_timedwait(&fetcher->changed, &fetcher->lock, &at) == 0)
			continue;
		(void)pthread_mutex_unlock(&fetcher->lock);
		st = send_keepalive(pipe);
		(void)pthread_mutex_lock(&fetcher->lock);
	}
	if (st == NULL && !fetcher->is_stopping && fetcher->offered == NULL)
		store = fetcher->store;
	(void)pthread_mutex_unlock(&fetcher->lock);
	if (st != NULL)
		note_error(fetcher, st);
	return store;
}

static void let_go(struct late_fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	struct pipe *pipe = TAKE(fetcher->pipe);
	fetcher->is_connected = false;
	(void)pthread_mutex_unlock(&fetcher->lock);
	pipe_free(pipe);
}

static void *run(void *self)
{
	struct late_fetcher *fetcher = self;

	for (struct pipe *pipe = await_offer(fetcher); pipe != NULL; pipe = await_offer(fetcher)) {
		status *st = pipe_accept(pipe, ACCEPT_MS);
		struct late_store *store = st == NULL ? await_store(fetcher, pipe) : NULL;
		if (store != NULL)
			st = fetch_by(fetcher, pipe, store);
		if (st != NULL)
			note_error(fetcher, st);
		let_go(fetcher);
	}
	return NULL;
}

status *late_fetcher_new(struct late_fetcher **ret_fetcher)
{
	struct late_fetcher *fetcher = calloc(1, sizeof(*fetcher));

	if (fetcher == NULL)
		return status_errnof(ENOMEM, "late pages");
	(void)pthread_mutex_init(&fetcher->lock, NULL);
	clock_cond_init(&fetcher->changed);
	int failed = pthread_create(&fetcher->thread, NULL, run, fetcher);
	if (failed != 0) {
		(void)pthread_cond_destroy(&fetcher->changed);
		(void)pthread_mutex_destroy(&fetcher->lock);
		free(fetcher);
		return status_errnof(failed, "cannot start a thread");
	}
	*ret_fetcher = fetcher;
	return NULL;
}

/* With the lock. */
static void stir(struct late_fetcher *fetcher)
{
	if (fetcher->pipe != NULL)
		pipe_interrupt(fetcher->pipe);
	if (fetcher->store != NULL)
		late_store_wake(fetcher->store);
	(void)pthread_cond_broadcast(&fetcher->changed);
}

void late_fetcher_offer(struct late_fetcher *fetcher, struct pipe *pipe)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	struct pipe *before = fetcher->offered;
	fetcher->offered = pipe;
	stir(fetcher);
	(void)pthread_mutex_unlock(&fetcher->lock);
	pipe_free(before);
}

void late_fetcher_feed(struct late_fetcher *fetcher, struct late_store *store)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	fetcher->store = store;
	(void)pthread_cond_broadcast(&fetcher->changed);
	(void)pthread_mutex_unlock(&fetcher->lock);
}

bool late_fetcher_is_connected(struct late_fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	bool is_connected = fetcher->is_connected;
	(void)pthread_mutex_unlock(&fetcher->lock);
	return is_connected;
}

status *late_fetcher_error(struct late_fetcher *fetcher)
{
	(void)pthread_mutex_lock(&fetcher->lock);
	status *st = fetcher->error != NULL ? status_copy(fetcher->error) : NULL;
	(void)pthread_mutex_unlock(&fetcher->lock);
	return st;
}

void late_fetcher_free(struct late_fetcher *fetcher)
{
	if (fetcher == NULL)
		return;
	(void)pthread_mutex_lock(&fetcher->lock);
	fetcher->is_stopping = true;
	stir(fetcher);
	(void)pthread_mutex_unlock(&fetcher->lock);
	(void)pthread_join(fetcher->thread, NULL);
	pipe_free(fetcher->offered);
	status_free(fetcher->error);
	(void)pthread_cond_destroy(&fetcher->changed);
	(void)pthread_mutex_destroy(&fetcher->lock);
	free(fetcher);
}
