/* SPDX-License-Identifier: Apache-2.0 */
/* The audit trail: one log line for each call that changes something, and for whoever was refused.
 */
#ifndef HAUL_CMD_HAULD_AUDIT_H
#define HAUL_CMD_HAULD_AUDIT_H

#include "rpc/server.h"

/* To be observed by. */
extern const struct rpc_observer audit_observer;

/* Does the method (as "/haul.v1.Peer/Commit") change something? What is not known is taken to. */
bool audit_is_mutating(const char *method);

#endif
