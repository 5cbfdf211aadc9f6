/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/running.h"

#include <pthread.h>
#include <string.h>

struct running_calls {
	pthread_mutex_t lock;
	struct running_call *first;
};

status *running_calls_new(struct running_calls **ret_all)
{
	struct running_calls *all = calloc(1, sizeof(*all));
	if (all == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a list of calls");
	(void)pthread_mutex_init(&all->lock, NULL);
	*ret_all = all;
	return NULL;
}

void running_calls_free(struct running_calls *all)
{
	if (all == NULL)
		return;
	(void)pthread_mutex_destroy(&all->lock);
	free(all);
}

void running_add(struct running_calls *all, const struct rpc_call *call, bool ends_with_connection,
		 struct running_call *running)
{
	*running = (struct running_call){.all = all,
					 .call = call,
					 .ends_with_connection = ends_with_connection};
	(void)pthread_mutex_lock(&all->lock);
	running->next = all->first;
	all->first = running;
	(void)pthread_mutex_unlock(&all->lock);
}

void running_remove(struct running_call *running)
{
	(void)pthread_mutex_lock(&running->all->lock);
	struct running_call **link = &running->all->first;
	while (*link != running)
		link = &(*link)->next;
	*link = running->next;
	(void)pthread_mutex_unlock(&running->all->lock);
}

/* Caller holds the lock. */
static void cancel(struct running_call *running)
{
	atomic_store(&running->cancel.is_set, true);
	if (running->onward != NULL)
		rpc_client_cancel(running->onward, &running->cancel);
}

void running_cancel(struct running_calls *all, const struct identity *caller, const uint8_t *id)
{
	(void)pthread_mutex_lock(&all->lock);
	for (struct running_call *running = all->first; running != NULL; running = running->next)
		if (identity_equal(running->call->caller, caller) &&
		    memcmp(running->call->request_id, id, REQUEST_ID_BYTES) == 0)
			cancel(running);
	(void)pthread_mutex_unlock(&all->lock);
}

void running_cancel_lost(struct running_calls *all, struct connections *connections)
{
	(void)pthread_mutex_lock(&all->lock);
	for (struct running_call *running = all->first; running != NULL; running = running->next)
		if (running->ends_with_connection && running->call->connections == connections &&
		    !connections_has(connections, running->call->connection_id))
			cancel(running);
	(void)pthread_mutex_unlock(&all->lock);
}

void running_set_onward(struct running_call *running, struct rpc_client *onward)
{
	(void)pthread_mutex_lock(&running->all->lock);
	running->onward = onward;
	(void)pthread_mutex_unlock(&running->all->lock);
}
