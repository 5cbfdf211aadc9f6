/* SPDX-License-Identifier: Apache-2.0 */
/* One direction of a sealed pipe: AES-GCM or ChaCha20-Poly1305 over messages that are numbered on
 * both sides. Nonce = the number; associated data = pipe id and number. A key serves one
 * direction of one pipe. */
#ifndef HAUL_RPC_SEAL_H
#define HAUL_RPC_SEAL_H

#include "haul/v1/pipe.pb-c.h"
#include "proto/status.h"

enum {
	SEAL_KEY_BYTES = 32 /* AES-128 takes the first half */,
	SEAL_ID_BYTES = 16,
	SEAL_TAG_BYTES = 16
};

enum { SEAL_KINDS = 3 }; /* of Haul__V1__Seal, from 0 on */

struct seal;

/* `kind` may come from a peer: INVALID_ARGUMENT when it is none; FAILED_PRECONDITION when OpenSSL
 * does not have it (as in FIPS mode). */
must_check status *seal_new(Haul__V1__Seal kind, const uint8_t key[SEAL_KEY_BYTES],
			    const uint8_t pipe_id[SEAL_ID_BYTES], bool is_for_sending,
			    struct seal **ret_seal);

/* As people write it. */
const char *seal_name(Haul__V1__Seal kind);

/* MiB a second, from a few milliseconds of work; 0: it cannot be had. */
uint32_t seal_measure(Haul__V1__Seal kind);

/* Encrypts `size` bytes in place and writes the tag behind them: there must be room for
 * SEAL_TAG_BYTES more. Advances the number. */
must_check status *seal_close(struct seal *seal, uint8_t *data, size_t size);

/* Checks and decrypts `size` bytes in place, the last SEAL_TAG_BYTES of which are the tag.
 * DATA_LOSS when this is not the next message of this direction; the number then stays, the bytes
 * are lost. */
must_check status *seal_open(struct seal *seal, uint8_t *data, size_t size);

/* Messages sealed or opened so far. */
uint64_t seal_count(const struct seal *seal);

void seal_free(struct seal *seal);

DEFINE_SCOPE(seal, struct seal *, seal_free);

#endif
