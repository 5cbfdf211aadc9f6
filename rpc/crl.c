/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/crl.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

#include "proto/limits.h"
#include "proto/reason.h"

struct crl_set {
	STACK_OF(X509_CRL) * lists;
	int64_t expire_unix_ms;
};

DEFINE_SCOPE(crl_set, struct crl_set *, crl_set_free);
DEFINE_SCOPE(bio, BIO *, BIO_free_all);

int64_t asn1_unix_ms(const ASN1_TIME *time)
{
	struct tm tm;
	if (ASN1_TIME_to_tm(time, &tm) != 1)
		return 0;
	return (int64_t)timegm(&tm) * 1000;
}

void crl_set_free(struct crl_set *crls)
{
	if (crls == NULL)
		return;
	sk_X509_CRL_pop_free(crls->lists, X509_CRL_free);
	free(crls);
}

/* All lists of the file. One that cannot be parsed is an error: it may be the one that counts. */
static status *read_lists(const char *path, struct crl_set *crls)
{
	errno = 0;
	scoped(bio) BIO *file = BIO_new_file(path, "r");
	if (file == NULL) {
		ERR_clear_error();
		return status_errnof(errno != 0 ? errno : EIO, "cannot read the revocation list %s",
				     path);
	}
	for (;;) {
		X509_CRL *list = PEM_read_bio_X509_CRL(file, NULL, NULL, NULL);
		if (list == NULL)
			break;
		if (sk_X509_CRL_num(crls->lists) == LIMIT_CRLS ||
		    sk_X509_CRL_push(crls->lists, list) == 0) {
			X509_CRL_free(list);
			return status_errorf(STATUS_RESOURCE_EXHAUSTED,
					     "%s has more than %d revocation lists", path,
					     LIMIT_CRLS);
		}
	}
	bool is_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
	ERR_clear_error();
	if (is_end && sk_X509_CRL_num(crls->lists) > 0)
		return NULL;
	return status_detailf(status_errorf(STATUS_INVALID_ARGUMENT,
					    "%s is not a PEM file of revocation lists (CRL)", path),
			      "next", "haulctl pki crl writes one that revokes nothing yet");
}

static bool is_of(X509_CRL *list, X509 *authority)
{
	bool is_same =
	    X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_subject_name(authority)) == 0 &&
	    X509_CRL_verify(list, X509_get0_pubkey(authority)) == 1;
	ERR_clear_error();
	return is_same;
}

static status *check_time(const X509_CRL *list, const char *path)
{
	const ASN1_TIME *ends = X509_CRL_get0_nextUpdate(list);
	if (X509_cmp_current_time(X509_CRL_get0_lastUpdate(list)) > 0)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "a revocation list in %s is not valid yet; check this machine's clock", path);
	if (ends == NULL || X509_cmp_current_time(ends) > 0)
		return NULL;
	return status_because(
	    status_detailf(
		status_errorf(STATUS_FAILED_PRECONDITION,
			      "a revocation list in %s has ended: what was revoked since is not "
			      "in it",
			      path),
		"next", "fetch a new one from the authority (haulctl pki crl writes one)"),
	    REASON_CRL_EXPIRED);
}

/* The authority's list that lasts longest is the one that counts. */
static X509_CRL *list_of(const struct crl_set *crls, X509 *authority)
{
	X509_CRL *last = NULL;
	for (int i = 0; i < sk_X509_CRL_num(crls->lists); i++) {
		X509_CRL *list = sk_X509_CRL_value(crls->lists, i);
		const ASN1_TIME *ends = X509_CRL_get0_nextUpdate(list);
		if (!is_of(list, authority))
			continue;
		if (last == NULL || ends == NULL ||
		    (X509_CRL_get0_nextUpdate(last) != NULL &&
		     ASN1_TIME_compare(ends, X509_CRL_get0_nextUpdate(last)) > 0))
			last = list;
	}
	return last;
}

static status *check_authority(struct crl_set *crls, X509 *authority, const char *path)
{
	char subject[256];
	const X509_CRL *list = list_of(crls, authority);
	if (list == NULL) {
		(void)X509_NAME_oneline(X509_get_subject_name(authority), subject, sizeof(subject));
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "%s has no revocation list that the authority %s signed: nobody whose "
		    "certificate comes from there could be let in",
		    path, subject);
	}
	status *st = check_time(list, path);
	const ASN1_TIME *ends = X509_CRL_get0_nextUpdate(list);
	int64_t at = ends != NULL ? asn1_unix_ms(ends) : 0;
	if (at != 0 && (crls->expire_unix_ms == 0 || at < crls->expire_unix_ms))
		crls->expire_unix_ms = at;
	return st;
}

status *crl_set_load(const char *path, X509_STORE *store, struct crl_set **ret_crls)
{
	scoped(crl_set) struct crl_set *crls = calloc(1, sizeof(*crls));
	if (crls == NULL || (crls->lists = sk_X509_CRL_new_null()) == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for revocation lists");
	ERR_clear_error();
	status *st = read_lists(path, crls);
	if (st != NULL)
		return st;
	STACK_OF(X509) *authorities = X509_STORE_get1_all_certs(store);
	for (int i = 0; i < sk_X509_num(authorities) && st == NULL; i++)
		st = check_authority(crls, sk_X509_value(authorities, i), path);
	sk_X509_pop_free(authorities, X509_free);
	if (st == NULL)
		*ret_crls = TAKE(crls);
	return st;
}

status *crl_set_apply(const struct crl_set *crls, X509_STORE *store)
{
	for (int i = 0; i < sk_X509_CRL_num(crls->lists); i++)
		if (X509_STORE_add_crl(store, sk_X509_CRL_value(crls->lists, i)) != 1) {
			ERR_clear_error();
			return status_errorf(STATUS_RESOURCE_EXHAUSTED,
					     "no memory for revocation lists");
		}
	(void)X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
	return NULL;
}

int64_t crl_set_expire_unix_ms(const struct crl_set *crls)
{
	return crls->expire_unix_ms;
}
