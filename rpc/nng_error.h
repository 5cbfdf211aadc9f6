/* SPDX-License-Identifier: Apache-2.0 */
/* nng's error numbers as statuses, and its kind of timeout. */
#ifndef HAUL_RPC_NNG_ERROR_H
#define HAUL_RPC_NNG_ERROR_H

#include "proto/status.h"

/* From an nng error number: its code by meaning and nng's text at the sentence's end. */
must_check __attribute__((returns_nonnull)) status *nng_errorf(int rv, const char *fmt, ...)
    format_like(2, 3);

/* What is left until `deadline_ms`, for nng: at least 0, at most a day. */
int32_t left_ms(int64_t deadline_ms);

#endif
