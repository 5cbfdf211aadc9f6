/* SPDX-License-Identifier: Apache-2.0 */
/* The frames of a stream as the other side may send them, already opened. The first byte chooses
 * this side and its window; then frames, each with its length: a kind and a body. */
#include "proto/limits.h"
#include "proto/metadata.h"
#include "rpc/stream_internal.h"
#include "tests/fuzz/fuzz.h"

enum { SERVER = 1, NARROW = 2, NARROW_WINDOW = 200, WINDOW = 256 * 1024 };

static void check_metadata(const struct stream *stream, const Haul__V1__Metadata *metadata)
{
	scoped(status) status *st = metadata_check(metadata, !stream->is_server);
	must(st == NULL);
}

/* What waits and what is left of the window are the window: one message may go below 0. */
static void check_stream(const struct stream *stream, bool is_fine)
{
	int64_t used = 0, last = 0;

	for (const struct stream_item *item = stream->in.first; item != NULL; item = item->next) {
		last = (int64_t)item->size + MESSAGE_COST;
		used += last;
	}
	must(used - last < stream->options.window || used == 0);
	must(!is_fine || stream->window + used == stream->options.window);
	must(!is_fine || stream->credit <= stream->options.window);
	check_metadata(stream, stream->other);
	check_metadata(stream, stream->other_trailing);
}

static void stream_clear(struct stream *stream)
{
	while (stream->in.first != NULL)
		free(stream_queue_take(&stream->in));
	metadata_free(stream->other);
	metadata_free(stream->other_trailing);
	status_free(stream->trailer);
	(void)pthread_cond_destroy(&stream->changed);
	(void)pthread_mutex_destroy(&stream->lock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stream stream = {0};
	const uint8_t *piece = NULL;
	size_t length = 0;
	bool is_fine = true;

	if (size == 0)
		return 0;
	stream.is_server = (data[0] & SERVER) != 0;
	stream.options.window = (data[0] & NARROW) != 0 ? NARROW_WINDOW : WINDOW;
	stream.window = stream.options.window;
	(void)pthread_mutex_init(&stream.lock, NULL);
	(void)pthread_cond_init(&stream.changed, NULL);
	data++;
	size--;
	while (is_fine && !stream.is_ended && fuzz_piece(&data, &size, 2, &piece, &length)) {
		if (length == 0)
			continue;
		struct pipe_in in = {.kind = (Haul__V1__FrameKind)piece[0],
				     .body = piece + 1,
				     .size = length - 1};
		scoped(status) status *st = stream_take_frame(&stream, &in);
		is_fine = st == NULL;
		must(is_fine || status_code_of(st) == STATUS_DATA_LOSS);
		check_stream(&stream, is_fine);
	}
	stream_clear(&stream);
	return 0;
}
