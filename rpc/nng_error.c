/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/nng_error.h"

#include "proto/clock.h"

#include <nng/nng.h>
#include <stdio.h>
#include <time.h>

/* clang-format off */
static const struct {
	int rv;
	enum status_code code;
} nng_codes[] = {
	{NNG_EINTR,        STATUS_UNAVAILABLE},
	{NNG_ENOMEM,       STATUS_RESOURCE_EXHAUSTED},
	{NNG_EINVAL,       STATUS_INVALID_ARGUMENT},
	{NNG_EBUSY,        STATUS_FAILED_PRECONDITION},
	{NNG_ETIMEDOUT,    STATUS_DEADLINE_EXCEEDED},
	{NNG_ECONNREFUSED, STATUS_UNAVAILABLE},
	{NNG_ECLOSED,      STATUS_UNAVAILABLE},
	{NNG_EAGAIN,       STATUS_UNAVAILABLE},
	{NNG_ENOTSUP,      STATUS_UNIMPLEMENTED},
	{NNG_EADDRINUSE,   STATUS_ALREADY_EXISTS},
	{NNG_ESTATE,       STATUS_FAILED_PRECONDITION},
	{NNG_ENOENT,       STATUS_NOT_FOUND},
	{NNG_EPROTO,       STATUS_UNAVAILABLE},
	{NNG_EUNREACHABLE, STATUS_UNAVAILABLE},
	{NNG_EADDRINVAL,   STATUS_INVALID_ARGUMENT},
	{NNG_EPERM,        STATUS_PERMISSION_DENIED},
	{NNG_EMSGSIZE,     STATUS_RESOURCE_EXHAUSTED},
	{NNG_ECONNABORTED, STATUS_UNAVAILABLE},
	{NNG_ECONNRESET,   STATUS_UNAVAILABLE},
	{NNG_ECONNSHUT,    STATUS_UNAVAILABLE},
	{NNG_ECANCELED,    STATUS_CANCELLED},
	{NNG_ENOFILES,     STATUS_RESOURCE_EXHAUSTED},
	{NNG_ENOSPC,       STATUS_RESOURCE_EXHAUSTED},
	{NNG_EEXIST,       STATUS_ALREADY_EXISTS},
	{NNG_ECRYPTO,      STATUS_UNAUTHENTICATED},
	{NNG_EPEERAUTH,    STATUS_UNAUTHENTICATED},
};
/* clang-format on */

static enum status_code code_of(int rv)
{
	for (size_t i = 0; i < array_len(nng_codes); i++)
		if (nng_codes[i].rv == rv)
			return nng_codes[i].code;
	return STATUS_UNKNOWN;
}

status *nng_errorf(int rv, const char *fmt, ...)
{
	char text[1024];
	va_list args;
	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return status_errorf(code_of(rv), "%s: %s", text, nng_strerror(rv));
}

int32_t left_ms(int64_t deadline_ms)
{
	const int64_t day = 24 * 3600 * 1000;
	int64_t left = deadline_ms - clock_monotonic_ms();
	if (left < 0)
		return 0;
	return (int32_t)(left < day ? left : day);
}
