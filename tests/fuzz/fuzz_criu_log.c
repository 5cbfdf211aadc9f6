/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU's log and its stats file. */
#include "engine/criu/criu_error.h"
#include "engine/criu/stats.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t length = SIZE_MAX;
	double ms = -1;
	/* No NUL behind it: a read beyond the end is seen. */
	char *log = malloc(size > 0 ? size : 1);

	must(log != NULL);
	if (size > 0)
		memcpy(log, data, size);
	const char *cause = criu_error_cause(log, size, &length);
	must(length <= size);
	must(length == 0 ||
	     (cause >= log && cause + length <= log + size && memchr(cause, '\n', length) == NULL));
	criu_stats_decode((const uint8_t *)log, size, &ms);
	must(ms >= 0 || ms < -0.5);
	free(log);
	return 0;
}
