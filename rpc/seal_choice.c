/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/seal_choice.h"

#include <stdbool.h>

/* Measures of a few milliseconds are no better than this. */
static const double PLAINLY = 1.2;

static uint32_t slower(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static status *none_in_common(void)
{
	return status_detailf(status_errorf(STATUS_FAILED_PRECONDITION,
					    "the two engines have no seal for pipes in common"),
			      "next", "run both with the same hauld --seal, or with --seal auto");
}

status *seal_allow(const Haul__V1__SealRates *ours, Haul__V1__Seal seal)
{
	bool is_ours = seal == HAUL__V1__SEAL__SEAL_AES_256_GCM ? ours->aes_256_gcm > 0
		       : seal == HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305
			   ? ours->chacha20_poly1305 > 0
			   : false;

	return is_ours ? NULL : none_in_common();
}

status *seal_choose(const Haul__V1__SealRates *ours, const Haul__V1__SealRates *theirs,
		    Haul__V1__Seal *ret_seal)
{
	uint32_t aes = slower(ours->aes_256_gcm, theirs != NULL ? theirs->aes_256_gcm : UINT32_MAX);
	uint32_t chacha =
	    slower(ours->chacha20_poly1305, theirs != NULL ? theirs->chacha20_poly1305 : 0);

	if (aes == 0 && chacha == 0)
		return none_in_common();
	*ret_seal = chacha > PLAINLY * aes ? HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305
					   : HAUL__V1__SEAL__SEAL_AES_256_GCM;
	return NULL;
}
