/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include "tests/unit/rpc/pki.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

struct pki {
	char directory[64];
	char paths[16][128];
	unsigned path_count;
	EVP_PKEY *key;
	X509 *certificate;
	long serial;
};

const char *pki_path(struct pki *pki, const char *which)
{
	char *path = pki->paths[pki->path_count++ % 16];
	char directory[sizeof(
	    pki->directory)]; /* not in the object that is written to: snprintf is restrict */
	memcpy(directory, pki->directory, sizeof(directory));
	(void)snprintf(path, sizeof(pki->paths[0]), "%s/%s", directory, which);
	return path;
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509V3_set_ctx_nodb(&ctx);
	X509V3_set_ctx(&ctx, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	assert_non_null(extension);
	assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
	X509_EXTENSION_free(extension);
}

static X509 *new_certificate(struct pki *pki, EVP_PKEY *key, const struct pki_request *request)
{
	X509 *certificate = X509_new();
	X509_NAME *name = X509_NAME_new();
	assert_int_equal(X509_set_version(certificate, X509_VERSION_3), 1);
	(void)ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++pki->serial);
	(void)X509_gmtime_adj(X509_getm_notBefore(certificate), request->valid_from);
	(void)X509_gmtime_adj(X509_getm_notAfter(certificate), request->valid_to);
	if (request->cn != NULL)
		(void)X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
						 (const unsigned char *)request->cn, -1, -1, 0);
	(void)X509_set_subject_name(certificate, name);
	if (pki->certificate == NULL)
		(void)X509_set_issuer_name(certificate, name);
	else
		(void)X509_set_issuer_name(certificate, X509_get_subject_name(pki->certificate));
	X509_NAME_free(name);
	(void)X509_set_pubkey(certificate, key);
	return certificate;
}

static void write_pem(const char *path, X509 *certificate, EVP_PKEY *key)
{
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	if (certificate != NULL)
		assert_int_equal(PEM_write_X509(file, certificate), 1);
	if (key != NULL)
		assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	assert_int_equal(fclose(file), 0);
}

struct pki *pki_new(void)
{
	struct pki *pki = calloc(1, sizeof(*pki));
	assert_non_null(pki);
	(void)snprintf(pki->directory, sizeof(pki->directory), "/tmp/haul-pki-XXXXXX");
	assert_non_null(mkdtemp(pki->directory));
	/* Its directory tells this authority from every other. */
	const struct pki_request request = {.cn = pki->directory,
					    .valid_to = 3600,
					    .valid_from = -60};
	pki->key = EVP_EC_gen("P-256");
	pki->certificate = new_certificate(pki, pki->key, &request);
	add_extension(pki->certificate, pki->certificate, NID_basic_constraints,
		      "critical,CA:TRUE");
	add_extension(pki->certificate, pki->certificate, NID_key_usage,
		      "critical,keyCertSign,cRLSign");
	assert_true(X509_sign(pki->certificate, pki->key, EVP_sha256()) > 0);
	write_pem(pki_path(pki, "ca.pem"), pki->certificate, NULL);
	return pki;
}

void pki_free(struct pki *pki)
{
	char command[128];
	(void)snprintf(command, sizeof(command), "rm -r %s", pki->directory);
	assert_int_equal(system(command), 0);
	EVP_PKEY_free(pki->key);
	X509_free(pki->certificate);
	free(pki);
}

void pki_issue(struct pki *pki, const char *stem, const struct pki_request *request)
{
	char name[64];
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = new_certificate(pki, key, request);
	if (request->sans != NULL)
		add_extension(certificate, pki->certificate, NID_subject_alt_name, request->sans);
	assert_true(X509_sign(certificate, pki->key, EVP_sha256()) > 0);
	(void)snprintf(name, sizeof(name), "%s.pem", stem);
	write_pem(pki_path(pki, name), certificate, NULL);
	(void)snprintf(name, sizeof(name), "%s.key", stem);
	write_pem(pki_path(pki, name), NULL, key);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

struct credentials *pki_credentials(struct pki *pki, const char *stem, const char *sans)
{
	struct credentials *credentials = NULL;
	const struct pki_request request = {.cn = stem,
					    .sans = sans,
					    .valid_from = -60,
					    .valid_to = 3600};
	pki_issue(pki, stem, &request);
	assert_ok(pki_load(pki, stem, NULL, &credentials));
	return credentials;
}

status *pki_load(struct pki *pki, const char *stem, const char *crl,
		 struct credentials **ret_credentials)
{
	char certificate[64];
	char key[64];
	(void)snprintf(certificate, sizeof(certificate), "%s.pem", stem);
	(void)snprintf(key, sizeof(key), "%s.key", stem);
	const struct credentials_files files = {.ca = pki_path(pki, "ca.pem"),
						.cert = pki_path(pki, certificate),
						.key = pki_path(pki, key),
						.crl = crl != NULL ? pki_path(pki, crl) : NULL};
	return credentials_load(&files, ret_credentials);
}

long pki_serial(const struct pki *pki)
{
	return pki->serial;
}

void pki_revoke(struct pki *pki, const char *file, long serial, long valid_from, long valid_to)
{
	X509_CRL *list = X509_CRL_new();
	ASN1_TIME *begin = X509_gmtime_adj(NULL, valid_from);
	ASN1_TIME *end = X509_gmtime_adj(NULL, valid_to);
	(void)X509_CRL_set_version(list, X509_CRL_VERSION_2);
	(void)X509_CRL_set_issuer_name(list, X509_get_subject_name(pki->certificate));
	(void)X509_CRL_set1_lastUpdate(list, begin);
	(void)X509_CRL_set1_nextUpdate(list, end);
	if (serial != 0) {
		X509_REVOKED *entry = X509_REVOKED_new();
		ASN1_INTEGER *number = ASN1_INTEGER_new();
		(void)ASN1_INTEGER_set(number, serial);
		(void)X509_REVOKED_set_serialNumber(entry, number);
		(void)X509_REVOKED_set_revocationDate(entry, begin);
		assert_int_equal(X509_CRL_add0_revoked(list, entry), 1);
		ASN1_INTEGER_free(number);
	}
	assert_true(X509_CRL_sign(list, pki->key, EVP_sha256()) > 0);
	FILE *out = fopen(pki_path(pki, file), "we");
	assert_non_null(out);
	assert_int_equal(PEM_write_X509_CRL(out, list), 1);
	assert_int_equal(fclose(out), 0);
	ASN1_TIME_free(begin);
	ASN1_TIME_free(end);
	X509_CRL_free(list);
}
