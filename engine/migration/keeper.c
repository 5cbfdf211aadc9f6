/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/keeper.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "engine/log.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"

enum { KEEPER_TICK_MS = 250 };

static bool say_hello(struct source *source)
{
	Haul__V1__HelloRequest request = HAUL__V1__HELLO_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.protocol = PEER_PROTOCOL;
	request.node = (char *)source->core->config.node;
	request.version = (char *)HAUL_VERSION;
	request.id = source->id;
	scoped(status) status *st =
	    rpc_client_call(source->keeper, &haul__v1__peer__descriptor, "Hello", &request.base,
			    source->core->config.lease_ms / 3 + 1, &response);
	if (st != NULL && status_code_of(st) != STATUS_CANCELLED)
		log_status(LOG_LEVEL_DEBUG, source->id, "lease not renewed", st);
	return st == NULL;
}

/* False when the migration is over. */
static bool tick(struct source *source)
{
	const struct timespec at = clock_at(clock_monotonic_ms() + KEEPER_TICK_MS);

	(void)pthread_mutex_lock(&source->lock);
	while (!source->is_over &&
	       pthread_cond_timedwait(&source->told, &source->lock, &at) != ETIMEDOUT)
		;
	bool go_on = !source->is_over;
	(void)pthread_mutex_unlock(&source->lock);
	return go_on;
}

static void *keep(void *self)
{
	struct source *source = self;
	int64_t lease_ms = source->core->config.lease_ms;
	int64_t said = clock_monotonic_ms(), heard = said;

	while (tick(source)) {
		source_expire(source);
		if (clock_monotonic_ms() - said < lease_ms / 3)
			continue;
		bool is_heard = say_hello(source);
		said = clock_monotonic_ms();
		if (is_heard)
			heard = said;
		/* The destination gives up by now, or is no more: a frozen tree need not wait for
		 * the end of a call that has a longer time. */
		else if (said - heard >= lease_ms)
			source_desert(source);
	}
	return NULL;
}

status *keeper_start(struct source *source)
{
	status *st = rpc_client_new(source->to, source->core->config.credentials, &source->keeper);

	if (st != NULL)
		return st;
	int failed = pthread_create(&source->keeper_thread, NULL, keep, source);
	if (failed != 0)
		return status_errnof(failed, "cannot start a thread");
	source->has_keeper = true;
	return NULL;
}

void keeper_stop(struct source *source)
{
	if (!source->has_keeper)
		return;
	(void)pthread_mutex_lock(&source->lock);
	source->is_over = true;
	(void)pthread_cond_broadcast(&source->told);
	(void)pthread_mutex_unlock(&source->lock);
	rpc_client_interrupt(source->keeper);
	(void)pthread_join(source->keeper_thread, NULL);
	source->has_keeper = false;
}
