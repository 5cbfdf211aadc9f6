/* SPDX-License-Identifier: Apache-2.0 */
/* Certificate revocation lists from a PEM file. */
#ifndef HAUL_RPC_CRL_H
#define HAUL_RPC_CRL_H

#include <openssl/x509.h>

#include "proto/status.h"

struct crl_set;

/* Reads the lists and checks them against the authorities in `store`: each authority must have one
 * that it signed and that has not ended. Without it nobody of that authority could be let in any
 * more, and nobody could tell why. INVALID_ARGUMENT or FAILED_PRECONDITION says what is wrong. */
must_check status *crl_set_load(const char *path, X509_STORE *store, struct crl_set **ret_crls);

/* Every chain that is verified with the store is looked up in the lists from now on, all of it. A
 * list that ends meanwhile lets nobody in: who could replace it could hide a revocation. */
must_check status *crl_set_apply(const struct crl_set *crls, X509_STORE *store);

/* When the first of them ends; 0: never. */
int64_t crl_set_expire_unix_ms(const struct crl_set *crls);

void crl_set_free(struct crl_set *crls);

/* 0 for what is no time. */
int64_t asn1_unix_ms(const ASN1_TIME *time);

#endif
