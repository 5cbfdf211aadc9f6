/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/shared/rate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *name;
	uint64_t bytes;
};

static const struct unit units[] = {{"kbit", 125},	  {"mbit", 125000},
				    {"gbit", 125000000},  {"KiB", 1024},
				    {"MiB", 1024 * 1024}, {"GiB", 1024 * 1024 * 1024}};

status *rate_parse(const char *text, uint64_t *ret_bytes_per_s)
{
	char *end = NULL;

	if (strcmp(text, "none") == 0) {
		*ret_bytes_per_s = 0;
		return NULL;
	}
	errno = 0;
	unsigned long long number = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &end, 10) : 0;
	for (size_t i = 0; number > 0 && i < array_len(units); i++) {
		if (strcmp(end, units[i].name) != 0)
			continue;
		if (errno != 0 || number > INT64_MAX / units[i].bytes)
			return status_errorf(STATUS_OUT_OF_RANGE, "the rate \"%.40s\" is too high",
					     text);
		*ret_bytes_per_s = number * units[i].bytes;
		return NULL;
	}
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "\"%.40s\" is not a rate: write a whole number and its unit a second, "
			     "for example 800mbit or 50MiB, or none",
			     text);
}
