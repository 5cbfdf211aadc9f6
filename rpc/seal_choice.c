/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/seal_choice.h"

/* Measures of a few milliseconds are no better than this. */
static const double PLAINLY = 1.2;

/* Which is taken where it does not matter much comes first. */
static const Haul__V1__Seal kinds[] = {
    HAUL__V1__SEAL__SEAL_AES_256_GCM,
    HAUL__V1__SEAL__SEAL_AES_128_GCM,
    HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305,
};

uint32_t *seal_rate(Haul__V1__SealRates *rates, Haul__V1__Seal seal)
{
	switch (seal) {
	case HAUL__V1__SEAL__SEAL_AES_256_GCM:
		return &rates->aes_256_gcm;
	case HAUL__V1__SEAL__SEAL_AES_128_GCM:
		return &rates->aes_128_gcm;
	case HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305:
		return &rates->chacha20_poly1305;
	default:
		return NULL;
	}
}

static uint32_t rate_of(const Haul__V1__SealRates *rates, Haul__V1__Seal seal)
{
	const uint32_t *rate = seal_rate((Haul__V1__SealRates *)rates, seal);

	return rate != NULL ? *rate : 0;
}

static status *none_in_common(void)
{
	return status_detailf(status_errorf(STATUS_FAILED_PRECONDITION,
					    "the two engines have no seal for pipes in common"),
			      "next", "run both with the same hauld --seal, or with --seal auto");
}

status *seal_allow(const Haul__V1__SealRates *ours, Haul__V1__Seal seal)
{
	return rate_of(ours, seal) > 0 ? NULL : none_in_common();
}

status *seal_choose(const Haul__V1__SealRates *ours, const Haul__V1__SealRates *theirs,
		    Haul__V1__Seal *ret_seal)
{
	Haul__V1__SealRates old = HAUL__V1__SEAL_RATES__INIT;
	uint32_t best = 0;

	old.aes_256_gcm = UINT32_MAX;
	for (size_t i = 0; i < array_len(kinds); i++) {
		uint32_t here = rate_of(ours, kinds[i]);
		uint32_t there = rate_of(theirs != NULL ? theirs : &old, kinds[i]);
		uint32_t rate = here < there ? here : there;
		if (rate > PLAINLY * best) {
			best = rate;
			*ret_seal = kinds[i];
		}
	}
	return best > 0 ? NULL : none_in_common();
}
