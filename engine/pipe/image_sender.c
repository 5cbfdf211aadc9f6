/* SPDX-License-Identifier: Apache-2.0 */
/* The sending half. A thread is told by inotify of each file that is closed and sends it. That is
 * only a head start: the sweep at the end looks at every file again, so that nothing depends on
 * what inotify tells or leaves out. */
#include "engine/pipe/image_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

#include "engine/host/files.h"
#include "engine/pipe/image_set.h"
#include "proto/limits.h"

enum { CHUNK_BYTES = 256 * 1024, EVENT_BYTES = 16 * 1024 };

struct image_sender {
	struct pipe *pipe;
	int dir;
	char path[FILES_PATH];
	char held[LIMIT_NAME + 1];
	int64_t silence_ms;
	int watch; /* inotify's; -1 = there is none: all goes at the end */
	int stop;  /* readable when the thread is to end */
	pthread_t thread;
	bool has_thread;

	/* The thread's, until it has ended: */
	uint8_t *data;	       /* CHUNK_BYTES */
	struct image_set sent; /* what the destination has */
	unsigned seen;	       /* files in the directory, by the sweep */
	uint64_t bytes;
	status *error;
};

/* --- one file --- */

static status *send_chunk(struct image_sender *sender, Haul__V1__ImageChunk *chunk, int fd,
			  XXH3_state_t *state)
{
	ssize_t got = pread(fd, sender->data, CHUNK_BYTES, (off_t)chunk->offset);

	if (got < 0)
		return status_errnof(errno, "cannot read image %s", chunk->name);
	(void)XXH3_64bits_update(state, sender->data, (size_t)got);
	chunk->data.data = sender->data;
	chunk->data.len = (size_t)got;
	chunk->last = got < CHUNK_BYTES;
	if (chunk->last) {
		chunk->size = chunk->offset + (uint64_t)got;
		chunk->digest = XXH3_64bits_digest(state);
	}
	return pipe_send_message(sender->pipe, HAUL__V1__FRAME_KIND__FRAME_IMAGE, &chunk->base,
				 sender->silence_ms);
}

static status *send_file(struct image_sender *sender, const char *name, int fd)
{
	Haul__V1__ImageChunk chunk = HAUL__V1__IMAGE_CHUNK__INIT;
	XXH3_state_t state;

	(void)XXH3_64bits_reset(&state);
	chunk.name = (char *)name;
	while (!chunk.last) {
		status *st = send_chunk(sender, &chunk, fd, &state);
		if (st != NULL)
			return st;
		chunk.offset += chunk.data.len;
	}
	sender->bytes += chunk.size;
	return image_set_put(&sender->sent, name, chunk.size, chunk.digest);
}

/* Is the file what was sent under its name? */
static status *is_as_sent(struct image_sender *sender, const char *name, int fd, bool *ret_is)
{
	const struct image_record *record = image_set_find(&sender->sent, name);
	XXH3_state_t state;
	off_t size = 0;
	ssize_t got = record != NULL ? 1 : 0;

	(void)XXH3_64bits_reset(&state);
	while (got > 0) {
		got = pread(fd, sender->data, CHUNK_BYTES, size);
		if (got < 0)
			return status_errnof(errno, "cannot read image %s", name);
		(void)XXH3_64bits_update(&state, sender->data, (size_t)got);
		size += got;
	}
	*ret_is = record != NULL && record->size == (uint64_t)size &&
		  record->digest == XXH3_64bits_digest(&state);
	return NULL;
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t length = strlen(name), more = strlen(suffix);

	return length >= more && strcmp(name + length - more, suffix) == 0;
}

/* -1 without an error: no image. */
static status *open_image(const struct image_sender *sender, const char *name, int *ret_fd)
{
	struct stat info;

	*ret_fd = -1;
	if (strncmp(name, "stats-", 6) == 0 || has_suffix(name, ".log"))
		return NULL;
	scoped(fd) int fd =
	    openat(sender->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 && (errno == ELOOP || errno == ENXIO))
		return NULL; /* the link to the round before; a socket */
	if (fd < 0 || fstat(fd, &info) != 0)
		return status_errnof(errno, "cannot open image %s", name);
	if (S_ISREG(info.st_mode))
		*ret_fd = TAKE_FD(fd);
	return NULL;
}

/* --- while CRIU dumps --- */

/* One that cannot be opened is left to the sweep: it may just have been renamed. */
static status *take_closed(struct image_sender *sender, const char *name)
{
	int found = -1;

	if (strcmp(name, sender->held) == 0)
		return NULL;
	status_free(open_image(sender, name, &found));
	scoped(fd) int fd = found;
	return fd < 0 ? NULL : send_file(sender, name, fd);
}

static status *take_events(struct image_sender *sender)
{
	_Alignas(struct inotify_event) char events[EVENT_BYTES];
	ssize_t got = read(sender->watch, events, sizeof(events));
	status *st = NULL;

	if (got < 0)
		return errno == EAGAIN || errno == EINTR
			   ? NULL
			   : status_errnof(errno, "cannot watch %s", sender->path);
	for (ssize_t at = 0; at < got && st == NULL;) {
		const struct inotify_event *event = (const void *)(events + at);
		if (event->len > 0)
			st = take_closed(sender, event->name);
		at += (ssize_t)(sizeof(*event) + event->len);
	}
	return st;
}

static void *send_closed(void *self)
{
	struct image_sender *sender = self;
	struct pollfd fds[2] = {{.fd = sender->stop, .events = POLLIN},
				{.fd = sender->watch, .events = POLLIN}};

	while (sender->error == NULL && fds[0].revents == 0)
		if (poll(fds, 2, -1) > 0 && fds[0].revents == 0)
			sender->error = take_events(sender);
	return NULL;
}

static void join(struct image_sender *sender)
{
	const uint64_t one = 1;

	if (!sender->has_thread)
		return;
	(void)!write(sender->stop, &one, sizeof(one));
	(void)pthread_join(sender->thread, NULL);
	sender->has_thread = false;
}

/* A host without inotify instances left just gets no head start. */
static status *start_thread(struct image_sender *sender)
{
	sender->watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (sender->watch < 0 || inotify_add_watch(sender->watch, sender->path, IN_CLOSE_WRITE) < 0)
		return NULL;
	int failed = pthread_create(&sender->thread, NULL, send_closed, sender);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	sender->has_thread = true;
	return NULL;
}

status *image_sender_start(struct pipe *pipe, const char *dir, const char *held, int64_t silence_ms,
			   struct image_sender **ret_sender)
{
	scoped(image_sender) struct image_sender *sender = calloc(1, sizeof(*sender));

	if (sender == NULL)
		return status_errnof(ENOMEM, "images");
	sender->pipe = pipe;
	sender->silence_ms = silence_ms;
	sender->watch = -1;
	(void)snprintf(sender->path, sizeof(sender->path), "%s", dir);
	(void)snprintf(sender->held, sizeof(sender->held), "%s", held != NULL ? held : "");
	sender->data = malloc(CHUNK_BYTES);
	sender->stop = eventfd(0, EFD_CLOEXEC);
	sender->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (sender->data == NULL || sender->stop < 0)
		return status_errnof(errno, "images");
	if (sender->dir < 0)
		return status_errnof(errno, "cannot open directory %s", dir);
	status *st = start_thread(sender);
	if (st == NULL)
		*ret_sender = TAKE(sender);
	return st;
}

/* --- the end --- */

static status *sweep_file(struct image_sender *sender, const char *name)
{
	bool is_there = false;
	int found;
	status *st = open_image(sender, name, &found);
	scoped(fd) int fd = found;

	if (st != NULL || fd < 0)
		return st;
	sender->seen++;
	st = is_as_sent(sender, name, fd, &is_there);
	return st == NULL && !is_there ? send_file(sender, name, fd) : st;
}

static void visit(void *self, const char *name)
{
	struct image_sender *sender = self;

	if (sender->error == NULL)
		sender->error = sweep_file(sender, name);
}

static status *sweep(struct image_sender *sender)
{
	status *st = files_each(sender->path, visit, sender);

	st = status_first(TAKE(sender->error), st);
	/* The destination has one that is not here: CRIU took it back. */
	if (st == NULL && sender->seen != sender->sent.count)
		st = status_errorf(STATUS_ABORTED, "%u images are there, %u were sent",
				   sender->seen, sender->sent.count);
	return st == NULL ? pipe_send_end(sender->pipe, NULL, sender->silence_ms) : st;
}

status *image_sender_finish(struct image_sender *sender, struct image_totals *ret_totals,
			    uint64_t *ret_bytes, unsigned *ret_early)
{
	join(sender);
	unsigned early = sender->sent.count;
	status *st = sender->error != NULL ? TAKE(sender->error) : sweep(sender);

	if (st != NULL)
		return status_wrapf(st, "images");
	*ret_totals = (struct image_totals){sender->sent.count, image_set_digest(&sender->sent)};
	*ret_bytes = sender->bytes;
	*ret_early = early;
	return NULL;
}

void image_sender_free(struct image_sender *sender)
{
	if (sender == NULL)
		return;
	if (sender->has_thread) /* not finished */
		pipe_interrupt(sender->pipe);
	join(sender);
	status_free(sender->error);
	image_set_clear(&sender->sent);
	close_if_open(sender->watch);
	close_if_open(sender->stop);
	close_if_open(sender->dir);
	free(sender->data);
	free(sender);
}
