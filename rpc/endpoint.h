/* SPDX-License-Identifier: Apache-2.0 */
/* nng itself: start-up checks, addresses, credentials. Nothing outside rpc/ sees nng. */
#ifndef HAUL_RPC_ENDPOINT_H
#define HAUL_RPC_ENDPOINT_H

#include "proto/status.h"
#include "rpc/identity.h"

/* Call once, first: refuses an unfit libnng at run time (older than 1.10, or 1.12.0, or another
 * minor than built with) and registers OpenSSL as nng's TLS engine. Idempotent. */
must_check status *rpc_start(void);

/* PEM files. */
struct credentials_files {
	const char *ca;	  /* of the authorities that others' certificates come from */
	const char *cert; /* our own, with its intermediates if it has any */
	const char *key;
	const char *crl; /* what these authorities have revoked; NULL: nothing is asked */
};

/* Checked when loaded: readable, key fits certificate, not expired; the revocation lists are the
 * authorities' own, one of each, none of the past. */
struct credentials;
must_check status *credentials_load(const struct credentials_files *files,
				    struct credentials **ret_credentials);
void credentials_free(struct credentials *credentials);

/* Puts `by` in force in the place of what was, and frees it: the next handshakes use it, those that
 * have begun do not. A listener closes the connections of those whom it would not let in any more;
 * all others stay. Any thread. */
void credentials_replace(struct credentials *credentials, struct credentials *by);

struct credentials_info {
	char identity[LIMIT_NAME + 1]; /* first URI/DNS SAN of our own certificate, else its CN */
	int64_t expire_unix_ms;
	int64_t crl_expire_unix_ms; /* when the first of the lists ends; 0: no lists, or no end */
};

void credentials_describe(const struct credentials *credentials, struct credentials_info *ret_info);

/* The last one: a socket that was handed over; it has no URL. */
enum transport { TRANSPORT_IPC, TRANSPORT_TLS, TRANSPORT_TCP, TRANSPORT_SOCKET };

struct endpoint {
	enum transport transport;
	char url[LIMIT_URL + 1];
	char host[LIMIT_NAME + 1]; /* without brackets; or the path for ipc */
	uint16_t port;
};

/* "tls+tcp://host:port", "tcp://host:port" (only with --insecure), "ipc:///path".
 * INVALID_ARGUMENT tells what is wrong with it. */
must_check status *endpoint_parse(const char *url, struct endpoint *ret_endpoint);

const char *rpc_nng_version(void);
const char *rpc_openssl_version(void);

DEFINE_SCOPE(credentials, struct credentials *, credentials_free);

#endif
