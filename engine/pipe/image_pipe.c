/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/image_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "engine/host/files.h"
#include "proto/limits.h"

enum { CHUNK_BYTES = 256 * 1024 };

/* --- sending --- */

struct sending {
	struct pipe *pipe;
	const char *dir;
	int64_t silence_ms;
	unsigned count;
	uint64_t bytes;
	status *st;
	uint8_t chunk[CHUNK_BYTES];
};

static status *send_chunk(struct sending *sending, Haul__V1__ImageChunk *chunk)
{
	return pipe_send_message(sending->pipe, HAUL__V1__FRAME_KIND__FRAME_IMAGE, &chunk->base,
				 sending->silence_ms);
}

static status *send_file(struct sending *sending, const char *name, int fd)
{
	XXH3_state_t digest;
	Haul__V1__ImageChunk chunk = HAUL__V1__IMAGE_CHUNK__INIT;
	uint64_t offset = 0;

	(void)XXH3_64bits_reset(&digest);
	chunk.name = (char *)name;
	while (!chunk.last) {
		ssize_t got = read(fd, sending->chunk, CHUNK_BYTES);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return status_errnof(errno, "cannot read image %s", name);
		(void)XXH3_64bits_update(&digest, sending->chunk, (size_t)got);
		chunk.offset = offset;
		chunk.data.data = sending->chunk;
		chunk.data.len = (size_t)got;
		offset += (uint64_t)got;
		/* A short read is a file's end: nobody writes any more. */
		chunk.last = got < CHUNK_BYTES;
		if (chunk.last) {
			chunk.size = offset;
			chunk.digest = XXH3_64bits_digest(&digest);
		}
		status *st = send_chunk(sending, &chunk);
		if (st != NULL)
			return st;
	}
	sending->count++;
	sending->bytes += offset;
	return NULL;
}

static bool is_wanted(const char *name)
{
	size_t length = strlen(name);

	return length > 4 && strcmp(name + length - 4, ".img") == 0;
}

static void send_entry(void *self, const char *name)
{
	struct sending *sending = self;
	char path[FILES_PATH + 256];
	struct stat info;

	if (sending->st != NULL || !is_wanted(name))
		return;
	(void)snprintf(path, sizeof(path), "%s/%s", sending->dir, name);
	scoped(fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &info) != 0) {
		sending->st = status_errnof(errno, "cannot open image %s", path);
		return;
	}
	if (S_ISREG(info.st_mode))
		sending->st = send_file(sending, name, fd);
}

status *image_pipe_send(struct pipe *pipe, const char *dir, int64_t silence_ms, unsigned *ret_count,
			uint64_t *ret_bytes)
{
	struct sending *sending = calloc(1, sizeof(*sending));

	if (sending == NULL)
		return status_errnof(ENOMEM, "image pipe");
	sending->pipe = pipe;
	sending->dir = dir;
	sending->silence_ms = silence_ms;
	uint64_t before = pipe_bytes_sent(pipe);
	status *st = files_each(dir, send_entry, sending);
	st = status_first(st, TAKE(sending->st));
	if (st == NULL)
		st = pipe_send_end(pipe, NULL, silence_ms);
	*ret_count = sending->count;
	*ret_bytes = pipe_bytes_sent(pipe) - before;
	free(sending);
	return st;
}

/* --- receiving --- */

struct image_state {
	char dir[FILES_PATH];
	int fd;                      /* of the open file, or -1 */
	char name[LIMIT_NAME + 1];
	uint64_t size;
	XXH3_state_t digest;
	unsigned count;
};

status *image_state_new(const char *dir, struct image_state **ret_state)
{
	struct image_state *state = calloc(1, sizeof(*state));

	if (state == NULL)
		return status_errnof(ENOMEM, "image pipe");
	(void)snprintf(state->dir, sizeof(state->dir), "%s", dir);
	state->fd = -1;
	*ret_state = state;
	return NULL;
}

void image_state_free(struct image_state *state)
{
	if (state == NULL)
		return;
	close_if_open(state->fd);
	free(state);
}

static status *check_name(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length > LIMIT_NAME || strchr(name, '/') != NULL || name[0] == '.' || !is_wanted(name))
		return status_errorf(STATUS_DATA_LOSS, "an image has a name that none has");
	return NULL;
}

static status *open_file(struct image_state *state, const char *name)
{
	char path[FILES_PATH + LIMIT_NAME + 2];
	status *st = check_name(name);

	if (st != NULL)
		return st;
	if (state->count >= LIMIT_IMAGES)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "more than %d images", LIMIT_IMAGES);
	(void)snprintf(path, sizeof(path), "%s/%s", state->dir, name);
	state->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (state->fd < 0)
		return status_errnof(errno, "cannot create image %s", path);
	(void)snprintf(state->name, sizeof(state->name), "%s", name);
	state->size = 0;
	(void)XXH3_64bits_reset(&state->digest);
	return NULL;
}

static status *append(struct image_state *state, const uint8_t *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t wrote = write(state->fd, data + done, size - done);
		if (wrote < 0 && errno != EINTR)
			return status_errnof(errno, "cannot write image %s", state->name);
		done += wrote > 0 ? (size_t)wrote : 0;
	}
	(void)XXH3_64bits_update(&state->digest, data, size);
	state->size += size;
	return NULL;
}

static status *close_file(struct image_state *state, const Haul__V1__ImageChunk *chunk)
{
	(void)close(TAKE_FD(state->fd));
	state->count++;
	if (chunk->size != state->size || chunk->digest != XXH3_64bits_digest(&state->digest))
		return status_errorf(STATUS_DATA_LOSS, "image %s was damaged on the way", state->name);
	return NULL;
}

static status *apply(struct image_state *state, const Haul__V1__ImageChunk *chunk)
{
	status *st = NULL;

	if (state->fd < 0)
		st = open_file(state, chunk->name);
	else if (strcmp(chunk->name, state->name) != 0)
		st = status_errorf(STATUS_DATA_LOSS, "image %s begins in the middle of %s", "another", state->name);
	if (st == NULL && chunk->offset != state->size)
		st = status_errorf(STATUS_DATA_LOSS, "image %s has a gap", state->name);
	if (st == NULL)
		st = append(state, chunk->data.data, chunk->data.len);
	if (st == NULL && chunk->last)
		st = close_file(state, chunk);
	return st;
}

status *image_state_chunk(struct image_state *state, const uint8_t *data, size_t size)
{
	ProtobufCMessage *message = NULL;
	status *st = unpack_message(&haul__v1__image_chunk__descriptor, data, size, LIMIT_BULK_BYTES, &message);

	if (st != NULL)
		return st;
	st = apply(state, (const Haul__V1__ImageChunk *)message);
	message_free(message);
	return st;
}

status *image_state_end(struct image_state *state, unsigned *ret_count)
{
	if (state->fd >= 0)
		return status_errorf(STATUS_DATA_LOSS, "the images end in the middle of %s", state->name);
	*ret_count = state->count;
	return NULL;
}

static status *receive_all(struct pipe *pipe, struct image_state *state, int64_t silence_ms,
			   unsigned *ret_count)
{
	for (;;) {
		struct pipe_in in __attribute__((cleanup(scope_pipe_in))) = {0};
		status *st = pipe_receive(pipe, silence_ms, &in);
		if (st == NULL && in.kind == HAUL__V1__FRAME_KIND__FRAME_END)
			return image_state_end(state, ret_count);
		if (st == NULL && in.kind != HAUL__V1__FRAME_KIND__FRAME_IMAGE)
			st = status_errorf(STATUS_DATA_LOSS, "unexpected frame %d", in.kind);
		if (st == NULL)
			st = image_state_chunk(state, in.body, in.size);
		if (st != NULL)
			return status_wrapf(st, "image pipe");
	}
}

status *image_pipe_receive(struct pipe *pipe, const char *dir, int64_t silence_ms, unsigned *ret_count)
{
	struct image_state *state = NULL;
	status *st = image_state_new(dir, &state);

	if (st == NULL)
		st = receive_all(pipe, state, silence_ms, ret_count);
	image_state_free(state);
	return st;
}
