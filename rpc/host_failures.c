/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/host_failures.h"

#include <stddef.h>

/* The host's place, or of all others the one that is forgiven first. */
static size_t place_of(const struct host_failures *failures, uint64_t net)
{
	size_t place = 0;
	for (size_t i = 0; i < LIMIT_FAILING_HOSTS; i++) {
		if (failures->hosts[i].net == net)
			return i;
		if (failures->hosts[i].past_at_ms < failures->hosts[place].past_at_ms)
			place = i;
	}
	return place;
}

void host_failures_add(struct host_failures *failures, const struct peer_address *from,
		       int64_t now_ms)
{
	const int64_t most_ms = (int64_t)LIMIT_HOST_FAILURES * LIMIT_HOST_FAILURE_MS;
	size_t place = place_of(failures, from->net);
	int64_t past_at_ms = now_ms;

	if (from->net == 0)
		return;
	if (failures->hosts[place].net == from->net && failures->hosts[place].past_at_ms > now_ms)
		past_at_ms = failures->hosts[place].past_at_ms;
	past_at_ms += LIMIT_HOST_FAILURE_MS;
	failures->hosts[place].net = from->net;
	failures->hosts[place].past_at_ms =
	    past_at_ms < now_ms + most_ms ? past_at_ms : now_ms + most_ms;
}

void host_failures_forgive(struct host_failures *failures, const struct peer_address *from)
{
	size_t place = place_of(failures, from->net);
	if (from->net != 0 && failures->hosts[place].net == from->net)
		failures->hosts[place].past_at_ms = 0;
}

bool host_failures_is_over(const struct host_failures *failures, const struct peer_address *from,
			   int64_t now_ms)
{
	const int64_t full_ms = (int64_t)(LIMIT_HOST_FAILURES - 1) * LIMIT_HOST_FAILURE_MS;
	size_t place = place_of(failures, from->net);
	return from->net != 0 && failures->hosts[place].net == from->net &&
	       failures->hosts[place].past_at_ms - now_ms > full_ms;
}
