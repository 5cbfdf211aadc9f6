/* SPDX-License-Identifier: Apache-2.0 */
/* Which seal the pipes between two engines have: the one that the slower of the two does fastest. A
 * pure policy. */
#ifndef HAUL_RPC_SEAL_CHOICE_H
#define HAUL_RPC_SEAL_CHOICE_H

#include "haul/v1/pipe.pb-c.h"
#include "proto/status.h"

/* The rate of this seal, to be read or set; NULL when there is no such seal. */
uint32_t *seal_rate(Haul__V1__SealRates *rates, Haul__V1__Seal seal);

/* FAILED_PRECONDITION when they have none in common. theirs: NULL for a peer that knows only
 * AES-256. Where that does not matter much it is AES-256. */
must_check status *seal_choose(const Haul__V1__SealRates *ours, const Haul__V1__SealRates *theirs,
			       Haul__V1__Seal *ret_seal);

/* May the other have chosen this one? FAILED_PRECONDITION. */
must_check status *seal_allow(const Haul__V1__SealRates *ours, Haul__V1__Seal seal);

#endif
