/* SPDX-License-Identifier: Apache-2.0 */
/* How it hangs together. nng calls the conn ops under its connection's lock; OpenSSL reads and
 * writes through a BIO onto nng's byte buffers. Three things are not obvious:
 *
 * - nng sends the 8 bytes of its own header before the handshake is over. They are kept here
 *   (`early`) and called sent: then nng waits in a *receive*, which its timeout of 10 s can end; a
 *   send that is stuck could not be ended, and silent clients would stay for ever.
 * - A server that refuses a certificate does not close at once: the client's data on its way would
 *   make the kernel answer with a reset, and the reset would take the alert from the client, which
 *   then could not know why. So the connection lingers, swallowing what comes, until the client
 *   closes or nng's timeout ends it.
 * - nng's configuration interface knows only texts; our context travels through the one operation
 *   that takes bytes (psk), as a pointer. */
#include "rpc/tls_engine.h"
#include "proto/clock.h"

#include <arpa/inet.h>
#include <nng/supplemental/tls/engine.h>
#include <nng/supplemental/tls/tls.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#include "rpc/credentials.h"
#include "rpc/nng_error.h"
#include "rpc/tls_context.h"

enum { EARLY_BYTES = 64 };

static const char context_label[] = "haul.tls_context";
static const char engine_name[] = "haul-openssl";

struct nng_tls_engine_config {
	struct tls_context *context; /* NULL: nng's default configuration, which connects nothing */
};

enum tls_phase { TLS_HANDSHAKE, TLS_OPEN, TLS_LINGER, TLS_FAILED };

struct nng_tls_engine_conn {
	void *io;
	struct tls_context *context;
	SSL *ssl;
	_Atomic enum tls_phase phase;
	bool is_closed;
	struct tls_member member; /* of the context's roll */
	uint8_t early[EARLY_BYTES];
	size_t early_size;
	int verify_error;
	char verify_subject[256];
	struct identity *identity;
};

/* Remembers why a chain was refused: OpenSSL forgets the certificate. */
static int on_verify(int is_ok, X509_STORE_CTX *store)
{
	SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct nng_tls_engine_conn *conn = ssl != NULL ? SSL_get_app_data(ssl) : NULL;
	const X509 *certificate = X509_STORE_CTX_get_current_cert(store);
	if (is_ok || conn == NULL)
		return is_ok;
	conn->verify_error = X509_STORE_CTX_get_error(store);
	if (certificate != NULL)
		(void)X509_NAME_oneline(X509_get_subject_name(certificate), conn->verify_subject,
					sizeof(conn->verify_subject));
	return is_ok;
}

static bool is_about_certificates(int reason)
{
	switch (reason) {
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
	case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
		return true;
	default:
		return false;
	}
}

static void fail_with(struct nng_tls_engine_conn *conn, const struct tls_failure *about)
{
	struct tls_failure failure = *about;
	if (conn->context->is_server)
		memcpy(failure.peer, conn->member.from.text, sizeof(failure.peer));
	tls_context_add_failure(conn->context, &failure);
}

static void report(struct nng_tls_engine_conn *conn)
{
	unsigned long error = ERR_peek_last_error();
	const char *reason = ERR_reason_error_string(error);
	bool is_server = conn->context->is_server;
	struct tls_failure failure = {.is_auth = conn->verify_error != X509_V_OK ||
						 is_about_certificates(ERR_GET_REASON(error))};
	if (conn->verify_error != X509_V_OK)
		(void)snprintf(failure.text, sizeof(failure.text),
			       "the %s's certificate (%s) was refused: %s",
			       is_server ? "client" : "server",
			       conn->verify_subject[0] != '\0' ? conn->verify_subject
							       : "no subject",
			       X509_verify_cert_error_string(conn->verify_error));
	else
		(void)snprintf(failure.text, sizeof(failure.text), "TLS with the %s failed: %s",
			       is_server ? "client" : "server",
			       reason != NULL ? reason : "the connection broke");
	ERR_clear_error();
	fail_with(conn, &failure);
}

static int would_block(const struct nng_tls_engine_conn *conn, int result)
{
	int error = SSL_get_error(conn->ssl, result);
	return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* A lingering connection swallows; nng ends it when the peer closes or its timeout comes. */
static int linger(struct nng_tls_engine_conn *conn)
{
	uint8_t waste[4096];
	if (clock_monotonic_ms() > conn->member.deadline_ms)
		return NNG_EPEERAUTH;
	for (;;) {
		size_t size = sizeof(waste);
		int rv = nng_tls_engine_recv(conn->io, waste, &size);
		if (rv != 0)
			return rv == NNG_EAGAIN ? NNG_EAGAIN : NNG_EPEERAUTH;
	}
}

/* The handshake is over, one way or the other. */
static void judge(struct nng_tls_engine_conn *conn, bool is_trusted)
{
	if (conn->context->is_server && conn->phase == TLS_HANDSHAKE)
		tls_roll_judge(&conn->context->roll, &conn->member, is_trusted);
}

static int fail(struct nng_tls_engine_conn *conn)
{
	report(conn);
	judge(conn, false);
	conn->phase = conn->context->is_server ? TLS_LINGER : TLS_FAILED;
	return conn->phase == TLS_LINGER ? linger(conn) : NNG_EPEERAUTH;
}

static int flush_early(struct nng_tls_engine_conn *conn)
{
	if (conn->early_size == 0)
		return 0;
	int count = SSL_write(conn->ssl, conn->early, (int)conn->early_size);
	if (count <= 0)
		return would_block(conn, count) ? NNG_EAGAIN : fail(conn);
	conn->early_size -= (size_t)count;
	memmove(conn->early, conn->early + count, conn->early_size);
	return 0;
}

static int finish_handshake(struct nng_tls_engine_conn *conn)
{
	const X509 *certificate = SSL_get0_peer_certificate(conn->ssl);
	conn->identity = calloc(1, sizeof(*conn->identity));
	if (conn->identity == NULL || certificate == NULL)
		return fail(conn);
	identity_of_certificate(certificate, conn->identity);
	judge(conn, true);
	if (conn->context->is_server)
		tls_member_set_chain(&conn->member, conn->ssl);
	conn->phase = TLS_OPEN;
	int rv = flush_early(conn);
	return rv == NNG_EAGAIN ? 0 : rv;
}

static int conn_handshake(nng_tls_engine_conn *conn)
{
	if (conn->is_closed)
		return NNG_ECONNRESET;
	if (conn->phase == TLS_OPEN)
		return 0;
	if (conn->phase == TLS_LINGER)
		return linger(conn);
	if (conn->phase == TLS_FAILED || conn->ssl == NULL)
		return NNG_EPEERAUTH;
	if (clock_monotonic_ms() > conn->member.deadline_ms) {
		const struct tls_failure failure = {.text = "the TLS handshake took too long"};
		fail_with(conn, &failure);
		judge(conn, false);
		conn->phase = TLS_FAILED;
		return NNG_ETIMEDOUT;
	}
	ERR_clear_error();
	int result = SSL_do_handshake(conn->ssl);
	if (result == 1)
		return finish_handshake(conn);
	return would_block(conn, result) ? NNG_EAGAIN : fail(conn);
}

static int set_host(SSL *ssl, const char *host)
{
	struct in6_addr ip;
	bool is_ip = inet_pton(AF_INET, host, &ip) == 1 || inet_pton(AF_INET6, host, &ip) == 1;
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
						   X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
	if (is_ip)
		return X509_VERIFY_PARAM_set1_ip_asc(param, host);
	return X509_VERIFY_PARAM_set1_host(param, host, 0) == 1 &&
	       SSL_set_tlsext_host_name(ssl, host) == 1;
}

static int conn_prepare(nng_tls_engine_conn *conn, SSL_CTX *ctx)
{
	struct tls_context *context = conn->context;
	int mode = SSL_VERIFY_PEER | (context->is_server ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);
	conn->ssl = SSL_new(ctx);
	BIO *bio = conn->ssl != NULL ? BIO_new(context->bio_method) : NULL;
	if (bio == NULL)
		return NNG_ENOMEM;
	BIO_set_data(bio, conn->io);
	SSL_set_bio(conn->ssl, bio, bio);
	if (SSL_set_app_data(conn->ssl, conn) != 1)
		return NNG_ENOMEM;
	SSL_set_verify(conn->ssl, mode, on_verify);
	if (context->is_server) {
		SSL_set_accept_state(conn->ssl);
		return 0;
	}
	SSL_set_connect_state(conn->ssl);
	return set_host(conn->ssl, context->host) == 1 ? 0 : NNG_EINVAL;
}

/* nng hands an engine its own connection as `io`, and that begins with the stream which it is (so
 * in 1.10 and 1.11; another minor version is refused by rpc_start). */
static int conn_init(nng_tls_engine_conn *conn, void *io, nng_tls_engine_config *config)
{
	if (config->context == NULL)
		return NNG_EPEERAUTH;
	SSL_CTX *ctx = keyring_context(config->context->keyring, config->context->is_server,
				       &conn->member.number);
	conn->member.stream = io;
	conn->member.deadline_ms = clock_monotonic_ms() + LIMIT_SILENT_MS;
	conn->verify_error = X509_V_OK;
	conn->io = io;
	/* Handshakes in progress count too: nng would take any number of them. */
	const char *why = tls_roll_join(&config->context->roll, &conn->member);
	if (why != NULL) {
		struct tls_failure failure = {.peer = ""};
		(void)snprintf(failure.text, sizeof(failure.text), "%s", why);
		memcpy(failure.peer, conn->member.from.text, sizeof(failure.peer));
		tls_context_add_failure(config->context, &failure);
		SSL_CTX_free(ctx);
		return NNG_ECONNABORTED;
	}
	conn->context = config->context;
	tls_context_hold(conn->context);
	ERR_clear_error();
	int rv = conn_prepare(conn, ctx);
	SSL_CTX_free(ctx);
	return rv;
}

/* nng calls this also for connections that never were initialised (all zero then). */
static void conn_fini(nng_tls_engine_conn *conn)
{
	if (conn->context == NULL)
		return;
	tls_roll_leave(&conn->context->roll, &conn->member);
	if (conn->context->is_server && conn->phase == TLS_HANDSHAKE) {
		const struct tls_failure failure = {
		    .text = "it was silent or left before the TLS handshake was over"};
		fail_with(conn, &failure);
		judge(conn, false);
	}
	SSL_free(conn->ssl);
	free(conn->identity);
	tls_context_free(conn->context);
	conn->context = NULL;
}

static void conn_close(nng_tls_engine_conn *conn)
{
	if (conn->phase == TLS_OPEN && !conn->is_closed) {
		ERR_clear_error();
		(void)SSL_shutdown(conn->ssl);
		ERR_clear_error();
	}
	/* What nng waits for from now on would never come: its own side is closed without a word to
	 * us. */
	conn->is_closed = true;
}

static int conn_recv(nng_tls_engine_conn *conn, uint8_t *data, size_t *size)
{
	if (conn->is_closed)
		return NNG_ECONNRESET;
	if (conn->phase != TLS_OPEN) {
		int rv = conn_handshake(conn);
		if (rv != 0 || conn->phase != TLS_OPEN)
			return rv != 0 ? rv : NNG_EAGAIN;
	}
	ERR_clear_error();
	int rv = flush_early(conn);
	if (rv != 0 && rv != NNG_EAGAIN)
		return rv;
	size_t total = 0;
	int count = 1;
	while (total < *size && count > 0) {
		size_t room = *size - total;
		count =
		    SSL_read(conn->ssl, data + total, (int)(room < INT32_MAX ? room : INT32_MAX));
		total += count > 0 ? (size_t)count : 0;
	}
	if (total > 0) {
		*size = total;
		return 0;
	}
	if (would_block(conn, count))
		return NNG_EAGAIN;
	if (SSL_get_error(conn->ssl, count) == SSL_ERROR_ZERO_RETURN)
		return NNG_ECONNSHUT;
	report(conn);
	conn->phase = TLS_FAILED;
	return NNG_ECONNRESET;
}

static int conn_send(nng_tls_engine_conn *conn, const uint8_t *data, size_t *size)
{
	if (conn->is_closed)
		return NNG_ECONNRESET;
	if (conn->phase != TLS_OPEN) {
		if (conn->phase == TLS_HANDSHAKE && conn->early_size + *size <= EARLY_BYTES) {
			memcpy(conn->early + conn->early_size, data, *size);
			conn->early_size += *size;
			int rv = conn_handshake(conn);
			return rv == NNG_EAGAIN ? 0 : rv;
		}
		return conn->phase == TLS_FAILED ? NNG_ECONNRESET : NNG_EAGAIN;
	}
	ERR_clear_error();
	int rv = flush_early(conn);
	if (rv != 0)
		return rv;
	size_t total = 0;
	int count = 1;
	while (total < *size && count > 0) {
		size_t left = *size - total;
		count =
		    SSL_write(conn->ssl, data + total, (int)(left < INT32_MAX ? left : INT32_MAX));
		total += count > 0 ? (size_t)count : 0;
	}
	if (total > 0) {
		*size = total;
		return 0;
	}
	if (would_block(conn, count))
		return NNG_EAGAIN;
	report(conn);
	conn->phase = TLS_FAILED;
	return NNG_ECONNRESET;
}

static bool conn_verified(nng_tls_engine_conn *conn)
{
	return conn->phase == TLS_OPEN && conn->identity != NULL;
}

static char *conn_peer_cn(nng_tls_engine_conn *conn)
{
	return conn->identity != NULL ? strdup(conn->identity->name) : NULL;
}

/* The identity's main name first, then all names. */
static char **conn_peer_alt_names(nng_tls_engine_conn *conn)
{
	const struct identity *id = conn->identity;
	atomic_store(&conn->member.is_pipe, true);
	char **names = id != NULL ? calloc(IDENTITY_NAMES + 2, sizeof(*names)) : NULL;
	if (names == NULL)
		return NULL;
	names[0] = strdup(id->name);
	for (unsigned i = 0; i < id->name_count && names[i] != NULL; i++)
		names[i + 1] = strdup(id->names[i]);
	return names;
}

static int config_init(nng_tls_engine_config *config, nng_tls_mode mode)
{
	(void)mode;
	config->context = NULL;
	return 0;
}

static void config_fini(nng_tls_engine_config *config)
{
	tls_context_free(config->context);
	config->context = NULL;
}

/* nng sets these two by itself; the context says better what holds. */
static int config_server(nng_tls_engine_config *config, const char *name)
{
	(void)config;
	(void)name;
	return 0;
}

static int config_auth(nng_tls_engine_config *config, nng_tls_auth_mode mode)
{
	(void)config;
	(void)mode;
	return 0;
}

static int config_ca_chain(nng_tls_engine_config *config, const char *certs, const char *crl)
{
	(void)config;
	(void)certs;
	(void)crl;
	return NNG_ENOTSUP;
}

static int config_own_cert(nng_tls_engine_config *config, const char *cert, const char *key,
			   const char *password)
{
	(void)config;
	(void)cert;
	(void)key;
	(void)password;
	return NNG_ENOTSUP;
}

static int config_psk(nng_tls_engine_config *config, const char *identity, const uint8_t *key,
		      size_t size)
{
	if (strcmp(identity, context_label) != 0 || size != sizeof(config->context) ||
	    config->context != NULL)
		return NNG_ENOTSUP;
	memcpy(&config->context, key, sizeof(config->context));
	tls_context_hold(config->context);
	return 0;
}

static int config_version(nng_tls_engine_config *config, nng_tls_version low, nng_tls_version high)
{
	(void)config;
	return low <= NNG_TLS_1_3 && high >= NNG_TLS_1_3 ? 0 : NNG_ENOTSUP;
}

/* A configuration with the context in it. */
static status *new_config(struct tls_context *context, nng_tls_mode mode,
			  nng_tls_config **ret_config)
{
	nng_tls_config *config = NULL;
	uint8_t key[sizeof(context)];
	memcpy(key, &context, sizeof(context));
	int rv = nng_tls_config_alloc(&config, mode);
	if (rv != 0)
		return nng_errorf(rv, "cannot make a TLS configuration");
	rv = nng_tls_config_psk(config, context_label, key, sizeof(key));
	if (rv != 0) {
		nng_tls_config_free(config);
		return nng_errorf(rv, "cannot make a TLS configuration (is rpc_start missing?)");
	}
	*ret_config = config;
	return NULL;
}

status *tls_context_apply_to_dialer(struct tls_context *context, nng_dialer dialer)
{
	nng_tls_config *config = NULL;
	status *st = new_config(context, NNG_TLS_MODE_CLIENT, &config);
	if (st != NULL)
		return st;
	int rv = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config);
	nng_tls_config_free(config);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot set up TLS");
}

status *tls_context_apply_to_listener(struct tls_context *context, nng_listener listener)
{
	nng_tls_config *config = NULL;
	status *st = new_config(context, NNG_TLS_MODE_SERVER, &config);
	if (st != NULL)
		return st;
	int rv = nng_listener_set_ptr(listener, NNG_OPT_TLS_CONFIG, config);
	nng_tls_config_free(config);
	return rv == 0 ? NULL : nng_errorf(rv, "cannot set up TLS");
}

bool tls_pipe_identity(nng_pipe pipe, struct identity *ret_identity)
{
	void *pointer = NULL;
	struct identity id = {.is_authenticated = true};
	if (nng_pipe_get_ptr(pipe, NNG_OPT_TLS_PEER_ALT_NAMES, &pointer) != 0 || pointer == NULL)
		return false;
	char **names = pointer;
	if (names[0] != NULL)
		(void)snprintf(id.name, sizeof(id.name), "%s", names[0]);
	for (size_t i = 1; names[0] != NULL && names[i] != NULL && i <= IDENTITY_NAMES; i++)
		(void)snprintf(id.names[id.name_count++], sizeof(id.names[0]), "%s", names[i]);
	for (size_t i = 0; names[i] != NULL; i++)
		free(names[i]);
	free(pointer);
	*ret_identity = id;
	return id.name[0] != '\0';
}

static nng_tls_engine_config_ops config_ops = {
    .size = sizeof(struct nng_tls_engine_config),
    .init = config_init,
    .fini = config_fini,
    .server = config_server,
    .auth = config_auth,
    .ca_chain = config_ca_chain,
    .own_cert = config_own_cert,
    .psk = config_psk,
    .version = config_version,
};

static nng_tls_engine_conn_ops conn_ops = {
    .size = sizeof(struct nng_tls_engine_conn),
    .init = conn_init,
    .fini = conn_fini,
    .close = conn_close,
    .handshake = conn_handshake,
    .recv = conn_recv,
    .send = conn_send,
    .verified = conn_verified,
    .peer_cn = conn_peer_cn,
    .peer_alt_names = conn_peer_alt_names,
};

static const nng_tls_engine engine = {
    .version = NNG_TLS_ENGINE_VERSION,
    .config_ops = &config_ops,
    .conn_ops = &conn_ops,
    .name = engine_name,
    .description = "OpenSSL, TLS 1.3 with certificates both ways",
};

status *tls_engine_register(void)
{
	/* Asking for the name initialises nng, which would otherwise put its own engine over ours.
	 */
	if (strcmp(nng_tls_engine_name(), engine_name) == 0)
		return NULL;
	int rv = nng_tls_engine_register(&engine);
	return rv == 0 ? NULL : nng_errorf(rv, "libnng refuses our TLS engine");
}
