/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/stripes.h"

void pipe_set_interrupt(const struct pipe_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		pipe_interrupt(set->pipes[i]);
}

void pipe_set_hang_up(const struct pipe_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		pipe_hang_up(set->pipes[i]);
}

void pipe_set_free(struct pipe_set *set)
{
	for (unsigned i = 0; i < set->count; i++)
		pipe_free(set->pipes[i]);
	*set = (struct pipe_set){0};
}
