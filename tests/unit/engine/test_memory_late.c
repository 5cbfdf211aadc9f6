/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that stay at the source: CRIU is played at a socket, the rest is real. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "engine/criu/pagemap.h"
#include "engine/pipe/memory_pipe.h"
#include "tests/unit/engine/pipe_pair.h"
#include "tests/unit/test.h"

enum { PLENTY_MS = 60000, IMAGE = 7 << 8 | PAGE_TASK, PAGES = 200, OTHERS = 5 };

struct scene {
	char dir[64];
	int criu, engine;
	struct pipe *from, *to;
	struct memory_sender *sender;
	struct page_store *store;
	pthread_t receiver;
	unsigned round;
	struct memory_round received;
	status *st;
	uint8_t data[PAGES * PAGE_BYTES];
};

static const struct batch_codecs raw = {1 << BATCH_RAW, 0};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	int pair[2];

	assert_non_null(scene);
	scratch_make(scene->dir);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	scene->criu = pair[0];
	scene->engine = pair[1];
	pipe_pair_open(&scene->to, &scene->from);
	const struct pipe_set from = pipe_set_of(scene->from);
	assert_ok(memory_sender_new(scene->engine, &from, &raw, &scene->sender));
	assert_ok(page_store_new(scene->dir, &scene->store));
	page_store_allow_late(scene->store);
	for (size_t page = 0; page < PAGES; page++)
		memset(scene->data + page * PAGE_BYTES, (int)page + 1, PAGE_BYTES);
	*state = scene;
	return 0;
}

static int end(void **state)
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

static void say(const struct scene *scene, const struct page_header *header, const uint8_t *data)
{
	uint8_t bytes[PAGE_HEADER_BYTES];
	uint64_t left = page_header_data(header);

	page_header_encode(header, bytes);
	assert_int_equal(send(scene->criu, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
	while (left > 0) {
		ssize_t sent = send(scene->criu, data, left, MSG_NOSIGNAL);
		assert_true(sent > 0);
		data += sent;
		left -= (uint64_t)sent;
	}
}

static void ask(const struct scene *scene, uint64_t image, uint32_t command, size_t size)
{
	const struct page_header header = {.command = command, .image = image};
	uint8_t answer[4];

	say(scene, &header, NULL);
	assert_int_equal(recv(scene->criu, answer, size, MSG_WAITALL), size);
}

static void *receive(void *self)
{
	struct scene *scene = self;
	const struct pipe_set to = pipe_set_of(scene->to);

	scene->st =
	    memory_receive_round(&to, scene->store, scene->round, PLENTY_MS, &scene->received);
	return NULL;
}

/* A round as CRIU sends it: the first pages are of a file, the others private and anonymous. */
static struct memory_round copy(struct scene *scene, enum memory_late late, bool is_last)
{
	const struct memory_feed feed = {.live_fd = -1,
					 .is_criu = true,
					 .is_last = is_last,
					 .late = late};
	const struct page_header others = {PAGE_ADD, PAGE_PRESENT, OTHERS, 0, IMAGE};
	const struct page_header lazy = {PAGE_ADD, PAGE_PRESENT | PAGE_LAZY, PAGES - OTHERS,
					 (uint64_t)OTHERS * PAGE_BYTES, IMAGE};
	struct memory_round sent = {0};

	scene->round++;
	assert_ok(page_store_begin(scene->store, scene->round));
	assert_int_equal(pthread_create(&scene->receiver, NULL, receive, scene), 0);
	assert_ok(memory_sender_begin(scene->sender, scene->round, &feed));
	ask(scene, IMAGE, PAGE_OPEN, 1);
	say(scene, &others, scene->data);
	say(scene, &lazy, scene->data + (size_t)OTHERS * PAGE_BYTES);
	ask(scene, 0, PAGE_FORCE_CLOSE, 4);
	assert_ok(memory_sender_end(scene->sender, PLENTY_MS, &sent));
	assert_int_equal(pthread_join(scene->receiver, NULL), 0);
	assert_ok(scene->st);
	assert_int_equal(scene->received.pages_sent, sent.pages_sent);
	assert_int_equal(scene->received.pages_late, sent.pages_late);
	assert_int_equal(scene->received.pages_zero, sent.pages_zero);
	assert_true(scene->received.digest == sent.digest);
	return sent;
}

static void read_map(const struct scene *scene, struct pagemap *ret_map)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%u/pagemap-7.img", scene->dir, scene->round);
	assert_ok(pagemap_read(path, ret_map));
}

static void all_that_may_come_later_is_named_and_none_of_it_sent(void **state)
{
	struct scene *scene = *state;
	struct pagemap map __attribute__((cleanup(scope_pagemap))) = {0};
	struct memory_round sent = copy(scene, LATE_ALL, true);

	assert_int_equal(sent.pages_sent, PAGES);
	assert_int_equal(sent.pages_late, PAGES - OTHERS);
	assert_true(sent.bytes < (OTHERS + 1) * (uint64_t)PAGE_BYTES);
	read_map(scene, &map);
	assert_int_equal(map.count, 2);
	assert_int_equal(map.runs[0].flags, PAGE_PRESENT);
	assert_int_equal(map.runs[0].pages, OTHERS);
	assert_int_equal(map.runs[1].flags, PAGE_PRESENT | PAGE_LATE);
	assert_int_equal(map.runs[1].pages, PAGES - OTHERS);
}

static void only_what_has_changed_stays_behind_after_rounds_of_copying(void **state)
{
	struct scene *scene = *state;
	struct memory_round first = copy(scene, LATE_NONE, false);

	assert_int_equal(first.pages_late, 0);
	scene->data[(size_t)50 * PAGE_BYTES] ^= 1;
	scene->data[(size_t)51 * PAGE_BYTES] ^= 1;
	memset(scene->data + (size_t)60 * PAGE_BYTES, 0, PAGE_BYTES);
	scene->data[PAGE_BYTES] ^= 1; /* of the file */
	struct memory_round last = copy(scene, LATE_CHANGED, true);
	assert_int_equal(last.pages_late, 2);
	assert_int_equal(last.pages_zero, 1);
	assert_int_equal(last.pages_sent, 4);
	assert_int_equal(last.pages_same, PAGES - 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(all_that_may_come_later_is_named_and_none_of_it_sent,
					    make, end),
	    cmocka_unit_test_setup_teardown(
		only_what_has_changed_stays_behind_after_rounds_of_copying, make, end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
