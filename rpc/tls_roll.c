/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/tls_roll.h"
#include "proto/clock.h"

#include <stdlib.h>
#include <time.h>

#include "proto/limits.h"
#include "rpc/nng_error.h"

void tls_roll_init(struct tls_roll *roll)
{
	(void)pthread_mutex_init(&roll->lock, NULL);
	(void)pthread_mutex_init(&roll->failures_lock, NULL);
	clock_cond_init(&roll->left);
}

void tls_roll_fini(struct tls_roll *roll)
{
	(void)pthread_cond_destroy(&roll->left);
	(void)pthread_mutex_destroy(&roll->failures_lock);
	(void)pthread_mutex_destroy(&roll->lock);
}

static bool has_failed_too_often(struct tls_roll *roll, const struct tls_member *member)
{
	(void)pthread_mutex_lock(&roll->failures_lock);
	bool is_over = host_failures_is_over(&roll->failures, &member->from, clock_monotonic_ms());
	(void)pthread_mutex_unlock(&roll->failures_lock);
	return is_over;
}

/* Caller holds the lock. */
static const char *refusal_of(struct tls_roll *roll, const struct tls_member *member)
{
	unsigned neighbours = 0;
	if (roll->is_closing)
		return "this end is being closed";
	if (roll->count >= LIMIT_CONNECTIONS)
		return "too many connections";
	if (has_failed_too_often(roll, member))
		return "too many handshakes of this host have failed";
	for (const struct tls_member *other = roll->first; other != NULL; other = other->next)
		neighbours += peer_address_is_same_host(&other->from, &member->from) ? 1 : 0;
	return neighbours >= LIMIT_HOST_CONNECTIONS ? "too many connections from one host" : NULL;
}

const char *tls_roll_join(struct tls_roll *roll, struct tls_member *member)
{
	nng_sockaddr address = {0};
	if (nng_stream_get_addr(member->stream, NNG_OPT_REMADDR, &address) != 0)
		address.s_family = NNG_AF_UNSPEC;
	member->from = peer_address_of(&address);
	(void)pthread_mutex_lock(&roll->lock);
	const char *why = refusal_of(roll, member);
	if (why == NULL) {
		member->next = roll->first;
		if (member->next != NULL)
			member->next->previous = member;
		roll->first = member;
		roll->count++;
	}
	(void)pthread_mutex_unlock(&roll->lock);
	return why;
}

void tls_roll_judge(struct tls_roll *roll, const struct tls_member *member, bool is_trusted)
{
	(void)pthread_mutex_lock(&roll->failures_lock);
	if (is_trusted)
		host_failures_forgive(&roll->failures, &member->from);
	else
		host_failures_add(&roll->failures, &member->from, clock_monotonic_ms());
	(void)pthread_mutex_unlock(&roll->failures_lock);
}

static void chain_free(struct tls_chain *chain)
{
	if (chain == NULL)
		return;
	X509_free(chain->leaf);
	sk_X509_pop_free(chain->others, X509_free);
	free(chain);
}

void tls_roll_leave(struct tls_roll *roll, struct tls_member *member)
{
	(void)pthread_mutex_lock(&roll->lock);
	if (member->previous != NULL)
		member->previous->next = member->next;
	else
		roll->first = member->next;
	if (member->next != NULL)
		member->next->previous = member->previous;
	roll->count--;
	(void)pthread_cond_broadcast(&roll->left);
	(void)pthread_mutex_unlock(&roll->lock);
	chain_free(atomic_load(&member->chain));
}

void tls_member_set_chain(struct tls_member *member, SSL *ssl)
{
	STACK_OF(X509) *others = SSL_get_peer_cert_chain(ssl);
	struct tls_chain *chain = calloc(1, sizeof(*chain));
	if (chain == NULL)
		return;
	chain->leaf = SSL_get1_peer_certificate(ssl);
	chain->others = others != NULL ? X509_chain_up_ref(others) : NULL;
	atomic_store(&member->chain, chain);
}

void tls_roll_close(struct tls_roll *roll, bool (*is_unfit)(void *self, struct tls_member *member),
		    void *self)
{
	(void)pthread_mutex_lock(&roll->lock);
	for (struct tls_member *member = roll->first; member != NULL; member = member->next)
		if (is_unfit(self, member))
			nng_stream_close(member->stream);
	(void)pthread_mutex_unlock(&roll->lock);
}

/* Caller holds the lock; true when there was any. */
static bool close_all_but_pipes(struct tls_roll *roll)
{
	bool any = false;
	for (struct tls_member *member = roll->first; member != NULL; member = member->next) {
		if (atomic_load(&member->is_pipe))
			continue;
		nng_stream_close(member->stream);
		any = true;
	}
	return any;
}

void tls_roll_empty(struct tls_roll *roll, int64_t within_ms)
{
	int64_t until_ms = clock_monotonic_ms() + within_ms;
	struct timespec until = clock_at(until_ms);
	int failed = 0;
	(void)pthread_mutex_lock(&roll->lock);
	roll->is_closing = true;
	while (close_all_but_pipes(roll) && failed == 0)
		failed = pthread_cond_timedwait(&roll->left, &roll->lock, &until);
	(void)pthread_mutex_unlock(&roll->lock);
}
