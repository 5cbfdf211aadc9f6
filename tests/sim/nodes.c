/* SPDX-License-Identifier: Apache-2.0 */
/* The two engines: started, killed, started again; and their user. */
#include <string.h>

#include "engine/engine.h"
#include "haul/v1/migrations.pb-c.h"
#include "proto/envelope.h"
#include "rpc/service.h"
#include "tests/sim/groups.h"
#include "tests/sim/sim.h"

enum {
	LIVES = 64,
	FIRST_PID = 4000,
	MIGRATIONS = 0,
	START = 0,
	GET = 1,
	LIST = 2,
	CANCEL = 3,
	RESOLVE = 5
};

static struct life lives[LIVES];
static unsigned life_count;
static struct life *latest[NODES];
static bool is_off[NODES];
bool was_wiped;
static char migration_id[LIMIT_ID + 1];

const char *sim_id(void)
{
	return migration_id[0] != '\0' ? migration_id : NULL;
}

struct life *node_life(int node)
{
	return latest[node];
}

bool node_is_up(int node)
{
	return !is_off[node];
}

bool node_is_serving(int node)
{
	return latest[node] != NULL && !latest[node]->is_dead && latest[node]->is_serving;
}

static void configure(int node, struct engine_config *config)
{
	static const char *const names[NODES] = {"a", "b"};

	engine_config_defaults(config);
	config->node = names[node];
	config->state_dir = "/state";
	config->lease_ms = LEASE_MS;
	config->hold_restored_ms = HOLD_MS;
	config->hold_images_ms = HOLD_IMAGES_MS;
	config->call_timeout_ms = CALL_MS;
	config->criu_timeout_ms = CRIU_MS;
	config->program = sim_is_lazy ? "hauld" : NULL;
}

static void *run_life(void *self)
{
	struct life *life = self;
	struct engine_config config;

	configure(life->node, &config);
	scoped(status) status *st = engine_open(&config, &life->engine);
	if (st != NULL && disk_is_failing(life->node)) { /* it is started again when that is over */
		life->is_dead = true;
		disk_unlock(life);
		return NULL;
	}
	if (st != NULL)
		sim_fail("the engine at %c does not start: %s", 'a' + life->node,
			 status_message(st));
	life->is_serving = true;
	if (life->node == B)
		world_heard();
	sim_trace("the engine at %c serves", 'a' + life->node);
	return NULL;
}

static struct life *life_new(int node)
{
	if (life_count == LIVES)
		sim_fail("too many engines");
	lives[life_count] = (struct life){.node = node, .pid = FIRST_PID + (pid_t)life_count};
	return &lives[life_count++];
}

void node_start(int node)
{
	if (latest[node] != NULL && !latest[node]->is_dead)
		return;
	sim_trace("an engine starts at %c", 'a' + node);
	latest[node] = life_new(node);
	(void)fiber_start(latest[node], run_life, latest[node]);
}

/* Another hauld in the same state directory must be refused. */
static void *run_second(void *self)
{
	struct life *life = self;
	struct engine_config config;

	configure(life->node, &config);
	scoped(status) status *st = engine_open(&config, &life->engine);
	if (st == NULL)
		sim_fail("two engines share a state directory at %c", 'a' + life->node);
	life->is_dead = true;
	disk_unlock(life);
	return NULL;
}

void node_start_second(int node)
{
	struct life *life = life_new(node);

	if (node_is_serving(node))
		(void)fiber_start(life, run_second, life);
}

static void life_ends(int node)
{
	struct life *life = latest[node];

	life->is_dead = true;
	life->is_serving = false;
	disk_unlock(life);
}

void node_kill(int node)
{
	struct life *life = latest[node];

	if (life == NULL || life->is_dead)
		return;
	life_ends(node);
	world_engine_died(life);
	net_life_died(life);
	pipes_life_died(life);
	lazy_life_died(life);
}

void node_power_off(int node, enum disk_loss loss)
{
	if (is_off[node])
		return;
	is_off[node] = true;
	if (latest[node] != NULL && !latest[node]->is_dead)
		life_ends(node);
	disk_power_off(node, loss);
	world_power_off(node);
}

void node_power_on(int node)
{
	is_off[node] = false;
	world_boot(node);
	node_start(node);
}

/* --- its user --- */

static status *ask(struct life *life, int method, const ProtobufCMessage *request,
		   ProtobufCMessage **ret_response)
{
	const struct rpc_service *service = &engine_services(life->engine)[MIGRATIONS];
	static const struct identity root = {.is_local = true, .name = "local"};
	static const uint8_t request_id[REQUEST_ID_BYTES];
	struct rpc_call call = {.caller = &root, .method = "user", .request_id = request_id};

	return service->handlers[method](service->self, &call, request, ret_response);
}

static void *start_migration(void *self)
{
	Haul__V1__StartRequest request = HAUL__V1__START_REQUEST__INIT;
	Haul__V1__MigrateOptions options = HAUL__V1__MIGRATE_OPTIONS__INIT;
	ProtobufCMessage *response = NULL;

	(void)self;
	request.workload = (char *)"pid:100";
	request.to = (char *)"tls+tcp://b:7777";
	options.auto_converge = sim_is_restless;
	request.options = &options;
	status *st = ask(life_here(), START, &request.base, &response);
	if (st != NULL) {
		sim_trace("not started: %s", status_message(st));
		status_free(st);
	}
	return NULL;
}

void node_start_migration(void)
{
	/* SHA256 is played: the id is known. */
	memset(migration_id, 0, sizeof(migration_id));
	for (int i = 0; i < 8; i++)
		memcpy(migration_id + 2 * i, "5a", 2);
	(void)fiber_start(latest[A], start_migration, NULL);
}

bool node_cancel(void)
{
	Haul__V1__CancelRequest request = HAUL__V1__CANCEL_REQUEST__INIT;
	ProtobufCMessage *response = NULL;

	request.id = migration_id;
	scoped(status) status *st = ask(life_here(), CANCEL, &request.base, &response);
	sim_trace("cancel: %s", st == NULL ? "ok" : status_message(st));
	return st == NULL;
}

/* --- an operator --- */

static void resolve(bool is_resume)
{
	Haul__V1__ResolveRequest request = HAUL__V1__RESOLVE_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = migration_id;
	request.act = is_resume ? HAUL__V1__RESOLVE_REQUEST__ACT__RESUME
				: HAUL__V1__RESOLVE_REQUEST__ACT__KILL;
	request.accept_risk = true;
	scoped(status) status *st = ask(life_here(), RESOLVE, &request.base, &response);
	sim_trace("an operator at %c says %s: %s", 'a' + node_here(), is_resume ? "resume" : "kill",
		  st == NULL ? "ok" : status_message(st));
}

/* A copy that is held: the only one when the source's tree is gone, else one too many. */
void node_resolve_there(void)
{
	resolve(world_copy_of_tree(A) < 0);
}

/* Only when it is sure that no second copy can come to run, or that one does. */
void node_resolve_here(void)
{
	if (world_is_committed())
		resolve(false);
	else if (world_is_given_up())
		resolve(true);
}

bool node_has_open_migrations(int node)
{
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.active_only = true;
	scoped(status) status *st = ask(latest[node], LIST, &request.base, &response);
	if (st != NULL)
		sim_fail("cannot list: %s", status_message(st));
	return ((const Haul__V1__ListResponse *)response)->n_migrations > 0;
}

void node_check_report(int running, bool is_excused)
{
	Haul__V1__GetRequest request = HAUL__V1__GET_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.id = migration_id;
	scoped(status) status *st = ask(latest[A], GET, &request.base, &response);
	if (st != NULL)
		return; /* never began */
	const Haul__V1__Migration *view = (const Haul__V1__Migration *)response;
	const char *state = haul__v1__migration_state__descriptor.values[view->state].name;
	bool says_there = view->state == HAUL__V1__MIGRATION_STATE__COMPLETED;
	if (!is_excused && says_there != (running > 0))
		sim_fail("it runs at %c, the report says %s", running > 0 ? 'b' : 'a', state);
	if (!is_excused && view->state == HAUL__V1__MIGRATION_STATE__LOST)
		sim_fail("it runs at %c, the report says %s", running > 0 ? 'b' : 'a', state);
}
