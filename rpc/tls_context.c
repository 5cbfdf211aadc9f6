/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/tls_context.h"
#include "proto/clock.h"

#include <nng/supplemental/tls/engine.h>
#include <openssl/err.h>
#include <stdio.h>
#include <string.h>

#include "rpc/credentials.h"
#include "rpc/nng_error.h"

enum { STALE_MS = 3000, CLOSE_MS = 1000 };

void tls_context_hold(struct tls_context *context)
{
	atomic_fetch_add(&context->references, 1);
}

void tls_context_free(struct tls_context *context)
{
	if (context == NULL || atomic_fetch_sub(&context->references, 1) != 1)
		return;
	keyring_release(context->keyring);
	BIO_meth_free(context->bio_method);
	(void)pthread_mutex_destroy(&context->lock);
	tls_roll_fini(&context->roll);
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

/* The verifier's word on a peer that got in by earlier credentials. */
static int verify_again(const struct tls_chain *chain, SSL_CTX *ctx)
{
	X509_STORE_CTX *store = X509_STORE_CTX_new();
	int error = X509_V_ERR_OUT_OF_MEM;
	if (store != NULL && chain != NULL &&
	    X509_STORE_CTX_init(store, SSL_CTX_get_cert_store(ctx), chain->leaf, chain->others)) {
		(void)X509_STORE_CTX_set_default(store, "ssl_client");
		(void)X509_verify_cert(store);
		error = X509_STORE_CTX_get_error(store);
	}
	X509_STORE_CTX_free(store);
	ERR_clear_error();
	return error;
}

/* Those of a listener only: what a dialer has is ended by its client, after a call. */
static bool has_lost_its_right(struct tls_context *context, struct tls_member *member)
{
	unsigned number = 0;
	struct tls_failure failure = {.is_auth = true};
	const struct tls_chain *chain = atomic_load(&member->chain);
	if (!context->is_server || (chain == NULL && !atomic_load(&member->is_pipe)))
		return false;
	SSL_CTX *ctx = keyring_context(context->keyring, true, &number);
	int error = number != member->number ? verify_again(chain, ctx) : X509_V_OK;
	SSL_CTX_free(ctx);
	member->number = number;
	if (error == X509_V_OK)
		return false;
	(void)snprintf(failure.peer, sizeof(failure.peer), "%s", member->from.text);
	(void)snprintf(failure.text, sizeof(failure.text),
		       "its certificate is no longer accepted: %s",
		       X509_verify_cert_error_string(error));
	tls_context_add_failure(context, &failure);
	return true;
}

static bool is_unfit(void *self, struct tls_member *member)
{
	bool is_stale =
	    !atomic_load(&member->is_pipe) && clock_monotonic_ms() > member->deadline_ms + STALE_MS;
	return is_stale || has_lost_its_right(self, member);
}

void tls_context_close_unfit(struct tls_context *context)
{
	tls_roll_close(&context->roll, is_unfit, context);
}

void tls_context_close_all(struct tls_context *context)
{
	tls_roll_empty(&context->roll, CLOSE_MS);
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
	(void)pthread_mutex_init(&context->lock, NULL);
	tls_roll_init(&context->roll);
	context->is_server = host == NULL;
	context->keyring = credentials_keyring(credentials);
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
