/* SPDX-License-Identifier: Apache-2.0 */
/* What streams of an engine wait for: that something has changed, or that the engine ends. And the
 * stream of a migration's changes. */
#ifndef HAUL_ENGINE_SERVICE_WATCH_H
#define HAUL_ENGINE_SERVICE_WATCH_H

#include "engine/core.h"
#include "rpc/service.h"

struct watchers;

struct watchers *watchers_new(void);

/* Waits for so long, or until watchers_wake. false = it is time to end. */
bool watchers_wait(struct watchers *watchers, int64_t timeout_ms);

/* What those in watchers_wait look at has changed. With is_end they end. */
void watchers_wake(struct watchers *watchers, bool is_end);

void watchers_free(struct watchers *watchers);

/* Sends a migration's views to the stream, each that is newer than the one before (several changes
 * may become one), until it is over, the caller is gone or the registry closes. A caller that has
 * seen `after_sequence` goes on behind it. */
must_check status *watch_migration(struct registry *registry, const char *id,
				   uint64_t after_sequence, struct stream *stream);

#endif
