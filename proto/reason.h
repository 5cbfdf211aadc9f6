/* SPDX-License-Identifier: Apache-2.0 */
/* What programs tell errors apart by, beside the code: a stable word for each cause, as gRPC's
 * ErrorInfo has it (domain "haul"). docs/errors.md says what each means; a word is never given to
 * another cause, nor taken away. Further details of an error have labels of their own:
 * "violation.KIND" (PreconditionFailure: everything that is in the way, not only the first),
 * "retry_after_ms" (RetryInfo) and "debug" (DebugInfo: the end of CRIU's log). */
#ifndef HAUL_PROTO_REASON_H
#define HAUL_PROTO_REASON_H

#include "proto/status.h"

#define REASON_DOMAIN "haul"
#define REASON_LABEL "reason"
#define RETRY_LABEL "retry_after_ms"
#define DEBUG_LABEL "debug"
#define VIOLATION_PREFIX "violation."

/* One list: enum, names and documentation cannot disagree. */
#define STATUS_REASONS(X)                                                                          \
	X(CALLER_UNAUTHENTICATED)                                                                  \
	X(METHOD_NOT_ALLOWED)                                                                      \
	X(SOURCE_NOT_ACCEPTED)                                                                     \
	X(DESTINATION_NOT_ALLOWED)                                                                 \
	X(TOO_MANY_CALLS)                                                                          \
	X(TOO_MANY_SESSIONS)                                                                       \
	X(TOO_MANY_STREAMS)                                                                        \
	X(ENGINE_STOPPING)                                                                         \
	X(METHOD_UNKNOWN)                                                                          \
	X(REQUEST_ID_REUSED)                                                                       \
	X(CERTIFICATE_REFUSED)                                                                     \
	X(CERTIFICATE_EXPIRED)                                                                     \
	X(CRL_EXPIRED)                                                                             \
	X(NOT_CONNECTED)                                                                           \
	X(MIGRATION_UNKNOWN)                                                                       \
	X(NOT_A_WORKLOAD)                                                                          \
	X(WORKLOAD_UNFIT)                                                                          \
	X(DESTINATION_UNFIT)                                                                       \
	X(PIDS_IN_USE)                                                                             \
	X(CRIU_FAILED)                                                                             \
	X(DESTINATION_LOST)                                                                        \
	X(DESTINATION_GAVE_UP)                                                                     \
	X(LEASE_EXPIRED)                                                                           \
	X(HOLD_EXPIRED)                                                                            \
	X(IN_DOUBT)                                                                                \
	X(RESOLVE_NEEDED)                                                                          \
	X(TOO_LATE_TO_CANCEL)                                                                      \
	X(NOT_IN_DOUBT)                                                                            \
	X(RISK_NOT_ACCEPTED)                                                                       \
	X(NOT_CONVERGING)                                                                          \
	X(POST_COPY_PAUSED)                                                                        \
	X(PAGES_LOST)

enum status_reason {
#define X(name) REASON_##name,
	STATUS_REASONS(X)
#undef X
};

/* Gives the error its reason, unless it has one: the innermost knows best. Takes and returns. */
must_check status *status_because(status *st, enum status_reason reason);

/* Says that the same call may succeed after this time, and was not carried out. Takes and returns.
 */
must_check status *status_retry_after(status *st, int64_t ms);

/* The reason's word, or NULL. */
const char *status_reason(const status *st);

const char *reason_name(enum status_reason reason);

#endif
