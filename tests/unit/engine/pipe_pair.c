/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/pipe_pair.h"

#include <pthread.h>
#include <stdio.h>

#include "engine/host/files.h"
#include "engine/pipe/image_pipe.h"
#include "tests/unit/test.h"

enum { PLENTY_MS = 60000 };

struct dialing {
	Haul__V1__PipeAddress *address;
	struct pipe *pipe;
	status *st;
};

static void *dial(void *self)
{
	struct dialing *dialing = self;

	dialing->st = pipe_dial(dialing->address, PLENTY_MS, &dialing->pipe);
	return NULL;
}

void pipe_pair_open(struct pipe **ret_listener, struct pipe **ret_dialer)
{
	const struct pipe_place place = {.host = "127.0.0.1",
					 .port_low = 21000,
					 .port_high = 29999};
	struct dialing dialing = {0};
	pthread_t thread;

	assert_ok(rpc_start());
	assert_ok(pipe_listen(&place, ret_listener, &dialing.address));
	assert_int_equal(pthread_create(&thread, NULL, dial, &dialing), 0);
	assert_ok(pipe_accept(*ret_listener, PLENTY_MS));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(dialing.st);
	haul__v1__pipe_address__free_unpacked(dialing.address, NULL);
	*ret_dialer = dialing.pipe;
}

void scratch_make(char ret_path[64])
{
	(void)snprintf(ret_path, 64, "/tmp/haul-test-XXXXXX");
	assert_non_null(mkdtemp(ret_path));
}

void scratch_remove(const char *path)
{
	assert_ok(files_remove_tree(path));
}

unsigned pipe_pair_carry_images(struct pipe *from, const char *from_dir, struct pipe *to,
				const char *to_dir)
{
	scoped(image_sender) struct image_sender *sender = NULL;
	struct image_totals left, arrived;
	unsigned early = 0;
	uint64_t bytes = 0;

	assert_ok(image_sender_start(from, from_dir, NULL, PLENTY_MS, &sender));
	assert_ok(image_sender_finish(sender, &left, &bytes, &early));
	assert_ok(image_pipe_receive(to, to_dir, PLENTY_MS, &arrived));
	assert_int_equal(arrived.count, left.count);
	assert_true(arrived.digest == left.digest);
	return arrived.count;
}
