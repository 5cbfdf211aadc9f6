/* SPDX-License-Identifier: Apache-2.0 */
/* A pipe that is interrupted and freed while nng hands a message over to it. nng's thread is held
 * behind each of its locks in turn, as it is when a loaded machine gives its processor to somebody
 * else. */
#include "tests/unit/test.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <string.h>

#include "proto/clock.h"
#include "tests/unit/rpc/pipe_pair.h"

enum {
	STEPS = 60, /* more locks than nng's thread gives up until a message is handed over */
	HOLD_MS = 60,
	NEVER = 1 << 30,
};

/* One test's arrangement: the C library hands none to what it calls. */
static struct {
	atomic_int until_held;
	atomic_bool is_held;
	atomic_bool is_let_go;
	atomic_bool is_over; /* the receiver has returned */
} scene = {.until_held = NEVER};

static bool is_task_of_nng(void)
{
	char name[16] = "";
	return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 &&
	       strcmp(name, "nng:task") == 0;
}

/* Until it is true, but no longer than HOLD_MS. */
static void await(const atomic_bool *what)
{
	int64_t until_ms = clock_monotonic_ms() + HOLD_MS;
	while (!*what && clock_monotonic_ms() < until_ms)
		(void)nanosleep(&(struct timespec){.tv_nsec = 100 * 1000}, NULL);
}

/* Stands before the C library's for every library of this program. */
int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	static int (*_Atomic real)(pthread_mutex_t *);
	if (real == NULL) {
		int (*found)(pthread_mutex_t *) = NULL;
		*(void **)&found = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
		real = found;
	}
	int result = real(mutex);
	if (is_task_of_nng() && atomic_fetch_sub(&scene.until_held, 1) == 0) {
		scene.is_held = true;
		await(&scene.is_let_go);
	}
	return result;
}

static void *receive_one(void *argument)
{
	struct pipe_in in = {0};
	status *st = pipe_receive(argument, PLENTY_MS, &in);
	scene.is_over = true;
	if (st == NULL)
		assert_int_equal(in.kind, HAUL__V1__FRAME_KIND__FRAME_BATCH);
	else
		assert_code(st, STATUS_CANCELLED);
	pipe_in_drop(&in);
	return NULL;
}

static void interrupts_amid_a_handover_leave_a_pipe_that_can_be_freed(void **state)
{
	unsigned held = 0;
	(void)state;
	for (int step = 0; step < STEPS; step++) {
		struct pipe *listener = NULL, *dialer = NULL;
		pthread_t receiver;
		open_pair(&tcp_place, &listener, &dialer);
		scene.is_held = scene.is_let_go = scene.is_over = false;
		assert_int_equal(pthread_create(&receiver, NULL, receive_one, dialer), 0);
		scene.until_held = step;
		send_bytes(listener, 7, 7);
		await(&scene.is_held);
		held += scene.is_held ? 1 : 0;
		pipe_interrupt(dialer);
		pipe_interrupt(dialer);
		await(&scene.is_over);
		scene.is_let_go = !scene.is_over;
		assert_int_equal(pthread_join(receiver, NULL), 0);
		pipe_free(dialer);
		scene.until_held = NEVER;
		scene.is_let_go = true;
		pipe_free(listener);
	}
	assert_true(held >= 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(interrupts_amid_a_handover_leave_a_pipe_that_can_be_freed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
