/* SPDX-License-Identifier: Apache-2.0 */
/* What the TLS engine needs of the credentials, and of a certificate. */
#ifndef HAUL_RPC_CREDENTIALS_H
#define HAUL_RPC_CREDENTIALS_H

#include <openssl/ssl.h>

#include "rpc/endpoint.h"

/* What credentials are made of, shared with every TLS context that uses them. */
struct keyring;

/* One reference more; keyring_release takes one away (and accepts NULL). */
struct keyring *credentials_keyring(const struct credentials *credentials);
void keyring_release(struct keyring *keyring);

/* The context in force now, a reference of the caller's own (SSL_CTX_free). *ret_number tells it
 * from those before and after it. */
SSL_CTX *keyring_context(struct keyring *keyring, bool is_server, unsigned *ret_number);

/* Names of a certificate: SANs in order, the CN only when there is none. is_authenticated is set:
 * call it for verified certificates only. Names with control characters are left out. */
void identity_of_certificate(const X509 *certificate, struct identity *ret_identity);

#endif
