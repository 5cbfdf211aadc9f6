/* SPDX-License-Identifier: Apache-2.0 */
/* Which identity may call which method, which nodes may be partners, and how much each may have.
 * Thread-safe: the rules may be replaced while calls are checked. */
#ifndef HAUL_RPC_POLICY_H
#define HAUL_RPC_POLICY_H

#include "proto/status.h"
#include "rpc/identity.h"

struct policy;

/* From JSON text, all members optional:
 *
 *   {"roles": {"deployer": ["/haul.v1.Migrations/Start", …]},
 *    "rules": [{"identities": ["a", "*.example.org"], "roles": ["partner"], "methods": ["/…"]}],
 *    "migrate-to": ["*.example.org"], "accept-from": ["*.example.org"],
 *    "limits": [{"identities": ["*"], "calls": 8, "sessions": 4, "streams": 4}],
 *    "insecure": false}
 *
 * The roles partner, viewer and operator are there already. Unknown members are refused. NULL text,
 * or no "rules" = the default rule: authenticated identities that our CA signed are partners. The
 * local socket may always call everything. */
must_check status *policy_parse(const char *json, struct policy **ret_policy);
void policy_free(struct policy *policy);

/* Puts the rules of `by` in force in the place of what was, and frees it. */
void policy_replace(struct policy *policy, struct policy *by);

/* NULL, UNAUTHENTICATED (no proven identity) or PERMISSION_DENIED naming identity and method. A
 * Prepare is also asked for "accept-from"; the calls that follow it are not, so that what has begun
 * comes to its end. */
must_check status *policy_check(struct policy *policy, const struct identity *caller,
				const char *method);

/* May workloads leave for this host, as the URL names it? TLS proves that it is the one. NULL or
 * PERMISSION_DENIED. */
must_check status *policy_check_destination(struct policy *policy, const char *host);

/* 0: as much as the engine has. */
struct policy_limits {
	unsigned calls;	   /* open at a time, of a listener */
	unsigned sessions; /* migrations coming in */
	unsigned streams;  /* Watch */
};

/* Of the first entry that names the caller; none for the local socket. */
struct policy_limits policy_limits_of(struct policy *policy, const struct identity *caller);

DEFINE_SCOPE(policy, struct policy *, policy_free);

#endif
