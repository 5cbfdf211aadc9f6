/* SPDX-License-Identifier: Apache-2.0 */
/* Threads and time: fibers that give way to each other inside of what is played, and a clock that
 * goes on when all wait. Takes the place of pthreads and of the system's clock (ld --wrap). */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>

#include "tests/sim/sim.h"

enum { STACK_BYTES = 256 * 1024, FIBERS = 512 };

struct fiber {
	/* Entered once by swapcontext; from then on by longjmp, which needs no system call. */
	jmp_buf place;
	bool has_begun;
	void *stack;
	struct life *life;
	fiber_main run;
	void *self;
	bool is_used, is_ready, is_over, is_detached;
	bool has_timed_out;
	const void *on; /* what it waits for */
	int64_t until;	/* 0 = for ever */
	uint64_t order; /* first come, first served */
};

static struct {
	jmp_buf scheduler;
	struct fiber fibers[FIBERS];
	unsigned count;
	struct fiber *current;
	int64_t now;
	uint64_t orders;
} sched = {.now = 1000 * SECOND};

static void entry(void)
{
	struct fiber *fiber = sched.current;

	(void)fiber->run(fiber->self);
	fiber_end();
}

/* From a fiber back to the scheduler. */
static void give_way(void)
{
	if (_setjmp(sched.current->place) == 0)
		_longjmp(sched.scheduler, 1);
}

static void enter(struct fiber *fiber)
{
	static ucontext_t context, back;

	if (_setjmp(sched.scheduler) != 0)
		return;
	if (fiber->has_begun)
		_longjmp(fiber->place, 1);
	fiber->has_begun = true;
	(void)getcontext(&context);
	context.uc_stack.ss_sp = fiber->stack;
	context.uc_stack.ss_size = STACK_BYTES;
	makecontext(&context, entry, 0);
	(void)swapcontext(&back, &context);
}

void fiber_end(void)
{
	sched.current->is_over = true;
	fiber_wake(sched.current);
	give_way();
	abort();
}

static struct fiber *unused_fiber(void)
{
	for (unsigned i = 0; i < sched.count; i++) {
		if (sched.fibers[i].is_over && sched.fibers[i].is_detached)
			return &sched.fibers[i];
	}
	if (sched.count == FIBERS)
		sim_fail("too many fibers");
	return &sched.fibers[sched.count++];
}

struct fiber *fiber_start(struct life *life, fiber_main run, void *self)
{
	struct fiber *fiber = unused_fiber();
	void *stack = fiber->stack;

	if (stack == NULL)
		stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stack == MAP_FAILED)
		abort();
	memset(fiber, 0, sizeof(*fiber));
	fiber->stack = stack;
	fiber->life = life;
	fiber->run = run;
	fiber->self = self;
	fiber->is_used = fiber->is_ready = true;
	fiber->is_detached = true;
	fiber->order = ++sched.orders;
	return fiber;
}

struct life *life_here(void)
{
	return sched.current != NULL ? sched.current->life : NULL;
}

int node_here(void)
{
	struct life *life = life_here();

	if (life == NULL)
		sim_fail("an engine's act outside of any engine");
	return life->node;
}

int64_t sim_now(void)
{
	return sched.now;
}

bool fiber_wait(const void *on, int64_t until)
{
	struct fiber *fiber = sched.current;

	fiber->on = on;
	fiber->until = until;
	fiber->is_ready = fiber->has_timed_out = false;
	give_way();
	return !fiber->has_timed_out;
}

void fiber_wake(const void *on)
{
	for (unsigned i = 0; i < sched.count; i++) {
		struct fiber *fiber = &sched.fibers[i];
		if (fiber->is_over || fiber->is_ready || fiber->on != on)
			continue;
		fiber->is_ready = true;
		fiber->order = ++sched.orders;
	}
}

void sim_sleep(int64_t ns)
{
	static const char nothing;

	(void)fiber_wait(&nothing, sched.now + (ns > 0 ? ns : 1));
}

static bool may_run(const struct fiber *fiber)
{
	return !fiber->is_over && (fiber->life == NULL || !fiber->life->is_dead);
}

/* When this one can go on: now, later, or never (INT64_MAX). */
static int64_t time_of(const struct fiber *fiber)
{
	if (!may_run(fiber))
		return INT64_MAX;
	int64_t at = fiber->is_ready ? sched.now : fiber->until;
	if (at == 0)
		return INT64_MAX;
	if (fiber->life != NULL && fiber->life->paused_until > at)
		at = fiber->life->paused_until;
	return at > sched.now ? at : sched.now;
}

static struct fiber *next_fiber(void)
{
	struct fiber *next = NULL;
	int64_t soonest = INT64_MAX;

	for (unsigned i = 0; i < sched.count; i++) {
		struct fiber *fiber = &sched.fibers[i];
		int64_t at = time_of(fiber);
		if (at == INT64_MAX)
			continue;
		if (next == NULL || at < soonest || (at == soonest && fiber->order < next->order)) {
			next = fiber;
			soonest = at;
		}
	}
	if (next != NULL)
		sched.now = soonest;
	return next;
}

void sim_loop(void)
{
	for (;;) {
		struct fiber *fiber = next_fiber();
		if (fiber == NULL)
			return;
		if (!fiber->is_ready)
			fiber->has_timed_out = true;
		fiber->is_ready = true;
		fiber->order = ++sched.orders;
		sched.current = fiber;
		enter(fiber);
		sched.current = NULL;
	}
}

/* --- pthreads --- */

/* A mutex is its first word: is it held? A mutex that pthread_mutex_init made is zero. */
static unsigned *word_of(pthread_mutex_t *mutex)
{
	return (unsigned *)mutex;
}

int __wrap_pthread_create(pthread_t *ret_thread, const pthread_attr_t *attributes, fiber_main run,
			  void *self);
int __wrap_pthread_join(pthread_t thread, void **ret_value);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *at);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now);
int __wrap_nanosleep(const struct timespec *length, struct timespec *ret_left);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_RAND_bytes(unsigned char *bytes, int count);
unsigned char *__wrap_SHA256(const unsigned char *data, size_t size, unsigned char *ret_digest);
pid_t __wrap_getpid(void);
pid_t __real_getpid(void);

int __wrap_pthread_create(pthread_t *ret_thread, const pthread_attr_t *attributes, fiber_main run,
			  void *self)
{
	struct fiber *fiber = fiber_start(life_here(), run, self);

	(void)attributes;
	fiber->is_detached = false;
	*ret_thread = (pthread_t)fiber;
	return 0;
}

int __wrap_pthread_join(pthread_t thread, void **ret_value)
{
	struct fiber *fiber = (struct fiber *)thread;

	(void)ret_value;
	while (!fiber->is_over)
		(void)fiber_wait(fiber, 0);
	fiber->is_detached = true;
	return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
	while (*word_of(mutex) != 0)
		(void)fiber_wait(mutex, 0);
	*word_of(mutex) = 1;
	return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex)
{
	if (*word_of(mutex) != 0)
		return EBUSY;
	*word_of(mutex) = 1;
	return 0;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
	*word_of(mutex) = 0;
	fiber_wake(mutex);
	return 0;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
	(void)__wrap_pthread_mutex_unlock(mutex);
	(void)fiber_wait(cond, 0);
	return __wrap_pthread_mutex_lock(mutex);
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex,
				  const struct timespec *at)
{
	int64_t until = (int64_t)at->tv_sec * SECOND + at->tv_nsec;

	if (until <= sched.now)
		return ETIMEDOUT;
	(void)__wrap_pthread_mutex_unlock(mutex);
	bool is_told = fiber_wait(cond, until);
	(void)__wrap_pthread_mutex_lock(mutex);
	return is_told ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
	fiber_wake(cond);
	return 0;
}

/* No two haulds have the same. */
pid_t __wrap_getpid(void)
{
	struct life *life = life_here();

	return life != NULL ? life->pid : __real_getpid();
}

/* --- time and chance --- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret_now)
{
	(void)clock;
	ret_now->tv_sec = (time_t)(sched.now / SECOND);
	ret_now->tv_nsec = (long)(sched.now % SECOND);
	return 0;
}

int __wrap_nanosleep(const struct timespec *length, struct timespec *ret_left)
{
	(void)ret_left;
	sim_sleep((int64_t)length->tv_sec * SECOND + length->tv_nsec);
	return 0;
}

int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
	if (fds != NULL || count != 0)
		sim_fail("poll on descriptors is not played");
	sim_sleep((int64_t)timeout_ms * MS);
	return 0;
}

int __wrap_RAND_bytes(unsigned char *bytes, int count)
{
	memset(bytes, 0x5a, (size_t)count);
	return 1;
}

unsigned char *__wrap_SHA256(const unsigned char *data, size_t size, unsigned char *ret_digest)
{
	(void)data;
	(void)size;
	memset(ret_digest, 0x5a, 32);
	return ret_digest;
}
