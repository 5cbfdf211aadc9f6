/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/certificates_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { SERIAL_BYTES = 16 };

DEFINE_SCOPE(names, GENERAL_NAMES *, GENERAL_NAMES_free);

status *pki_openssl_error(const char *what)
{
	char text[256] = "no reason given";
	unsigned long code = ERR_get_error();

	if (code != 0)
		ERR_error_string_n(code, text, sizeof(text));
	ERR_clear_error();
	return status_errorf(STATUS_INTERNAL, "%s: OpenSSL says: %s", what, text);
}

static status *file_paths(const char *directory, const char *name, struct pki_files *ret_files)
{
	struct stat info;

	if (strlen(directory) + strlen(name) + 8 > PKI_PATH)
		return status_errorf(STATUS_INVALID_ARGUMENT, "the path of %.80s… is too long",
				     directory);
	(void)snprintf(ret_files->certificate, PKI_PATH, "%s/%s.pem", directory, name);
	(void)snprintf(ret_files->key, PKI_PATH, "%s/%s.key", directory, name);
	const char *const paths[] = {ret_files->certificate, ret_files->key};
	for (size_t i = 0; i < array_len(paths); i++)
		if (lstat(paths[i], &info) == 0)
			return status_detailf(
			    status_errorf(STATUS_ALREADY_EXISTS,
					  "%s is there already and is not replaced", paths[i]),
			    "next", "move it away first, if it is not needed any more");
	return NULL;
}

/* A new file or none at all. */
status *pki_write_new(const char *path, mode_t mode, BIO *content)
{
	char *data = NULL;
	long size = BIO_get_mem_data(content, &data);
	scoped(fd) int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	int failed = 0;

	if (fd < 0)
		return status_errnof(errno, "cannot make %s", path);
	for (long at = 0; at < size && failed == 0;) {
		ssize_t wrote = write(fd, data + at, (size_t)(size - at));
		if (wrote < 0 && errno != EINTR)
			failed = errno;
		at += wrote > 0 ? wrote : 0;
	}
	if (failed == 0 && fsync(fd) != 0)
		failed = errno;
	if (failed == 0)
		return NULL;
	(void)unlink(path);
	return status_errnof(failed, "cannot write %s", path);
}

static status *write_pair(const struct pki_files *files, X509 *certificate, EVP_PKEY *key)
{
	scoped(bio) BIO *secret = BIO_new(BIO_s_secmem());
	scoped(bio) BIO *open_text = BIO_new(BIO_s_mem());

	if (secret == NULL || open_text == NULL ||
	    PEM_write_bio_PrivateKey(secret, key, NULL, NULL, 0, NULL, NULL) != 1 ||
	    PEM_write_bio_X509(open_text, certificate) != 1)
		return pki_openssl_error("cannot write the certificate");
	status *st = pki_write_new(files->key, 0600, secret);
	if (st != NULL)
		return st;
	st = pki_write_new(files->certificate, 0644, open_text);
	if (st != NULL)
		(void)unlink(files->key);
	return st;
}

static bool set_serial(X509 *certificate)
{
	unsigned char bytes[SERIAL_BYTES];

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return false;
	bytes[0] &= 0x7f; /* positive */
	bytes[0] |= 0x40; /* and of constant length */
	BIGNUM *number = BN_bin2bn(bytes, sizeof(bytes), NULL);
	bool is_set = number != NULL &&
		      BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
	BN_free(number);
	return is_set;
}

static bool set_times(X509 *certificate, uint32_t days)
{
	return X509_time_adj_ex(X509_getm_notBefore(certificate), 0, -PKI_EARLY_S, NULL) != NULL &&
	       X509_time_adj_ex(X509_getm_notAfter(certificate), (int)days, 0, NULL) != NULL;
}

static bool set_subject(X509 *certificate, const char *name)
{
	X509_NAME *subject = X509_get_subject_name(certificate);

	return X509_NAME_add_entry_by_txt(subject, "O", MBSTRING_ASC, (const unsigned char *)"haul",
					  -1, -1, 0) == 1 &&
	       X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_UTF8, (const unsigned char *)name,
					  -1, -1, 0) == 1;
}

/* `value` is one of our own constants: names from outside never go through this parser. */
static bool add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX context;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
	X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
	bool is_added = extension != NULL && X509_add_ext(certificate, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return is_added;
}

struct extension {
	int nid;
	const char *value;
};

static bool add_extensions(X509 *certificate, X509 *issuer, const struct extension *extensions,
			   size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!add_extension(certificate, issuer, extensions[i].nid, extensions[i].value))
			return false;
	return true;
}

/* Everything but the extensions and the signature. */
static status *new_certificate(const char *name, uint32_t days, X509 **ret_certificate,
			       EVP_PKEY **ret_key)
{
	scoped(key) EVP_PKEY *key = EVP_EC_gen("P-256");
	scoped(x509) X509 *certificate = X509_new();

	if (key == NULL || certificate == NULL ||
	    X509_set_version(certificate, X509_VERSION_3) != 1 || !set_serial(certificate) ||
	    !set_times(certificate, days) || !set_subject(certificate, name) ||
	    X509_set_pubkey(certificate, key) != 1)
		return pki_openssl_error("cannot make a certificate");
	*ret_certificate = TAKE(certificate);
	*ret_key = TAKE(key);
	return NULL;
}

status *pki_init(const char *directory, struct pki_files *ret_files)
{
	static const struct extension extensions[] = {
	    {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
	    {NID_key_usage, "critical,keyCertSign,cRLSign"},
	    {NID_subject_key_identifier, "hash"},
	};
	scoped(x509) X509 *certificate = NULL;
	scoped(key) EVP_PKEY *key = NULL;
	struct pki_files files;

	if (mkdir(directory, 0700) != 0 && errno != EEXIST)
		return status_errnof(errno, "cannot make the directory %s", directory);
	status *st = file_paths(directory, "ca", &files);
	if (st == NULL)
		st = new_certificate("haul CA", PKI_CA_DAYS, &certificate, &key);
	if (st != NULL)
		return st;
	if (X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) != 1 ||
	    !add_extensions(certificate, certificate, extensions, array_len(extensions)) ||
	    X509_sign(certificate, key, EVP_sha256()) == 0)
		return pki_openssl_error("cannot sign the authority's certificate");
	st = write_pair(&files, certificate, key);
	if (st == NULL)
		*ret_files = files;
	return st;
}

static status *open_authority(const char *directory, const char *file, BIO **ret_file)
{
	char path[PKI_PATH];

	if (snprintf(path, sizeof(path), "%s/%s", directory, file) >= (int)sizeof(path))
		return status_errorf(STATUS_INVALID_ARGUMENT, "the path of %.80s… is too long",
				     directory);
	errno = 0;
	*ret_file = BIO_new_file(path, "r");
	if (*ret_file != NULL)
		return NULL;
	ERR_clear_error();
	return status_detailf(status_errnof(errno, "cannot read %s", path), "next",
			      "haulctl pki init %s makes an authority", directory);
}

status *pki_load_authority(const char *directory, X509 **ret_certificate, EVP_PKEY **ret_key)
{
	scoped(bio) BIO *open_text = NULL;
	scoped(bio) BIO *secret = NULL;
	scoped(x509) X509 *certificate = NULL;
	scoped(key) EVP_PKEY *key = NULL;
	status *st = open_authority(directory, "ca.pem", &open_text);

	if (st == NULL && ret_key != NULL)
		st = open_authority(directory, "ca.key", &secret);
	if (st != NULL)
		return st;
	certificate = PEM_read_bio_X509(open_text, NULL, NULL, NULL);
	key = secret != NULL ? PEM_read_bio_PrivateKey(secret, NULL, NULL, NULL) : NULL;
	bool is_readable = certificate != NULL && (key != NULL || ret_key == NULL);
	bool is_pair =
	    is_readable && (ret_key == NULL || X509_check_private_key(certificate, key) == 1);
	ERR_clear_error();
	if (!is_readable)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "ca.pem or ca.key in %s is not readable as PEM", directory);
	if (!is_pair)
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "ca.key does not belong to ca.pem in %s", directory);
	*ret_certificate = TAKE(certificate);
	if (ret_key != NULL)
		*ret_key = TAKE(key);
	return NULL;
}

status *pki_check_name(const char *name)
{
	static const char letters[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
	size_t length = strlen(name);

	if (length == 0 || length > PKI_NAME || strspn(name, letters) != length || name[0] == '.' ||
	    name[0] == '-' || strcmp(name, "ca") == 0 || strcmp(name, "crl") == 0)
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "\"%.80s\" is not a name for a certificate: 1 to %d letters, digits, dots, "
		    "dashes; not \"ca\" or \"crl\"",
		    name, PKI_NAME);
	return NULL;
}

static status *bad_san(const char *san)
{
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "--san: \"%.200s\" is none of DNS:host, IP:address, URI:scheme:…",
			     san);
}

/* A printable name without what would confuse a reader. */
static bool is_plain_name(const char *name)
{
	size_t length = strlen(name);

	for (size_t i = 0; i < length; i++)
		if ((unsigned char)name[i] <= ' ' || (unsigned char)name[i] >= 0x7f ||
		    name[i] == ',')
			return false;
	return length > 0 && length <= LIMIT_NAME;
}

static status *add_name(GENERAL_NAMES *names, const char *san)
{
	const char *value = strchr(san, ':');
	int type = strncmp(san, "DNS:", 4) == 0	  ? GEN_DNS
		   : strncmp(san, "URI:", 4) == 0 ? GEN_URI
		   : strncmp(san, "IP:", 3) == 0  ? GEN_IPADD
						  : -1;

	if (type < 0 || !is_plain_name(value + 1) ||
	    (type == GEN_URI && strchr(value + 1, ':') == NULL))
		return bad_san(san);
	GENERAL_NAME *name = GENERAL_NAME_new();
	ASN1_STRING *text = type == GEN_IPADD ? a2i_IPADDRESS(value + 1) : ASN1_IA5STRING_new();
	if (name == NULL || text == NULL ||
	    (type != GEN_IPADD && ASN1_STRING_set(text, value + 1, -1) != 1)) {
		GENERAL_NAME_free(name);
		ASN1_STRING_free(text);
		ERR_clear_error();
		return bad_san(san);
	}
	GENERAL_NAME_set0_value(name, type, text);
	if (sk_GENERAL_NAME_push(names, name) == 0) {
		GENERAL_NAME_free(name);
		return pki_openssl_error("cannot add a name");
	}
	return NULL;
}

static status *add_names(X509 *certificate, const struct pki_request *request)
{
	scoped(names) GENERAL_NAMES *names = GENERAL_NAMES_new();
	char own[PKI_NAME + 8];
	status *st = NULL;

	if (names == NULL)
		return pki_openssl_error("cannot add names");
	/* Always first: it is what policies, logs and peers know the node by. */
	ASN1_OCTET_STRING *address = a2i_IPADDRESS(request->name);
	ERR_clear_error();
	(void)snprintf(own, sizeof(own), "%s:%s", address != NULL ? "IP" : "DNS", request->name);
	ASN1_OCTET_STRING_free(address);
	st = add_name(names, own);
	for (size_t i = 0; st == NULL && i < request->san_count; i++)
		st = add_name(names, request->sans[i]);
	if (st == NULL &&
	    X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT) != 1)
		st = pki_openssl_error("cannot add names");
	return st;
}

static status *check_days(const struct pki_request *request, const X509 *authority,
			  const X509 *certificate)
{
	if (ASN1_TIME_compare(X509_get0_notAfter(certificate), X509_get0_notAfter(authority)) <= 0)
		return NULL;
	return status_errorf(
	    STATUS_FAILED_PRECONDITION,
	    "the authority in %s ends before %u days are over: choose fewer --days, or make "
	    "a new authority",
	    request->directory, request->days);
}

status *pki_issue(const struct pki_request *request, struct pki_files *ret_files)
{
	static const struct extension extensions[] = {
	    {NID_basic_constraints, "critical,CA:FALSE"},
	    {NID_key_usage, "critical,digitalSignature"},
	    {NID_ext_key_usage, "serverAuth,clientAuth"},
	    {NID_subject_key_identifier, "hash"},
	    {NID_authority_key_identifier, "keyid:always"},
	};
	scoped(x509) X509 *authority = NULL;
	scoped(key) EVP_PKEY *authority_key = NULL;
	scoped(x509) X509 *certificate = NULL;
	scoped(key) EVP_PKEY *key = NULL;
	struct pki_files files;
	status *st = pki_check_name(request->name);

	if (st == NULL && (request->days == 0 || request->days > PKI_CA_DAYS))
		st = status_errorf(STATUS_INVALID_ARGUMENT, "--days: 1 to %d", PKI_CA_DAYS);
	if (st == NULL)
		st = file_paths(request->directory, request->name, &files);
	if (st == NULL)
		st = pki_load_authority(request->directory, &authority, &authority_key);
	if (st == NULL)
		st = new_certificate(request->name, request->days, &certificate, &key);
	if (st == NULL)
		st = check_days(request, authority, certificate);
	if (st == NULL)
		st = add_names(certificate, request);
	if (st != NULL)
		return st;
	if (X509_set_issuer_name(certificate, X509_get_subject_name(authority)) != 1 ||
	    !add_extensions(certificate, authority, extensions, array_len(extensions)) ||
	    X509_sign(certificate, authority_key, EVP_sha256()) == 0)
		return pki_openssl_error("cannot sign the certificate");
	st = write_pair(&files, certificate, key);
	if (st == NULL)
		*ret_files = files;
	return st;
}
