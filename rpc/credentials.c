/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates and keys from PEM files, as two OpenSSL contexts: TLS 1.3 only, peers must show a
 * certificate of our CA, no tickets (a session that is resumed would skip the certificates). They
 * are replaced as a whole: a handshake that has begun ends with the contexts it began with. */
#include "rpc/credentials.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "proto/reason.h"
#include "rpc/crl.h"

struct contexts {
	SSL_CTX *server;
	SSL_CTX *client;
	struct credentials_info info;
};

/* What TLS contexts hold on to: it outlives the credentials while nng still lets go of a listener.
 */
struct keyring {
	atomic_uint references;
	pthread_mutex_t lock; /* of what follows */
	struct contexts now;
	unsigned number; /* of replacements so far */
};

struct credentials {
	struct keyring *keyring;
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

static status *load_files(SSL_CTX *ctx, const struct credentials_files *files)
{
	ERR_clear_error();
	if (SSL_CTX_load_verify_file(ctx, files->ca) != 1)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "cannot use %s as the certificate authority: %s", files->ca,
				     openssl_reason());
	if (SSL_CTX_use_certificate_chain_file(ctx, files->cert) != 1)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "cannot use the certificate in %s: %s", files->cert,
				     openssl_reason());
	if (SSL_CTX_use_PrivateKey_file(ctx, files->key, SSL_FILETYPE_PEM) != 1 ||
	    SSL_CTX_check_private_key(ctx) != 1)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "cannot use the key in %s with the certificate in %s: %s",
				     files->key, files->cert, openssl_reason());
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

static status *check_validity(const X509 *certificate, const char *cert_file,
			      struct credentials_info *ret_info)
{
	struct identity identity;
	int64_t now = (int64_t)time(NULL) * 1000;
	int64_t expires = asn1_unix_ms(X509_get0_notAfter(certificate));
	if (expires <= now)
		return status_because(
		    status_errorf(STATUS_FAILED_PRECONDITION,
				  "the certificate in %s has expired; issue a new one", cert_file),
		    REASON_CERTIFICATE_EXPIRED);
	if (asn1_unix_ms(X509_get0_notBefore(certificate)) > now)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "the certificate in %s is not valid yet; check this machine's clock",
		    cert_file);
	identity_of_certificate(certificate, &identity);
	if (identity.name[0] == '\0')
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "the certificate in %s names nobody: it needs a subject alternative "
		    "name (URI or DNS)",
		    cert_file);
	(void)snprintf(ret_info->identity, sizeof(ret_info->identity), "%s", identity.name);
	ret_info->expire_unix_ms = expires;
	return NULL;
}

static status *load_contexts(const struct credentials_files *files, struct contexts *contexts)
{
	struct crl_set *crls = NULL;
	status *st = new_ctx(TLS_server_method(), &contexts->server);
	if (st == NULL)
		st = new_ctx(TLS_client_method(), &contexts->client);
	if (st == NULL)
		st = load_files(contexts->server, files);
	if (st == NULL)
		st = load_files(contexts->client, files);
	if (st == NULL)
		st = check_validity(SSL_CTX_get0_certificate(contexts->server), files->cert,
				    &contexts->info);
	if (st != NULL || files->crl == NULL)
		return st;
	st = crl_set_load(files->crl, SSL_CTX_get_cert_store(contexts->server), &crls);
	if (st == NULL)
		st = crl_set_apply(crls, SSL_CTX_get_cert_store(contexts->server));
	if (st == NULL)
		st = crl_set_apply(crls, SSL_CTX_get_cert_store(contexts->client));
	if (st == NULL)
		contexts->info.crl_expire_unix_ms = crl_set_expire_unix_ms(crls);
	crl_set_free(crls);
	return st;
}

static void free_contexts(struct contexts *contexts)
{
	SSL_CTX_free(contexts->server);
	SSL_CTX_free(contexts->client);
}

status *credentials_load(const struct credentials_files *files,
			 struct credentials **ret_credentials)
{
	scoped(credentials) struct credentials *credentials = calloc(1, sizeof(*credentials));
	if (credentials == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for credentials");
	credentials->keyring = calloc(1, sizeof(*credentials->keyring));
	if (credentials->keyring == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for credentials");
	atomic_init(&credentials->keyring->references, 1);
	(void)pthread_mutex_init(&credentials->keyring->lock, NULL);
	status *st = load_contexts(files, &credentials->keyring->now);
	if (st != NULL)
		return st;
	*ret_credentials = TAKE(credentials);
	return NULL;
}

void credentials_replace(struct credentials *credentials, struct credentials *by)
{
	struct keyring *keyring = credentials->keyring;
	(void)pthread_mutex_lock(&keyring->lock);
	const struct contexts before = keyring->now;
	keyring->now = by->keyring->now; /* nobody else knows `by` */
	by->keyring->now = before;
	keyring->number++;
	(void)pthread_mutex_unlock(&keyring->lock);
	credentials_free(by);
}

void credentials_free(struct credentials *credentials)
{
	if (credentials == NULL)
		return;
	keyring_release(credentials->keyring);
	free(credentials);
}

void credentials_describe(const struct credentials *credentials, struct credentials_info *ret_info)
{
	struct keyring *keyring = credentials->keyring;
	(void)pthread_mutex_lock(&keyring->lock);
	*ret_info = keyring->now.info;
	(void)pthread_mutex_unlock(&keyring->lock);
}

struct keyring *credentials_keyring(const struct credentials *credentials)
{
	(void)atomic_fetch_add(&credentials->keyring->references, 1);
	return credentials->keyring;
}

void keyring_release(struct keyring *keyring)
{
	if (keyring == NULL || atomic_fetch_sub(&keyring->references, 1) != 1)
		return;
	free_contexts(&keyring->now);
	(void)pthread_mutex_destroy(&keyring->lock);
	free(keyring);
}

SSL_CTX *keyring_context(struct keyring *keyring, bool is_server, unsigned *ret_number)
{
	(void)pthread_mutex_lock(&keyring->lock);
	SSL_CTX *ctx = is_server ? keyring->now.server : keyring->now.client;
	(void)SSL_CTX_up_ref(ctx);
	*ret_number = keyring->number;
	(void)pthread_mutex_unlock(&keyring->lock);
	return ctx;
}
