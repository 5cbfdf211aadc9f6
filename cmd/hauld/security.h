/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates, revocation lists and policy: read at start, and again when SIGHUP says so. */
#ifndef HAUL_CMD_HAULD_SECURITY_H
#define HAUL_CMD_HAULD_SECURITY_H

#include "cmd/hauld/config.h"
#include "rpc/endpoint.h"
#include "rpc/policy.h"

struct security {
	const struct config *config;	 /* borrowed */
	struct credentials *credentials; /* NULL without certificates */
	struct policy *policy;
};

must_check status *security_load(const struct config *config, struct security *ret_security);

/* Reads the files anew. All of it is put in force, or nothing is: an error leaves what was. */
must_check status *security_reload(struct security *security);

/* Logs what will end soon, or has ended. To be called at start, after a reload, and daily. */
void security_warn(const struct security *security);

void security_free(struct security *security);

enum { NOTICE_TEXT = 512 };

/* What is to be logged of something that ends at this time, from `ahead_days` before on. False:
 * nothing. */
bool security_notice(const char *what, int64_t ends_unix_ms, int64_t now_unix_ms, int ahead_days,
		     char ret_text[NOTICE_TEXT]);

static inline void scope_security(struct security *value)
{
	security_free(value);
}

#endif
