/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU's answers, as swrk reads them and as they become errors. */
#include "engine/criu/criu_error.h"
#include "proto/limits.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > LIMIT_CRIU_MESSAGE)
		return 0;
	CriuResp *response = criu_resp__unpack(NULL, size, data);
	scoped(status) status *st = criu_error("dump", response, "/nowhere", "dump.log");
	must(st != NULL && status_message(st)[0] != '\0');
	if (response != NULL)
		criu_resp__free_unpacked(response, NULL);
	return 0;
}
