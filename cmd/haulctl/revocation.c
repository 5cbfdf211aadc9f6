/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/revocation.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cmd/haulctl/certificates_internal.h"

enum { DAY_S = 24 * 60 * 60 };

DEFINE_SCOPE(crl, X509_CRL *, X509_CRL_free);
DEFINE_SCOPE(serial, ASN1_INTEGER *, ASN1_INTEGER_free);
DEFINE_SCOPE(time, ASN1_TIME *, ASN1_TIME_free);

static void serial_text(const ASN1_INTEGER *serial, char text[PKI_SERIAL])
{
	BIGNUM *number = ASN1_INTEGER_to_BN(serial, NULL);
	char *hex = number != NULL ? BN_bn2hex(number) : NULL;

	(void)snprintf(text, PKI_SERIAL, "%s", hex != NULL ? hex : "");
	OPENSSL_free(hex);
	BN_free(number);
}

/* The list that is there; NULL when none is. One that cannot be read must not be written over: it
 * is all that remembers what was revoked. */
static status *load_crl(const char *path, X509 *authority, X509_CRL **ret_crl)
{
	errno = 0;
	scoped(bio) BIO *file = BIO_new_file(path, "r");

	ERR_clear_error();
	if (file == NULL && errno == ENOENT)
		return NULL;
	if (file == NULL)
		return status_errnof(errno, "cannot read %s", path);
	scoped(crl) X509_CRL *crl = PEM_read_bio_X509_CRL(file, NULL, NULL, NULL);
	bool is_ours = crl != NULL && X509_CRL_verify(crl, X509_get0_pubkey(authority)) == 1;
	ERR_clear_error();
	if (!is_ours)
		return status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION,
				  "%s is not a revocation list of the authority beside it", path),
		    "next",
		    "put the right one in its place, or move it away: what it revokes is forgotten "
		    "then");
	*ret_crl = TAKE(crl);
	return NULL;
}

static bool is_on(X509_CRL *crl, const ASN1_INTEGER *serial)
{
	X509_REVOKED *entry = NULL;

	return crl != NULL && X509_CRL_get0_by_serial(crl, &entry, serial) == 1;
}

static status *parse_serial(const char *hex, ASN1_INTEGER **ret_serial)
{
	static const char digits[] = "0123456789abcdefABCDEF";
	size_t length = strlen(hex);
	BIGNUM *number = NULL;

	if (length == 0 || length >= PKI_SERIAL || strspn(hex, digits) != length ||
	    BN_hex2bn(&number, hex) == 0)
		return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
						    "\"%.80s\" is not a serial number", hex),
				      "next",
				      "write it in hexadecimal, as haulctl pki list shows it");
	*ret_serial = BN_to_ASN1_INTEGER(number, NULL);
	BN_free(number);
	return *ret_serial != NULL ? NULL : pki_openssl_error("cannot use the serial number");
}

static status *load_certificate(const char *path, X509 **ret_certificate)
{
	errno = 0;
	scoped(bio) BIO *file = BIO_new_file(path, "r");
	int failed = errno;

	if (file != NULL)
		*ret_certificate = PEM_read_bio_X509(file, NULL, NULL, NULL);
	ERR_clear_error();
	if (file == NULL)
		return status_errnof(failed != 0 ? failed : EIO, "cannot read %s", path);
	return *ret_certificate != NULL
		   ? NULL
		   : status_errorf(STATUS_INVALID_ARGUMENT, "%s is not a PEM certificate", path);
}

static status *find_serial(const struct pki_revocation *request, X509 *authority,
			   ASN1_INTEGER **ret_serial)
{
	scoped(x509) X509 *certificate = NULL;
	char path[PKI_PATH];

	if (strncmp(request->name, "serial:", strlen("serial:")) == 0)
		return parse_serial(request->name + strlen("serial:"), ret_serial);
	status *st = pki_check_name(request->name);
	if (st != NULL)
		return st;
	if (snprintf(path, sizeof(path), "%s/%s.pem", request->directory, request->name) >=
	    (int)sizeof(path))
		return status_errorf(STATUS_INVALID_ARGUMENT, "the path of %.80s… is too long",
				     request->directory);
	st = load_certificate(path, &certificate);
	if (st != NULL)
		return status_detailf(st, "next",
				      "without the file, revoke by number: haulctl pki revoke %s "
				      "serial:HEX (openssl x509 -serial shows it at the node)",
				      request->directory);
	if (X509_verify(certificate, X509_get0_pubkey(authority)) != 1) {
		ERR_clear_error();
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "%s was not issued by the authority beside it", path);
	}
	*ret_serial = ASN1_INTEGER_dup(X509_get0_serialNumber(certificate));
	return *ret_serial != NULL ? NULL : pki_openssl_error("cannot use the serial number");
}

static bool add_entry(X509_CRL *crl, const ASN1_INTEGER *serial, const ASN1_TIME *date)
{
	X509_REVOKED *entry = X509_REVOKED_new();

	if (entry != NULL && X509_REVOKED_set_serialNumber(entry, (ASN1_INTEGER *)serial) == 1 &&
	    X509_REVOKED_set_revocationDate(entry, (ASN1_TIME *)date) == 1 &&
	    X509_CRL_add0_revoked(crl, entry) == 1)
		return true;
	X509_REVOKED_free(entry);
	return false;
}

static bool add_entries(X509_CRL *crl, X509_CRL *before)
{
	const STACK_OF(X509_REVOKED) *entries =
	    before != NULL ? X509_CRL_get_REVOKED(before) : NULL;

	for (int i = 0; i < sk_X509_REVOKED_num(entries); i++) {
		const X509_REVOKED *entry = sk_X509_REVOKED_value(entries, i);
		if (!add_entry(crl, X509_REVOKED_get0_serialNumber(entry),
			       X509_REVOKED_get0_revocationDate(entry)))
			return false;
	}
	return true;
}

/* One more than the list before had, which says that it is newer. */
static bool add_number(X509_CRL *crl, X509_CRL *before)
{
	scoped(serial) ASN1_INTEGER *number =
	    before != NULL ? X509_CRL_get_ext_d2i(before, NID_crl_number, NULL, NULL) : NULL;
	BIGNUM *next = number != NULL ? ASN1_INTEGER_to_BN(number, NULL) : BN_new();
	bool is_added = next != NULL && BN_add_word(next, 1) == 1;

	ASN1_INTEGER_free(TAKE(number));
	number = is_added ? BN_to_ASN1_INTEGER(next, NULL) : NULL;
	BN_free(next);
	return number != NULL && X509_CRL_add1_ext_i2d(crl, NID_crl_number, number, 0, 0) == 1;
}

/* Tells authorities of the same name from each other. */
static bool add_authority(X509_CRL *crl, X509 *authority)
{
	X509V3_CTX context;

	X509V3_set_ctx_nodb(&context);
	X509V3_set_ctx(&context, authority, NULL, NULL, crl, 0);
	X509_EXTENSION *extension =
	    X509V3_EXT_conf_nid(NULL, &context, NID_authority_key_identifier, "keyid:always");
	bool is_added = extension != NULL && X509_CRL_add_ext(crl, extension, -1) == 1;
	X509_EXTENSION_free(extension);
	return is_added;
}

static status *make_crl(X509 *authority, X509_CRL *before, const ASN1_INTEGER *serial,
			uint32_t days, X509_CRL **ret_crl)
{
	scoped(crl) X509_CRL *crl = X509_CRL_new();
	scoped(time) ASN1_TIME *begin = X509_gmtime_adj(NULL, -PKI_EARLY_S);
	scoped(time) ASN1_TIME *now = X509_gmtime_adj(NULL, 0);
	scoped(time) ASN1_TIME *end = X509_gmtime_adj(NULL, (long)days * DAY_S);

	if (crl == NULL || begin == NULL || now == NULL || end == NULL ||
	    X509_CRL_set_version(crl, X509_CRL_VERSION_2) != 1 ||
	    X509_CRL_set_issuer_name(crl, X509_get_subject_name(authority)) != 1 ||
	    X509_CRL_set1_lastUpdate(crl, begin) != 1 || X509_CRL_set1_nextUpdate(crl, end) != 1 ||
	    !add_entries(crl, before) || (serial != NULL && !add_entry(crl, serial, now)) ||
	    X509_CRL_sort(crl) != 1 || !add_authority(crl, authority) || !add_number(crl, before))
		return pki_openssl_error("cannot make the revocation list");
	*ret_crl = TAKE(crl);
	return NULL;
}

/* Readers see the old list or the new one. */
static status *replace_crl(const char *path, X509_CRL *crl)
{
	scoped(bio) BIO *text = BIO_new(BIO_s_mem());
	char fresh[PKI_PATH + 8];

	(void)snprintf(fresh, sizeof(fresh), "%s.new", path);
	if (text == NULL || PEM_write_bio_X509_CRL(text, crl) != 1)
		return pki_openssl_error("cannot write the revocation list");
	status *st = pki_write_new(fresh, 0644, text);
	if (status_code_of(st) == STATUS_ALREADY_EXISTS)
		return status_detailf(st, "next",
				      "another haulctl is writing the list, or one has died: then "
				      "remove the file");
	if (st != NULL)
		return st;
	if (rename(fresh, path) == 0)
		return NULL;
	st = status_errnof(errno, "cannot put %s in place", path);
	(void)unlink(fresh);
	return st;
}

static status *crl_path(const char *directory, char path[PKI_PATH])
{
	if (snprintf(path, PKI_PATH, "%s/crl.pem", directory) < PKI_PATH)
		return NULL;
	return status_errorf(STATUS_INVALID_ARGUMENT, "the path of %.80s… is too long", directory);
}

status *pki_revoke(const struct pki_revocation *request, struct pki_revoked *ret_revoked)
{
	scoped(x509) X509 *authority = NULL;
	scoped(key) EVP_PKEY *key = NULL;
	scoped(crl) X509_CRL *before = NULL;
	scoped(crl) X509_CRL *crl = NULL;
	scoped(serial) ASN1_INTEGER *serial = NULL;
	struct pki_revoked revoked = {.serial = ""};
	status *st = crl_path(request->directory, revoked.crl);

	if (st == NULL && (request->days == 0 || request->days > PKI_CA_DAYS))
		st = status_errorf(STATUS_INVALID_ARGUMENT, "--days: 1 to %d", PKI_CA_DAYS);
	if (st == NULL)
		st = pki_load_authority(request->directory, &authority, &key);
	if (st == NULL)
		st = load_crl(revoked.crl, authority, &before);
	if (st == NULL && request->name != NULL)
		st = find_serial(request, authority, &serial);
	if (st != NULL)
		return st;
	if (serial != NULL)
		serial_text(serial, revoked.serial);
	if (serial != NULL && is_on(before, serial))
		return status_errorf(STATUS_ALREADY_EXISTS,
				     "the certificate with the serial number %s is revoked already",
				     revoked.serial);
	st = make_crl(authority, before, serial, request->days, &crl);
	if (st == NULL && X509_CRL_sign(crl, key, EVP_sha256()) == 0)
		st = pki_openssl_error("cannot sign the revocation list");
	if (st == NULL)
		st = replace_crl(revoked.crl, crl);
	if (st != NULL)
		return st;
	int count = sk_X509_REVOKED_num(X509_CRL_get_REVOKED(crl)); /* -1: there are none */
	revoked.count = count > 0 ? (unsigned)count : 0;
	*ret_revoked = revoked;
	return NULL;
}

static status *add_listed(struct pki_list *list, const struct pki_listed *entry)
{
	if (list->count == PKI_LISTED_MOST)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "there are more than %d certificates", PKI_LISTED_MOST);
	struct pki_listed *grown =
	    realloc(list->entries, (list->count + 1) * sizeof(*list->entries));
	if (grown == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for the list");
	list->entries = grown;
	list->entries[list->count++] = *entry;
	return NULL;
}

/* What is not a certificate of this authority is passed over: others may keep files there. */
static status *list_file(const char *directory, const char *file, X509 *authority, X509_CRL *crl,
			 struct pki_list *list)
{
	scoped(x509) X509 *certificate = NULL;
	struct pki_listed entry = {.name = ""};
	char path[PKI_PATH];
	size_t length = strlen(file);
	struct tm tm;

	if (length <= 4 || length - 4 > LIMIT_NAME || strcmp(file + length - 4, ".pem") != 0 ||
	    snprintf(path, sizeof(path), "%s/%s", directory, file) >= (int)sizeof(path))
		return NULL;
	scoped(status) status *unreadable = load_certificate(path, &certificate);
	bool is_issued = unreadable == NULL && X509_cmp(certificate, authority) != 0 &&
			 X509_verify(certificate, X509_get0_pubkey(authority)) == 1;
	ERR_clear_error();
	if (!is_issued)
		return NULL;
	memcpy(entry.name, file, length - 4);
	serial_text(X509_get0_serialNumber(certificate), entry.serial);
	if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &tm) == 1)
		entry.expire_unix_ms = (int64_t)timegm(&tm) * 1000;
	entry.is_revoked = is_on(crl, X509_get0_serialNumber(certificate));
	return add_listed(list, &entry);
}

static bool is_listed(const struct pki_list *list, const char *serial)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->entries[i].serial, serial) == 0)
			return true;
	return false;
}

static status *list_revoked(X509_CRL *crl, struct pki_list *list)
{
	const STACK_OF(X509_REVOKED) *entries = crl != NULL ? X509_CRL_get_REVOKED(crl) : NULL;
	status *st = NULL;

	for (int i = 0; i < sk_X509_REVOKED_num(entries) && st == NULL; i++) {
		struct pki_listed entry = {.is_revoked = true};
		serial_text(X509_REVOKED_get0_serialNumber(sk_X509_REVOKED_value(entries, i)),
			    entry.serial);
		if (!is_listed(list, entry.serial))
			st = add_listed(list, &entry);
	}
	return st;
}

status *pki_list(const char *directory, struct pki_list *ret_list)
{
	scoped(x509) X509 *authority = NULL;
	scoped(crl) X509_CRL *crl = NULL;
	scoped(pki_list) struct pki_list list = {0};
	char path[PKI_PATH];
	struct dirent **names = NULL;
	status *st = crl_path(directory, path);

	if (st == NULL)
		st = pki_load_authority(directory, &authority, NULL);
	if (st == NULL)
		st = load_crl(path, authority, &crl);
	if (st != NULL)
		return st;
	int count = scandir(directory, &names, NULL, alphasort);
	if (count < 0)
		return status_errnof(errno, "cannot read the directory %s", directory);
	for (int i = 0; i < count; i++) {
		if (st == NULL)
			st = list_file(directory, names[i]->d_name, authority, crl, &list);
		free(names[i]);
	}
	free(names);
	if (st == NULL)
		st = list_revoked(crl, &list);
	if (st == NULL) {
		*ret_list = list;
		list = (struct pki_list){0};
	}
	return st;
}

void pki_list_free(struct pki_list *list)
{
	free(list->entries);
	*list = (struct pki_list){0};
}
