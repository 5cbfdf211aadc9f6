/* SPDX-License-Identifier: Apache-2.0 */
/* Both ends of a bulk pipe in one process, and a scratch directory. */
#ifndef HAUL_TESTS_UNIT_ENGINE_PIPE_PAIR_H
#define HAUL_TESTS_UNIT_ENGINE_PIPE_PAIR_H

#include "rpc/pipe.h"

/* Fails the test when it cannot. */
void pipe_pair_open(struct pipe **ret_listener, struct pipe **ret_dialer);

/* Carries the images of one directory to another, all at the end; returns how many. */
unsigned pipe_pair_carry_images(struct pipe *from, const char *from_dir, struct pipe *to,
				const char *to_dir);

/* A new directory below /tmp. */
void scratch_make(char ret_path[64]);
void scratch_remove(const char *path);

#endif
