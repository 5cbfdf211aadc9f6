/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/memory_scene.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "engine/host/files.h"
#include "tests/unit/engine/pipe_pair.h"

const struct batch_codecs raw = {1 << BATCH_RAW, 0};
const struct memory_feed tracked = {.live_fd = -1, .is_criu = true, .is_tracked = true};

int memory_scene_make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	int pair[2];

	assert_non_null(scene);
	scratch_make(scene->dir);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	scene->criu = pair[0];
	scene->engine = pair[1];
	pipe_pair_open(&scene->to, &scene->from);
	scene->out = pipe_set_of(scene->from);
	scene->in = pipe_set_of(scene->to);
	assert_ok(memory_sender_new(scene->engine, &scene->out, &raw, &scene->sender));
	assert_ok(page_store_new(scene->dir, &scene->store));
	*state = scene;
	return 0;
}

int memory_scene_end(void **state)
{
	struct scene *scene = *state;

	memory_sender_free(scene->sender);
	page_store_free(scene->store);
	pipe_free(scene->from);
	pipe_free(scene->to);
	(void)close(scene->criu);
	(void)close(scene->engine);
	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

/* --- CRIU's part --- */

void say(const struct scene *scene, const struct page_header *header, const void *data)
{
	uint8_t bytes[PAGE_HEADER_BYTES];
	uint64_t left = page_header_data(header);

	page_header_encode(header, bytes);
	assert_int_equal(send(scene->criu, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
	while (left > 0) {
		ssize_t sent = send(scene->criu, data, left, MSG_NOSIGNAL);
		assert_true(sent > 0);
		data = (const uint8_t *)data + sent;
		left -= (uint64_t)sent;
	}
}

int ask_of(const struct scene *scene, uint64_t image, uint32_t command, size_t size)
{
	const struct page_header header = {.command = command, .image = image};
	uint8_t answer[4] = {0};

	say(scene, &header, NULL);
	assert_int_equal(recv(scene->criu, answer, size, MSG_WAITALL), size);
	return answer[0];
}

int ask(const struct scene *scene, uint32_t command, size_t size)
{
	return ask_of(scene, command == PAGE_FORCE_CLOSE ? 0 : IMAGE, command, size);
}

void add_to(const struct scene *scene, uint64_t image, unsigned page, unsigned pages,
	    const void *data)
{
	const struct page_header header = {PAGE_ADD, PAGE_PRESENT, pages,
					   (uint64_t)page * PAGE_BYTES, image};

	say(scene, &header, data);
}

int open_image(const struct scene *scene)
{
	return ask(scene, PAGE_OPEN, 1);
}

void add(const struct scene *scene, uint32_t flags, unsigned page, unsigned pages, const void *data)
{
	const struct page_header header = {PAGE_ADD, flags, pages, (uint64_t)page * PAGE_BYTES,
					   IMAGE};

	say(scene, &header, data);
}

void close_round(const struct scene *scene)
{
	assert_int_equal(ask(scene, PAGE_FORCE_CLOSE, 4), 0);
}

/* --- both halves --- */

static void *receive(void *self)
{
	struct scene *scene = self;

	scene->st = memory_receive_round(&scene->in, scene->store, scene->round, PLENTY_MS,
					 &scene->received);
	return NULL;
}

void begin_fed(struct scene *scene, unsigned round, const struct memory_feed *feed)
{
	scene->round = round;
	assert_ok(page_store_begin(scene->store, round));
	assert_int_equal(pthread_create(&scene->receiver, NULL, receive, scene), 0);
	assert_ok(memory_sender_begin(scene->sender, round, feed));
}

void begin(struct scene *scene, unsigned round)
{
	begin_fed(scene, round, &tracked);
}

struct memory_round finish(struct scene *scene)
{
	struct memory_round sent = {0};

	assert_ok(memory_sender_end(scene->sender, PLENTY_MS, &sent));
	assert_int_equal(pthread_join(scene->receiver, NULL), 0);
	assert_ok(scene->st);
	assert_int_equal(scene->received.pages_sent, sent.pages_sent);
	assert_int_equal(scene->received.pages_zero, sent.pages_zero);
	assert_int_equal(scene->received.pages_skipped, sent.pages_skipped + sent.pages_same);
	assert_int_equal(scene->received.bytes, sent.bytes);
	assert_true(scene->received.digest == sent.digest);
	return sent;
}

void expect_pages(const struct scene *scene, unsigned round, const void *want, size_t pages)
{
	struct buffer got __attribute__((cleanup(scope_buffer))) = {0};
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%u/pages-1.img", scene->dir, round);
	assert_ok(files_read(path, (pages + 1) * PAGE_BYTES, &got));
	assert_int_equal(got.size, pages * PAGE_BYTES);
	assert_memory_equal(got.data, want, got.size);
}
