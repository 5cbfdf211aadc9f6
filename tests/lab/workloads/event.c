/* SPDX-License-Identifier: Apache-2.0 */
/* event: kernel objects whose state is easy to lose: an eventfd, a memfd's content, a timerfd in an
 * epoll set, a pending blocked signal.
 *
 * usage: event STATUS [--wide] [--periodic]
 *
 * Two of them CRIU 4.1 loses without a word: the upper half of an eventfd's counter (--wide makes
 * it count beyond 32 bits), and the period of a timerfd that has expired and was not read yet (its
 * remaining time is 0, which disarms it at the restore: --periodic). */
#include "tests/lab/workloads/heartbeat.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { TIMER_NS = 20000000 };
static const uint64_t BEYOND_32_BITS = 0x123456789abcull;
static const char MEMFD_TEXT[] = "what the memfd holds";

struct objects {
	int event;
	int memfd;
	int timer;
	int epoll;
	uint64_t counter;
	bool is_periodic;
};

static void arm(const struct objects *o)
{
	struct itimerspec when = {.it_value.tv_nsec = TIMER_NS};
	when.it_interval.tv_nsec = o->is_periodic ? TIMER_NS : 0;
	if (timerfd_settime(o->timer, 0, &when, NULL) != 0)
		heartbeat_die("timer");
}

static void objects_init(struct objects *o)
{
	struct epoll_event in = {.events = EPOLLIN, .data.u64 = 42};
	sigset_t set;
	o->event = eventfd(0, EFD_NONBLOCK);
	o->memfd = memfd_create("haul", 0);
	o->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
	o->epoll = epoll_create1(0);
	if (o->event < 0 || o->memfd < 0 || o->timer < 0 || o->epoll < 0)
		heartbeat_die("objects");
	if (write(o->memfd, MEMFD_TEXT, sizeof(MEMFD_TEXT)) != (ssize_t)sizeof(MEMFD_TEXT))
		heartbeat_die("memfd");
	arm(o);
	if (epoll_ctl(o->epoll, EPOLL_CTL_ADD, o->timer, &in) != 0)
		heartbeat_die("timer");
	if (write(o->event, &o->counter, sizeof(o->counter)) != (ssize_t)sizeof(o->counter))
		heartbeat_die("eventfd");
	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGUSR2);
}

static void check_event(struct objects *o)
{
	uint64_t found = 0;
	if (read(o->event, &found, sizeof(found)) != (ssize_t)sizeof(found) || found != o->counter)
		heartbeat_corrupt("eventfd holds %llu instead of %llu", (unsigned long long)found,
				  (unsigned long long)o->counter);
	o->counter++;
	if (write(o->event, &o->counter, sizeof(o->counter)) != (ssize_t)sizeof(o->counter))
		heartbeat_corrupt("eventfd refuses %llu", (unsigned long long)o->counter);
}

static void check_others(struct objects *o)
{
	char text[sizeof(MEMFD_TEXT)] = "";
	struct epoll_event got = {0};
	uint64_t ticks;
	sigset_t pending;
	if (pread(o->memfd, text, sizeof(text), 0) != (ssize_t)sizeof(text) ||
	    memcmp(text, MEMFD_TEXT, sizeof(text)) != 0)
		heartbeat_corrupt("the memfd's content changed");
	int ready;
	do /* a stop interrupts epoll_wait */
		ready = epoll_wait(o->epoll, &got, 1, 2000);
	while (ready < 0 && errno == EINTR);
	if (ready != 1 || got.data.u64 != 42)
		heartbeat_corrupt("the timer in the epoll set does not fire");
	if (read(o->timer, &ticks, sizeof(ticks)) != (ssize_t)sizeof(ticks))
		heartbeat_corrupt("the timer cannot be read");
	if (!o->is_periodic)
		arm(o);
	if (sigpending(&pending) != 0 || !sigismember(&pending, SIGUSR2))
		heartbeat_corrupt("the pending signal is lost");
}

int main(int argc, char **argv)
{
	struct objects o = {.counter = 1000};
	if (argc < 2) {
		fprintf(stderr, "usage: event STATUS [--wide] [--periodic]\n");
		return 2;
	}
	for (int i = 2; i < argc; i++) {
		o.is_periodic |= strcmp(argv[i], "--periodic") == 0;
		if (strcmp(argv[i], "--wide") == 0)
			o.counter = BEYOND_32_BITS;
	}
	heartbeat_open(argv[1]);
	objects_init(&o);
	for (;;) {
		check_event(&o);
		check_others(&o);
		heartbeat_beat("ok", "");
	}
}
