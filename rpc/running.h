/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that a server carries out now, so that their callers can cancel them one by one.
 * Thread-safe. */
#ifndef HAUL_RPC_RUNNING_H
#define HAUL_RPC_RUNNING_H

#include "proto/envelope.h"
#include "rpc/client.h"
#include "rpc/identity.h"

struct running_calls;

/* One of them; its fields are for running.c. */
struct running_call {
	struct running_calls *all;
	struct running_call *next;
	const struct identity *caller;
	const uint8_t *id; /* REQUEST_ID_BYTES */
	struct rpc_cancel cancel;
	struct rpc_client *onward; /* what it asks of others just now, by this client */
};

must_check status *running_calls_new(struct running_calls **ret_all);

/* caller and id are borrowed until running_remove. */
void running_add(struct running_calls *all, const struct identity *caller, const uint8_t *id,
		 struct running_call *running);
void running_remove(struct running_call *running);

/* Cancels the caller's calls of that id, if there are any, and what they ask of others. */
void running_cancel(struct running_calls *all, const struct identity *caller, const uint8_t *id);

/* From now on cancelling it reaches the calls of this client that have its `cancel`; NULL: no
 * more. */
void running_set_onward(struct running_call *running, struct rpc_client *onward);

void running_calls_free(struct running_calls *all);

#endif
