/* SPDX-License-Identifier: Apache-2.0 */
/* Which identity may call which method. */
#ifndef HAUL_RPC_POLICY_H
#define HAUL_RPC_POLICY_H

#include "proto/status.h"
#include "rpc/identity.h"

struct policy;

/* From JSON text: {"rules": [{"identities": ["a", "*.example.org"], "methods":
 * ["/haul.v1.Peer/Commit", …]}], "insecure": bool}. Unknown members are refused. NULL text = the
 * default policy: the local socket may call everything; authenticated identities that our CA signed
 * may call haul.v1.Peer (be a migration partner), haul.v1.Node/Info, haul.v1.Reflection and
 * grpc.health.v1.Health/Check. */
must_check status *policy_parse(const char *json, struct policy **ret_policy);
void policy_free(struct policy *policy);

/* NULL, UNAUTHENTICATED (no proven identity) or PERMISSION_DENIED naming identity and method. */
must_check status *policy_check(const struct policy *policy, const struct identity *caller,
				const char *method);

DEFINE_SCOPE(policy, struct policy *, policy_free);

#endif
