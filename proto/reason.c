/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/reason.h"

#include <inttypes.h>

const char *reason_name(enum status_reason reason)
{
	switch (reason) {
#define X(name)                                                                                    \
	case REASON_##name:                                                                        \
		return #name;
		STATUS_REASONS(X)
#undef X
	}
	return "";
}

const char *status_reason(const status *st)
{
	return status_detail_find(st, REASON_LABEL);
}

status *status_because(status *st, enum status_reason reason)
{
	if (status_reason(st) != NULL)
		return st;
	return status_detailf(st, REASON_LABEL, "%s", reason_name(reason));
}

status *status_retry_after(status *st, int64_t ms)
{
	return status_detailf(st, RETRY_LABEL, "%" PRId64, ms);
}
