/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for tests, made by OpenSSL in a temporary directory. */
#ifndef HAUL_TESTS_UNIT_RPC_PKI_H
#define HAUL_TESTS_UNIT_RPC_PKI_H

#include "rpc/endpoint.h"

struct pki;

/* A new authority with a directory of its own. */
struct pki *pki_new(void);
void pki_free(struct pki *pki);

struct pki_request {
	const char *cn; /* or NULL */
	const char
	    *sans; /* OpenSSL's form, "DNS:a.example.org,IP:127.0.0.1,URI:spiffe://x", or NULL */
	long valid_from; /* seconds from now */
	long valid_to;
};

/* Issues a certificate and writes it and its key; `stem` tells them apart. */
void pki_issue(struct pki *pki, const char *stem, const struct pki_request *request);

/* Paths, valid until pki_free; which = "ca.pem", "STEM.pem" or "STEM.key". */
const char *pki_path(struct pki *pki, const char *which);

/* Issues for an hour and loads at once. */
struct credentials *pki_credentials(struct pki *pki, const char *stem, const char *sans);

/* Loads what was issued, with this revocation list or NULL. */
status *pki_load(struct pki *pki, const char *stem, const char *crl,
		 struct credentials **ret_credentials);

/* The serial number of the certificate that was issued last. */
long pki_serial(const struct pki *pki);

/* Writes a revocation list that has one certificate on it (0: none), valid for so long from now. */
void pki_revoke(struct pki *pki, const char *file, long serial, long valid_from, long valid_to);

#endif
