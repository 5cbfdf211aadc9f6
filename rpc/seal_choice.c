/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/seal_choice.h"

/* Measures of a few milliseconds are no better than this. */
static const double PLAINLY = 1.2;

static uint32_t slower(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

status *seal_choose(const Haul__V1__SealRates *ours, const Haul__V1__SealRates *theirs,
		    Haul__V1__Seal *ret_seal)
{
	uint32_t aes = slower(ours->aes_256_gcm, theirs != NULL ? theirs->aes_256_gcm : UINT32_MAX);
	uint32_t chacha =
	    slower(ours->chacha20_poly1305, theirs != NULL ? theirs->chacha20_poly1305 : 0);

	if (aes == 0 && chacha == 0)
		return status_detailf(
		    status_errorf(STATUS_FAILED_PRECONDITION,
				  "the two engines have no seal for pipes in common"),
		    "next", "run both with the same hauld --seal, or with --seal auto");
	*ret_seal = chacha > PLAINLY * aes ? HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305
					   : HAUL__V1__SEAL__SEAL_AES_256_GCM;
	return NULL;
}
