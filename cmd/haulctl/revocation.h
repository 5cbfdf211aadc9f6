/* SPDX-License-Identifier: Apache-2.0 */
/* What an authority in a directory has issued, and what it has taken back: crl.pem. */
#ifndef HAUL_CMD_HAULCTL_REVOCATION_H
#define HAUL_CMD_HAULCTL_REVOCATION_H

#include "cmd/haulctl/certificates.h"

enum { PKI_SERIAL = 48, PKI_CRL_DAYS = 365, PKI_LISTED_MOST = 4096 };

struct pki_revocation {
	const char *directory;
	/* Of NAME.pem there, or "serial:HEX" when the file is lost; NULL: revoke nothing, only
	 * write the list anew. */
	const char *name;
	uint32_t days; /* until the list ends */
};

struct pki_revoked {
	char crl[PKI_PATH];
	char serial[PKI_SERIAL]; /* hexadecimal; "" when nothing was revoked */
	unsigned count;		 /* on the list */
};

/* Writes crl.pem, with all that was on it. NOT_FOUND, ALREADY_EXISTS (it is on the list),
 * FAILED_PRECONDITION for a list or a certificate that this authority did not sign. */
must_check status *pki_revoke(const struct pki_revocation *request,
			      struct pki_revoked *ret_revoked);

struct pki_listed {
	char name[LIMIT_NAME + 1]; /* the file's stem; "" for one that only the list knows */
	char serial[PKI_SERIAL];
	int64_t expire_unix_ms; /* 0: not known */
	bool is_revoked;
};

struct pki_list {
	struct pki_listed *entries;
	size_t count;
};

/* The authority's certificates in its directory by name, and what else is on its list. */
must_check status *pki_list(const char *directory, struct pki_list *ret_list);
void pki_list_free(struct pki_list *list);

static inline void scope_pki_list(struct pki_list *value)
{
	pki_list_free(value);
}

#endif
