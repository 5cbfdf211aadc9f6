/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/connections.h"
#include "proto/clock.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "rpc/nng_error.h"
#include "rpc/tls_engine.h"

/* Looked at in every call, all of them: small, and next to each other. */
struct connection {
	int pipe_id; /* 0 = free */
	unsigned calls;
	int64_t heard_ms;
};

/* Who is at the other end of it. */
struct party {
	struct peer_address from;
	struct identity identity;
};

struct connections {
	enum transport transport;
	void (*lost)(void *self); /* NULL: nobody wants to know */
	void *lost_self;
	connections_identify identify;
	void *identify_self;
	pthread_mutex_t lock;
	unsigned refusal_count;
	struct refusal refusals[REFUSALS_KEPT];
	struct connection table[LIMIT_CONNECTIONS];
	struct party parties[LIMIT_CONNECTIONS]; /* of the same place in the table */
};

status *connections_new(enum transport transport, struct connections **ret_connections)
{
	struct connections *connections = calloc(1, sizeof(*connections));
	if (connections == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for the connections");
	connections->transport = transport;
	(void)pthread_mutex_init(&connections->lock, NULL);
	*ret_connections = connections;
	return NULL;
}

void connections_on_loss(struct connections *connections, void (*lost)(void *self), void *self)
{
	connections->lost = lost;
	connections->lost_self = self;
}

void connections_set_identify(struct connections *connections, connections_identify identify,
			      void *self)
{
	connections->identify = identify;
	connections->identify_self = self;
}

void connections_free(struct connections *connections)
{
	if (connections == NULL)
		return;
	(void)pthread_mutex_destroy(&connections->lock);
	free(connections);
}

static struct peer_address peer_of(nng_pipe pipe)
{
	nng_sockaddr address = {0};
	if (nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &address) != 0)
		address.s_family = NNG_AF_UNSPEC;
	return peer_address_of(&address);
}

int connection_pid(nng_pipe pipe)
{
	uint64_t pid = 0;
	return nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_PID, &pid) == 0 ? (int)pid : 0;
}

void connection_reached_host(nng_pipe pipe, const struct endpoint *listener,
			     char ret_host[LIMIT_NAME + 1])
{
	nng_sockaddr address;
	const char *own = listener->host;

	if (listener->transport == TRANSPORT_IPC || listener->transport == TRANSPORT_SOCKET)
		return;
	(void)snprintf(ret_host, LIMIT_NAME + 1, "%s", own);
	if ((strcmp(own, "0.0.0.0") != 0 && strcmp(own, "::") != 0 && own[0] != '\0') ||
	    nng_pipe_get_addr(pipe, NNG_OPT_LOCADDR, &address) != 0)
		return;
	if (address.s_family == NNG_AF_INET)
		(void)inet_ntop(AF_INET, &address.s_in.sa_addr, ret_host, LIMIT_NAME + 1);
	else if (address.s_family == NNG_AF_INET6)
		(void)inet_ntop(AF_INET6, &address.s_in6.sa_addr, ret_host, LIMIT_NAME + 1);
}

/* Caller holds the lock. */
static void add_refusal(struct connections *connections, const char *peer, const char *why)
{
	if (connections->refusal_count == REFUSALS_KEPT)
		return;
	struct refusal *refusal = &connections->refusals[connections->refusal_count++];
	(void)snprintf(refusal->peer, sizeof(refusal->peer), "%s", peer);
	(void)snprintf(refusal->why, sizeof(refusal->why), "%s", why);
}

bool connections_take_refusal(struct connections *connections, struct refusal *ret_refusal)
{
	(void)pthread_mutex_lock(&connections->lock);
	bool found = connections->refusal_count > 0;
	if (found)
		*ret_refusal = connections->refusals[--connections->refusal_count];
	(void)pthread_mutex_unlock(&connections->lock);
	return found;
}

/* Who is there, as far as the transport can prove it. Returns why not, or NULL. */
static const char *identify(const struct connections *connections, nng_pipe pipe,
			    struct identity *id)
{
	uint64_t uid = 0;
	switch (connections->transport) {
	case TRANSPORT_SOCKET:
		return connections->identify(connections->identify_self, pipe, id);
	case TRANSPORT_IPC:
		if (nng_pipe_get_uint64(pipe, NNG_OPT_IPC_PEER_UID, &uid) != 0)
			return "the kernel does not say who it is";
		if (uid != 0 && uid != (uint64_t)geteuid())
			return "only root and the engine's own user may use the local socket";
		*id =
		    (struct identity){.is_local = true, .is_authenticated = true, .name = "local"};
		return NULL;
	case TRANSPORT_TLS:
		return tls_pipe_identity(pipe, id) ? NULL : "its certificate names nobody";
	case TRANSPORT_TCP:
		*id = (struct identity){.name = "unauthenticated"};
		return NULL;
	}
	return "unknown transport";
}

static struct connection *find(struct connections *connections, int pipe_id)
{
	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++)
		if (connections->table[i].pipe_id == pipe_id)
			return &connections->table[i];
	return NULL;
}

static struct party *party_of(struct connections *connections, const struct connection *connection)
{
	return &connections->parties[connection - connections->table];
}

/* Why there is no place for one from there, or NULL. Caller holds the lock. */
static const char *no_place(const struct connections *connections, const struct peer_address *from)
{
	unsigned all = 0;
	unsigned neighbours = 0;
	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
		if (connections->table[i].pipe_id == 0)
			continue;
		all++;
		neighbours +=
		    peer_address_is_same_host(&connections->parties[i].from, from) ? 1 : 0;
	}
	if (all == LIMIT_CONNECTIONS)
		return "too many connections";
	return neighbours >= LIMIT_HOST_CONNECTIONS ? "too many connections from one host" : NULL;
}

/* Caller holds the lock, and there is a place. */
static void enter(struct connections *connections, nng_pipe pipe, const struct peer_address *from,
		  const struct identity *id)
{
	struct connection *connection = find(connections, 0);
	*connection =
	    (struct connection){.pipe_id = nng_pipe_id(pipe), .heard_ms = clock_monotonic_ms()};
	*party_of(connections, connection) = (struct party){.from = *from, .identity = *id};
}

static void admit(struct connections *connections, nng_pipe pipe)
{
	struct peer_address from = peer_of(pipe);
	struct identity id = {0};
	const char *why = identify(connections, pipe, &id);
	(void)pthread_mutex_lock(&connections->lock);
	if (why == NULL)
		why = no_place(connections, &from);
	if (why == NULL)
		enter(connections, pipe, &from, &id);
	else
		add_refusal(connections, from.text, why);
	(void)pthread_mutex_unlock(&connections->lock);
	if (why != NULL)
		(void)nng_pipe_close(pipe);
}

void connections_on_pipe(nng_pipe pipe, nng_pipe_ev event, void *self)
{
	struct connections *connections = self;
	if (event == NNG_PIPE_EV_ADD_PRE) {
		admit(connections, pipe);
	} else if (event == NNG_PIPE_EV_REM_POST) {
		(void)pthread_mutex_lock(&connections->lock);
		struct connection *connection = find(connections, nng_pipe_id(pipe));
		if (connection != NULL)
			*connection = (struct connection){0};
		(void)pthread_mutex_unlock(&connections->lock);
		if (connection != NULL && connections->lost != NULL)
			connections->lost(connections->lost_self);
	}
}

/* Caller holds the lock. */
static unsigned calls_of(const struct connections *connections, const struct identity *caller)
{
	unsigned calls = 0;
	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
		unsigned open = connections->table[i].calls;
		if (open > 0 && identity_equal(&connections->parties[i].identity, caller))
			calls += open;
	}
	return calls;
}

bool connections_begin_call(struct connections *connections, nng_pipe pipe,
			    struct call_origin *ret_origin)
{
	(void)pthread_mutex_lock(&connections->lock);
	struct connection *connection =
	    nng_pipe_id(pipe) > 0 ? find(connections, nng_pipe_id(pipe)) : NULL;
	if (connection != NULL) {
		connection->calls++;
		connection->heard_ms = clock_monotonic_ms();
		const struct party *party = party_of(connections, connection);
		ret_origin->caller = party->identity;
		memcpy(ret_origin->peer, party->from.text, sizeof(ret_origin->peer));
		ret_origin->calls = calls_of(connections, &party->identity);
	}
	(void)pthread_mutex_unlock(&connections->lock);
	return connection != NULL;
}

bool connections_has(struct connections *connections, int pipe_id)
{
	(void)pthread_mutex_lock(&connections->lock);
	bool has = pipe_id > 0 && find(connections, pipe_id) != NULL;
	(void)pthread_mutex_unlock(&connections->lock);
	return has;
}

void connections_end_call(struct connections *connections, nng_pipe pipe)
{
	(void)pthread_mutex_lock(&connections->lock);
	struct connection *connection =
	    nng_pipe_id(pipe) > 0 ? find(connections, nng_pipe_id(pipe)) : NULL;
	if (connection != NULL && connection->calls > 0) {
		connection->calls--;
		connection->heard_ms = clock_monotonic_ms();
	}
	(void)pthread_mutex_unlock(&connections->lock);
}

void connections_close_silent(struct connections *connections)
{
	nng_pipe silent[LIMIT_CONNECTIONS];
	size_t count = 0;
	if (connections->transport == TRANSPORT_SOCKET) /* whoever connected it sees to that */
		return;
	int64_t limit = clock_monotonic_ms() - LIMIT_SILENT_MS;
	(void)pthread_mutex_lock(&connections->lock);
	for (size_t i = 0; i < LIMIT_CONNECTIONS; i++) {
		const struct connection *connection = &connections->table[i];
		if (connection->pipe_id != 0 && connection->calls == 0 &&
		    connection->heard_ms < limit)
			silent[count++].id = (uint32_t)connection->pipe_id;
	}
	(void)pthread_mutex_unlock(&connections->lock);
	/* Not reported: a client that has nothing to say is no trouble, it connects again. */
	for (size_t i = 0; i < count; i++)
		(void)nng_pipe_close(silent[i]);
}
