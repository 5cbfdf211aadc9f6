/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/service/services.h"

#include <stdio.h>
#include <sys/utsname.h>

#include "engine/pipe/batch_codec.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/pack.h"

static status *hello(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
		     ProtobufCMessage **ret_response)
{
	struct services *services = self;
	const Haul__V1__HelloRequest *from = (const Haul__V1__HelloRequest *)request;
	const struct core *core = services->core;
	struct utsname here;

	if (from->protocol != PEER_PROTOCOL)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "%s speaks protocol %u, this engine (%s, haul %s) %d: run the "
				     "same haul on both",
				     from->node, from->protocol, core->config.node, HAUL_VERSION,
				     PEER_PROTOCOL);
	if (from->id[0] != '\0')
		incoming_renew(services->incomings, call, from->id);
	(void)uname(&here);
	Haul__V1__HelloResponse *response = response_new(&haul__v1__hello_response__descriptor);
	response->protocol = PEER_PROTOCOL;
	response->node = text_copy(core->config.node);
	response->version = text_copy(HAUL_VERSION);
	response->criu_version = core->criu_version;
	response->machine = text_copy(here.machine);
	response->kernel = text_copy(here.release);
	response->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	response->criu_works = core->criu_version != 0;
	response->criu_trouble = text_copy(core->trouble);
	response->batch_codecs = BATCH_CODECS_ALL;
	response->lazy_restore = core->has_lazy_restore;
	response->lazy_trouble = text_copy(core->lazy_trouble);
	response->late_pages = core->has_lazy_restore;
	*ret_response = &response->base;
	return NULL;
}

/* Calls `does` with a fresh response of the descriptor's type; hands it out only on success. */
#define ANSWER(function, Request, Response, descriptor, does)                                      \
	static status *function(void *self, const struct rpc_call *call,                           \
				const ProtobufCMessage *request, ProtobufCMessage **ret_response)  \
	{                                                                                          \
		struct services *services = self;                                                  \
		const Request *asked = (const Request *)request;                                   \
		Response *response = response_new(&descriptor);                                    \
		status *st = does;                                                                 \
		if (st != NULL)                                                                    \
			message_free(&response->base);                                             \
		else                                                                               \
			*ret_response = &response->base;                                           \
		return st;                                                                         \
	}

ANSWER(prepare, Haul__V1__PrepareRequest, Haul__V1__PrepareResponse,
       haul__v1__prepare_response__descriptor,
       incoming_prepare(services->incomings, call, asked, response))
ANSWER(begin_round, Haul__V1__BeginRoundRequest, Haul__V1__BeginRoundResponse,
       haul__v1__begin_round_response__descriptor,
       incoming_begin_round(services->incomings, call, asked))
ANSWER(end_round, Haul__V1__EndRoundRequest, Haul__V1__EndRoundResponse,
       haul__v1__end_round_response__descriptor,
       incoming_end_round(services->incomings, call, asked, response))
static status *restore_hastily(struct services *services, const struct rpc_call *call,
			       const Haul__V1__RestoreRequest *request,
			       Haul__V1__RestoreResponse *response)
{
	core_stand_still(services->core, true);
	status *st = incoming_restore(services->incomings, call, request, response);
	core_stand_still(services->core, false);
	return st;
}

ANSWER(restore, Haul__V1__RestoreRequest, Haul__V1__RestoreResponse,
       haul__v1__restore_response__descriptor, restore_hastily(services, call, asked, response))
ANSWER(commit, Haul__V1__CommitRequest, Haul__V1__CommitResponse,
       haul__v1__commit_response__descriptor,
       incoming_commit(services->incomings, call, asked, response))
ANSWER(abort_one, Haul__V1__AbortRequest, Haul__V1__AbortResponse,
       haul__v1__abort_response__descriptor,
       incoming_abort(services->incomings, call, asked, response))
ANSWER(query, Haul__V1__QueryRequest, Haul__V1__QueryResponse, haul__v1__query_response__descriptor,
       incoming_query(services->incomings, call, asked, response))
ANSWER(settle, Haul__V1__SettleRequest, Haul__V1__SettleResponse,
       haul__v1__settle_response__descriptor, incoming_settle(services->incomings, call, asked))

ANSWER(fetch, Haul__V1__FetchRequest, Haul__V1__FetchResponse, haul__v1__fetch_response__descriptor,
       incoming_fetch(services->incomings, call, asked, response))
ANSWER(resume, Haul__V1__ResumeRequest, Haul__V1__ResumeResponse,
       haul__v1__resume_response__descriptor,
       incoming_resume(services->incomings, call, asked, response))

static const rpc_handler handlers[] = {hello,	  prepare, begin_round, end_round, restore, commit,
				       abort_one, query,   settle,	resume,	   fetch};

struct rpc_service services_peer(struct services *services)
{
	return (struct rpc_service){.descriptor = &haul__v1__peer__descriptor,
				    .handlers = handlers,
				    .self = services};
}
