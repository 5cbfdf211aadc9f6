/* SPDX-License-Identifier: Apache-2.0 */
/* An operation that is begun while nng still ends those whose time was over. nng's thread is held
 * before it ends them, as it is when a loaded machine gives its processor to somebody else. */
#include "tests/unit/test.h"

#include <dlfcn.h>
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/clock.h"
#include "rpc/operation.h"

enum {
	OPERATIONS = 32, /* nng has some threads for it: one of them gets several */
	EXPIRE_MS = 300,
	HOLD_MS = 2000,
	LONG_MS = 60000,
};

/* The C library hands none to what it calls. */
static struct {
	atomic_bool is_armed;
	atomic_bool is_held;
	atomic_int held; /* threads, so far */
} scene;

static bool is_expirer_of_nng(void)
{
	char name[16] = "";
	return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 &&
	       strcmp(name, "nng:aio:expire") == 0;
}

/* Until it is let go, but no longer than HOLD_MS: who frees an aio waits for it. */
static void hold(void)
{
	int64_t until_ms = clock_monotonic_ms() + HOLD_MS;
	scene.is_held = true;
	(void)atomic_fetch_add(&scene.held, 1);
	while (scene.is_armed && clock_monotonic_ms() < until_ms)
		(void)nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
}

/* Stands before the C library's for every library of this program. */
int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	static int (*_Atomic real)(pthread_mutex_t *);
	static _Thread_local bool was_held;
	if (real == NULL) {
		int (*found)(pthread_mutex_t *) = NULL;
		*(void **)&found = dlsym(RTLD_NEXT, "pthread_mutex_unlock");
		real = found;
	}
	int result = real(mutex);
	if (scene.is_armed && !was_held && is_expirer_of_nng()) {
		was_held = true;
		hold();
	}
	return result;
}

struct end {
	nng_socket receiver, sender;
	struct operation *operation;
};

static void open_end(struct end *end, int number)
{
	char url[64];
	(void)snprintf(url, sizeof(url), "inproc://operation-%d", number);
	assert_int_equal(nng_pair0_open(&end->receiver), 0);
	assert_int_equal(nng_pair0_open(&end->sender), 0);
	assert_int_equal(nng_listen(end->receiver, url, NULL, 0), 0);
	assert_int_equal(nng_dial(end->sender, url, NULL, 0), 0);
	assert_int_equal(operation_new(&end->operation), 0);
}

static void receive(struct end *end, nng_duration timeout_ms)
{
	nng_recv_aio(end->receiver, operation_begin(end->operation, timeout_ms, NULL));
}

static void say(struct end *end)
{
	char byte = 'x';
	assert_int_equal(nng_send(end->sender, &byte, 1, 0), 0);
}

/* It comes to its own end: a message. */
static void expect_message(struct end *end)
{
	assert_int_equal(operation_wait(end->operation), 0);
	nng_msg *msg = operation_take_message(end->operation);
	assert_non_null(msg);
	nng_msg_free(msg);
}

static void what_expires_late_ends_nothing_that_came_after(void **state)
{
	struct end ends[OPERATIONS];
	(void)state;
	for (int i = 0; i < OPERATIONS; i++)
		open_end(&ends[i], i);
	scene.is_armed = true;
	for (int i = 0; i < OPERATIONS; i++)
		receive(&ends[i], EXPIRE_MS);
	while (!scene.is_held)
		(void)nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
	/* Those that nng was about to end, and has not ended yet, are over by themselves. */
	int followed[OPERATIONS], count = 0;
	for (int i = 0; i < OPERATIONS; i++)
		if (operation_is_running(ends[i].operation)) {
			say(&ends[i]);
			expect_message(&ends[i]);
			followed[count++] = i;
		}
	assert_true(count > 0);
	for (int i = 0; i < count; i++)
		receive(&ends[followed[i]], LONG_MS);
	scene.is_armed = false;
	/* All that was late has come by then: freeing waits for it. */
	for (int i = 0; i < OPERATIONS; i++) {
		bool is_followed = false;
		for (int j = 0; j < count; j++)
			is_followed = is_followed || followed[j] == i;
		if (!is_followed)
			operation_free(TAKE(ends[i].operation));
	}
	(void)nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
	for (int i = 0; i < count; i++) {
		say(&ends[followed[i]]);
		expect_message(&ends[followed[i]]);
	}
	for (int i = 0; i < OPERATIONS; i++) {
		operation_free(ends[i].operation);
		(void)nng_socket_close(ends[i].receiver);
		(void)nng_socket_close(ends[i].sender);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_expires_late_ends_nothing_that_came_after),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
