/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/late_window.h"

#include "engine/lazy/late_store.h"

enum {
	START_MS = 2000,
	START = 2,
	ASKED_MS = 50, /* for so long after it has waited the tree is likely to wait again */
	LEAST = 4,
	MOST = 32,	/* 8 MiB, for links that are long and fast */
	QUEUE_MS = 200, /* the moment */
	MEASURE_MS = 100,
};

void late_window_begin(struct late_window *window, int64_t now_ms)
{
	*window = (struct late_window){.begun_ms = now_ms,
				       .urgent_ms = now_ms - ASKED_MS,
				       .carried = LEAST,
				       .came_since_ms = now_ms};
}

void late_window_came(struct late_window *window, uint64_t pages, int64_t now_ms)
{
	int64_t took_ms = now_ms - window->came_since_ms;

	window->came += pages;
	if (took_ms < MEASURE_MS)
		return;
	uint64_t carried = window->came * QUEUE_MS / (uint64_t)took_ms / LATE_RANGE_PAGES;
	window->carried = carried < LEAST ? LEAST : carried > MOST ? MOST : (unsigned)carried;
	window->came = 0;
	window->came_since_ms = now_ms;
}

void late_window_urgent(struct late_window *window, int64_t now_ms)
{
	window->urgent_ms = now_ms;
}

unsigned late_window_now(const struct late_window *window, int64_t now_ms)
{
	if (now_ms - window->begun_ms >= START_MS)
		return window->carried;
	return now_ms - window->urgent_ms < ASKED_MS ? 1 : START;
}
