/* SPDX-License-Identifier: Apache-2.0 */
/* nng itself: start-up checks, addresses, credentials. Nothing outside rpc/ sees nng. */
#ifndef HAUL_RPC_ENDPOINT_H
#define HAUL_RPC_ENDPOINT_H

#include "proto/status.h"
#include "rpc/identity.h"

/* Call once, first: refuses an unfit libnng at run time (older than 1.10, or 1.12.0, or another
 * minor than built with) and registers OpenSSL as nng's TLS engine. Idempotent. */
must_check status *rpc_start(void);

/* Credentials from PEM files, checked when loaded: readable, key fits certificate, not expired. */
struct credentials;
must_check status *credentials_load(const char *ca_file, const char *cert_file,
				    const char *key_file, struct credentials **ret_credentials);
void credentials_free(struct credentials *credentials);
/* First URI/DNS SAN of our own certificate, else its CN; owned by the credentials. */
const char *credentials_identity(const struct credentials *credentials);
int64_t credentials_expire_unix_ms(const struct credentials *credentials);

enum transport { TRANSPORT_IPC, TRANSPORT_TLS, TRANSPORT_TCP };

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
