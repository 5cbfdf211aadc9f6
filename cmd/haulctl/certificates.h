/* SPDX-License-Identifier: Apache-2.0 */
/* A small certificate authority in a directory: EC P-256 keys, X.509 v3. */
#ifndef HAUL_CMD_HAULCTL_CERTIFICATES_H
#define HAUL_CMD_HAULCTL_CERTIFICATES_H

#include <stdint.h>

#include "proto/limits.h"
#include "proto/status.h"

enum {
	PKI_PATH = 2048,
	PKI_NAME = 64,
	PKI_CA_DAYS = 3650,
	PKI_LEAF_DAYS = 365,
	/* What is made is valid before now: clocks differ, one that was set to local time by hours.
	 */
	PKI_EARLY_S = 24 * 3600,
};

/* What was made. */
struct pki_files {
	char certificate[PKI_PATH], key[PKI_PATH];
};

/* Makes ca.pem and ca.key (0600) in the directory, which is made 0700 if it is missing.
 * ALREADY_EXISTS rather than replacing either. */
must_check status *pki_init(const char *directory, struct pki_files *ret_files);

struct pki_request {
	const char *directory, *name;
	const char *const *sans; /* "DNS:x", "IP:y", "URI:z", beside the name itself */
	size_t san_count;
	uint32_t days;
};

/* Makes NAME.pem and NAME.key. INVALID_ARGUMENT for a name or SAN that is none,
 * FAILED_PRECONDITION when the authority's key does not fit or it ends before the certificate
 * would. */
must_check status *pki_issue(const struct pki_request *request, struct pki_files *ret_files);

#endif
