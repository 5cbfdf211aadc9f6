/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/shared/duration.h"

#include <errno.h>
#include <string.h>

struct unit {
	const char *name;
	int64_t ms;
};

static const struct unit units[] = {{"ms", 1}, {"s", 1000}, {"m", 60 * 1000}, {"h", 3600 * 1000}};

status *duration_parse(const char *text, int64_t *ret_ms)
{
	char *end = NULL;

	if (strcmp(text, "0") == 0) {
		*ret_ms = 0;
		return NULL;
	}
	if (text[0] >= '0' && text[0] <= '9') {
		errno = 0;
		long long number = strtoll(text, &end, 10);
		for (size_t i = 0; errno == 0 && i < array_len(units); i++) {
			if (strcmp(end, units[i].name) != 0)
				continue;
			if (number > INT32_MAX / units[i].ms)
				return status_errorf(
				    STATUS_OUT_OF_RANGE,
				    "the duration \"%.40s\" is longer than 24 days", text);
			*ret_ms = number * units[i].ms;
			return NULL;
		}
	}
	return status_errorf(
	    STATUS_INVALID_ARGUMENT,
	    "\"%.40s\" is not a duration: write a whole number and its unit, for example "
	    "300ms, 10s, 5m or 2h",
	    text);
}
