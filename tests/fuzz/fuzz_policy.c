/* SPDX-License-Identifier: Apache-2.0 */
/* A policy file. */
#include "rpc/policy.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	scoped(policy) struct policy *policy = NULL;
	char *text = fuzz_text(data, size);
	scoped(status) status *st = policy_parse(text, &policy);

	free(text);
	must((st == NULL) == (policy != NULL));
	if (policy == NULL)
		return 0;
	struct identity nobody;
	memset(&nobody, 0, sizeof(nobody));
	struct identity somebody = {.is_authenticated = true, .name = "a.example.org"};
	status_free(policy_check(policy, &nobody, "/haul.v1.Peer/Commit"));
	status_free(policy_check(policy, &somebody, "/haul.v1.Peer/Prepare"));
	status_free(policy_check_destination(policy, "b.example.org"));
	(void)policy_limits_of(policy, &somebody);
	return 0;
}
