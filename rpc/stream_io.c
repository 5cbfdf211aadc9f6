/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of a stream. The receiver never sends, so that it always reads on: credits and
 * keepalives are the sender's business, and two sides that both send cannot block each other. */
#include "proto/clock.h"
#include "rpc/stream_internal.h"

#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "proto/envelope.h"
#include "proto/metadata.h"
#include "rpc/nng_error.h"

void stream_queue_put(struct stream_queue *queue, struct stream_item *item)
{
	if (queue->first == NULL)
		queue->end = &queue->first;
	item->next = NULL;
	*queue->end = item;
	queue->end = &item->next;
}

struct stream_item *stream_queue_take(struct stream_queue *queue)
{
	struct stream_item *item = queue->first;
	if (item != NULL)
		queue->first = item->next;
	return item;
}

bool stream_is_over(const struct stream *stream)
{
	return stream->lost != NULL || stream->is_interrupted || stream->is_ended;
}

bool stream_owes_much(const struct stream *stream)
{
	return stream->owed > 0 && stream->owed >= stream->options.window / CREDIT_PART;
}

void stream_wake(struct stream *stream)
{
	void (*waker)(void *self) = stream->waker;
	if (waker == NULL)
		return;
	stream->waker = NULL;
	stream->is_waking = true;
	(void)pthread_mutex_unlock(&stream->lock);
	waker(stream->waker_self);
	(void)pthread_mutex_lock(&stream->lock);
	stream->is_waking = false;
	(void)pthread_cond_broadcast(&stream->changed);
}

/* Takes the status. */
static void lose(struct stream *stream, status *why)
{
	(void)pthread_mutex_lock(&stream->lock);
	if (stream->lost == NULL)
		stream->lost = why;
	else
		status_free(why);
	(void)pthread_cond_broadcast(&stream->changed);
	stream_wake(stream);
	(void)pthread_mutex_unlock(&stream->lock);
	pipe_interrupt(stream->pipe);
}

/* --- sending --- */

/* What is to be sent next. */
struct errand {
	Haul__V1__FrameKind kind; /* UNKNOWN: nothing */
	struct stream_item *item;
	uint32_t credit;
	status *verdict;
	Haul__V1__Metadata *metadata; /* borrowed: nobody changes it any more */
};

/* Caller holds the lock. */
static void choose(struct stream *stream, struct errand *errand)
{
	*errand = (struct errand){0};
	if (stream_owes_much(stream)) {
		errand->kind = HAUL__V1__FRAME_KIND__FRAME_CREDIT;
		errand->credit = stream->owed;
		stream->owed = 0;
	} else if (!stream->has_sent && stream->own->n_entries > 0 &&
		   (stream->out.first != NULL || stream->wants_end || stream->wants_half_close)) {
		errand->kind = HAUL__V1__FRAME_KIND__FRAME_METADATA;
		errand->metadata = stream->own;
		stream->has_sent = true;
	} else if (stream->out.first != NULL) {
		errand->kind = HAUL__V1__FRAME_KIND__FRAME_EVENT;
		errand->item = stream_queue_take(&stream->out);
		stream->has_sent = true;
	} else if (stream->wants_half_close && !stream->half_close_sent) {
		errand->kind = HAUL__V1__FRAME_KIND__FRAME_HALF_CLOSE;
		stream->half_close_sent = true;
	} else if (stream->wants_end && !stream->end_sent) {
		errand->kind = HAUL__V1__FRAME_KIND__FRAME_END;
		errand->verdict = stream->verdict;
		errand->metadata = stream->own_trailing;
		stream->end_sent = true;
	} else if (clock_monotonic_ms() - stream->sent_ms >= stream->options.keepalive_ms) {
		errand->kind = HAUL__V1__FRAME_KIND__FRAME_KEEPALIVE;
	}
}

static status *send_bytes(struct stream *stream, const struct errand *errand)
{
	struct pipe_out out = {0};
	size_t size = errand->item != NULL ? errand->item->size : 0;
	status *st = pipe_out_new(errand->kind, size, &out);
	if (st != NULL)
		return st;
	if (size > 0)
		memcpy(out.body, errand->item->data, size);
	return pipe_send_frame(stream->pipe, &out, size, stream->options.dead_ms);
}

static status *send_errand(struct stream *stream, struct errand *errand)
{
	Haul__V1__StreamCredit credit = HAUL__V1__STREAM_CREDIT__INIT;
	switch ((int)errand->kind) {
	case HAUL__V1__FRAME_KIND__FRAME_CREDIT:
		credit.bytes = errand->credit;
		return pipe_send_message(stream->pipe, errand->kind, &credit.base,
					 stream->options.dead_ms);
	case HAUL__V1__FRAME_KIND__FRAME_METADATA:
		return pipe_send_message(stream->pipe, errand->kind, &errand->metadata->base,
					 stream->options.dead_ms);
	case HAUL__V1__FRAME_KIND__FRAME_END:
		return pipe_send_trailer(stream->pipe, errand->verdict, errand->metadata,
					 stream->options.dead_ms);
	default:
		return send_bytes(stream, errand);
	}
}

/* Caller holds the lock. */
static void wait_for_work(struct stream *stream)
{
	int64_t until_ms = stream->sent_ms + stream->options.keepalive_ms;
	struct timespec until = clock_at(until_ms);
	(void)pthread_cond_timedwait(&stream->changed, &stream->lock, &until);
}

/* A connection that is gone may have left an end behind, which tells more: the receiver finds it,
 * or the loss. */
static void give_up_sending(struct stream *stream, status *st)
{
	if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED)
		lose(stream, status_recode(st, STATUS_UNAVAILABLE));
	else
		status_free(st);
}

void stream_renice(const struct stream *stream)
{
	if (!stream->is_background)
		return;
	if (stream->sender_tid != 0)
		(void)setpriority(PRIO_PROCESS, (id_t)stream->sender_tid, BACKGROUND_NICE);
	if (stream->receiver_tid != 0)
		(void)setpriority(PRIO_PROCESS, (id_t)stream->receiver_tid, BACKGROUND_NICE);
}

void *stream_run_sender(void *argument)
{
	struct stream *stream = argument;
	(void)pthread_mutex_lock(&stream->lock);
	stream->sender_tid = gettid();
	stream_renice(stream);
	while (!stream->is_closing && stream->lost == NULL) {
		struct errand errand;
		choose(stream, &errand);
		if (errand.kind == HAUL__V1__FRAME_KIND__FRAME_UNKNOWN) {
			wait_for_work(stream);
			continue;
		}
		(void)pthread_mutex_unlock(&stream->lock);
		status *st = send_errand(stream, &errand);
		free(errand.item);
		if (st != NULL) {
			give_up_sending(stream, st);
			return NULL;
		}
		(void)pthread_mutex_lock(&stream->lock);
		stream->sent_ms = clock_monotonic_ms();
		(void)pthread_cond_broadcast(&stream->changed);
	}
	(void)pthread_mutex_unlock(&stream->lock);
	return NULL;
}

/* --- receiving --- */

static status *wrong(const char *what)
{
	return status_errorf(STATUS_DATA_LOSS, "the other side of the stream %s", what);
}

static status *take_message(struct stream *stream, const struct pipe_in *in)
{
	struct stream_item *item = malloc(sizeof(*item) + in->size);
	status *st = NULL;
	if (item == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a message");
	item->size = in->size;
	memcpy(item->data, in->body, in->size);
	(void)pthread_mutex_lock(&stream->lock);
	if (stream->is_half_closed)
		st = wrong("went on after it had half-closed");
	else if (stream->window <= 0)
		st = wrong("sent more than it had credit for");
	stream->window -= (int64_t)in->size + MESSAGE_COST;
	if (st == NULL)
		stream_queue_put(&stream->in, item);
	(void)pthread_mutex_unlock(&stream->lock);
	if (st != NULL)
		free(item);
	return st;
}

static status *take_metadata(struct stream *stream, const struct pipe_in *in)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__metadata__descriptor, in->body, in->size,
				    LIMIT_BULK_BYTES, &message);
	if (st == NULL)
		st = metadata_check((const Haul__V1__Metadata *)message, !stream->is_server);
	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	(void)pthread_mutex_lock(&stream->lock);
	if (stream->other != NULL)
		st = wrong("sent its metadata twice");
	else
		stream->other = (Haul__V1__Metadata *)TAKE(message);
	(void)pthread_mutex_unlock(&stream->lock);
	return st;
}

static status *take_credit(struct stream *stream, const struct pipe_in *in)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__stream_credit__descriptor, in->body, in->size,
				    LIMIT_NAME, &message);
	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	(void)pthread_mutex_lock(&stream->lock);
	stream->credit += ((const Haul__V1__StreamCredit *)message)->bytes;
	if (stream->credit > stream->options.window)
		st = wrong("gave more credit than there is");
	(void)pthread_mutex_unlock(&stream->lock);
	return st;
}

static status *take_end(struct stream *stream, const struct pipe_in *in)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__pipe_end__descriptor, in->body, in->size,
				    LIMIT_BULK_BYTES, &message);
	Haul__V1__PipeEnd *end = (Haul__V1__PipeEnd *)message;
	if (st == NULL && end->trailing != NULL)
		st = metadata_check(end->trailing, !stream->is_server);
	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	(void)pthread_mutex_lock(&stream->lock);
	stream->is_ended = stream->is_half_closed = true;
	stream->trailer = status_from_wire(end->status);
	stream->other_trailing = TAKE(end->trailing);
	/* A client's answer to an end is its own: the server then knows that it was read. */
	if (!stream->is_server)
		stream->wants_end = true;
	(void)pthread_mutex_unlock(&stream->lock);
	return NULL;
}

status *stream_take_frame(struct stream *stream, const struct pipe_in *in)
{
	switch ((int)in->kind) {
	case HAUL__V1__FRAME_KIND__FRAME_EVENT:
		return take_message(stream, in);
	case HAUL__V1__FRAME_KIND__FRAME_METADATA:
		return take_metadata(stream, in);
	case HAUL__V1__FRAME_KIND__FRAME_CREDIT:
		return take_credit(stream, in);
	case HAUL__V1__FRAME_KIND__FRAME_KEEPALIVE:
		return NULL;
	case HAUL__V1__FRAME_KIND__FRAME_HALF_CLOSE:
		if (!stream->is_server)
			return wrong("half-closed, which is a client's to do");
		(void)pthread_mutex_lock(&stream->lock);
		stream->is_half_closed = true;
		(void)pthread_mutex_unlock(&stream->lock);
		return NULL;
	case HAUL__V1__FRAME_KIND__FRAME_END:
		return take_end(stream, in);
	default:
		return wrong("sent a frame that has no place in a stream");
	}
}

static status *receive_one(struct stream *stream)
{
	struct pipe_in in = {0};
	status *st = pipe_receive(stream->pipe, stream->options.dead_ms, &in);
	if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED) {
		status_free(st);
		return status_errorf(STATUS_UNAVAILABLE,
				     "the other side of the stream has been silent for %lld ms: it "
				     "is taken for dead",
				     (long long)stream->options.dead_ms);
	}
	if (st != NULL)
		return st;
	st = stream_take_frame(stream, &in);
	pipe_in_drop(&in);
	return st;
}

void *stream_run_receiver(void *argument)
{
	struct stream *stream = argument;
	bool is_over = false;
	(void)pthread_mutex_lock(&stream->lock);
	stream->receiver_tid = gettid();
	stream_renice(stream);
	(void)pthread_mutex_unlock(&stream->lock);
	while (!is_over) {
		status *st = receive_one(stream);
		if (st != NULL) {
			lose(stream, st);
			return NULL;
		}
		(void)pthread_mutex_lock(&stream->lock);
		is_over = stream->is_ended || stream->is_closing;
		if (stream_is_over(stream))
			stream_wake(stream);
		(void)pthread_cond_broadcast(&stream->changed);
		(void)pthread_mutex_unlock(&stream->lock);
	}
	return NULL;
}
