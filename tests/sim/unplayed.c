/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine calls and what does not matter to who runs: preflight finds nothing, there are no
 * sockets, nobody watches, nothing is packed, CRIU is lent to nobody. */
#include "engine/host/preflight.h"
#include "engine/host/tree_sockets.h"
#include "engine/pipe/batch_codec.h"
#include "engine/service/services.h"
#include "proto/schema.h"
#include "rpc/client.h"
#include "rpc/endpoint.h"
#include "rpc/reflection.h"
#include "tests/sim/sim.h"

#include <stdio.h>

status *workload_parse(const char *workload, pid_t *ret_pid)
{
	(void)workload;
	*ret_pid = ROOT_PID;
	return NULL;
}

status *preflight_tree(pid_t root, const Haul__V1__MigrateOptions *options,
		       struct tree_survey *ret_survey)
{
	const struct proc *proc = proc_find(node_here(), root);

	(void)options;
	if (proc == NULL)
		return status_errorf(STATUS_NOT_FOUND, "no such process");
	ret_survey->pids = calloc(2, sizeof(pid_t));
	if (ret_survey->pids == NULL)
		abort();
	ret_survey->pids[0] = ROOT_PID;
	ret_survey->pids[1] = CHILD_PID;
	ret_survey->pid_count = 2;
	ret_survey->start_ticks = proc->start_ticks;
	ret_survey->resident_bytes = (uint64_t)8 << 20;
	return NULL;
}

status *preflight_frozen(const struct tree_survey *survey)
{
	(void)survey;
	return NULL;
}

status *tree_sockets_shut(const pid_t *pids, size_t count, const char *record)
{
	(void)pids;
	(void)count;
	(void)record;
	return NULL;
}

status *tree_sockets_reopen(const pid_t *pids, size_t count, const char *record)
{
	return tree_sockets_shut(pids, count, record);
}

void tree_survey_free(struct tree_survey *survey)
{
	free(survey->pids);
	survey->pids = NULL;
}

status *preflight_destination(const Haul__V1__PrepareRequest *request, const char *images_dir)
{
	(void)request;
	(void)images_dir;
	return proc_find(node_here(), ROOT_PID) == NULL
		   ? NULL
		   : status_errorf(STATUS_ALREADY_EXISTS, "pid %d is taken", ROOT_PID);
}

status *batch_codecs_parse(const char *text, struct batch_codecs *ret_codecs)
{
	(void)text;
	*ret_codecs = (struct batch_codecs){.set = BATCH_CODECS_ALL};
	return NULL;
}

status *endpoint_parse(const char *url, struct endpoint *ret_endpoint)
{
	(void)snprintf(ret_endpoint->url, sizeof(ret_endpoint->url), "%s", url);
	return NULL;
}

struct watchers *watchers_new(void)
{
	return NULL;
}

status *watch_migration(struct registry *registry, const char *id, uint64_t after_sequence,
			struct stream *stream)
{
	(void)registry;
	(void)id;
	(void)after_sequence;
	(void)stream;
	return status_errorf(STATUS_UNIMPLEMENTED, "nobody watches");
}

void watchers_wake(struct watchers *watchers, bool is_end)
{
	(void)watchers;
	(void)is_end;
}

void watchers_free(struct watchers *watchers)
{
	(void)watchers;
}

struct leases *leases_new(struct core *core)
{
	(void)core;
	return NULL;
}

status *leases_recover(struct leases *leases)
{
	(void)leases;
	return NULL;
}

void leases_drain(struct leases *leases)
{
	(void)leases;
}

void leases_free(struct leases *leases)
{
	(void)leases;
}

static const struct rpc_service nothing;

struct rpc_service services_criu(struct services *services)
{
	(void)services;
	return nothing;
}

struct rpc_service services_node(struct services *services)
{
	(void)services;
	return nothing;
}

struct rpc_service services_health(struct services *services)
{
	(void)services;
	return nothing;
}

const uint8_t own_descriptor_set[1];
const size_t own_descriptor_set_size;

status *reflection_new(const struct rpc_service *services, size_t count, const uint8_t *set,
		       size_t set_size, struct reflection **ret_reflection)
{
	(void)services;
	(void)count;
	(void)set;
	(void)set_size;
	*ret_reflection = NULL;
	return NULL;
}

struct rpc_service reflection_service(struct reflection *reflection)
{
	(void)reflection;
	return nothing;
}

void reflection_free(struct reflection *reflection)
{
	(void)reflection;
}

status *rpc_client_give(struct rpc_client *client, int fd)
{
	(void)client;
	(void)fd;
	abort();
}

status *rpc_client_request(struct rpc_client *client, const struct rpc_request *request,
			   ProtobufCMessage **ret_response, Haul__V1__Metadata **ret_trailing)
{
	(void)client;
	(void)request;
	(void)ret_response;
	(void)ret_trailing;
	abort();
}

void rpc_client_cancel(struct rpc_client *client, struct rpc_cancel *cancel)
{
	(void)client;
	(void)cancel;
	abort();
}

status *pipe_dial_socket(const Haul__V1__PipeAddress *address, int fd, int64_t timeout_ms,
			 struct pipe **ret_pipe)
{
	(void)address;
	(void)fd;
	(void)timeout_ms;
	(void)ret_pipe;
	abort();
}

status *rpc_call_fetch_socket(const struct rpc_call *call, int number, int *ret_fd)
{
	(void)call;
	(void)number;
	(void)ret_fd;
	abort();
}

status *rpc_call_hand_over(const struct rpc_call *call, const char *name, int sockets[RPC_SOCKETS])
{
	(void)call;
	(void)name;
	(void)sockets;
	abort();
}

bool rpc_call_came_by_handover(const struct rpc_call *call)
{
	(void)call;
	return false;
}

int rpc_call_take_socket(const struct rpc_call *call, enum rpc_socket which)
{
	(void)call;
	(void)which;
	return -1;
}

bool rpc_call_is_cancelled(const struct rpc_call *call)
{
	(void)call;
	return false;
}

int64_t rpc_call_budget_ms(const struct rpc_call *call, int64_t most_ms)
{
	(void)call;
	return most_ms;
}

status *policy_check_destination(struct policy *policy, const char *host)
{
	(void)policy;
	(void)host;
	return NULL;
}

struct policy_limits policy_limits_of(struct policy *policy, const struct identity *caller)
{
	(void)policy;
	(void)caller;
	return (struct policy_limits){0};
}
