/* SPDX-License-Identifier: Apache-2.0 */
/* The memory channel between the played CRIU and the played memory sender. */
#ifndef HAUL_TESTS_SIM_PIPES_H
#define HAUL_TESTS_SIM_PIPES_H

#include "tests/sim/sim.h"

struct played_memory {
	int fd;
	unsigned round;
	uint64_t pages;
	bool is_done, is_shut;
};

struct played_memory *memory_of(int fd);

#endif
