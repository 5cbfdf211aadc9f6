/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of libhaul. */
#ifndef HAUL_RPC_LIBHAUL_INTERNAL_H
#define HAUL_RPC_LIBHAUL_INTERNAL_H

#include "haul/v1/migrations.pb-c.h"
#include "haul/v1/node.pb-c.h"
#include "rpc/client.h"
#include "rpc/libhaul/haul.h"

struct haul_client {
	struct credentials *credentials;
	struct rpc_client *rpc;
	int64_t timeout_ms;
};

struct haul_token {
	struct rpc_cancel cancel;
};

/* An error is a status under another name. Takes it. */
static inline struct haul_error *give_error(status *st)
{
	return (struct haul_error *)st;
}

static inline status *take_error(struct haul_error *error)
{
	return (status *)error;
}

/* Copies a struct of the program's, which may be of an older or newer header: both begin with their
 * size. What is missing stays 0; INVALID_ARGUMENT when there is more than is known here, and it is
 * not 0. `known` is initialised, for its size. */
must_check status *struct_read(const void *theirs, void *known, const char *name);

/* "id" as the programs give it: INVALID_ARGUMENT when it cannot be one. *ret_id: free it. */
must_check status *id_read(const char *id, char **ret_id);

/* One call to haul.v1.Migrations, within timeout_ms. */
must_check status *migrations_call(struct haul_client *client, const char *method,
				   const ProtobufCMessage *request, int64_t timeout_ms,
				   ProtobufCMessage **ret_response);

/* Take the message, also on failure. */
must_check status *migration_view(Haul__V1__Migration *message,
				  struct haul_migration **ret_migration);
must_check status *node_view(Haul__V1__NodeInfo *message, struct haul_node **ret_node);

#endif
