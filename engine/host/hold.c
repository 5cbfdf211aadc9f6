/* SPDX-License-Identifier: Apache-2.0 */
/* A thread of its own is the tracer: when it ends the kernel lets go of all that it held, also of
 * one that has not come to its stop yet, which nobody could do by asking. */
#include "engine/host/hold.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "proto/clock.h"

enum {
	PAUSE_MS = 1,
	PASSES_MOST = 100, /* who starts threads for so long is not waited for */
};

struct held {
	pid_t tid;
	bool is_stopped;
	bool is_gone;
};

struct hold {
	pid_t root;
	int64_t until; /* monotonic ms */
	pthread_t tracer;
	/* The tracer's: */
	struct held *threads;
	size_t count, room;
	bool is_new; /* this pass has found one */
	status *unseized;

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* By the lock: */
	bool is_done; /* held, or failed */
	bool is_released;
	status *error;
};

static bool is_held(const struct hold *hold, pid_t tid)
{
	for (size_t i = 0; i < hold->count; i++)
		if (hold->threads[i].tid == tid)
			return true;
	return false;
}

/* One that has ended, or is about to, writes nothing any more. */
static bool is_over(pid_t tid)
{
	struct proc_stat stat;
	scoped(status) status *st = proc_stat(tid, &stat);

	return st != NULL ? status_code_of(st) == STATUS_NOT_FOUND
			  : stat.state == 'Z' || stat.state == 'X';
}

static status *seize(struct hold *hold, pid_t tid)
{
	if (hold->count == hold->room) {
		size_t room = hold->room * 2 + 16;
		struct held *grown = reallocarray(hold->threads, room, sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "threads of the tree");
		hold->threads = grown;
		hold->room = room;
	}
	if (ptrace(PTRACE_SEIZE, tid, NULL, NULL) != 0) {
		int failed = errno;
		if (failed == ESRCH || is_over(tid))
			return NULL;
		return status_recode(status_errnof(failed,
						   "thread %d cannot be held: is it traced?",
						   (int)tid),
				     STATUS_FAILED_PRECONDITION);
	}
	(void)ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
	hold->threads[hold->count++] = (struct held){.tid = tid};
	hold->is_new = true;
	return NULL;
}

static void seize_thread(void *self, const char *name)
{
	struct hold *hold = self;
	pid_t tid = (pid_t)strtol(name, NULL, 10);

	if (tid > 0 && hold->unseized == NULL && !is_held(hold, tid))
		hold->unseized = seize(hold, tid);
}

/* It is not waited for as children are, so that the end of one is still there for its parent. */
static void look_at(struct held *thread)
{
	siginfo_t info = {0};

	if (waitid(P_PID, (id_t)thread->tid, &info, WSTOPPED | WNOHANG | __WALL) != 0 ||
	    info.si_pid == 0) {
		thread->is_gone = is_over(thread->tid);
		return;
	}
	/* PTRACE_INTERRUPT's stop, or the stop of one that was stopped before. */
	thread->is_stopped = info.si_status >> 8 == PTRACE_EVENT_STOP;
	/* On its way to a signal: it gets that first. */
	if (!thread->is_stopped)
		(void)ptrace(PTRACE_CONT, thread->tid, NULL, (void *)(intptr_t)info.si_status);
}

static status *await_stops(struct hold *hold)
{
	for (size_t i = 0; i < hold->count;) {
		struct held *thread = &hold->threads[i];
		if (!thread->is_stopped && !thread->is_gone)
			look_at(thread);
		if (thread->is_stopped || thread->is_gone) {
			i++;
			continue;
		}
		if (clock_monotonic_ms() > hold->until)
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "thread %d does not come to a stop", (int)thread->tid);
		(void)poll(NULL, 0, PAUSE_MS);
	}
	return NULL;
}

static status *hold_process(struct hold *hold, pid_t pid)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	status *st = files_each(path, seize_thread, hold);
	if (status_code_of(st) == STATUS_NOT_FOUND) /* it has ended */
		status_free(TAKE(st));
	st = status_first(st, TAKE(hold->unseized));
	return st == NULL ? await_stops(hold) : st;
}

/* Whoever is new since the last pass. Parents first, one after the other: one that starts another
 * program (vfork) does not stop before its child has got there, so the child must still run. */
static status *hold_once(struct hold *hold)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = proc_tree(hold->root, &pids, &count);

	hold->is_new = false;
	for (size_t i = 0; st == NULL && i < count; i++)
		st = hold_process(hold, pids[i]);
	free(pids);
	return st;
}

static status *hold_all(struct hold *hold)
{
	status *st = NULL;

	for (unsigned pass = 0; st == NULL && (pass == 0 || hold->is_new); pass++) {
		if (pass == PASSES_MOST)
			return status_errorf(STATUS_DEADLINE_EXCEEDED,
					     "the tree starts threads faster than they are held");
		st = hold_once(hold);
	}
	return st;
}

static void *trace(void *self)
{
	struct hold *hold = self;
	status *st = hold_all(hold);

	(void)pthread_mutex_lock(&hold->lock);
	hold->error = st;
	hold->is_done = true;
	(void)pthread_cond_broadcast(&hold->changed);
	while (st == NULL && !hold->is_released)
		(void)pthread_cond_wait(&hold->changed, &hold->lock);
	(void)pthread_mutex_unlock(&hold->lock);
	for (size_t i = 0; i < hold->count; i++)
		if (hold->threads[i].is_stopped)
			(void)ptrace(PTRACE_DETACH, hold->threads[i].tid, NULL, NULL);
	return NULL; /* and the kernel lets go of the others */
}

static void hold_free(struct hold *hold)
{
	status_free(hold->error);
	(void)pthread_cond_destroy(&hold->changed);
	(void)pthread_mutex_destroy(&hold->lock);
	free(hold->threads);
	free(hold);
}

status *hold_tree(pid_t root, int64_t timeout_ms, struct hold **ret_hold)
{
	struct hold *hold = calloc(1, sizeof(*hold));

	if (hold == NULL)
		return status_errnof(ENOMEM, "threads of the tree");
	hold->root = root;
	hold->until = clock_monotonic_ms() + timeout_ms;
	(void)pthread_mutex_init(&hold->lock, NULL);
	clock_cond_init(&hold->changed);
	int failed = pthread_create(&hold->tracer, NULL, trace, hold);
	if (failed != 0) {
		hold_free(hold);
		return status_errnof(failed, "cannot start a thread");
	}
	(void)pthread_mutex_lock(&hold->lock);
	while (!hold->is_done)
		(void)pthread_cond_wait(&hold->changed, &hold->lock);
	status *st = TAKE(hold->error);
	(void)pthread_mutex_unlock(&hold->lock);
	if (st != NULL)
		hold_release(hold);
	else
		*ret_hold = hold;
	return st;
}

void hold_release(struct hold *hold)
{
	if (hold == NULL)
		return;
	(void)pthread_mutex_lock(&hold->lock);
	hold->is_released = true;
	(void)pthread_cond_broadcast(&hold->changed);
	(void)pthread_mutex_unlock(&hold->lock);
	(void)pthread_join(hold->tracer, NULL);
	hold_free(hold);
}
