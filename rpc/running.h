/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that a server carries out now, so that their callers can cancel them one by one.
 * Thread-safe. */
#ifndef HAUL_RPC_RUNNING_H
#define HAUL_RPC_RUNNING_H

#include "proto/envelope.h"
#include "rpc/client.h"
#include "rpc/connections.h"
#include "rpc/service.h"

struct running_calls;

/* One of them; its fields are for running.c. */
struct running_call {
	struct running_calls *all;
	struct running_call *next;
	const struct rpc_call *call;
	bool ends_with_connection;
	struct rpc_cancel cancel;
	struct rpc_client *onward; /* what it asks of others just now, by this client */
};

must_check status *running_calls_new(struct running_calls **ret_all);

/* The call is borrowed until running_remove. ends_with_connection: nobody will ask for its answer
 * when the connection is gone that it came by. */
void running_add(struct running_calls *all, const struct rpc_call *call, bool ends_with_connection,
		 struct running_call *running);
void running_remove(struct running_call *running);

/* Cancels the caller's calls of that id, if there are any, and what they ask of others. */
void running_cancel(struct running_calls *all, const struct identity *caller, const uint8_t *id);

/* Cancels those that should end with their connection, if it was one of these and is gone. */
void running_cancel_lost(struct running_calls *all, struct connections *connections);

/* From now on cancelling it reaches the calls of this client that have its `cancel`; NULL: no
 * more. */
void running_set_onward(struct running_call *running, struct rpc_client *onward);

void running_calls_free(struct running_calls *all);

#endif
