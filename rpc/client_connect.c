/* SPDX-License-Identifier: Apache-2.0 */
/* The connection of a client.
 *
 * nng connects again by itself and never says why it could not; so every connection gets a dialer
 * of its own, which one caller (`is_dialing`) makes while the others wait, and which is closed when
 * it is lost or not needed for a while: the server drops silent connections, and a request that
 * leaves at that very moment would have an unknown fate. */
#include "proto/clock.h"
#include "rpc/client_internal.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "proto/reason.h"
#include "rpc/handover.h"
#include "rpc/nng_error.h"
#include "rpc/probe.h"

enum {
	DIAL_SLICE_MS = 20,
	RECONNECT_MS = 100,
	/* A connection unused for longer is made anew: half the time after which the server drops
	   it. */
	IDLE_MS = LIMIT_SILENT_MS / 2,
	/* Nobody listens: a service that restarts is back by then, and a person is not kept
	   waiting. */
	REFUSED_MS = 3000,
	NEVER_MS = 24 * 3600 * 1000,
};

status *client_interrupted(void)
{
	return status_errorf(STATUS_CANCELLED, "the call was interrupted");
}

static status *not_connected(const struct rpc_client *client, const char *tls_text)
{
	const char *url = client->endpoint.url;
	char buffer[128];
	if (tls_text[0] != '\0')
		return status_because(
		    status_errorf(STATUS_UNAVAILABLE,
				  "not connected to %s, the request has not left: %s", url,
				  tls_text),
		    REASON_NOT_CONNECTED);
	int err = probe_endpoint(&client->endpoint);
	return status_because(
	    status_errorf(STATUS_UNAVAILABLE, "not connected to %s, the request has not left: %s",
			  url,
			  err != 0 ? strerror_r(err, buffer, sizeof(buffer))
				   : "no answer in time (is the name right, is the server well?)"),
	    REASON_NOT_CONNECTED);
}

void client_wait_until(struct rpc_client *client, int64_t deadline_ms)
{
	struct timespec until = clock_at(deadline_ms);
	(void)pthread_cond_timedwait(&client->changed, &client->lock, &until);
}

/* Waits until the dialer is connected; caller holds the lock. */
static status *wait_connected(struct rpc_client *client, struct tls_context *tls,
			      int64_t deadline_ms)
{
	struct tls_failure failure = {0};
	int64_t refused_ms = clock_monotonic_ms() + REFUSED_MS;
	while (client->pipe_id == 0) {
		int64_t now = clock_monotonic_ms();
		if (client->is_interrupted)
			return client_interrupted();
		if (tls != NULL)
			tls_context_close_unfit(tls);
		if (tls != NULL && tls_context_take_failure(tls, &failure) && failure.is_auth)
			return status_because(
			    status_errorf(STATUS_UNAUTHENTICATED,
					  "not connected to %s, the request has not left: %s",
					  client->endpoint.url, failure.text),
			    REASON_CERTIFICATE_REFUSED);
		if (now >= deadline_ms)
			return not_connected(client, failure.text);
		if (now >= refused_ms && failure.text[0] == '\0') {
			int err = probe_endpoint(&client->endpoint);
			if (err == ECONNREFUSED || err == ENOENT)
				return not_connected(client, "");
			refused_ms = now + REFUSED_MS;
		}
		client_wait_until(client, now + DIAL_SLICE_MS < deadline_ms ? now + DIAL_SLICE_MS
									    : deadline_ms);
	}
	return NULL;
}

static status *make_dialer(struct rpc_client *client, struct tls_context *tls,
			   nng_dialer *ret_dialer)
{
	nng_dialer dialer;
	int rv = nng_dialer_create(&dialer, client->socket, client->endpoint.url);
	if (rv != 0)
		return nng_errorf(rv, "cannot connect to %s", client->endpoint.url);
	status *st = tls != NULL ? tls_context_apply_to_dialer(tls, dialer) : NULL;
	rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT, RECONNECT_MS);
	if (rv == 0)
		rv = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT, RECONNECT_MS);
	if (rv == 0 && client->endpoint.transport != TRANSPORT_IPC)
		rv = nng_dialer_set_bool(dialer, NNG_OPT_TCP_KEEPALIVE, true);
	if (st == NULL && rv != 0)
		st = nng_errorf(rv, "cannot connect to %s", client->endpoint.url);
	if (st != NULL) {
		(void)nng_dialer_close(dialer);
		return st;
	}
	*ret_dialer = dialer;
	return NULL;
}

/* Closes what makes the connection. Caller holds the lock, which is given up meanwhile. */
static void disconnect(struct rpc_client *client)
{
	struct dialed old = client->dialed;
	bool had = client->has_dialer;
	client->has_dialer = false;
	client->pipe_id = 0;
	client->is_suspect = false;
	(void)pthread_mutex_unlock(&client->lock);
	if (had && old.tls != NULL)
		tls_context_close_all(old.tls);
	if (had) {
		(void)nng_dialer_close(old.dialer);
		tls_context_free(old.tls);
	}
	(void)pthread_mutex_lock(&client->lock);
}

void client_disconnect(struct rpc_client *client)
{
	(void)pthread_mutex_lock(&client->lock);
	disconnect(client);
	(void)pthread_mutex_unlock(&client->lock);
}

static status *make_dialed(struct rpc_client *client, struct dialed *ret_dialed)
{
	scoped(tls_context) struct tls_context *tls = NULL;
	status *st = NULL;
	if (client->endpoint.transport == TRANSPORT_TLS)
		st = tls_context_new(client->credentials, client->endpoint.host, &tls);
	if (st == NULL)
		st = make_dialer(client, tls, &ret_dialed->dialer);
	if (st == NULL)
		ret_dialed->tls = TAKE(tls);
	return st;
}

/* Makes the connection anew. Caller holds the lock, which is given up meanwhile, and is_dialing. */
static status *dial(struct rpc_client *client, int64_t deadline_ms)
{
	struct dialed dialed = {0};
	disconnect(client);
	(void)pthread_mutex_unlock(&client->lock);
	status *st = make_dialed(client, &dialed);
	(void)pthread_mutex_lock(&client->lock);
	if (st != NULL)
		return st;
	client->dialed = dialed;
	client->has_dialer = true;
	int rv = nng_dialer_start(dialed.dialer, NNG_FLAG_NONBLOCK);
	st = rv == 0 ? wait_connected(client, dialed.tls, deadline_ms)
		     : nng_errorf(rv, "cannot connect to %s", client->endpoint.url);
	if (st != NULL) {
		disconnect(client);
		return st;
	}
	/* From now on losing it must not bring it back. */
	(void)nng_dialer_set_ms(dialed.dialer, NNG_OPT_RECONNMAXT, NEVER_MS);
	(void)nng_dialer_set_ms(dialed.dialer, NNG_OPT_RECONNMINT, NEVER_MS);
	return NULL;
}

static bool is_usable(const struct rpc_client *client)
{
	bool is_stale = client->is_suspect || clock_monotonic_ms() - client->used_ms > IDLE_MS;
	/* Closing it under other calls only where they are tried again. */
	if (client->is_suspect && client->does_retry)
		return false;
	if (client->has_given)
		return client->pipe_id != 0;
	return client->pipe_id != 0 && (client->active > 0 || !is_stale);
}

status *rpc_client_give(struct rpc_client *client, int fd)
{
	scoped(fd) int socket = fd;
	(void)pthread_mutex_lock(&client->lock);
	int rv = handover_to_nng(client->socket, &socket, &client->given);
	client->has_given = rv == 0;
	(void)pthread_mutex_unlock(&client->lock);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot use a socket that was handed over");
}

status *client_connect(struct rpc_client *client, int64_t deadline_ms)
{
	while (!client->is_interrupted) {
		if (is_usable(client)) {
			client->used_ms = clock_monotonic_ms();
			return NULL;
		}
		if (clock_monotonic_ms() >= deadline_ms)
			return not_connected(client, "");
		if (client->is_dialing || client->has_given) {
			client_wait_until(client, deadline_ms);
			continue;
		}
		client->is_dialing = true;
		status *st = dial(client, deadline_ms);
		client->is_dialing = false;
		client->used_ms = clock_monotonic_ms();
		(void)pthread_cond_broadcast(&client->changed);
		if (st != NULL)
			return st;
	}
	return client_interrupted();
}
