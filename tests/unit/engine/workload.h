/* SPDX-License-Identifier: Apache-2.0 */
/* Real processes for tests: the test's own program, started again with a part to play. */
#ifndef HAUL_TESTS_UNIT_ENGINE_WORKLOAD_H
#define HAUL_TESTS_UNIT_ENGINE_WORKLOAD_H

#include <stdbool.h>
#include <sys/types.h>

struct workload {
	pid_t pid;
	int to, from; /* its stdin and stdout; it ends when `to` closes */
};

/* Starts "/proc/self/exe part", in a session of its own unless is_in_our_session, with `error` (or
 * /dev/null when -1) as descriptor 2 and no others; returns when it says that it is ready. */
struct workload workload_start(const char *part, int error, bool is_in_our_session);

/* Sends it one byte and waits for its answer. */
void workload_poke(const struct workload *workload);

/* Ends and reaps it. */
void workload_end(struct workload *workload);

/* In the part: ready, and wait for a poke; false when the test wants the end. */
bool part_ready(void);

#endif
