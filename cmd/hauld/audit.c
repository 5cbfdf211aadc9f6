/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/hauld/audit.h"

#include <string.h>

#include "engine/log.h"

bool audit_is_mutating(const char *method)
{
	static const char *const asks[] = {
	    "/haul.v1.Migrations/Get",
	    "/haul.v1.Migrations/List",
	    "/haul.v1.Migrations/Wait",
	    "/haul.v1.Migrations/Watch",
	    "/haul.v1.Peer/Hello",
	    "/haul.v1.Peer/Query",
	    "/haul.v1.Peer/BeginRound",
	    "/haul.v1.Peer/EndRound",
	    "/haul.v1.Node/Info",
	    "/haul.v1.Node/Check",
	    "/grpc.health.v1.Health/Check",
	    "/grpc.health.v1.Health/Watch",
	    "/haul.v1.Reflection/ListServices",
	    "/haul.v1.Reflection/FileContainingSymbol",
	};

	for (size_t i = 0; i < array_len(asks); i++)
		if (strcmp(asks[i], method) == 0)
			return false;
	return true;
}

static void called(void *self, const struct rpc_call *call, const status *st, int64_t took_us)
{
	enum status_code code = status_code_of(st);
	bool is_refused = code == STATUS_PERMISSION_DENIED || code == STATUS_UNAUTHENTICATED;
	const struct log_field fields[] = {
	    {.name = "caller",
	     .text = call->caller->name[0] != '\0' ? call->caller->name : "unauthenticated"},
	    {.name = "peer", .text = call->peer},
	    {.name = "method", .text = call->method},
	    {.name = "migration", .text = call->id},
	    {.name = "code", .text = status_code_name(code)},
	    {.name = "took_us", .number = took_us},
	    {.name = "error", .text = st != NULL ? status_message(st) : ""},
	};

	(void)self;
	if (is_refused || audit_is_mutating(call->method))
		log_fields(is_refused ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, NULL, "audit", fields,
			   st != NULL ? array_len(fields) : array_len(fields) - 1);
}

static void refused(void *self, const char *listener, const char *peer, const char *why)
{
	const struct log_field fields[] = {
	    {.name = "listener", .text = listener},
	    {.name = "peer", .text = peer},
	    {.name = "error", .text = why},
	};

	(void)self;
	log_fields(LOG_LEVEL_WARN, NULL, "audit: connection refused", fields, array_len(fields));
}

const struct rpc_observer audit_observer = {.called = called, .refused = refused};
