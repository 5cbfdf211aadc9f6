/* SPDX-License-Identifier: Apache-2.0 */
/* What all migrations of an engine share: configuration, journal, registry, facts of this host. */
#ifndef HAUL_ENGINE_CORE_H
#define HAUL_ENGINE_CORE_H

#include <stdatomic.h>

#include "engine/criu/request.h"
#include "engine/engine.h"
#include "engine/host/cgroup.h"
#include "engine/migration/costs.h"
#include "engine/migration/history.h"
#include "engine/migration/journal.h"
#include "engine/migration/registry.h"
#include "haul/v1/pipe.pb-c.h"

enum { PEER_PROTOCOL = 3 };

struct core {
	struct engine_config config; /* strings are owned copies */
	struct journal *journal;
	struct registry *registry;
	struct history *history;
	struct costs *costs;
	char cgroup_mount[CGROUP_PATH];
	char cgroups[CGROUP_PATH]; /* base of our groups: <mount>/haul */
	char boot_id[40];
	char
	    tag[40]; /* of the state directory, in groups' names: engines may share a cgroup root */
	unsigned criu_version; /* 40101; 0 = CRIU does not work here, see trouble */
	Haul__V1__SealRates seal_rates;
	bool has_dirty_tracking;
	bool has_lazy_restore;
	char lazy_trouble[LIMIT_STATUS_TEXT]; /* why not */
	char trouble[LIMIT_STATUS_TEXT];
	int64_t started_unix_ms;
	atomic_bool is_draining;
	atomic_uint still; /* core_stand_still */
	struct criu_limits criu_limits;
};

/* Fills in what is the same in every record. */
must_check status *core_journal(struct core *core, const char *id, Haul__V1__JournalEvent event,
				const Haul__V1__JournalRecord *fields);

/* Deadlines of CRIU's stages for a tree of this size: the configured silence, and the time its
 * memory takes at the slowest rate worth waiting for. */
void core_limits(const struct core *core, uint64_t resident_bytes, struct criu_limits *ret_limits);

/* A workload stands still because of us from now on (begins), or no longer: until then others wait
 * for what they only want to know. */
void core_stand_still(struct core *core, bool begins);

/* "<state_dir>/<kind>/<id>[/<below>]". */
void core_path(const struct core *core, const char *kind, const char *id, const char *below,
	       char ret_path[4096]);

/* An id as we make them: 1..LIMIT_ID of [a-z0-9-]. INVALID_ARGUMENT otherwise. */
must_check status *core_check_id(const char *id);

/* May a workload leave for the engine at this URL? PERMISSION_DENIED by the policy. */
must_check status *core_check_destination(const struct core *core, const char *to);

/* What the policy gives this caller. */
struct policy_limits core_limits_of(const struct core *core, const struct identity *caller);

/* Looks at CRIU and the kernel with one short session; fills criu_version, has_dirty_tracking,
 * has_lazy_restore, and what is wrong. */
void core_probe_criu(struct core *core);

/* Kills a leftover CRIU session of an earlier hauld, after giving it time to let its tree go. kind
 * is CRIU_GROUP_OUT or CRIU_GROUP_IN. */
void core_end_leftover_criu(struct core *core, const char *kind, const char *id);

/* Kinds of the groups of CRIU sessions: both sides of a migration may share a cgroup root. */
#define CRIU_GROUP_OUT "criu"
#define CRIU_GROUP_IN "criu-in"
/* Of the guards of lazy restores. */
#define LAZY_GROUP "lazy"

#endif
