/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/operation.h"

#include <pthread.h>
#include <stdlib.h>

#include "proto/clock.h"

struct operation {
	nng_aio *aio;
	pthread_mutex_t lock;
	pthread_cond_t over;
	bool is_running;
	int64_t expires_ms; /* of what was begun last; 0: never */
};

static void on_over(void *self)
{
	struct operation *operation = self;
	(void)pthread_mutex_lock(&operation->lock);
	operation->is_running = false;
	(void)pthread_cond_broadcast(&operation->over);
	(void)pthread_mutex_unlock(&operation->lock);
}

int operation_new(struct operation **ret_operation)
{
	struct operation *operation = calloc(1, sizeof(*operation));
	if (operation == NULL)
		return NNG_ENOMEM;
	int rv = nng_aio_alloc(&operation->aio, on_over, operation);
	if (rv != 0) {
		free(operation);
		return rv;
	}
	(void)pthread_mutex_init(&operation->lock, NULL);
	(void)pthread_cond_init(&operation->over, NULL);
	*ret_operation = operation;
	return 0;
}

/* nng may be about to end what runs in the aio, for something that ran there before. */
static void renew(struct operation *operation)
{
	nng_aio *fresh = NULL;
	if (nng_aio_alloc(&fresh, on_over, operation) != 0)
		return;
	nng_aio_free(operation->aio);
	operation->aio = fresh;
}

nng_aio *operation_begin(struct operation *operation, nng_duration timeout_ms, nng_msg *msg)
{
	int64_t now = timeout_ms > 0 || operation->expires_ms != 0 ? clock_monotonic_ms() : 0;
	if (operation->expires_ms != 0 && now >= operation->expires_ms)
		renew(operation);
	operation->expires_ms = timeout_ms > 0 ? now + timeout_ms : 0;
	(void)pthread_mutex_lock(&operation->lock);
	operation->is_running = true;
	(void)pthread_mutex_unlock(&operation->lock);
	nng_aio_set_timeout(operation->aio, timeout_ms);
	nng_aio_set_msg(operation->aio, msg);
	return operation->aio;
}

int operation_wait(struct operation *operation)
{
	(void)pthread_mutex_lock(&operation->lock);
	while (operation->is_running)
		(void)pthread_cond_wait(&operation->over, &operation->lock);
	(void)pthread_mutex_unlock(&operation->lock);
	return nng_aio_result(operation->aio);
}

bool operation_is_running(struct operation *operation)
{
	(void)pthread_mutex_lock(&operation->lock);
	bool is_running = operation->is_running;
	(void)pthread_mutex_unlock(&operation->lock);
	return is_running;
}

nng_msg *operation_take_message(struct operation *operation)
{
	nng_msg *msg = nng_aio_get_msg(operation->aio);
	nng_aio_set_msg(operation->aio, NULL);
	return msg;
}

void operation_cancel(struct operation *operation)
{
	nng_aio_cancel(operation->aio);
}

void operation_free(struct operation *operation)
{
	if (operation == NULL)
		return;
	operation_cancel(operation);
	(void)operation_wait(operation);
	nng_msg *msg = operation_take_message(operation);
	if (msg != NULL)
		nng_msg_free(msg);
	/* Waits for the callback, and for a timeout that is just being served. */
	nng_aio_free(operation->aio);
	(void)pthread_cond_destroy(&operation->over);
	(void)pthread_mutex_destroy(&operation->lock);
	free(operation);
}
