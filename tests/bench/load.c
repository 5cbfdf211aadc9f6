/* SPDX-License-Identifier: Apache-2.0 */
#include "load.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FIRST_ROOM = 4096 };

struct caller {
	const struct load *load;
	unsigned number;
	pthread_t thread;
	int64_t begin_ns, end_ns; /* of what is measured */
	size_t calls;		  /* to be made, 0 = until end_ns */
	size_t count, room;
	uint32_t *took_ns;
};

static int64_t now_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void fail(const char *what)
{
	(void)fprintf(stderr, "%s\n", what);
	exit(1);
}

static void note(struct caller *caller, int64_t took_ns)
{
	if (caller->count == caller->room) {
		caller->room = caller->room == 0 ? FIRST_ROOM : 2 * caller->room;
		uint32_t *grown = realloc(caller->took_ns, caller->room * sizeof(*caller->took_ns));
		if (grown == NULL)
			fail("no memory");
		caller->took_ns = grown;
	}
	caller->took_ns[caller->count++] = took_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)took_ns;
}

static void *run_caller(void *argument)
{
	struct caller *caller = argument;
	const struct load *load = caller->load;
	int64_t start_ns = now_ns();
	while (caller->calls != 0 ? caller->count < caller->calls : start_ns < caller->end_ns) {
		if (!load->call(load->self, caller->number))
			fail("a call failed");
		int64_t end_ns = now_ns();
		if (start_ns >= caller->begin_ns)
			note(caller, end_ns - start_ns);
		start_ns = end_ns;
	}
	return NULL;
}

static int compare(const void *left, const void *right)
{
	uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
	return a < b ? -1 : a > b;
}

static void report(const struct caller *callers, unsigned count, double seconds)
{
	size_t all = 0, at = 0;
	for (unsigned i = 0; i < count; i++)
		all += callers[i].count;
	uint32_t *took_ns = calloc(all + 1, sizeof(*took_ns));
	if (took_ns == NULL || all == 0)
		fail("nothing was measured");
	for (unsigned i = 0; i < count; i++)
		for (size_t j = 0; j < callers[i].count; j++)
			took_ns[at++] = callers[i].took_ns[j];
	qsort(took_ns, all, sizeof(*took_ns), compare);
	uint32_t half_ns = took_ns[all / 2], most_ns = took_ns[all - 1 - all / 100];
	(void)printf("{\"p50_us\": %.1f, \"p99_us\": %.1f, \"calls\": %zu, \"per_second\": %.0f}\n",
		     half_ns / 1000.0, most_ns / 1000.0, all, (double)all / seconds);
	free(took_ns);
}

void load_run(const struct load *load)
{
	struct caller *callers = calloc(load->callers, sizeof(*callers));
	if (callers == NULL)
		fail("no memory");
	int64_t start_ns = now_ns();
	int64_t begin_ns = load->calls != 0 ? start_ns : start_ns + (int64_t)(load->seconds * 1e8);
	for (unsigned i = 0; i < load->callers; i++) {
		callers[i] = (struct caller){.load = load,
					     .number = i,
					     .begin_ns = begin_ns,
					     .end_ns = begin_ns + (int64_t)(load->seconds * 1e9),
					     .calls = load->calls / load->callers};
		if (pthread_create(&callers[i].thread, NULL, run_caller, &callers[i]) != 0)
			fail("cannot start a thread");
	}
	for (unsigned i = 0; i < load->callers; i++)
		(void)pthread_join(callers[i].thread, NULL);
	report(callers, load->callers, (double)(now_ns() - begin_ns) / 1e9);
	for (unsigned i = 0; i < load->callers; i++)
		free(callers[i].took_ns);
	free(callers);
}

void load_serve(void)
{
	char byte;
	(void)printf("ready\n");
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
}
