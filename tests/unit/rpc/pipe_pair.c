/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "tests/unit/rpc/pipe_pair.h"

#include <string.h>

const struct pipe_place tcp_place = {.host = "127.0.0.1", .port_low = 21000, .port_high = 29999};

void free_address(Haul__V1__PipeAddress *address)
{
	haul__v1__pipe_address__free_unpacked(address, NULL);
}

static void *run_dial(void *argument)
{
	struct dialing *dialing = argument;
	dialing->st = pipe_dial(dialing->address, dialing->timeout_ms, &dialing->pipe);
	return NULL;
}

void start_dial(struct dialing *dialing, Haul__V1__PipeAddress *address, int64_t timeout_ms)
{
	*dialing = (struct dialing){.address = address, .timeout_ms = timeout_ms};
	assert_int_equal(pthread_create(&dialing->thread, NULL, run_dial, dialing), 0);
}

status *join_dial(struct dialing *dialing)
{
	assert_int_equal(pthread_join(dialing->thread, NULL), 0);
	return dialing->st;
}

/* Both ends of a new pipe. */
void open_pair(const struct pipe_place *place, struct pipe **ret_listener, struct pipe **ret_dialer)
{
	struct dialing dialing;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(place, ret_listener, &address));
	start_dial(&dialing, address, PLENTY_MS);
	assert_ok(pipe_accept(*ret_listener, PLENTY_MS));
	assert_ok(join_dial(&dialing));
	*ret_dialer = dialing.pipe;
}

void send_bytes(struct pipe *pipe, uint8_t fill, size_t size)
{
	struct pipe_out out = {0};
	assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, size + 10, &out));
	memset(out.body, fill, size);
	assert_ok(pipe_send_frame(pipe, &out, size, PLENTY_MS));
}

void expect_bytes(struct pipe *pipe, uint8_t fill, size_t size)
{
	scoped(pipe_in) struct pipe_in in = {0};
	assert_ok(pipe_receive(pipe, PLENTY_MS, &in));
	assert_int_equal(in.kind, HAUL__V1__FRAME_KIND__FRAME_BATCH);
	assert_int_equal(in.size, size);
	if (size > 0) {
		assert_int_equal(in.body[0], fill);
		assert_memory_equal(in.body, in.body + 1, size - 1);
	}
}

void *run_accept(void *argument)
{
	struct sending *accepting = argument;
	accepting->st = pipe_accept(accepting->pipe, PLENTY_MS);
	return NULL;
}
