/* SPDX-License-Identifier: Apache-2.0 */
/* Pipes that are interrupted and freed at any moment of what goes through them. */
#include "tests/unit/test.h"

#include <string.h>
#include <time.h>

#include "proto/clock.h"
#include "tests/unit/rpc/pipe_pair.h"

enum { MOMENTS = 150, MOMENT_US = 40 };

static void *send_until_it_ends(void *argument)
{
	struct sending *sending = argument;
	while (sending->st == NULL) {
		struct pipe_out out = {0};
		assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, FRAME, &out));
		memset(out.body, 1, FRAME);
		sending->st = pipe_send_frame(sending->pipe, &out, FRAME, PLENTY_MS);
	}
	return NULL;
}

static void *receive_until_it_ends(void *argument)
{
	struct sending *receiving = argument;
	while (receiving->st == NULL) {
		scoped(pipe_in) struct pipe_in in = {0};
		receiving->st = pipe_receive(receiving->pipe, PLENTY_MS, &in);
		if (receiving->st == NULL)
			assert_int_equal(in.size, FRAME);
	}
	return NULL;
}

/* Both directions at once; the one side is interrupted, the other sees its connection end when that
 * is freed. */
static void interrupts_at_any_moment_end_both_sides(void **state)
{
	(void)state;
	for (int moment = 0; moment < MOMENTS; moment++) {
		struct pipe *sides[2] = {NULL, NULL};
		struct sending work[4] = {0};
		pthread_t threads[4];
		open_pair(&tcp_place, &sides[0], &sides[1]);
		for (unsigned i = 0; i < 4; i++) {
			work[i].pipe = sides[i / 2];
			assert_int_equal(pthread_create(&threads[i], NULL,
							i % 2 == 0 ? send_until_it_ends
								   : receive_until_it_ends,
							&work[i]),
					 0);
		}
		(void)nanosleep(&(struct timespec){.tv_nsec = 1000L * MOMENT_US * moment}, NULL);
		pipe_interrupt(sides[0]);
		for (unsigned i = 0; i < 2; i++) {
			assert_int_equal(pthread_join(threads[i], NULL), 0);
			assert_code(work[i].st, STATUS_CANCELLED);
		}
		pipe_free(sides[0]);
		for (unsigned i = 2; i < 4; i++) {
			assert_int_equal(pthread_join(threads[i], NULL), 0);
			assert_code(work[i].st, STATUS_UNAVAILABLE);
		}
		pipe_free(sides[1]);
	}
}

static void an_interrupt_before_it_attaches_holds(void **state)
{
	(void)state;
	scoped(pipe) struct pipe *listener = NULL;
	scoped(address) Haul__V1__PipeAddress *address = NULL;
	assert_ok(rpc_start());
	assert_ok(pipe_listen(&tcp_place, &listener, &address));
	pipe_interrupt(listener);
	assert_code(pipe_accept(listener, PLENTY_MS), STATUS_CANCELLED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(interrupts_at_any_moment_end_both_sides),
	    cmocka_unit_test(an_interrupt_before_it_attaches_holds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
