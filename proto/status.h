/* SPDX-License-Identifier: Apache-2.0 */
/* The one error type. NULL means OK; anything else is an owned object with a gRPC status code, a
 * sentence, and details. Codes are gRPC's (https://grpc.io/docs/guides/status-codes/). */
#ifndef HAUL_PROTO_STATUS_H
#define HAUL_PROTO_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/defs.h"

/* One list: enum, names and wire numbers cannot disagree. */
#define STATUS_CODES(X)                                                                            \
	X(OK, 0)                                                                                   \
	X(CANCELLED, 1)                                                                            \
	X(UNKNOWN, 2)                                                                              \
	X(INVALID_ARGUMENT, 3)                                                                     \
	X(DEADLINE_EXCEEDED, 4)                                                                    \
	X(NOT_FOUND, 5)                                                                            \
	X(ALREADY_EXISTS, 6)                                                                       \
	X(PERMISSION_DENIED, 7)                                                                    \
	X(RESOURCE_EXHAUSTED, 8)                                                                   \
	X(FAILED_PRECONDITION, 9)                                                                  \
	X(ABORTED, 10)                                                                             \
	X(OUT_OF_RANGE, 11)                                                                        \
	X(UNIMPLEMENTED, 12)                                                                       \
	X(INTERNAL, 13)                                                                            \
	X(UNAVAILABLE, 14)                                                                         \
	X(DATA_LOSS, 15)                                                                           \
	X(UNAUTHENTICATED, 16)

enum status_code {
#define X(name, value) STATUS_##name = (value),
	STATUS_CODES(X)
#undef X
};

typedef struct status status;

/* A detail is a labelled text: "criu" (CRIU's own log line), "cause" (what lay underneath),
 * "state" (where the workload is now), "next" (what the user can do). */
struct status_detail {
	const char *label;
	const char *text;
};

/* New status with a formatted sentence. Never fails: without memory it is a static
 * RESOURCE_EXHAUSTED. `code` must not be STATUS_OK. */
must_check __attribute__((returns_nonnull)) status *status_errorf(enum status_code code,
								  const char *fmt, ...)
    format_like(2, 3);
must_check __attribute__((returns_nonnull)) status *status_verrorf(enum status_code code,
								   const char *fmt, va_list args)
    format_like(2, 0);

/* From an errno: its code by meaning (ENOENT is NOT_FOUND …) and strerror at the sentence's end. */
must_check __attribute__((returns_nonnull)) status *status_errnof(int err, const char *fmt, ...)
    format_like(2, 3);

/* Puts context before the sentence of `cause` ("outer: inner"), keeps its code; takes `cause`. */
must_check status *status_wrapf(status *cause, const char *fmt, ...) format_like(2, 3);

/* Same object with another code; takes `st`. */
must_check status *status_recode(status *st, enum status_code code);

/* Adds a detail (texts are copied; at most LIMIT_STATUS_DETAILS are kept, each cut at 4096 bytes);
 * takes and returns `st`. */
must_check status *status_detailf(status *st, const char *label, const char *fmt, ...)
    format_like(3, 4);

must_check status *status_copy(const status *st);

/* Returns the first of the two, freeing the second; for "keep the cause, drop the aftermath". */
must_check status *status_first(status *first, status *second);

void status_free(status *st);

/* All four accept NULL (OK). Texts belong to the status. */
enum status_code status_code_of(const status *st);
const char *status_message(const status *st);
size_t status_detail_count(const status *st);
struct status_detail status_detail_at(const status *st, size_t index);

/* The detail's text with that label, or NULL. */
const char *status_detail_find(const status *st, const char *label);

const char *status_code_name(enum status_code code);

/* Any number from the wire; what is not a code is STATUS_UNKNOWN. */
enum status_code status_code_from_wire(uint32_t number);

DEFINE_SCOPE(status, status *, status_free);

#endif
