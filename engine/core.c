/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/core.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "engine/lazy/lazy.h"
#include "engine/log.h"
#include "proto/clock.h"

enum {
	LEFTOVER_GRACE_MS = 3000,
	LEFTOVER_POLL_MS = 20,
	GROUP_TIMEOUT_MS = 10000,
	SLOWEST_BYTES_PER_MS = 20 * 1024
};

status *core_journal(struct core *core, const char *id, Haul__V1__JournalEvent event,
		     const Haul__V1__JournalRecord *fields)
{
	Haul__V1__JournalRecord record = HAUL__V1__JOURNAL_RECORD__INIT;

	if (fields != NULL)
		record = *fields;
	record.event = event;
	record.id = (char *)id;
	record.unix_ms = clock_unix_ms();
	record.boot_id = core->boot_id;
	status *st = journal_append(core->journal, &record);
	if (st != NULL)
		return status_wrapf(st, "migration %s", id);
	return NULL;
}

void core_limits(const struct core *core, uint64_t resident_bytes, struct criu_limits *ret_limits)
{
	ret_limits->short_ms = core->config.criu_timeout_ms;
	ret_limits->long_ms =
	    core->config.criu_timeout_ms + (int64_t)(resident_bytes / SLOWEST_BYTES_PER_MS);
}

status *core_check_destination(const struct core *core, const char *to)
{
	struct endpoint endpoint;
	scoped(status) status *wrong = endpoint_parse(to, &endpoint);

	/* Whoever connects says better what is wrong with an address. */
	if (core->config.policy == NULL || wrong != NULL)
		return NULL;
	return policy_check_destination(core->config.policy, endpoint.host);
}

void core_stand_still(struct core *core, bool begins)
{
	if (begins)
		(void)atomic_fetch_add(&core->still, 1);
	else
		(void)atomic_fetch_sub(&core->still, 1);
	registry_hush(core->registry, begins);
}

struct policy_limits core_limits_of(const struct core *core, const struct identity *caller)
{
	if (core->config.policy == NULL)
		return (struct policy_limits){0};
	return policy_limits_of(core->config.policy, caller);
}

void core_path(const struct core *core, const char *kind, const char *id, const char *below,
	       char ret_path[4096])
{
	(void)snprintf(ret_path, 4096, "%s/%s/%s%s%s", core->config.state_dir, kind, id,
		       below[0] != '\0' ? "/" : "", below);
}

status *core_check_id(const char *id)
{
	size_t length = strlen(id);

	if (length == 0 || length > LIMIT_ID ||
	    strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != length)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "not a migration's id: use 1 to %d of a-z, 0-9 and -",
				     LIMIT_ID);
	return NULL;
}

/* CRIU and the kernel must both be able to; what is missing is no reason not to serve. */
static void probe_lazy(struct core *core, struct swrk *session)
{
	bool has = false;
	status *found = core->config.program != NULL
			    ? criu_has_lazy_pages(session, &core->criu_limits, &has)
			    : status_errorf(STATUS_UNIMPLEMENTED, "not by this program");

	if (found == NULL && !has)
		found = status_errorf(STATUS_UNIMPLEMENTED, "CRIU finds no userfaultfd here");
	scoped(status) status *st = status_first(found, lazy_probe());
	core->has_lazy_restore = st == NULL;
	if (st != NULL)
		(void)snprintf(core->lazy_trouble, sizeof(core->lazy_trouble), "%s",
			       status_message(st));
}

static status *probe(struct core *core)
{
	scoped(swrk) struct swrk *session = NULL;
	char group[CGROUP_PATH], dir[4096], id[8 + sizeof(core->tag)];

	core_path(core, "probe", "criu", "", dir);
	/* The same each time: what a hauld that was killed meanwhile has left is ended along. */
	(void)snprintf(id, sizeof(id), "probe-%s", core->tag);
	cgroup_path(core->cgroups, CRIU_GROUP_OUT, id, group);
	status *st = files_make_directory(dir);
	if (st == NULL)
		st = cgroup_make(group);
	struct swrk_options options = {.criu = core->config.criu, .cgroup = group, .work_dir = dir};
	if (st == NULL)
		st = swrk_open(&options, &session);
	if (st == NULL)
		st = criu_version(session, &core->criu_limits, &core->criu_version);
	if (st == NULL)
		st =
		    criu_has_dirty_tracking(session, &core->criu_limits, &core->has_dirty_tracking);
	if (st == NULL)
		probe_lazy(core, session);
	swrk_free(TAKE(session));
	status_free(cgroup_kill(group, GROUP_TIMEOUT_MS));
	return st;
}

void core_probe_criu(struct core *core)
{
	scoped(status) status *st = probe(core);

	core->trouble[0] = '\0';
	if (st == NULL)
		return;
	core->criu_version = 0;
	(void)snprintf(core->trouble, sizeof(core->trouble), "CRIU does not work here: %s",
		       status_message(st));
	log_status(LOG_LEVEL_WARN, NULL,
		   "CRIU does not work here: no migration from or to this node", st);
}

/* The source's: its sockets are closed since its engine died, it lets the tree go by itself, which
 * leaves the tree cleaner than killing CRIU would. The destination's waits to be killed. */
void core_end_leftover_criu(struct core *core, const char *kind, const char *id)
{
	char group[CGROUP_PATH];
	bool is_populated = true;
	bool ends_by_itself = strcmp(kind, CRIU_GROUP_OUT) == 0;
	int64_t until = clock_monotonic_ms() + (ends_by_itself ? LEFTOVER_GRACE_MS : 0);

	cgroup_path(core->cgroups, kind, id, group);
	while (cgroup_exists(group) && clock_monotonic_ms() < until) {
		scoped(status) status *st = cgroup_is_populated(group, &is_populated);
		if (st != NULL || !is_populated)
			break;
		(void)poll(NULL, 0, LEFTOVER_POLL_MS);
	}
	scoped(status) status *st = cgroup_kill(group, GROUP_TIMEOUT_MS);
	if (st != NULL)
		log_status(LOG_LEVEL_WARN, id, "a CRIU session of an earlier hauld would not end",
			   st);
}
