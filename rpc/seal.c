/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/seal.h"

#include <openssl/evp.h>
#include <string.h>

#include "proto/clock.h"

enum {
	NONCE_BYTES = 12,
	NUMBER_BYTES = 8,
	MEASURED_BYTES = 64 * 1024,
	MEASURES = 3, /* the best of them: others want the processor, too */
};

static const double MEASURE_MS = 1;

struct seal {
	EVP_CIPHER_CTX *cipher; /* the key schedule is made once */
	uint8_t pipe_id[SEAL_ID_BYTES];
	uint64_t count;
};

static const EVP_CIPHER *cipher_of(Haul__V1__Seal kind)
{
	switch (kind) {
	case HAUL__V1__SEAL__SEAL_AES_256_GCM:
		return EVP_aes_256_gcm();
	case HAUL__V1__SEAL__SEAL_AES_128_GCM:
		return EVP_aes_128_gcm();
	case HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305:
		return EVP_chacha20_poly1305();
	default:
		return NULL;
	}
}

const char *seal_name(Haul__V1__Seal kind)
{
	switch (kind) {
	case HAUL__V1__SEAL__SEAL_AES_256_GCM:
		return "AES-256-GCM";
	case HAUL__V1__SEAL__SEAL_AES_128_GCM:
		return "AES-128-GCM";
	case HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305:
		return "ChaCha20-Poly1305";
	default:
		return "an unknown seal";
	}
}

status *seal_new(Haul__V1__Seal kind, const uint8_t key[SEAL_KEY_BYTES],
		 const uint8_t pipe_id[SEAL_ID_BYTES], bool is_for_sending, struct seal **ret_seal)
{
	const EVP_CIPHER *cipher = cipher_of(kind);
	if (cipher == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "there is no seal %d", (int)kind);
	scoped(seal) struct seal *seal = calloc(1, sizeof(*seal));
	if (seal == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for a cipher");
	memcpy(seal->pipe_id, pipe_id, SEAL_ID_BYTES);
	seal->cipher = EVP_CIPHER_CTX_new();
	if (seal->cipher == NULL ||
	    EVP_CipherInit_ex2(seal->cipher, cipher, key, NULL, is_for_sending ? 1 : 0, NULL) != 1)
		return status_errorf(STATUS_FAILED_PRECONDITION, "OpenSSL refuses %s",
				     seal_name(kind));
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

/* Bytes sealed in a millisecond; 0 after an error. */
static double measure_once(struct seal *seal, uint8_t *message)
{
	double begun = clock_monotonic_fine_ms(), now = begun, bytes = 0;

	while (now - begun < MEASURE_MS) {
		scoped(status) status *st = seal_close(seal, message, MEASURED_BYTES);
		if (st != NULL)
			return 0;
		bytes += MEASURED_BYTES;
		now = clock_monotonic_fine_ms();
	}
	return bytes / (now - begun);
}

uint32_t seal_measure(Haul__V1__Seal kind)
{
	static const uint8_t key[SEAL_KEY_BYTES], pipe_id[SEAL_ID_BYTES];
	scoped(seal) struct seal *seal = NULL;
	scoped(mem) void *message = calloc(1, MEASURED_BYTES + SEAL_TAG_BYTES);
	scoped(status) status *st = seal_new(kind, key, pipe_id, true, &seal);
	double best = 0;

	for (unsigned i = 0; st == NULL && message != NULL && i < MEASURES; i++) {
		double rate = measure_once(seal, message);
		best = rate > best ? rate : best;
	}
	double mib_per_s = best * 1000 / (1024 * 1024);
	return best > 0 && mib_per_s < 1 ? 1 : (uint32_t)mib_per_s;
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
