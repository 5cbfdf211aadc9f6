/* SPDX-License-Identifier: Apache-2.0 */
/* What the TLS engine needs of the credentials, and of a certificate. */
#ifndef HAUL_RPC_CREDENTIALS_H
#define HAUL_RPC_CREDENTIALS_H

#include <openssl/ssl.h>

#include "rpc/endpoint.h"

/* Borrowed; take a reference of your own with SSL_CTX_up_ref. Never changed after loading. */
SSL_CTX *credentials_server_ctx(const struct credentials *credentials);
SSL_CTX *credentials_client_ctx(const struct credentials *credentials);

/* Names of a certificate: SANs in order, the CN only when there is none. is_authenticated is set:
 * call it for verified certificates only. Names with control characters are left out. */
void identity_of_certificate(const X509 *certificate, struct identity *ret_identity);

#endif
