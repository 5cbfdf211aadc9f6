/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of a migration's changes, one thread and one pipe a watcher. */
#ifndef HAUL_ENGINE_SERVICE_WATCH_H
#define HAUL_ENGINE_SERVICE_WATCH_H

#include "engine/core.h"
#include "haul/v1/pipe.pb-c.h"
#include "rpc/pipe.h"
#include "rpc/service.h"

struct watchers;

struct watchers *watchers_new(struct core *core);

/* Sends what a stream has until its end, which is told to the reader with the status it returns.
 * `key` says what is watched. Runs on the stream's thread. */
typedef status *(*watch_send)(struct watchers *watchers, const struct core *core, struct pipe *pipe,
			      const char *key);

/* Opens a pipe for this caller, and a thread that sends. `key` has at most LIMIT_NAME bytes. */
must_check status *watchers_open(struct watchers *watchers, const struct rpc_call *call,
				 watch_send send, const char *key,
				 Haul__V1__PipeAddress **ret_address);

/* For senders: waits for so long, or until watchers_wake. false = it is time to end. */
bool watchers_wait(struct watchers *watchers, int64_t timeout_ms);

/* What those in watchers_wait look at has changed. With is_end they end. */
void watchers_wake(struct watchers *watchers, bool is_end);

/* The same for a migration: opens a pipe for this caller; the watcher sends until the migration is
 * over or the caller is gone. */
must_check status *watchers_add(struct watchers *watchers, const struct rpc_call *call,
				const char *id, Haul__V1__PipeAddress **ret_address);

/* Ends all. The registry must be closed before. */
void watchers_free(struct watchers *watchers);

#endif
