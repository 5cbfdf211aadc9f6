/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/service/services.h"

#include <stdio.h>
#include <sys/utsname.h>

#include "engine/host/preflight.h"
#include "haul/v1/node.pb-c.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/pack.h"
#include "rpc/client.h"

static status *info(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		    ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const struct core *core = services->core;
	const struct credentials *credentials = core->config.credentials;
	struct credentials_info ours = {0};
	struct utsname here;
	char criu[32] = "";

	(void)call;
	(void)request;
	(void)uname(&here);
	if (core->criu_version != 0)
		(void)snprintf(criu, sizeof(criu), "%u.%u.%u", core->criu_version / 10000,
			       core->criu_version / 100 % 100, core->criu_version % 100);
	Haul__V1__NodeInfo *node = response_new(&haul__v1__node_info__descriptor);
	node->node = text_copy(core->config.node);
	node->version = text_copy(HAUL_VERSION);
	node->protocol = PEER_PROTOCOL;
	node->criu = text_copy(criu);
	node->criu_trouble = text_copy(core->trouble);
	node->kernel = text_copy(here.release);
	node->machine = text_copy(here.machine);
	node->dirty_tracking = core->has_dirty_tracking;
	node->nng = text_copy(rpc_nng_version());
	node->openssl = text_copy(rpc_openssl_version());
	registry_count(core->registry, &node->migrations_active, &node->migrations_in_doubt);
	node->started_unix_ms = core->started_unix_ms;
	if (credentials != NULL)
		credentials_describe(credentials, &ours);
	node->identity = text_copy(ours.identity);
	node->certificate_expires_unix_ms = ours.expire_unix_ms;
	node->crl_expires_unix_ms = ours.crl_expire_unix_ms;
	node->lazy_restore = core->has_lazy_restore;
	node->lazy_trouble = text_copy(core->lazy_trouble);
	node->draining = atomic_load(&core->is_draining);
	*ret_response = &node->base;
	return NULL;
}

static void add_finding(Haul__V1__CheckResponse *response, const char *check, const status *st,
			const char *fine)
{
	Haul__V1__Finding *finding = response_new(&haul__v1__finding__descriptor);
	Haul__V1__Finding **grown =
	    realloc(response->findings, (response->n_findings + 1) * sizeof(*grown));

	if (grown == NULL)
		abort();
	finding->ok = st == NULL;
	finding->check = text_copy(check);
	finding->text = text_copy(st == NULL ? fine : status_message(st));
	grown[response->n_findings++] = finding;
	response->findings = grown;
	response->migratable = response->migratable && st == NULL;
}

static status *ask_destination(const struct core *core, const struct rpc_call *call, const char *to,
			       bool *ret_is_lazy)
{
	Haul__V1__HelloRequest request = HAUL__V1__HELLO_REQUEST__INIT;
	scoped(rpc_client) struct rpc_client *client = NULL;
	scoped(message) ProtobufCMessage *response = NULL;

	const struct rpc_request hello = {.service = &haul__v1__peer__descriptor,
					  .method = "Hello",
					  .message = &request.base,
					  .timeout_ms = core->config.call_timeout_ms};
	request.protocol = PEER_PROTOCOL;
	request.node = (char *)core->config.node;
	request.version = (char *)HAUL_VERSION;
	status *st = core_check_destination(core, to);
	if (st == NULL)
		st = rpc_client_new(to, core->config.credentials, &client);
	if (st == NULL)
		st = rpc_call_forward(call, client, &hello, &response);
	if (st != NULL)
		return st;
	const Haul__V1__HelloResponse *there = (const Haul__V1__HelloResponse *)response;
	if (!there->criu_works)
		return status_errorf(STATUS_FAILED_PRECONDITION, "%s", there->criu_trouble);
	*ret_is_lazy = there->lazy_restore;
	return NULL;
}

static status *check(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const struct core *core = services->core;
	const Haul__V1__CheckRequest *asked = (const Haul__V1__CheckRequest *)request;
	Haul__V1__MigrateOptions options = HAUL__V1__MIGRATE_OPTIONS__INIT;
	struct tree_survey survey = {0};
	pid_t pid = 0;
	char text[128];

	status *st = workload_parse(asked->workload, &pid);
	if (st != NULL)
		return st;
	Haul__V1__CheckResponse *response = response_new(&haul__v1__check_response__descriptor);
	response->migratable = true;
	scoped(status) status *criu =
	    core->criu_version != 0
		? NULL
		: status_errorf(STATUS_FAILED_PRECONDITION, "%s", core->trouble);
	add_finding(response, "criu", criu, "CRIU works here");
	scoped(status) status *tree = preflight_tree(pid, &options, &survey);
	(void)snprintf(text, sizeof(text), "%zu processes, %.1f MiB resident, %zu files",
		       survey.pid_count, (double)survey.resident_bytes / 1048576,
		       survey.file_count);
	add_finding(response, "workload", tree, text);
	tree_survey_free(&survey);
	add_finding(
	    response, "pre-copy", NULL,
	    core->has_dirty_tracking
		? "dirty page tracking works: memory moves while it runs"
		: "no dirty page tracking here: memory moves while it runs, compared by content");
	if (asked->to[0] != '\0') {
		bool is_lazy = false;
		scoped(status) status *there = ask_destination(core, call, asked->to, &is_lazy);
		add_finding(response, "destination", there, "it answers, and CRIU works there");
		if (there == NULL)
			add_finding(response, "restore", NULL,
				    is_lazy
					? "lazy: it goes on there before all memory is in place"
					: "eager: all memory is in place there before it goes on");
	}
	*ret_response = &response->base;
	return NULL;
}

static const rpc_handler handlers[] = {info, check};

struct rpc_service services_node(struct services *services)
{
	return (struct rpc_service){.descriptor = &haul__v1__node__descriptor,
				    .handlers = handlers,
				    .self = services};
}
