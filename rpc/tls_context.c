/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/tls_context.h"

#include <nng/supplemental/tls/engine.h>
#include <stdio.h>
#include <string.h>

#include "rpc/credentials.h"

void tls_context_hold(struct tls_context *context)
{
	atomic_fetch_add(&context->references, 1);
}

void tls_context_free(struct tls_context *context)
{
	if (context == NULL || atomic_fetch_sub(&context->references, 1) != 1)
		return;
	SSL_CTX_free(context->ctx);
	BIO_meth_free(context->bio_method);
	(void)pthread_mutex_destroy(&context->lock);
	(void)pthread_mutex_destroy(&context->roll);
	free(context);
}

/* Where a failure goes while there is no room: a crowd of silent connections must not hide one that
 * was refused for its certificate. Caller holds the lock. */
static struct tls_failure *less_important(struct tls_context *context)
{
	for (unsigned i = FAILURES_KEPT; i > 0; i--)
		if (!context->failures[i - 1].is_auth)
			return &context->failures[i - 1];
	return NULL;
}

void tls_context_add_failure(struct tls_context *context, const struct tls_failure *failure)
{
	struct tls_failure *place = NULL;
	(void)pthread_mutex_lock(&context->lock);
	if (context->failure_count < FAILURES_KEPT)
		place = &context->failures[context->failure_count++];
	else if (failure->is_auth)
		place = less_important(context);
	if (place != NULL)
		*place = *failure;
	(void)pthread_mutex_unlock(&context->lock);
}

bool tls_context_take_failure(struct tls_context *context, struct tls_failure *ret_failure)
{
	(void)pthread_mutex_lock(&context->lock);
	bool found = context->failure_count > 0;
	if (found) {
		*ret_failure = context->failures[0];
		context->failure_count--;
		memmove(&context->failures[0], &context->failures[1],
			context->failure_count * sizeof(context->failures[0]));
	}
	(void)pthread_mutex_unlock(&context->lock);
	return found;
}

static int bio_write(BIO *bio, const char *data, int size)
{
	size_t count = (size_t)size;
	BIO_clear_retry_flags(bio);
	int rv = nng_tls_engine_send(BIO_get_data(bio), (const uint8_t *)data, &count);
	if (rv == NNG_EAGAIN)
		BIO_set_retry_write(bio);
	return rv == 0 ? (int)count : -1;
}

static int bio_read(BIO *bio, char *data, int size)
{
	size_t count = (size_t)size;
	BIO_clear_retry_flags(bio);
	int rv = nng_tls_engine_recv(BIO_get_data(bio), (uint8_t *)data, &count);
	if (rv == NNG_EAGAIN)
		BIO_set_retry_read(bio);
	return rv == 0 ? (int)count : -1;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
	(void)bio;
	(void)number;
	(void)pointer;
	return command == BIO_CTRL_FLUSH ? 1 : 0;
}

static int bio_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

status *tls_context_new(const struct credentials *credentials, const char *host,
			struct tls_context **ret_context)
{
	struct tls_context *context = calloc(1, sizeof(*context));
	if (context == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a TLS context");
	atomic_init(&context->references, 1);
	atomic_init(&context->connections, 0);
	(void)pthread_mutex_init(&context->lock, NULL);
	(void)pthread_mutex_init(&context->roll, NULL);
	context->is_server = host == NULL;
	context->ctx = context->is_server ? credentials_server_ctx(credentials)
					  : credentials_client_ctx(credentials);
	(void)SSL_CTX_up_ref(context->ctx);
	(void)snprintf(context->host, sizeof(context->host), "%s", host != NULL ? host : "");
	context->bio_method = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "nng");
	if (context->bio_method == NULL) {
		tls_context_free(context);
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a TLS context");
	}
	(void)BIO_meth_set_write(context->bio_method, bio_write);
	(void)BIO_meth_set_read(context->bio_method, bio_read);
	(void)BIO_meth_set_ctrl(context->bio_method, bio_ctrl);
	(void)BIO_meth_set_create(context->bio_method, bio_create);
	*ret_context = context;
	return NULL;
}
