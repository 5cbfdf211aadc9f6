/* SPDX-License-Identifier: Apache-2.0 */
/* An address as a user or a peer may write it. */
#include "rpc/endpoint.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct endpoint endpoint, again;
	char *text = fuzz_text(data, size);
	scoped(status) status *st = endpoint_parse(text, &endpoint);

	free(text);
	must(st == NULL || status_code_of(st) == STATUS_INVALID_ARGUMENT);
	if (st != NULL)
		return 0;
	must(endpoint.host[0] != '\0' && strlen(endpoint.url) <= LIMIT_URL);
	/* What was accepted is accepted as it was written down. */
	scoped(status) status *same = endpoint_parse(endpoint.url, &again);
	must(same == NULL && strcmp(again.host, endpoint.host) == 0 && again.port == endpoint.port);
	return 0;
}
