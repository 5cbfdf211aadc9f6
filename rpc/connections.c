/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/connections.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "rpc/nng_error.h"
#include "rpc/tls_engine.h"

struct connection {
	int pipe_id; /* 0 = free */
	unsigned calls;
	int64_t heard_ms;
	struct identity identity;
};

struct connections {
	enum transport transport;
	pthread_mutex_t lock;
	unsigned refusal_count;
	struct refusal refusals[REFUSALS_KEPT];
	struct connection table[LIMIT_CONNECTIONS];
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

void connections_free(struct connections *connections)
{
	if (connections == NULL)
		return;
	(void)pthread_mutex_destroy(&connections->lock);
	free(connections);
}

static void peer_text(nng_pipe pipe, char text[PEER_TEXT])
{
	nng_sockaddr address;
	char ip[INET6_ADDRSTRLEN] = "";
	(void)snprintf(text, PEER_TEXT, "unknown");
	if (nng_pipe_get_addr(pipe, NNG_OPT_REMADDR, &address) != 0)
		return;
	if (address.s_family == NNG_AF_INET &&
	    inet_ntop(AF_INET, &address.s_in.sa_addr, ip, sizeof(ip)) != NULL)
		(void)snprintf(text, PEER_TEXT, "%s:%u", ip, ntohs(address.s_in.sa_port));
	else if (address.s_family == NNG_AF_INET6 &&
		 inet_ntop(AF_INET6, &address.s_in6.sa_addr, ip, sizeof(ip)) != NULL)
		(void)snprintf(text, PEER_TEXT, "[%s]:%u", ip, ntohs(address.s_in6.sa_port));
	else if (address.s_family == NNG_AF_IPC)
		(void)snprintf(text, PEER_TEXT, "a local process");
}

void connection_reached_host(nng_pipe pipe, const struct endpoint *listener,
			     char ret_host[LIMIT_NAME + 1])
{
	nng_sockaddr address;
	const char *own = listener->host;

	if (listener->transport == TRANSPORT_IPC)
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
static const char *identify(enum transport transport, nng_pipe pipe, struct identity *id)
{
	uint64_t uid = 0;
	switch (transport) {
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

static void admit(struct connections *connections, nng_pipe pipe)
{
	char peer[PEER_TEXT];
	struct identity id = {0};
	const char *why = identify(connections->transport, pipe, &id);
	peer_text(pipe, peer);
	(void)pthread_mutex_lock(&connections->lock);
	struct connection *vacant = find(connections, 0);
	if (why == NULL && vacant == NULL)
		why = "too many connections";
	if (why == NULL)
		*vacant = (struct connection){.pipe_id = nng_pipe_id(pipe),
					      .heard_ms = monotonic_ms(),
					      .identity = id};
	else
		add_refusal(connections, peer, why);
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
	}
}

bool connections_begin_call(struct connections *connections, nng_pipe pipe,
			    struct identity *ret_caller)
{
	(void)pthread_mutex_lock(&connections->lock);
	struct connection *connection =
	    nng_pipe_id(pipe) > 0 ? find(connections, nng_pipe_id(pipe)) : NULL;
	if (connection != NULL) {
		connection->calls++;
		connection->heard_ms = monotonic_ms();
		*ret_caller = connection->identity;
	}
	(void)pthread_mutex_unlock(&connections->lock);
	return connection != NULL;
}

void connections_end_call(struct connections *connections, nng_pipe pipe)
{
	(void)pthread_mutex_lock(&connections->lock);
	struct connection *connection =
	    nng_pipe_id(pipe) > 0 ? find(connections, nng_pipe_id(pipe)) : NULL;
	if (connection != NULL && connection->calls > 0) {
		connection->calls--;
		connection->heard_ms = monotonic_ms();
	}
	(void)pthread_mutex_unlock(&connections->lock);
}

void connections_close_silent(struct connections *connections)
{
	nng_pipe silent[LIMIT_CONNECTIONS];
	size_t count = 0;
	int64_t limit = monotonic_ms() - LIMIT_SILENT_MS;
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
