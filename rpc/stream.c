/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/clock.h"
#include "rpc/stream_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "proto/metadata.h"
#include "rpc/nng_error.h"

static const struct stream_options usual = {.window = 256 * 1024,
					    .keepalive_ms = 10000,
					    .dead_ms = 30000};

static status *start_threads(struct stream *stream)
{
	int failed = pthread_create(&stream->sender, NULL, stream_run_sender, stream);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	stream->has_sender = true;
	failed = pthread_create(&stream->receiver, NULL, stream_run_receiver, stream);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	stream->has_receiver = true;
	return NULL;
}

status *stream_new(struct pipe *pipe, bool is_server, const struct stream_options *options,
		   struct stream **ret_stream)
{
	struct stream *made = calloc(1, sizeof(*made));
	if (made == NULL) {
		pipe_free(pipe);
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a stream");
	}
	made->pipe = pipe;
	made->is_server = is_server;
	made->options = options != NULL ? *options : usual;
	made->credit = made->window = made->options.window;
	made->sent_ms = clock_monotonic_ms();
	made->own = metadata_new();
	made->own_trailing = metadata_new();
	clock_cond_init(&made->changed);
	(void)pthread_mutex_init(&made->lock, NULL);
	status *st = start_threads(made);
	if (st != NULL) {
		stream_free(made);
		return st;
	}
	*ret_stream = made;
	return NULL;
}

/* Waits for a change; false when the time is over. Caller holds the lock. */
static bool wait_until(struct stream *stream, int64_t deadline_ms)
{
	struct timespec until = clock_at(deadline_ms);
	return pthread_cond_timedwait(&stream->changed, &stream->lock, &until) != ETIMEDOUT;
}

/* Why the stream is over; caller holds the lock, and stream_is_over. */
static status *why_over(const struct stream *stream)
{
	if (stream->is_interrupted)
		return status_errorf(STATUS_CANCELLED, "the stream was interrupted");
	if (stream->trailer != NULL)
		return status_copy(stream->trailer);
	if (stream->is_ended)
		return stream->is_server
			   ? status_errorf(STATUS_CANCELLED, "the client has left the stream")
			   : status_errorf(STATUS_FAILED_PRECONDITION,
					   "the server has ended the stream");
	return status_copy(stream->lost);
}

static status *enqueue(struct stream *stream, struct stream_item **item, int64_t deadline_ms)
{
	for (;;) {
		if (stream->wants_half_close || (stream->wants_end && !stream->is_ended))
			return status_errorf(STATUS_FAILED_PRECONDITION,
					     "this side has ended the stream already");
		if (stream_is_over(stream))
			return why_over(stream);
		if (stream->credit > 0)
			break;
		if (!wait_until(stream, deadline_ms))
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "the other side of the stream did not read in time");
	}
	stream->credit -= (int64_t)(*item)->size + MESSAGE_COST;
	stream_queue_put(&stream->out, TAKE(*item));
	(void)pthread_cond_broadcast(&stream->changed);
	return NULL;
}

static status *new_item(size_t size, struct stream_item **ret_item)
{
	if (size > LIMIT_BULK_BYTES)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "a message of %zu bytes is too large for a stream", size);
	struct stream_item *item = malloc(sizeof(*item) + size);
	if (item == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a message");
	item->size = size;
	*ret_item = item;
	return NULL;
}

/* Takes the item. */
static status *send_item(struct stream *stream, struct stream_item *item, int64_t timeout_ms)
{
	(void)pthread_mutex_lock(&stream->lock);
	status *st = enqueue(stream, &item, clock_monotonic_ms() + timeout_ms);
	(void)pthread_mutex_unlock(&stream->lock);
	free(item);
	return st;
}

status *stream_send(struct stream *stream, const ProtobufCMessage *message, int64_t timeout_ms)
{
	struct stream_item *item = NULL;
	status *st = new_item(protobuf_c_message_get_packed_size(message), &item);
	if (st != NULL)
		return st;
	(void)protobuf_c_message_pack(message, item->data);
	return send_item(stream, item, timeout_ms);
}

status *stream_send_bytes(struct stream *stream, const uint8_t *bytes, size_t size,
			  int64_t timeout_ms)
{
	struct stream_item *item = NULL;
	status *st = new_item(size, &item);
	if (st != NULL)
		return st;
	memcpy(item->data, bytes, size);
	return send_item(stream, item, timeout_ms);
}

/* The next message, or NULL at the end. Caller holds the lock. */
static status *dequeue(struct stream *stream, int64_t deadline_ms, struct stream_item **ret_item)
{
	while (stream->in.first == NULL) {
		if (stream->is_interrupted)
			return why_over(stream);
		if (stream->is_ended || stream->is_half_closed)
			return status_copy(stream->trailer);
		if (stream->lost != NULL)
			return why_over(stream);
		if (!wait_until(stream, deadline_ms))
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "nothing came through the stream in time");
	}
	if (stream->is_interrupted)
		return why_over(stream);
	struct stream_item *item = stream_queue_take(&stream->in);
	uint32_t cost = (uint32_t)item->size + MESSAGE_COST;
	stream->window += cost;
	stream->owed += cost;
	if (stream_owes_much(stream))
		(void)pthread_cond_broadcast(&stream->changed);
	*ret_item = item;
	return NULL;
}

status *stream_receive_bytes(struct stream *stream, int64_t timeout_ms, struct buffer *ret_bytes,
			     bool *ret_has_message)
{
	struct stream_item *item = NULL;
	(void)pthread_mutex_lock(&stream->lock);
	status *st = dequeue(stream, clock_monotonic_ms() + timeout_ms, &item);
	(void)pthread_mutex_unlock(&stream->lock);
	if (st != NULL)
		return st;
	*ret_has_message = item != NULL;
	if (item == NULL)
		return NULL;
	struct buffer bytes = {.data = malloc(item->size + 1), .size = item->size};
	if (bytes.data == NULL)
		st = status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a message");
	else
		memcpy(bytes.data, item->data, item->size);
	free(item);
	if (st == NULL)
		*ret_bytes = bytes;
	return st;
}

status *stream_receive(struct stream *stream, const ProtobufCMessageDescriptor *descriptor,
		       int64_t timeout_ms, ProtobufCMessage **ret_message)
{
	scoped(buffer) struct buffer bytes = {0};
	bool has_message = false;
	status *st = stream_receive_bytes(stream, timeout_ms, &bytes, &has_message);
	if (st != NULL || !has_message)
		return st;
	st = unpack_message(descriptor, bytes.data, bytes.size, LIMIT_BULK_BYTES, ret_message);
	return st != NULL ? status_recode(st, STATUS_DATA_LOSS) : NULL;
}

status *stream_add_metadata(struct stream *stream, const char *key, const char *value)
{
	(void)pthread_mutex_lock(&stream->lock);
	status *st =
	    stream->has_sent || stream->out.first != NULL
		? status_errorf(STATUS_FAILED_PRECONDITION, "the stream's metadata has been sent")
		: metadata_add(stream->own, key, value);
	(void)pthread_mutex_unlock(&stream->lock);
	return st;
}

status *stream_add_trailing(struct stream *stream, const char *key, const char *value)
{
	(void)pthread_mutex_lock(&stream->lock);
	status *st = stream->wants_end
			 ? status_errorf(STATUS_FAILED_PRECONDITION, "the stream has been ended")
			 : metadata_add(stream->own_trailing, key, value);
	(void)pthread_mutex_unlock(&stream->lock);
	return st;
}

static char *find_entry(const Haul__V1__Metadata *metadata, const char *key)
{
	const char *value = metadata_find(metadata, key);
	return value != NULL ? text_copy(value) : NULL;
}

char *stream_metadata(struct stream *stream, const char *key)
{
	(void)pthread_mutex_lock(&stream->lock);
	char *value = find_entry(stream->other, key);
	(void)pthread_mutex_unlock(&stream->lock);
	return value;
}

char *stream_trailing(struct stream *stream, const char *key)
{
	(void)pthread_mutex_lock(&stream->lock);
	char *value = find_entry(stream->other_trailing, key);
	(void)pthread_mutex_unlock(&stream->lock);
	return value;
}

void stream_half_close(struct stream *stream)
{
	(void)pthread_mutex_lock(&stream->lock);
	stream->wants_half_close = true;
	(void)pthread_cond_broadcast(&stream->changed);
	(void)pthread_mutex_unlock(&stream->lock);
}

void stream_end(struct stream *stream, const status *verdict, int64_t timeout_ms)
{
	int64_t deadline_ms = clock_monotonic_ms() + timeout_ms;
	(void)pthread_mutex_lock(&stream->lock);
	if (!stream->wants_end && verdict != NULL)
		stream->verdict = status_copy(verdict);
	stream->wants_end = true;
	(void)pthread_cond_broadcast(&stream->changed);
	/* The other side answers an end by its own, or by closing: then it has read everything. */
	while (stream->lost == NULL && !(stream->end_sent && stream->is_ended))
		if (!wait_until(stream, deadline_ms))
			break;
	(void)pthread_mutex_unlock(&stream->lock);
}

void stream_set_background(struct stream *stream)
{
	(void)pthread_mutex_lock(&stream->lock);
	stream->is_background = true;
	stream_renice(stream);
	(void)pthread_mutex_unlock(&stream->lock);
	(void)setpriority(PRIO_PROCESS, 0, BACKGROUND_NICE);
}

bool stream_is_cancelled(struct stream *stream)
{
	(void)pthread_mutex_lock(&stream->lock);
	bool is_over = stream_is_over(stream);
	(void)pthread_mutex_unlock(&stream->lock);
	return is_over;
}

void stream_on_cancel(struct stream *stream, void (*waker)(void *self), void *self)
{
	(void)pthread_mutex_lock(&stream->lock);
	while (stream->is_waking)
		(void)pthread_cond_wait(&stream->changed, &stream->lock);
	stream->waker = waker;
	stream->waker_self = self;
	if (stream_is_over(stream))
		stream_wake(stream);
	(void)pthread_mutex_unlock(&stream->lock);
}

void stream_stop(struct stream *stream)
{
	(void)pthread_mutex_lock(&stream->lock);
	stream->is_interrupted = true;
	(void)pthread_cond_broadcast(&stream->changed);
	stream_wake(stream);
	(void)pthread_mutex_unlock(&stream->lock);
}

void stream_interrupt(struct stream *stream)
{
	stream_stop(stream);
	pipe_interrupt(stream->pipe);
}

static void free_queue(struct stream_queue *queue)
{
	for (struct stream_item *item = stream_queue_take(queue); item != NULL;
	     item = stream_queue_take(queue))
		free(item);
}

void stream_free(struct stream *stream)
{
	if (stream == NULL)
		return;
	(void)pthread_mutex_lock(&stream->lock);
	stream->is_closing = true;
	(void)pthread_cond_broadcast(&stream->changed);
	(void)pthread_mutex_unlock(&stream->lock);
	pipe_interrupt(stream->pipe);
	if (stream->has_sender)
		(void)pthread_join(stream->sender, NULL);
	if (stream->has_receiver)
		(void)pthread_join(stream->receiver, NULL);
	pipe_free(stream->pipe);
	free_queue(&stream->in);
	free_queue(&stream->out);
	status_free(stream->verdict);
	status_free(stream->trailer);
	status_free(stream->lost);
	metadata_free(stream->own);
	metadata_free(stream->own_trailing);
	metadata_free(stream->other);
	metadata_free(stream->other_trailing);
	(void)pthread_cond_destroy(&stream->changed);
	(void)pthread_mutex_destroy(&stream->lock);
	free(stream);
}
