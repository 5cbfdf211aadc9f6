/* SPDX-License-Identifier: Apache-2.0 */
/* How many requests for late pages are under way ahead of what the tree waits for: a pure policy.
 *
 * What is under way stands on the link before the page that is waited for. So there are few at
 * first, when the tree goes on and nearly all that it touches is missing, and only one while it
 * waits. Later there are as many as the link carries in a moment, so that it is kept busy. Times
 * are monotonic milliseconds. */
#ifndef HAUL_ENGINE_PIPE_LATE_WINDOW_H
#define HAUL_ENGINE_PIPE_LATE_WINDOW_H

#include <stdint.h>

struct late_window {
	int64_t begun_ms, urgent_ms;
	unsigned carried; /* requests that the link carries in that moment */
	uint64_t came;	  /* pages, since: */
	int64_t came_since_ms;
};

void late_window_begin(struct late_window *window, int64_t now_ms);
void late_window_came(struct late_window *window, uint64_t pages, int64_t now_ms);
/* Something is asked for that the tree waits for. */
void late_window_urgent(struct late_window *window, int64_t now_ms);
/* So many may be under way now, of LATE_RANGE_PAGES each. */
unsigned late_window_now(const struct late_window *window, int64_t now_ms);

#endif
