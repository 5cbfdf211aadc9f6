/* SPDX-License-Identifier: Apache-2.0 */
/* A sealed message: only the very bytes that were sealed, at their turn, open. The input's first
 * three bytes say what is done to them. */
#include "rpc/seal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const uint8_t key[SEAL_KEY_BYTES] = {1}, id[SEAL_ID_BYTES] = {2};
	scoped(seal) struct seal *sender = NULL;
	scoped(seal) struct seal *receiver = NULL;

	status_free(seal_new(HAUL__V1__SEAL__SEAL_AES_256_GCM, key, id, true, &sender));
	status_free(seal_new(HAUL__V1__SEAL__SEAL_AES_256_GCM, key, id, false, &receiver));
	must(sender != NULL && receiver != NULL);
	/* Bytes that nobody sealed never open, whatever their length. */
	char *forged = fuzz_text(data, size);
	scoped(status) status *st = seal_open(receiver, (uint8_t *)forged, size);
	free(forged);
	must(status_code_of(st) == STATUS_DATA_LOSS && seal_count(receiver) == 0);
	if (size < 3)
		return 0;
	size_t at = (size_t)data[0] << 8 | data[1], plain = size - 3;
	scoped(bytes) uint8_t *message = calloc(1, plain + SEAL_TAG_BYTES);
	must(message != NULL);
	memcpy(message, data + 3, plain);
	scoped(status) status *closed = seal_close(sender, message, plain);
	must(closed == NULL && seal_count(sender) == 1);
	message[at % (plain + SEAL_TAG_BYTES)] ^= data[2];
	scoped(status) status *opened = seal_open(receiver, message, plain + SEAL_TAG_BYTES);
	must((opened == NULL) == (data[2] == 0));
	must(seal_count(receiver) == (data[2] == 0 ? 1 : 0));
	must(data[2] != 0 || memcmp(message, data + 3, plain) == 0);
	return 0;
}
