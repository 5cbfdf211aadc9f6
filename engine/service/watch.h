/* SPDX-License-Identifier: Apache-2.0 */
/* Streams of a migration's changes, one thread and one pipe a watcher. */
#ifndef HAUL_ENGINE_SERVICE_WATCH_H
#define HAUL_ENGINE_SERVICE_WATCH_H

#include "engine/core.h"
#include "haul/v1/pipe.pb-c.h"
#include "rpc/service.h"

struct watchers;

struct watchers *watchers_new(struct core *core);

/* Opens a pipe for this caller; the watcher sends until the migration is over or the caller is
 * gone. */
must_check status *watchers_add(struct watchers *watchers, const struct rpc_call *call,
				const char *id, Haul__V1__PipeAddress **ret_address);

/* Ends all. The registry must be closed before. */
void watchers_free(struct watchers *watchers);

#endif
