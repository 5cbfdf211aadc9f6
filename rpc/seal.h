/* SPDX-License-Identifier: Apache-2.0 */
/* One direction of a sealed pipe: AES-256-GCM, or ChaCha20-Poly1305 where AES is slow, over messages
 * that are numbered on both sides. Nonce = the number; associated data = pipe id and number. A key
 * serves one direction of one pipe. */
#ifndef HAUL_RPC_SEAL_H
#define HAUL_RPC_SEAL_H

#include "proto/status.h"

enum { SEAL_KEY_BYTES = 32, SEAL_ID_BYTES = 16, SEAL_TAG_BYTES = 16 };

/* As in PipeAddress.cipher: numbers are never reused. Keys, nonces and tags have the same sizes. */
enum seal_cipher { SEAL_AES_256_GCM = 0, SEAL_CHACHA20_POLY1305 = 1 };

struct seal;

/* The cipher to use on this machine: AES-256-GCM, unless the other is at least twice as fast, as on a
 * processor without AES instructions. Measures, for some tens of microseconds. */
enum seal_cipher seal_fastest(void);

/* INVALID_ARGUMENT for a cipher that is not one of the two: it may come from a peer. */
must_check status *seal_new_with(uint32_t cipher, const uint8_t key[SEAL_KEY_BYTES],
				 const uint8_t pipe_id[SEAL_ID_BYTES], bool is_for_sending,
				 struct seal **ret_seal);

/* The same with AES-256-GCM. */
must_check status *seal_new(const uint8_t key[SEAL_KEY_BYTES], const uint8_t pipe_id[SEAL_ID_BYTES],
			    bool is_for_sending, struct seal **ret_seal);

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
