/* SPDX-License-Identifier: Apache-2.0 */
/* Bulk pipes, and what goes over them: a round's pages as one number, the images as one file. In
 * the place of rpc/pipe and engine/pipe. */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "engine/criu/live_pages.h"
#include "engine/host/files.h"
#include "engine/pipe/image_pipe.h"
#include "engine/pipe/memory_pipe.h"
#include "rpc/pipe.h"
#include "rpc/seal.h"
#include "tests/sim/pipes.h"

enum {
	PIPES = 64,
	QUEUE = 16,
	BROKEN_AFTER_S = 5,
	FRAME = 64,
	NARROW_S = 20,
	LIVE_PAGES = 2000,
	LIVE_MS = 30
};

struct frame {
	unsigned round;
	uint64_t pages;
	int64_t version;
	bool has_image;
};

/* One end; the listener's knows the dialer's and the other way around. */
struct pipe {
	struct life *life;
	struct pipe *peer;
	bool is_interrupted, is_closed, is_broken;
	struct frame queue[QUEUE];
	unsigned first, count;
	uint64_t sent, received;
};

struct memory_sender {
	struct played_memory *memory;
	struct pipe *pipe;
};

static struct pipe *pipes[PIPES];
static unsigned pipe_count;
static int64_t full_until; /* a frame takes all of the link */

const char *seal_name(Haul__V1__Seal kind)
{
	return kind == HAUL__V1__SEAL__SEAL_AES_256_GCM ? "AES-256-GCM" : "another";
}

uint32_t seal_measure(Haul__V1__Seal kind)
{
	return kind == HAUL__V1__SEAL__SEAL_AES_256_GCM ? 1000 : 0;
}

static struct pipe *pipe_new(void)
{
	struct pipe *pipe = calloc(1, sizeof(*pipe));

	if (pipe == NULL || pipe_count == PIPES)
		sim_fail("too many pipes");
	pipe->life = life_here();
	pipes[pipe_count++] = pipe;
	return pipe;
}

static void pipe_break(struct pipe *pipe)
{
	pipe->is_broken = true;
	fiber_wake(pipe);
	if (pipe->peer != NULL) {
		pipe->peer->is_broken = true;
		fiber_wake(pipe->peer);
	}
}

/* The kernel of a killed engine closes its connections. */
void pipes_life_died(const struct life *life)
{
	for (unsigned i = 0; i < pipe_count; i++) {
		if (pipes[i]->life == life && !pipes[i]->is_closed)
			pipe_break(pipes[i]);
	}
}

static status *check(const struct pipe *pipe)
{
	if (pipe->is_interrupted)
		return status_errorf(STATUS_CANCELLED, "interrupted");
	if (pipe->is_broken)
		return status_errorf(STATUS_UNAVAILABLE, "the pipe broke");
	return NULL;
}

status *pipe_listen(const struct pipe_place *place, struct pipe **ret_pipe,
		    Haul__V1__PipeAddress **ret_address)
{
	char url[32];
	Haul__V1__PipeAddress *address = malloc(sizeof(*address));

	(void)place;
	if (address == NULL)
		abort();
	haul__v1__pipe_address__init(address);
	*ret_pipe = pipe_new();
	(void)snprintf(url, sizeof(url), "sim:%u", pipe_count - 1);
	address->url = text_copy(url);
	*ret_address = address;
	return NULL;
}

status *pipe_accept(struct pipe *pipe, int64_t timeout_ms)
{
	int64_t until = sim_now() + timeout_ms * MS;

	while (pipe->peer == NULL) {
		status *st = check(pipe);
		if (st != NULL)
			return st;
		if (!fiber_wait(pipe, until))
			return status_errorf(STATUS_DEADLINE_EXCEEDED, "nobody came");
	}
	sim_point("pipe accepted", "");
	return NULL;
}

status *pipe_dial(const Haul__V1__PipeAddress *address, int64_t timeout_ms, struct pipe **ret_pipe)
{
	struct pipe *there = pipes[strtoul(address->url + 4, NULL, 10)];
	int64_t until = sim_now() + timeout_ms * MS;

	sim_sleep(MS);
	while (net_is_cut() || there->life->is_dead || there->is_closed) {
		if (sim_now() >= until)
			return status_errorf(STATUS_UNAVAILABLE, "not connected");
		sim_sleep(100 * MS);
	}
	struct pipe *pipe = pipe_new();
	pipe->peer = there;
	there->peer = pipe;
	fiber_wake(there);
	sim_point("pipe dialed", "");
	*ret_pipe = pipe;
	return NULL;
}

bool pipes_fill_link(void)
{
	return sim_now() < full_until;
}

/* In pieces; both ends see that it goes on. */
static void send_slowly(struct pipe *pipe)
{
	for (int s = 0; s < NARROW_S && !pipe->is_broken && !pipe->is_interrupted; s++) {
		pipe->sent++;
		pipe->peer->received++;
		full_until = sim_now() + SECOND;
		sim_sleep(SECOND);
	}
}

static status *send_frame(struct pipe *pipe, const struct frame *frame, const char *what)
{
	struct message_fate fate = sim_message("pipe sends", what);
	struct pipe *peer = pipe->peer;

	/* A message that is lost, comes twice or late: the seal does not let it pass, or the
	 * connection ends. */
	sim_sleep(MS + fate.late_ns);
	if (fate.is_lost || fate.again_ns != 0)
		pipe_break(pipe);
	for (int s = 0; net_is_cut() && !pipe->is_broken; s++) {
		if (s == BROKEN_AFTER_S)
			pipe_break(pipe);
		sim_sleep(SECOND);
	}
	if (sim_is_narrow && frame->pages > 0)
		send_slowly(pipe);
	status *st = check(pipe);
	if (st != NULL)
		return st;
	if (peer->is_closed)
		return status_errorf(STATUS_UNAVAILABLE, "the pipe broke");
	if (peer->count == QUEUE)
		sim_fail("a pipe is full");
	peer->queue[(peer->first + peer->count++) % QUEUE] = *frame;
	peer->received += FRAME;
	pipe->sent += FRAME;
	fiber_wake(peer);
	return NULL;
}

static status *receive_frame(struct pipe *pipe, int64_t silence_ms, const char *what,
			     struct frame *ret_frame)
{
	int64_t until = sim_now() + silence_ms * MS;

	while (pipe->count == 0) {
		status *st = check(pipe);
		if (st != NULL)
			return st;
		if (!fiber_wait(pipe, until) && pipe->count == 0)
			return status_errorf(STATUS_DEADLINE_EXCEEDED, "silence");
	}
	*ret_frame = pipe->queue[pipe->first];
	pipe->first = (pipe->first + 1) % QUEUE;
	pipe->count--;
	sim_point("pipe receives", what);
	return NULL;
}

void pipe_interrupt(struct pipe *pipe)
{
	pipe->is_interrupted = true;
	fiber_wake(pipe);
}

void pipe_hang_up(struct pipe *pipe)
{
	pipe_break(pipe);
}

uint64_t pipe_bytes_sent(const struct pipe *pipe)
{
	return pipe->sent;
}

uint64_t pipe_bytes_received(const struct pipe *pipe)
{
	return pipe->received;
}

void pipe_free(struct pipe *pipe)
{
	if (pipe == NULL)
		return;
	pipe->is_closed = true;
	if (pipe->peer != NULL)
		pipe_break(pipe);
}

/* --- memory --- */

struct live_pages {
	const struct live_options *options;
};

status *live_pages_new(const struct live_options *options, struct live_pages **ret_live)
{
	struct live_pages *live = calloc(1, sizeof(*live));

	if (live == NULL)
		abort();
	live->options = options;
	*ret_live = live;
	return NULL;
}

void live_pages_free(struct live_pages *live)
{
	free(live);
}

status *live_pages_send(struct live_pages *live, int fd, const pid_t *pids, size_t count)
{
	(void)fd;
	(void)pids;
	(void)count;
	/* There is no shared memory in this world. */
	if (live->options->is_private)
		(void)poll(NULL, 0, LIVE_MS);
	return NULL;
}

status *live_pages_read(void *live, const struct page_header *run, uint8_t *data,
			uint32_t *ret_pages)
{
	(void)live;
	(void)run;
	(void)data;
	*ret_pages = 0;
	return NULL;
}

/* No page table moves in it either. */
status *frames_new(pid_t root, bool is_old_kernel, struct frames **ret_frames)
{
	(void)root;
	(void)is_old_kernel;
	*ret_frames = NULL;
	return NULL;
}

status *frames_look(struct frames *frames, uint64_t task, unsigned round, bool is_last)
{
	(void)frames;
	(void)task;
	(void)round;
	(void)is_last;
	return NULL;
}

void frames_forget(struct frames *frames)
{
	(void)frames;
}

void frames_free(struct frames *frames)
{
	(void)frames;
}

status *memory_sender_new(int criu_fd, const struct pipe_set *set,
			  const struct batch_codecs *codecs, struct memory_sender **ret_sender)
{
	struct memory_sender *sender = calloc(1, sizeof(*sender));

	if (sender == NULL)
		abort();
	(void)codecs;
	sender->memory = memory_of(criu_fd);
	sender->pipe = set->pipes[0];
	*ret_sender = sender;
	return NULL;
}

void memory_sender_limit(struct memory_sender *sender, const atomic_uint_fast64_t *bytes_per_s)
{
	(void)sender;
	(void)bytes_per_s;
}

status *memory_sender_begin(struct memory_sender *sender, unsigned round,
			    const struct memory_feed *feed)
{
	sender->memory->round = round;
	sender->memory->is_done = !feed->is_criu; /* else read live */
	sender->memory->pages = feed->is_criu ? 0 : LIVE_PAGES;
	return NULL;
}

status *memory_sender_end(struct memory_sender *sender, int64_t timeout_ms,
			  struct memory_round *ret_round)
{
	struct played_memory *memory = sender->memory;

	(void)timeout_ms;
	if (!memory->is_done)
		return status_errorf(STATUS_CANCELLED, "CRIU sent nothing");
	struct frame frame = {.round = memory->round, .pages = memory->pages};
	*ret_round = (struct memory_round){.pages_sent = memory->pages,
					   .bytes = memory->pages * 4096,
					   .digest = memory->pages * 31 + memory->round};
	return send_frame(sender->pipe, &frame, "pages");
}

bool memory_sender_lost_pipe(const struct memory_sender *sender)
{
	return sender->pipe->is_broken;
}

void memory_sender_progress(struct memory_sender *sender, struct memory_round *ret_round)
{
	*ret_round = (struct memory_round){.pages_sent = sender->memory->pages};
}

status *memory_sender_resume(struct memory_sender *sender, int criu_fd, const struct pipe_set *set,
			     const struct memory_progress *there)
{
	(void)there;
	sender->memory = memory_of(criu_fd);
	sender->pipe = set->pipes[0];
	return NULL;
}

void memory_sender_free(struct memory_sender *sender)
{
	free(sender);
}

status *memory_receive_resumable(const struct pipe_set *set, struct page_store *store,
				 unsigned round, int64_t silence_ms, struct memory_round *ret_round,
				 struct memory_progress *ret_progress)
{
	struct frame frame;
	*ret_progress = (struct memory_progress){.round = round};
	status *st = receive_frame(set->pipes[0], silence_ms, "pages", &frame);

	(void)store;
	if (st != NULL)
		return st;
	if (frame.round != round)
		return status_errorf(STATUS_DATA_LOSS, "round %u came, not %u", frame.round, round);
	*ret_round =
	    (struct memory_round){.pages_sent = frame.pages, .digest = frame.pages * 31 + round};
	ret_progress->is_whole = true;
	ret_progress->digest = ret_round->digest;
	return NULL;
}

/* --- images --- */

struct image_sender {
	struct pipe *pipe;
	char path[CGROUP_PATH];
	bool is_finished;
};

/* Its digest is the version. */
static struct image_totals totals_of(int64_t version)
{
	return (struct image_totals){.count = 1, .digest = (uint64_t)version};
}

status *image_sender_start(struct pipe *pipe, const char *dir, const char *held, int64_t silence_ms,
			   struct image_sender **ret_sender)
{
	struct image_sender *sender = calloc(1, sizeof(*sender));

	(void)held;
	(void)silence_ms;
	if (sender == NULL)
		abort();
	sender->pipe = pipe;
	(void)snprintf(sender->path, sizeof(sender->path), "%s/tree.img", dir);
	*ret_sender = sender;
	return NULL;
}

status *image_sender_finish(struct image_sender *sender, struct image_totals *ret_totals,
			    uint64_t *ret_bytes, unsigned *ret_early)
{
	struct frame frame = {.has_image = true};
	scoped(buffer) struct buffer image = {0};

	status *st = files_read(sender->path, sizeof(frame.version), &image);
	if (st != NULL)
		return st;
	memcpy(&frame.version, image.data, sizeof(frame.version));
	sender->is_finished = true;
	*ret_totals = totals_of(frame.version);
	*ret_bytes = image.size;
	*ret_early = 0;
	return send_frame(sender->pipe, &frame, "images");
}

void image_sender_free(struct image_sender *sender)
{
	if (sender != NULL && !sender->is_finished)
		pipe_interrupt(sender->pipe);
	free(sender);
}

status *image_pipe_receive(struct pipe *pipe, const char *dir, int64_t silence_ms,
			   struct image_totals *ret_totals)
{
	char path[CGROUP_PATH];
	struct frame frame;
	status *st = receive_frame(pipe, silence_ms, "images", &frame);

	if (st != NULL)
		return st;
	(void)snprintf(path, sizeof(path), "%s/tree.img", dir);
	st = files_make_directory(dir);
	*ret_totals = totals_of(frame.version);
	return st == NULL ? files_write(path, &frame.version, sizeof(frame.version)) : st;
}
