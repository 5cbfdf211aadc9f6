/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/context.h"

#include <pthread.h>
#include <stdlib.h>

#include "proto/clock.h"
#include "rpc/operation.h"

struct context {
	nng_ctx ctx;
	nng_aio *prompt;	     /* without callback, never cancelled */
	struct operation *operation; /* what may have to wait */
	pthread_mutex_t lock;	     /* from a look at is_cancelled until nng has the operation */
	bool is_cancelled;
};

int context_new(nng_socket socket, struct context **ret_context)
{
	struct context *context = calloc(1, sizeof(*context));
	if (context == NULL)
		return NNG_ENOMEM;
	(void)pthread_mutex_init(&context->lock, NULL);
	int rv = nng_ctx_open(&context->ctx, socket);
	if (rv == 0)
		rv = operation_new(&context->operation);
	if (rv == 0)
		rv = nng_aio_alloc(&context->prompt, NULL, NULL);
	if (rv != 0) {
		context_free(context);
		return rv;
	}
	*ret_context = context;
	return 0;
}

static nng_msg *take_message(nng_aio *aio)
{
	nng_msg *msg = nng_aio_get_msg(aio);
	nng_aio_set_msg(aio, NULL);
	return msg;
}

/* As far as that is possible at once. */
static int try_now(struct context *context, void (*begin)(nng_ctx ctx, nng_aio *aio), nng_msg *msg)
{
	nng_aio_set_timeout(context->prompt, NNG_DURATION_ZERO);
	nng_aio_set_msg(context->prompt, msg);
	begin(context->ctx, context->prompt);
	nng_aio_wait(context->prompt); /* it is over */
	return nng_aio_result(context->prompt);
}

/* nng_ctx_send or nng_ctx_recv, of this message. What came of it, or msg on failure, is *ret_msg.
 */
static int run(struct context *context, void (*begin)(nng_ctx ctx, nng_aio *aio),
	       nng_duration timeout_ms, nng_msg **io_msg)
{
	int rv = NNG_ECANCELED;
	(void)pthread_mutex_lock(&context->lock);
	bool is_cancelled = context->is_cancelled;
	if (!is_cancelled)
		rv = try_now(context, begin, *io_msg);
	bool is_waiting = rv == NNG_ETIMEDOUT;
	if (is_waiting)
		begin(context->ctx, operation_begin(context->operation, timeout_ms, *io_msg));
	(void)pthread_mutex_unlock(&context->lock);
	if (is_cancelled)
		return NNG_ECANCELED;
	nng_msg *prompt = take_message(context->prompt);
	if (is_waiting)
		rv = operation_wait(context->operation);
	*io_msg = is_waiting ? operation_take_message(context->operation) : prompt;
	return rv;
}

int context_send(struct context *context, nng_duration timeout_ms, nng_msg *msg)
{
	return run(context, nng_ctx_send, timeout_ms, &msg);
}

int context_receive(struct context *context, nng_duration timeout_ms, nng_msg **ret_msg)
{
	nng_msg *msg = NULL;
	int rv = run(context, nng_ctx_recv, timeout_ms, &msg);
	if (rv == 0)
		*ret_msg = msg;
	return rv;
}

/* As operation_begin does: what expires late must not end the next reply. */
static void renew_prompt(struct context *context)
{
	nng_aio *fresh = NULL;
	if (nng_aio_alloc(&fresh, NULL, NULL) != 0)
		return;
	nng_aio_free(context->prompt);
	context->prompt = fresh;
}

int context_reply(struct context *context, nng_duration timeout_ms, nng_msg *msg)
{
	int rv = NNG_ECANCELED;
	int64_t expires_ms = clock_monotonic_ms() + timeout_ms;
	(void)pthread_mutex_lock(&context->lock);
	bool is_cancelled = context->is_cancelled;
	if (!is_cancelled) {
		nng_aio_set_timeout(context->prompt, timeout_ms);
		nng_aio_set_msg(context->prompt, msg);
		nng_ctx_send(context->ctx, context->prompt);
	}
	(void)pthread_mutex_unlock(&context->lock);
	if (!is_cancelled) {
		nng_aio_wait(context->prompt);
		rv = nng_aio_result(context->prompt);
		nng_aio_set_msg(context->prompt, NULL);
		if (clock_monotonic_ms() >= expires_ms)
			renew_prompt(context);
	}
	if (rv != 0)
		nng_msg_free(msg);
	return rv;
}

void context_cancel(struct context *context)
{
	(void)pthread_mutex_lock(&context->lock);
	context->is_cancelled = true;
	operation_cancel(context->operation);
	(void)pthread_mutex_unlock(&context->lock);
}

void context_renew(struct context *context)
{
	(void)pthread_mutex_lock(&context->lock);
	context->is_cancelled = false;
	(void)pthread_mutex_unlock(&context->lock);
}

void context_free(struct context *context)
{
	if (context == NULL)
		return;
	operation_free(context->operation);
	nng_aio_free(context->prompt);
	(void)nng_ctx_close(context->ctx);
	(void)pthread_mutex_destroy(&context->lock);
	free(context);
}
