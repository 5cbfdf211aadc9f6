/* SPDX-License-Identifier: Apache-2.0 */
/* The source's half: one thread hears what is wanted, another reads and sends it. */
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <xxhash.h>

#include "engine/criu/page_stream.h"
#include "engine/pipe/codec_choice.h"
#include "engine/pipe/late_pipe.h"
#include "engine/pipe/memory_pipe.h"
#include "engine/pipe/pace.h"
#include "proto/clock.h"
#include "proto/limits.h"

enum {
	DIGEST_BYTES = 8,
	QUEUE = 512,	   /* more than a destination asks for ahead */
	SILENCE_MS = 6000, /* it says something each second */
	SEND_MS = 10000,
	PACE_MOST_MS = 200, /* of waiting at once: what is urgent does not wait longer */
};

struct queue {
	struct late_range list[QUEUE]; /* a ring */
	size_t first, count;
};

struct serving {
	struct pipe *pipe;
	const struct late_source *source;
	struct batch_packer *packer;
	struct codec_choice choice;
	struct pace pace;
	uint8_t *content; /* LATE_RANGE_PAGES */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* CLOCK_MONOTONIC */
	/* By the lock: */
	struct queue urgent, others;
	bool is_over;
	status *error; /* the sending thread's */
};

static bool take(struct queue *queue, struct late_range *ret_range)
{
	if (queue->count == 0)
		return false;
	*ret_range = queue->list[queue->first];
	queue->first = (queue->first + 1) % QUEUE;
	queue->count--;
	return true;
}

/* What is wanted next; false: it is over. */
static bool next(struct serving *serving, struct late_range *ret_range)
{
	(void)pthread_mutex_lock(&serving->lock);
	while (!serving->is_over && serving->urgent.count == 0 && serving->others.count == 0)
		(void)pthread_cond_wait(&serving->changed, &serving->lock);
	bool found = !serving->is_over &&
		     (take(&serving->urgent, ret_range) || take(&serving->others, ret_range));
	(void)pthread_mutex_unlock(&serving->lock);
	return found;
}

/* --- batches --- */

static bool is_zero(const uint8_t *page)
{
	return page[0] == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

/* Records of the pages, zeros without data, and the digest of all. */
static size_t lay_out(const struct late_range *range, const uint8_t *content, uint8_t *ret_batch)
{
	size_t used = 0;

	for (uint32_t begin = 0, end; begin < range->pages; begin = end) {
		bool zero = is_zero(content + (size_t)begin * PAGE_BYTES);
		for (end = begin + 1;
		     end < range->pages && is_zero(content + (size_t)end * PAGE_BYTES) == zero;
		     end++)
			;
		const struct page_header header = {
		    .command = PAGE_ADD,
		    .flags = zero ? PAGE_PRESENT | PAGE_ZERO : PAGE_PRESENT,
		    .pages = end - begin,
		    .address = range->address + (uint64_t)begin * PAGE_BYTES,
		    .image = (uint64_t)range->pid << 8 | PAGE_TASK,
		};
		page_header_encode(&header, ret_batch + used);
		used += PAGE_HEADER_BYTES;
		size_t bytes = page_header_data(&header);
		memcpy(ret_batch + used, content + (size_t)begin * PAGE_BYTES, bytes);
		used += bytes;
	}
	uint64_t digest = htole64(XXH3_64bits(ret_batch, used));
	memcpy(ret_batch + used, &digest, sizeof(digest));
	return used + DIGEST_BYTES;
}

static status *pack(struct serving *serving, struct pipe_out *out, size_t *size)
{
	struct pipe_out packed;
	size_t room = *size - *size / 8;

	if (serving->choice.now == BATCH_RAW)
		return NULL;
	status *st =
	    pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_PACKED, BATCH_HEADER_BYTES + room, &packed);
	if (st != NULL)
		return st;
	size_t used = batch_pack(serving->packer, serving->choice.now, out->body, *size,
				 packed.body + BATCH_HEADER_BYTES, room);
	if (used == 0) {
		pipe_out_drop(&packed);
		return NULL;
	}
	batch_header_encode(serving->choice.now, (uint32_t)*size, packed.body);
	pipe_out_drop(out);
	*out = packed;
	*size = BATCH_HEADER_BYTES + used;
	return NULL;
}

static status *send_batch(struct serving *serving, const struct late_range *range, size_t *ret_sent)
{
	struct pipe_out out;
	double begun = clock_monotonic_fine_ms(), waited = pipe_waited_ms(serving->pipe);
	status *st = pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, MEMORY_BATCH_BYTES, &out);

	if (st != NULL)
		return st;
	size_t content = lay_out(range, serving->content, out.body), size = content;
	st = pack(serving, &out, &size);
	if (st != NULL) {
		pipe_out_drop(&out);
		return st;
	}
	st = pipe_send_frame(serving->pipe, &out, size, SEND_MS);
	struct batch_cost cost = {.content = content,
				  .wire = size,
				  .wait_ms = pipe_waited_ms(serving->pipe) - waited};
	cost.work_ms = clock_monotonic_fine_ms() - begun - cost.wait_ms;
	codec_choice_note(&serving->choice, &cost, false);
	*ret_sent = size;
	return st;
}

/* Until the limit allows more, or something urgent comes. */
static void keep_pace(struct serving *serving, const struct late_range *range, size_t sent)
{
	const atomic_uint_fast64_t *limit = serving->source->bytes_per_s;
	double now = clock_monotonic_fine_ms();
	double wait = limit != NULL && !range->is_urgent
			  ? pace_wait_ms(&serving->pace, sent, atomic_load(limit), now)
			  : 0;

	if (wait < 1)
		return;
	const struct timespec at =
	    clock_at((int64_t)(now + (wait < PACE_MOST_MS ? wait : PACE_MOST_MS)));
	(void)pthread_mutex_lock(&serving->lock);
	while (!serving->is_over && serving->urgent.count == 0 &&
	       pthread_cond_timedwait(&serving->changed, &serving->lock, &at) != ETIMEDOUT)
		;
	(void)pthread_mutex_unlock(&serving->lock);
}

static void *send_all(void *self)
{
	struct serving *serving = self;
	struct late_range range;
	status *st = NULL;

	while (st == NULL && next(serving, &range)) {
		size_t sent = 0;
		st = serving->source->read(serving->source->self, range.pid, range.address,
					   (size_t)range.pages * PAGE_BYTES, serving->content);
		if (st != NULL)
			status_free(pipe_send_end(serving->pipe, st, SEND_MS));
		else
			st = send_batch(serving, &range, &sent);
		if (st == NULL)
			keep_pace(serving, &range, sent);
	}
	if (st != NULL)
		pipe_interrupt(serving->pipe);
	(void)pthread_mutex_lock(&serving->lock);
	serving->error = st;
	(void)pthread_mutex_unlock(&serving->lock);
	return NULL;
}

/* --- what is asked for --- */

static status *note_want(struct serving *serving, const struct pipe_in *in)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__late_want__descriptor, in->body, in->size,
				    LIMIT_UNARY_BYTES, &message);

	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	const Haul__V1__LateWant *want = (const Haul__V1__LateWant *)message;
	if (want->pid <= 0 || want->pages == 0 || want->pages > LATE_RANGE_PAGES ||
	    want->address % PAGE_BYTES != 0 ||
	    want->address > UINT64_MAX - (uint64_t)want->pages * PAGE_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "impossible pages are asked for");
	const struct late_range range = {.pid = want->pid,
					 .address = want->address,
					 .pages = want->pages,
					 .is_urgent = want->urgent};
	(void)pthread_mutex_lock(&serving->lock);
	struct queue *queue = range.is_urgent ? &serving->urgent : &serving->others;
	if (queue->count == QUEUE)
		st = status_errorf(STATUS_DATA_LOSS, "too much is asked for at once");
	else
		queue->list[(queue->first + queue->count++) % QUEUE] = range;
	(void)pthread_cond_broadcast(&serving->changed);
	(void)pthread_mutex_unlock(&serving->lock);
	return st;
}

static status *hear(struct serving *serving, bool *ret_over)
{
	scoped(pipe_in) struct pipe_in in = {0};
	status *st = pipe_receive(serving->pipe, SILENCE_MS, &in);

	if (st != NULL)
		return st;
	switch ((int)in.kind) {
	case HAUL__V1__FRAME_KIND__FRAME_WANT:
		return note_want(serving, &in);
	case HAUL__V1__FRAME_KIND__FRAME_KEEPALIVE:
		return NULL;
	case HAUL__V1__FRAME_KIND__FRAME_END:
		*ret_over = true;
		return NULL;
	default:
		return status_errorf(STATUS_DATA_LOSS,
				     "a frame of kind %d came among requests for pages",
				     (int)in.kind);
	}
}

static void begin(struct serving *serving)
{

	codec_choice_init(&serving->choice, serving->source->codecs.set);
	(void)pthread_mutex_init(&serving->lock, NULL);
	clock_cond_init(&serving->changed);
}

static status *serve(struct serving *serving)
{
	pthread_t thread;
	bool is_over = false;
	status *st = NULL;
	int failed = pthread_create(&thread, NULL, send_all, serving);

	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	while (st == NULL && !is_over)
		st = hear(serving, &is_over);
	(void)pthread_mutex_lock(&serving->lock);
	serving->is_over = true;
	(void)pthread_cond_broadcast(&serving->changed);
	(void)pthread_mutex_unlock(&serving->lock);
	if (st != NULL)
		pipe_interrupt(serving->pipe);
	(void)pthread_join(thread, NULL);
	/* Sending failed first, and ended the hearing. */
	return serving->error != NULL && status_code_of(serving->error) != STATUS_CANCELLED
		   ? status_first(TAKE(serving->error), st)
		   : st;
}

status *late_serve(struct pipe *pipe, const struct late_source *source)
{
	scoped(batch_packer) struct batch_packer *packer = NULL;
	scoped(mem) void *content = malloc((size_t)LATE_RANGE_PAGES * PAGE_BYTES);
	scoped(mem) void *owned = calloc(1, sizeof(struct serving));
	struct serving *serving = owned;

	if (content == NULL || serving == NULL)
		return status_errnof(ENOMEM, "late pages");
	status *st = batch_packer_new(source->codecs.level, &packer);
	if (st != NULL)
		return st;
	serving->pipe = pipe;
	serving->source = source;
	serving->packer = packer;
	serving->content = content;
	begin(serving);
	st = serve(serving);
	status_free(serving->error);
	(void)pthread_cond_destroy(&serving->changed);
	(void)pthread_mutex_destroy(&serving->lock);
	return st;
}
