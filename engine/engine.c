/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/core.h"
#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/service/services.h"
#include "proto/clock.h"
#include "proto/schema.h"
#include "rpc/reflection.h"
#include "rpc/seal.h"
#include "rpc/seal_choice.h"

/* With all workers busy, one is free again in a twentieth of this: a peer's call, which never waits
 * here, does not feel it. */
enum { PAUSE_MS = 50 };

struct engine {
	struct core core;
	struct services parts;
	struct rpc_service services[ENGINE_SERVICES];
	struct reflection *reflection;
	/* Owned copies of the configuration's strings. */
	char *node, *state_dir, *criu, *program, *local_dir;
};

void engine_config_defaults(struct engine_config *config)
{
	*config = (struct engine_config){
	    .node = "node",
	    .state_dir = "/var/lib/haul",
	    .criu = "criu",
	    .local_dir = "/run/haul",
	    .port_low = 7800,
	    .port_high = 7899,
	    .is_seal_auto = true,
	    .criu_timeout_ms = 30000,
	    .lease_ms = 15000,
	    .hold_restored_ms = 600000,
	    .hold_images_ms = 10000,
	    .call_timeout_ms = 10000,
	};
}

static void own_strings(struct engine *engine, const struct engine_config *config)
{
	struct engine_config *ours = &engine->core.config;

	*ours = *config;
	ours->node = engine->node = strdup(config->node);
	ours->state_dir = engine->state_dir = strdup(config->state_dir);
	ours->criu = engine->criu = strdup(config->criu);
	ours->program = engine->program = config->program != NULL ? strdup(config->program) : NULL;
	ours->local_dir = engine->local_dir = strdup(config->local_dir);
	if (engine->node == NULL || engine->state_dir == NULL || engine->criu == NULL ||
	    engine->local_dir == NULL)
		abort();
}

static status *find_cgroups(struct core *core)
{
	status *st = cgroup_base(core->cgroups);

	if (st != NULL)
		return status_wrapf(st, "haul needs cgroup v2 to fence a workload");
	memcpy(core->cgroup_mount, core->cgroups, sizeof(core->cgroup_mount));
	char *slash = strrchr(core->cgroup_mount, '/');
	if (slash != NULL)
		*slash = '\0';
	return NULL;
}

/* A report that cannot be kept is no reason to stop: it is for people, and in memory still. */
static void keep_report(void *self, const Haul__V1__Migration *view)
{
	struct core *core = self;
	scoped(status) status *st = history_keep(core->history, view);
	scoped(status) status *unlearnt = costs_keep(core->costs);

	if (st != NULL)
		log_status(LOG_LEVEL_WARN, view->id, "its report is not kept", st);
	if (unlearnt != NULL)
		log_status(LOG_LEVEL_WARN, view->id, "what it cost is not kept", unlearnt);
}

static void forget_report(void *self, const char *id)
{
	struct core *core = self;

	history_forget(core->history, id);
}

static status *hide_report(void *self, const char *id)
{
	struct core *core = self;

	return history_delete(core->history, id);
}

static void tag_state(struct core *core)
{
	struct stat info = {0};

	(void)stat(core->config.state_dir, &info);
	(void)snprintf(core->tag, sizeof(core->tag), "%llx-%llx", (unsigned long long)info.st_dev,
		       (unsigned long long)info.st_ino);
}

/* How fast each seal is here, for who shall be spoken to. */
static void measure_seals(struct core *core)
{
	const struct engine_config *config = &core->config;
	Haul__V1__SealRates *rates = &core->seal_rates;

	haul__v1__seal_rates__init(rates);
	for (int kind = 0; kind < SEAL_KINDS; kind++) {
		Haul__V1__Seal seal = (Haul__V1__Seal)kind;
		if (!config->is_seal_auto && config->seal != seal)
			continue;
		*seal_rate(rates, seal) = seal_measure(seal);
		log_line(LOG_LEVEL_DEBUG, NULL, "seal %s: %u MiB/s", seal_name(seal),
			 *seal_rate(rates, seal));
	}
}

static status *open_core(struct core *core)
{
	core->criu_limits = (struct criu_limits){
	    .short_ms = core->config.criu_timeout_ms,
	    .long_ms = core->config.criu_timeout_ms,
	};
	core->started_unix_ms = clock_unix_ms();
	status *st = files_make_directory(core->config.state_dir);
	if (st == NULL)
		st = proc_boot_id(core->boot_id);
	if (st == NULL)
		st = find_cgroups(core);
	if (st == NULL)
		st = journal_open(core->config.state_dir, &core->journal);
	if (st != NULL)
		return st;
	tag_state(core);
	core->registry = registry_new();
	char costs[FILES_PATH];
	(void)snprintf(costs, sizeof(costs), "%s/costs", core->config.state_dir);
	core->costs = costs_new(costs);
	st = history_open(core->config.state_dir, &core->history);
	if (st != NULL)
		return st;
	const struct registry_keeper keeper = {core, keep_report, forget_report, hide_report};
	registry_set_keeper(core->registry, &keeper);
	core_probe_criu(core);
	measure_seals(core);
	return NULL;
}

/* Those that the journal did not bring: of the destination's side, or refused before there was a
 * record. What hides a record that is forgotten hides nothing. */
static void show_report(void *self, const char *id, const Haul__V1__Migration *view)
{
	struct core *core = self;
	bool is_deleted = false;
	scoped(journal_record) Haul__V1__JournalRecord *source =
	    journal_find(core->journal, id, true);
	scoped(journal_record) Haul__V1__JournalRecord *destination =
	    journal_find(core->journal, id, false);

	if (view != NULL)
		status_free(
		    registry_add(core->registry, history_find(core->history, id, &is_deleted)));
	else if (source == NULL && destination == NULL)
		history_forget(core->history, id);
}

static status *recover(struct engine *engine)
{
	struct services *parts = &engine->parts;

	parts->core = &engine->core;
	parts->sources = sources_new(&engine->core);
	parts->incomings = incomings_new(&engine->core);
	parts->watchers = watchers_new();
	parts->leases = leases_new(&engine->core);
	engine->services[0] = services_migrations(parts);
	engine->services[1] = services_peer(parts);
	engine->services[2] = services_node(parts);
	engine->services[3] = services_health(parts);
	engine->services[4] = services_criu(parts);
	status *st = reflection_new(engine->services, ENGINE_SERVICES, own_descriptor_set,
				    own_descriptor_set_size, &engine->reflection);
	if (st == NULL) {
		engine->services[5] = reflection_service(engine->reflection);
		st = leases_recover(parts->leases);
	}
	if (st == NULL)
		st = incomings_recover(parts->incomings);
	if (st == NULL)
		st = incomings_start(parts->incomings);
	if (st == NULL)
		st = sources_recover(parts->sources);
	return st == NULL ? history_each(engine->core.history, show_report, &engine->core) : st;
}

status *engine_open(const struct engine_config *config, struct engine **ret_engine)
{
	scoped(engine) struct engine *engine = calloc(1, sizeof(*engine));

	if (engine == NULL)
		return status_errnof(ENOMEM, "engine");
	own_strings(engine, config);
	status *st = open_core(&engine->core);
	if (st == NULL)
		st = recover(engine);
	if (st != NULL)
		return st;
	*ret_engine = TAKE(engine);
	return NULL;
}

const struct rpc_service *engine_services(struct engine *engine)
{
	return engine->services;
}

void engine_drain(struct engine *engine, int64_t grace_ms)
{
	atomic_store(&engine->core.is_draining, true);
	watchers_wake(engine->parts.watchers, false);
	leases_drain(engine->parts.leases);
	sources_drain(engine->parts.sources, grace_ms);
	incomings_drain(engine->parts.incomings);
	registry_close(engine->core.registry);
	watchers_wake(engine->parts.watchers, true);
}

int64_t engine_pause_ms(struct engine *engine, const char *method)
{
	static const char of_peers[] = "/haul.v1.Peer/";

	if (atomic_load(&engine->core.still) == 0 ||
	    strncmp(method, of_peers, sizeof(of_peers) - 1) == 0)
		return 0;
	return PAUSE_MS;
}

void engine_free(struct engine *engine)
{
	if (engine == NULL)
		return;
	if (engine->core.registry != NULL)
		registry_close(engine->core.registry);
	watchers_free(engine->parts.watchers);
	leases_free(engine->parts.leases);
	sources_free(engine->parts.sources);
	incomings_free(engine->parts.incomings);
	registry_free(engine->core.registry);
	reflection_free(engine->reflection);
	history_free(engine->core.history);
	costs_free(engine->core.costs);
	journal_close(engine->core.journal);
	free(engine->node);
	free(engine->state_dir);
	free(engine->criu);
	free(engine->program);
	free(engine->local_dir);
	free(engine);
}
