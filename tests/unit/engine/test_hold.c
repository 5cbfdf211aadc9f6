/* SPDX-License-Identifier: Apache-2.0 */
/* Real processes, held for a moment. */
#include "engine/host/hold.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "proto/clock.h"
#include "tests/unit/engine/workload.h"
#include "tests/unit/test.h"

enum { THREADS = 4, PLENTY_MS = 10000, STACK = 64 * 1024 };

/* --- the parts --- */

static void *spin(void *self)
{
	for (;;)
		(void)sched_yield();
	return self;
}

static int busy(void)
{
	pthread_t thread;

	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&thread, NULL, spin, NULL) != 0)
			return 1;
	while (part_ready())
		;
	return 0;
}

static int read_a_byte(void *unused)
{
	char word;

	(void)unused;
	return read(0, &word, 1) == 1 ? 0 : 1;
}

/* Waits without being interruptible, as for a disk, until its child has had a byte. */
static int stuck(void)
{
	static char stack[STACK];

	while (part_ready())
		if (clone(read_a_byte, stack + STACK, CLONE_VFORK | SIGCHLD, NULL) < 0 ||
		    wait(NULL) < 0)
			return 1;
	return 0;
}

static int sleep_a_little(void *unused)
{
	(void)unused;
	(void)poll(NULL, 0, 5);
	return 0;
}

/* Starts others all the time, and waits as vfork does until they have got there. */
static void *start_others(void *self)
{
	static char stack[STACK];

	for (;;)
		if (clone(sleep_a_little, stack + STACK, CLONE_VFORK | SIGCHLD, NULL) < 0 ||
		    wait(NULL) < 0)
			return self;
}

static int starting(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, start_others, NULL) != 0)
		return 1;
	while (part_ready())
		;
	return 0;
}

/* Holds another, and lets nobody go. */
static int hold_for_good(const char *pid)
{
	struct hold *hold = NULL;
	status *st = hold_tree((pid_t)strtol(pid, NULL, 10), PLENTY_MS, &hold);
	bool is_held = st == NULL;

	status_free(st);
	return is_held && part_ready() ? 0 : 1;
}

static int play(const char *part)
{
	if (strcmp(part, "busy") == 0)
		return busy();
	if (strcmp(part, "starting") == 0)
		return starting();
	return strcmp(part, "stuck") == 0 ? stuck() : hold_for_good(part);
}

/* --- looking at them --- */

struct states {
	pid_t pid;
	unsigned threads, traced;
};

static void count_state(void *self, const char *name)
{
	struct states *states = self;
	struct proc_stat stat = {0};
	pid_t tid = (pid_t)strtol(name, NULL, 10);

	if (tid <= 0)
		return;
	assert_ok(proc_stat(tid, &stat));
	states->threads++;
	states->traced += stat.state == 't';
}

static struct states look(pid_t pid)
{
	struct states states = {.pid = pid};
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	assert_ok(files_each(path, count_state, &states));
	return states;
}

/* A sanitizer may have a thread of its own. */
static void expect_all_held(const struct states *states)
{
	assert_true(states->threads >= THREADS + 1);
	assert_int_equal(states->traced, states->threads);
}

static void await_state(pid_t pid, char state)
{
	int64_t until = clock_monotonic_ms() + PLENTY_MS;
	struct proc_stat stat = {0};

	while (stat.state != state && clock_monotonic_ms() < until)
		assert_ok(proc_stat(pid, &stat));
	assert_int_equal(stat.state, state);
}

/* --- tests --- */

static void all_threads_stand_still_and_go_on(void **state)
{
	struct workload workload = workload_start("busy", -1, false);
	double before = 0, after = 0;
	(void)state;

	for (unsigned i = 0; i < 20; i++) {
		struct hold *hold = NULL;
		assert_ok(hold_tree(workload.pid, PLENTY_MS, &hold));
		struct states held = look(workload.pid);
		expect_all_held(&held);
		assert_ok(proc_cpu_ms(workload.pid, &before));
		(void)poll(NULL, 0, 30);
		assert_ok(proc_cpu_ms(workload.pid, &after));
		assert_true(after == before);
		hold_release(hold);
		assert_int_equal(look(workload.pid).traced, 0);
		workload_poke(&workload);
	}
	workload_end(&workload);
}

static void one_that_starts_others_is_held_between_two(void **state)
{
	struct workload workload = workload_start("starting", -1, false);
	(void)state;

	for (unsigned i = 0; i < 50; i++) {
		struct hold *hold = NULL;
		int64_t begun = clock_monotonic_ms();
		assert_ok(hold_tree(workload.pid, PLENTY_MS, &hold));
		assert_true(clock_monotonic_ms() - begun < PLENTY_MS / 4);
		hold_release(hold);
		(void)poll(NULL, 0, (int)(i % 7));
	}
	workload_poke(&workload);
	workload_end(&workload);
}

static void what_was_stopped_stays_stopped(void **state)
{
	struct workload workload = workload_start("busy", -1, false);
	struct hold *hold = NULL;
	(void)state;

	assert_int_equal(kill(workload.pid, SIGSTOP), 0);
	await_state(workload.pid, 'T');
	assert_ok(hold_tree(workload.pid, PLENTY_MS, &hold));
	hold_release(hold);
	await_state(workload.pid, 'T');
	assert_int_equal(kill(workload.pid, SIGCONT), 0);
	workload_poke(&workload);
	workload_end(&workload);
}

static void a_signal_that_comes_meanwhile_is_not_lost(void **state)
{
	struct workload workload = workload_start("busy", -1, false);
	struct hold *hold = NULL;
	int end = 0;
	(void)state;

	assert_ok(hold_tree(workload.pid, PLENTY_MS, &hold));
	assert_int_equal(kill(workload.pid, SIGUSR1), 0);
	hold_release(hold);
	assert_int_equal(waitpid(workload.pid, &end, 0), workload.pid);
	assert_true(WIFSIGNALED(end) && WTERMSIG(end) == SIGUSR1);
	(void)close(workload.to);
	(void)close(workload.from);
}

static void one_that_ends_while_it_is_held_is_let_go(void **state)
{
	struct workload workload = workload_start("busy", -1, false);
	struct hold *hold = NULL;
	(void)state;

	assert_ok(hold_tree(workload.pid, PLENTY_MS, &hold));
	assert_int_equal(kill(workload.pid, SIGKILL), 0);
	hold_release(hold);
	workload_end(&workload);
	assert_code(hold_tree(workload.pid, PLENTY_MS, &hold), STATUS_NOT_FOUND);
}

struct other {
	pid_t pid;
	atomic_int phase; /* 1: it traces; 2: it is to end */
};

static void *trace_it(void *self)
{
	struct other *other = self;

	assert_int_equal(ptrace(PTRACE_SEIZE, other->pid, NULL, NULL), 0);
	atomic_store(&other->phase, 1);
	while (atomic_load(&other->phase) != 2)
		(void)poll(NULL, 0, 1);
	return NULL;
}

static void one_that_is_traced_is_left_alone(void **state)
{
	struct workload workload = workload_start("busy", -1, false);
	struct other other = {.pid = workload.pid};
	struct hold *hold = NULL;
	pthread_t thread;
	(void)state;

	assert_int_equal(pthread_create(&thread, NULL, trace_it, &other), 0);
	while (atomic_load(&other.phase) != 1)
		(void)poll(NULL, 0, 1);
	assert_code(hold_tree(workload.pid, PLENTY_MS, &hold), STATUS_FAILED_PRECONDITION);
	assert_int_equal(look(workload.pid).traced, 0);
	workload_poke(&workload);
	atomic_store(&other.phase, 2);
	assert_int_equal(pthread_join(thread, NULL), 0);
	workload_end(&workload);
}

static void a_holder_that_is_killed_lets_go(void **state)
{
	struct workload workload = workload_start("busy", -1, false);
	char pid[16];
	(void)state;

	(void)snprintf(pid, sizeof(pid), "%d", (int)workload.pid);
	struct workload holder = workload_start(pid, -1, false);
	struct states held = look(workload.pid);
	expect_all_held(&held);
	workload_end(&holder);
	assert_int_equal(look(workload.pid).traced, 0);
	workload_poke(&workload);
	workload_end(&workload);
}

static void one_that_does_not_stop_is_not_waited_for(void **state)
{
	struct workload workload = workload_start("stuck", -1, false);
	struct hold *hold = NULL;
	char word;
	(void)state;

	assert_int_equal(write(workload.to, "p", 1), 1);
	await_state(workload.pid, 'D');
	int64_t begun = clock_monotonic_ms();
	assert_code(hold_tree(workload.pid, 100, &hold), STATUS_DEADLINE_EXCEEDED);
	assert_true(clock_monotonic_ms() - begun < PLENTY_MS);
	/* It goes on by itself, and is not stopped when it could be. */
	assert_int_equal(write(workload.to, "p", 1), 1);
	assert_int_equal(read(workload.from, &word, 1), 1);
	workload_end(&workload);
}

int main(int argc, char **argv)
{
	if (argc == 3)
		_exit(play(argv[2]));
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(all_threads_stand_still_and_go_on),
	    cmocka_unit_test(one_that_starts_others_is_held_between_two),
	    cmocka_unit_test(what_was_stopped_stays_stopped),
	    cmocka_unit_test(a_signal_that_comes_meanwhile_is_not_lost),
	    cmocka_unit_test(one_that_ends_while_it_is_held_is_let_go),
	    cmocka_unit_test(one_that_is_traced_is_left_alone),
	    cmocka_unit_test(a_holder_that_is_killed_lets_go),
	    cmocka_unit_test(one_that_does_not_stop_is_not_waited_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
