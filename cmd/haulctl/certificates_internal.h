/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by certificates.c (making and issuing) and revocation.c. */
#ifndef HAUL_CMD_HAULCTL_CERTIFICATES_INTERNAL_H
#define HAUL_CMD_HAULCTL_CERTIFICATES_INTERNAL_H

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include "cmd/haulctl/certificates.h"

DEFINE_SCOPE(x509, X509 *, X509_free);
DEFINE_SCOPE(key, EVP_PKEY *, EVP_PKEY_free);
DEFINE_SCOPE(bio, BIO *, BIO_free_all);

/* INTERNAL, with OpenSSL's reason. */
must_check status *pki_openssl_error(const char *what);

/* What may be a certificate's name, and so a file's. */
must_check status *pki_check_name(const char *name);

/* ca.pem and ca.key of the directory; without ret_key only the certificate is read. */
must_check status *pki_load_authority(const char *directory, X509 **ret_certificate,
				      EVP_PKEY **ret_key);

/* A new file with this content, or none at all; ALREADY_EXISTS. */
must_check status *pki_write_new(const char *path, mode_t mode, BIO *content);

#endif
