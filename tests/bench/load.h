/* SPDX-License-Identifier: Apache-2.0 */
/* Callers that call as fast as they are answered, and how long each call took. */
#ifndef HAUL_TESTS_BENCH_LOAD_H
#define HAUL_TESTS_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>

struct load {
	unsigned callers;
	double seconds; /* of measuring, after a tenth of that to warm up */
	size_t calls;	/* instead of so many seconds, when not 0: in all, without a warm-up */
	void *self;
	/* One call by this caller (0, 1 …), from start to answer. False ends the program. */
	bool (*call)(void *self, unsigned caller);
};

/* Runs it, a thread a caller, and prints one line of JSON: p50_us, p99_us, calls, per_second. Ends
 * the program when a call fails or there is no memory. */
void load_run(const struct load *load);

/* A program that serves: says "ready", and waits for the end of its input. */
void load_serve(void);

#endif
