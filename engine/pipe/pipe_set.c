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

uint64_t pipe_set_bytes_sent(const struct pipe_set *set)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < set->count; i++)
		bytes += pipe_bytes_sent(set->pipes[i]);
	return bytes;
}

uint64_t pipe_set_bytes_received(const struct pipe_set *set)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < set->count; i++)
		bytes += pipe_bytes_received(set->pipes[i]);
	return bytes;
}
