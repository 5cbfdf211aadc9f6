/* SPDX-License-Identifier: Apache-2.0 */
/* The engine of one node: everything cmd/hauld needs of it. */
#ifndef HAUL_ENGINE_ENGINE_H
#define HAUL_ENGINE_ENGINE_H

#include "haul/v1/pipe.pb-c.h"
#include "rpc/endpoint.h"
#include "rpc/policy.h"
#include "rpc/service.h"

struct engine;

struct engine_config {
	const char *node;
	const char *state_dir; /* journal, images, logs; made 0700 */
	const char *criu;      /* path */
	const char *program; /* hauld's own, for its helpers (lazy/lazy_guard.h, criu/swrk.h); NULL:
				no lazy restore */
	const char *local_dir;	      /* directory of the local socket: stream sockets go here */
	uint16_t port_low, port_high; /* data ports */
	Haul__V1__Seal seal;	      /* the only one, when it is not auto */
	bool is_seal_auto;
	bool insecure;
	const struct credentials *credentials; /* borrowed; NULL without TLS */
	struct policy *policy;	 /* borrowed: where to workloads may leave, how much each caller may
				    have; NULL: everything */
	int64_t criu_timeout_ms; /* silence of CRIU that ends a stage; 30000 */
	int64_t lease_ms; /* silence of a source that gives an unfinished session up; 15000 */
	int64_t hold_restored_ms; /* how long a whole restored copy is kept without its source;
				     600000 */
	int64_t hold_images_ms;	  /* images kept after commit; 10000 */
	int64_t call_timeout_ms;  /* one call to a peer; 10000 */
};

void engine_config_defaults(struct engine_config *config);

/* Takes the state directory's lock (ALREADY_EXISTS: another hauld holds it), replays the journal,
 * recovers: what was interrupted is rolled back, finished or put in doubt. Copies the strings of
 * the configuration. */
must_check status *engine_open(const struct engine_config *config, struct engine **ret_engine);

enum { ENGINE_SERVICES = 6 };
/* Migrations, Peer, Node, Health, Criu, Reflection; for rpc_server_new. Valid as long as the
 * engine. */
const struct rpc_service *engine_services(struct engine *engine);

/* Refuses new migrations, cancels those that can be, waits for the others at most grace_ms. What is
 * left is in the journal. */
void engine_drain(struct engine *engine, int64_t grace_ms);

/* How long a call of this method, which only reads, should wait before it is served: some while a
 * workload stands still between two hosts, so that nobody's curiosity makes that longer; else 0. */
int64_t engine_pause_ms(struct engine *engine, const char *method);

void engine_free(struct engine *engine);

DEFINE_SCOPE(engine, struct engine *, engine_free);

#endif
