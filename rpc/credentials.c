/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys from PEM files, as two OpenSSL contexts: TLS 1.3 only, peers must show a
 * certificate of our CA, no tickets (a session that is resumed would skip the certificates). */
#include "rpc/credentials.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

struct credentials {
	SSL_CTX *server;
	SSL_CTX *client;
	struct identity identity;
	int64_t expire_unix_ms;
};

static bool is_printable(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] == 0x7F)
			return false;
	return length > 0;
}

static void add_name(struct identity *id, const char *text, size_t length)
{
	if (id->name_count == IDENTITY_NAMES || length > LIMIT_NAME || !is_printable(text, length))
		return;
	memcpy(id->names[id->name_count], text, length);
	id->names[id->name_count][length] = '\0';
	id->name_count++;
}

static void add_ip_name(struct identity *id, const ASN1_OCTET_STRING *ip)
{
	char text[INET6_ADDRSTRLEN] = "";
	int length = ASN1_STRING_length(ip);
	int family = length == 4 ? AF_INET : AF_INET6;
	if (length != 4 && length != 16)
		return;
	if (inet_ntop(family, ASN1_STRING_get0_data(ip), text, sizeof(text)) != NULL)
		add_name(id, text, strlen(text));
}

static void add_alt_name(struct identity *id, const GENERAL_NAME *alt)
{
	int type = 0;
	const void *value = GENERAL_NAME_get0_value(alt, &type);
	if (type == GEN_IPADD) {
		add_ip_name(id, value);
	} else if (type == GEN_URI || type == GEN_DNS) {
		const ASN1_STRING *string = value;
		const char *text = (const char *)ASN1_STRING_get0_data(string);
		if (id->name[0] == '\0' && ASN1_STRING_length(string) <= LIMIT_NAME &&
		    is_printable(text, (size_t)ASN1_STRING_length(string)))
			memcpy(id->name, text, (size_t)ASN1_STRING_length(string));
		add_name(id, text, (size_t)ASN1_STRING_length(string));
	}
}

void identity_of_certificate(const X509 *certificate, struct identity *ret_identity)
{
	struct identity id = {.is_authenticated = true};
	GENERAL_NAMES *alts = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	for (int i = 0; i < sk_GENERAL_NAME_num(alts); i++)
		add_alt_name(&id, sk_GENERAL_NAME_value(alts, i));
	GENERAL_NAMES_free(alts);
	if (id.name_count == 0) {
		char cn[LIMIT_NAME + 1] = "";
		int length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate),
						       NID_commonName, cn, sizeof(cn));
		if (length > 0)
			add_name(&id, cn, (size_t)length);
	}
	if (id.name[0] == '\0' && id.name_count > 0)
		memcpy(id.name, id.names[0], sizeof(id.name));
	*ret_identity = id;
}

/* The newest reason in OpenSSL's queue, which is emptied. */
static const char *openssl_reason(void)
{
	unsigned long error = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(error);
	ERR_clear_error();
	return reason != NULL ? reason : "unknown reason";
}

static status *load_files(SSL_CTX *ctx, const char *ca_file, const char *cert_file,
			  const char *key_file)
{
	ERR_clear_error();
	if (SSL_CTX_load_verify_file(ctx, ca_file) != 1)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "cannot use %s as the certificate authority: %s", ca_file,
				     openssl_reason());
	if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "cannot use the certificate in %s: %s", cert_file,
				     openssl_reason());
	if (SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "cannot use the key in %s with the certificate in %s: %s",
				     key_file, cert_file, openssl_reason());
	return NULL;
}

static status *new_ctx(const SSL_METHOD *method, SSL_CTX **ret_ctx)
{
	SSL_CTX *ctx = SSL_CTX_new(method);
	if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1) {
		SSL_CTX_free(ctx);
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "OpenSSL has no TLS 1.3: %s",
				     openssl_reason());
	}
	SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
	(void)SSL_CTX_set_num_tickets(ctx, 0);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
					SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_read_ahead(ctx, 1);
	*ret_ctx = ctx;
	return NULL;
}

static int64_t unix_ms_of(const ASN1_TIME *time)
{
	struct tm tm;
	if (ASN1_TIME_to_tm(time, &tm) != 1)
		return 0;
	return (int64_t)timegm(&tm) * 1000;
}

static status *check_validity(struct credentials *credentials, const char *cert_file)
{
	const X509 *certificate = SSL_CTX_get0_certificate(credentials->server);
	int64_t now = (int64_t)time(NULL) * 1000;
	credentials->expire_unix_ms = unix_ms_of(X509_get0_notAfter(certificate));
	if (credentials->expire_unix_ms <= now)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "the certificate in %s has expired; issue a new one",
				     cert_file);
	if (unix_ms_of(X509_get0_notBefore(certificate)) > now)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "the certificate in %s is not valid yet; check this machine's clock",
		    cert_file);
	identity_of_certificate(certificate, &credentials->identity);
	if (credentials->identity.name[0] == '\0')
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "the certificate in %s names nobody: it needs a subject alternative "
		    "name (URI or DNS)",
		    cert_file);
	return NULL;
}

status *credentials_load(const char *ca_file, const char *cert_file, const char *key_file,
			 struct credentials **ret_credentials)
{
	scoped(credentials) struct credentials *credentials = calloc(1, sizeof(*credentials));
	if (credentials == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for credentials");
	status *st = new_ctx(TLS_server_method(), &credentials->server);
	if (st == NULL)
		st = new_ctx(TLS_client_method(), &credentials->client);
	if (st == NULL)
		st = load_files(credentials->server, ca_file, cert_file, key_file);
	if (st == NULL)
		st = load_files(credentials->client, ca_file, cert_file, key_file);
	if (st == NULL)
		st = check_validity(credentials, cert_file);
	if (st != NULL)
		return st;
	*ret_credentials = TAKE(credentials);
	return NULL;
}

void credentials_free(struct credentials *credentials)
{
	if (credentials == NULL)
		return;
	SSL_CTX_free(credentials->server);
	SSL_CTX_free(credentials->client);
	free(credentials);
}

const char *credentials_identity(const struct credentials *credentials)
{
	return credentials->identity.name;
}

int64_t credentials_expire_unix_ms(const struct credentials *credentials)
{
	return credentials->expire_unix_ms;
}

SSL_CTX *credentials_server_ctx(const struct credentials *credentials)
{
	return credentials->server;
}

SSL_CTX *credentials_client_ctx(const struct credentials *credentials)
{
	return credentials->client;
}
