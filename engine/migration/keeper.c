/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/keeper.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "engine/log.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/clock.h"

enum { KEEPER_TICK_MS = 250 };

/* The destination, as far as it can be told from here. */
struct heard {
	int64_t at_ms;
	uint64_t sent; /* of memory, by then */
};

static bool say_hello(struct source *source, int64_t timeout_ms)
{
	Haul__V1__HelloRequest request = HAUL__V1__HELLO_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;

	request.protocol = PEER_PROTOCOL;
	request.node = (char *)source->core->config.node;
	request.version = (char *)HAUL_VERSION;
	request.id = source->id;
	const struct rpc_request call = {.service = &haul__v1__peer__descriptor,
					 .method = "Hello",
					 .message = &request.base,
					 .timeout_ms = timeout_ms,
					 .cancel = &source->keeper_cancel};
	scoped(status) status *st = source->is_handed_over
					? rpc_client_request(source->peer, &call, &response, NULL)
					: rpc_client_call(source->keeper, call.service, call.method,
							  call.message, call.timeout_ms, &response);
	if (st != NULL && status_code_of(st) != STATUS_CANCELLED)
		log_status(LOG_LEVEL_DEBUG, source->id, "lease not renewed", st);
	return st == NULL;
}

/* Memory that goes out is a sign of life, too: on a narrow link it keeps a Hello waiting. Into a
 * machine that is gone, or an engine that has stopped, no more goes than buffers hold. */
static void listen_to_memory(struct source *source, struct heard *heard)
{
	uint64_t sent = source_sent_bytes(source);

	if (sent > heard->sent)
		heard->at_ms = clock_monotonic_ms();
	heard->sent = sent;
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

/* All that is left of the lease: a busy destination may take long to connect. This engine itself
 * may have stood still since, then it asks all the same. Not past --timeout, which is looked at
 * here.
 */
static int64_t patience_ms(struct source *source, const struct heard *heard, int64_t now)
{
	int64_t lease_ms = source->core->config.lease_ms, left_ms = heard->at_ms + lease_ms - now;

	return source_budget_ms(source, left_ms > lease_ms / 3 ? left_ms : lease_ms / 3);
}

static void *keep(void *self)
{
	struct source *source = self;
	int64_t lease_ms = source->core->config.lease_ms;
	struct heard heard = {.at_ms = clock_monotonic_ms()};
	int64_t next_ms = heard.at_ms + lease_ms / 3;

	while (tick(source)) {
		int64_t now = clock_monotonic_ms();
		source_expire(source);
		if (now >= next_ms) {
			bool is_heard = say_hello(source, patience_ms(source, &heard, now));
			now = clock_monotonic_ms();
			if (is_heard)
				heard.at_ms = now;
			next_ms = now + lease_ms / (is_heard ? 3 : 15);
		}
		listen_to_memory(source, &heard);
		/* The destination gives up by now, or is no more: a frozen tree need not wait for
		 * the end of a call that has a longer time. */
		if (now - heard.at_ms >= lease_ms)
			source_desert(source);
	}
	return NULL;
}

status *keeper_start(struct source *source)
{
	status *st = NULL;

	if (!source->is_handed_over)
		st = rpc_client_new(source->to, source->core->config.credentials, &source->keeper);
	if (st != NULL)
		return st;
	/* A Hello may be said twice: nothing is decided by it. */
	if (!source->is_handed_over)
		rpc_client_enable_retry(source->keeper);
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
	/* Where there is one connection only, the others' calls go on. */
	if (source->is_handed_over)
		rpc_client_cancel(source->peer, &source->keeper_cancel);
	else
		rpc_client_interrupt(source->keeper);
	(void)pthread_join(source->keeper_thread, NULL);
	source->has_keeper = false;
}
