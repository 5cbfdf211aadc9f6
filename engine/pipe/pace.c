/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/pace.h"

double pace_wait_ms(struct pace *pace, uint64_t bytes, uint64_t bytes_per_s, double now_ms)
{
	if (bytes_per_s == 0) {
		pace->due_ms = 0;
		return 0;
	}
	if (pace->due_ms < now_ms)
		pace->due_ms = now_ms;
	pace->due_ms += (double)bytes * 1000 / (double)bytes_per_s;
	return pace->due_ms - now_ms;
}
