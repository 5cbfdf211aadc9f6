/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving half. */
#include "engine/pipe/image_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "engine/host/files.h"
#include "engine/pipe/image_set.h"
#include "proto/limits.h"
#include "proto/pack.h"

struct image_state {
	int dir;
	int fd; /* of the file that is coming; -1 = none */
	char name[LIMIT_NAME + 1];
	uint64_t offset;
	XXH3_state_t digest;
	struct image_set images; /* that came whole */
	unsigned files;		 /* that came, a file counts each time */
};

status *image_state_new(const char *dir, struct image_state **ret_state)
{
	/* XXH3's state wants to lie at a multiple of 64, which is part of the type. */
	struct image_state *state = aligned_alloc(_Alignof(struct image_state), sizeof(*state));

	if (state == NULL)
		return status_errnof(ENOMEM, "images");
	memset(state, 0, sizeof(*state));
	state->fd = -1;
	state->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (state->dir < 0) {
		free(state);
		return status_errnof(errno, "cannot open directory %s", dir);
	}
	*ret_state = state;
	return NULL;
}

void image_state_free(struct image_state *state)
{
	if (state == NULL)
		return;
	close_if_open(state->fd);
	close_if_open(state->dir);
	image_set_clear(&state->images);
	free(state);
}

/* Letters, digits and a few signs: what CRIU's names are made of. */
static bool is_plain(const char *name)
{
	static const char allowed[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.+:";
	size_t length = strlen(name);

	return length > 0 && length <= LIMIT_NAME && name[0] != '.' &&
	       strspn(name, allowed) == length;
}

/* A file may come again: CRIU went on with it after it had left. What did not come by this pipe is
 * never touched: the pages are in the same directory. */
static status *begin_file(struct image_state *state, const Haul__V1__ImageChunk *chunk)
{
	if (!is_plain(chunk->name))
		return status_errorf(STATUS_DATA_LOSS, "an image came under an impossible name");
	bool is_again = image_set_find(&state->images, chunk->name) != NULL;
	if ((!is_again && state->images.count >= LIMIT_IMAGES) ||
	    state->files++ >= 2 * LIMIT_IMAGES)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "more than %d images",
				     LIMIT_IMAGES);
	state->fd =
	    openat(state->dir, chunk->name,
		   O_WRONLY | (is_again ? O_TRUNC : O_CREAT | O_EXCL) | O_NOFOLLOW | O_CLOEXEC,
		   0600);
	if (state->fd < 0)
		return errno == EEXIST ? status_errorf(STATUS_DATA_LOSS,
						       "image %s is there already", chunk->name)
				       : status_errnof(errno, "cannot make image %s", chunk->name);
	(void)memcpy(state->name, chunk->name, strlen(chunk->name) + 1);
	state->offset = 0;
	(void)XXH3_64bits_reset(&state->digest);
	return NULL;
}

static status *write_data(struct image_state *state, const ProtobufCBinaryData *data)
{
	(void)XXH3_64bits_update(&state->digest, data->data, data->len);
	for (size_t done = 0; done < data->len;) {
		ssize_t more = write(state->fd, data->data + done, data->len - done);
		if (more <= 0 && errno != EINTR)
			return status_errnof(errno, "cannot write image %s", state->name);
		done += more > 0 ? (size_t)more : 0;
	}
	state->offset += data->len;
	return NULL;
}

static status *end_file(struct image_state *state, const Haul__V1__ImageChunk *chunk)
{
	if (chunk->size != state->offset || chunk->digest != XXH3_64bits_digest(&state->digest))
		return status_errorf(STATUS_DATA_LOSS, "image %s was altered on its way",
				     state->name);
	(void)close(TAKE_FD(state->fd));
	return image_set_put(&state->images, state->name, chunk->size, chunk->digest);
}

static status *take_chunk(struct image_state *state, const Haul__V1__ImageChunk *chunk)
{
	status *st = NULL;

	if (state->fd < 0)
		st = begin_file(state, chunk);
	if (st != NULL)
		return st;
	if (strcmp(chunk->name, state->name) != 0 || chunk->offset != state->offset)
		return status_errorf(STATUS_DATA_LOSS, "pieces of image %s came out of order",
				     state->name);
	if (chunk->data.len == 0 && !chunk->last)
		return status_errorf(STATUS_DATA_LOSS, "an empty piece of image %s came",
				     state->name);
	st = write_data(state, &chunk->data);
	return st == NULL && chunk->last ? end_file(state, chunk) : st;
}

status *image_state_chunk(struct image_state *state, const uint8_t *data, size_t size)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__image_chunk__descriptor, data, size,
				    (size_t)LIMIT_BULK_BYTES, &message);

	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	return take_chunk(state, (const Haul__V1__ImageChunk *)message);
}

status *image_state_end(struct image_state *state, struct image_totals *ret_totals)
{
	if (state->fd >= 0)
		return status_errorf(STATUS_DATA_LOSS, "image %s came only in part", state->name);
	*ret_totals = (struct image_totals){state->images.count, image_set_digest(&state->images)};
	return NULL;
}

/* The sender's verdict on its own sending. */
static status *check_end(const struct pipe_in *in)
{
	scoped(message) ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__pipe_end__descriptor, in->body, in->size,
				    LIMIT_UNARY_BYTES, &message);

	if (st != NULL)
		return status_recode(st, STATUS_DATA_LOSS);
	const Haul__V1__Status *verdict = ((const Haul__V1__PipeEnd *)message)->status;
	if (verdict == NULL || verdict->code == 0)
		return NULL;
	return status_errorf(status_code_from_wire((uint32_t)verdict->code),
			     "the source could not send: %s", verdict->message);
}

static status *receive_all(struct pipe *pipe, struct image_state *state, int64_t silence_ms)
{
	for (;;) {
		scoped(pipe_in) struct pipe_in in = {0};
		status *st = pipe_receive(pipe, silence_ms, &in);
		if (st != NULL)
			return st;
		if (in.kind == HAUL__V1__FRAME_KIND__FRAME_END)
			return check_end(&in);
		if (in.kind != HAUL__V1__FRAME_KIND__FRAME_IMAGE)
			return status_errorf(STATUS_DATA_LOSS,
					     "a frame of kind %d came among the images",
					     (int)in.kind);
		st = image_state_chunk(state, in.body, in.size);
		if (st != NULL)
			return st;
	}
}

status *image_pipe_receive(struct pipe *pipe, const char *dir, int64_t silence_ms,
			   struct image_totals *ret_totals)
{
	struct image_state *state = NULL;
	status *st = image_state_new(dir, &state);

	if (st != NULL)
		return st;
	st = receive_all(pipe, state, silence_ms);
	if (st == NULL)
		st = image_state_end(state, ret_totals);
	image_state_free(state);
	return st == NULL ? NULL : status_wrapf(st, "images");
}
