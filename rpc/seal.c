/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/seal.h"

#include <openssl/evp.h>
#include <string.h>

enum { NONCE_BYTES = 12, NUMBER_BYTES = 8 };

struct seal {
	EVP_CIPHER_CTX *cipher; /* the key schedule is made once */
	uint8_t pipe_id[SEAL_ID_BYTES];
	uint64_t count;
};

status *seal_new(const uint8_t key[SEAL_KEY_BYTES], const uint8_t pipe_id[SEAL_ID_BYTES],
		 bool is_for_sending, struct seal **ret_seal)
{
	scoped(seal) struct seal *seal = calloc(1, sizeof(*seal));
	if (seal == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a cipher");
	memcpy(seal->pipe_id, pipe_id, SEAL_ID_BYTES);
	seal->cipher = EVP_CIPHER_CTX_new();
	if (seal->cipher == NULL || EVP_CipherInit_ex2(seal->cipher, EVP_aes_256_gcm(), key, NULL,
						       is_for_sending ? 1 : 0, NULL) != 1)
		return status_errorf(STATUS_INTERNAL, "OpenSSL has no AES-256-GCM");
	*ret_seal = TAKE(seal);
	return NULL;
}

/* Sets the nonce and takes in the associated data of the next message. */
static bool begin_message(struct seal *seal)
{
	uint8_t nonce[NONCE_BYTES] = {0};
	uint8_t associated[SEAL_ID_BYTES + NUMBER_BYTES];
	int length = 0;
	for (unsigned i = 0; i < NUMBER_BYTES; i++)
		nonce[NONCE_BYTES - 1 - i] = (uint8_t)(seal->count >> (8 * i));
	memcpy(associated, seal->pipe_id, SEAL_ID_BYTES);
	memcpy(associated + SEAL_ID_BYTES, nonce + NONCE_BYTES - NUMBER_BYTES, NUMBER_BYTES);
	return EVP_CipherInit_ex2(seal->cipher, NULL, NULL, nonce, -1, NULL) == 1 &&
	       EVP_CipherUpdate(seal->cipher, NULL, &length, associated, sizeof(associated)) == 1;
}

status *seal_close(struct seal *seal, uint8_t *data, size_t size)
{
	int length = 0;
	uint8_t rest[16];
	if (size > INT32_MAX)
		return status_errorf(STATUS_INVALID_ARGUMENT, "a message of %zu bytes is too long",
				     size);
	if (!begin_message(seal) ||
	    EVP_CipherUpdate(seal->cipher, data, &length, data, (int)size) != 1 ||
	    EVP_CipherFinal_ex(seal->cipher, rest, &length) != 1 ||
	    EVP_CIPHER_CTX_ctrl(seal->cipher, EVP_CTRL_AEAD_GET_TAG, SEAL_TAG_BYTES, data + size) !=
		1)
		return status_errorf(STATUS_INTERNAL, "OpenSSL failed to encrypt");
	seal->count++;
	return NULL;
}

status *seal_open(struct seal *seal, uint8_t *data, size_t size)
{
	int length = 0;
	uint8_t rest[16];
	bool is_good = size >= SEAL_TAG_BYTES && size <= INT32_MAX && begin_message(seal);
	if (is_good) {
		size_t text = size - SEAL_TAG_BYTES;
		is_good = EVP_CipherUpdate(seal->cipher, data, &length, data, (int)text) == 1 &&
			  EVP_CIPHER_CTX_ctrl(seal->cipher, EVP_CTRL_AEAD_SET_TAG, SEAL_TAG_BYTES,
					      data + text) == 1 &&
			  EVP_CipherFinal_ex(seal->cipher, rest, &length) == 1;
	}
	if (!is_good)
		return status_errorf(
		    STATUS_DATA_LOSS,
		    "message %llu was altered, repeated, reordered or lost on its way",
		    (unsigned long long)seal->count);
	seal->count++;
	return NULL;
}

uint64_t seal_count(const struct seal *seal)
{
	return seal->count;
}

void seal_free(struct seal *seal)
{
	if (seal == NULL)
		return;
	EVP_CIPHER_CTX_free(seal->cipher);
	free(seal);
}
