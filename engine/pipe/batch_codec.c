/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/batch_codec.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

/* zstd's own levels beyond 19 want hundreds of MiB a context. */
enum { LEVEL_DEFAULT = 1, LEVEL_MOST = 19 };

struct batch_packer {
	int level;
	ZSTD_CCtx *pack; /* made when first needed */
	ZSTD_DCtx *unpack;
};

static const char *const names[BATCH_CODECS] = {
    [BATCH_RAW] = "raw", [BATCH_LZ4] = "lz4", [BATCH_ZSTD] = "zstd"};

const char *batch_codec_name(enum batch_codec codec)
{
	return names[codec];
}

static bool parse_level(const char *text, int *ret_level)
{
	char *end;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	long level = strtol(text, &end, 10);
	if (errno != 0 || *end != '\0' || level < 1 || level > LEVEL_MOST)
		return false;
	*ret_level = (int)level;
	return true;
}

status *batch_codecs_parse(const char *text, struct batch_codecs *ret_codecs)
{
	struct batch_codecs codecs = {1 << BATCH_RAW, LEVEL_DEFAULT};
	bool is_good = true;

	if (text[0] == '\0' || strcmp(text, "auto") == 0)
		codecs.set = BATCH_CODECS_ALL;
	else if (strcmp(text, "lz4") == 0)
		codecs.set |= 1 << BATCH_LZ4;
	else if (strncmp(text, "zstd", 4) == 0 && (text[4] == '\0' || text[4] == ':')) {
		codecs.set |= 1 << BATCH_ZSTD;
		is_good = text[4] == '\0' || parse_level(text + 5, &codecs.level);
	} else {
		is_good = strcmp(text, "none") == 0;
	}
	if (!is_good)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--compression: \"%.40s\" is none of auto, none, lz4, zstd, "
				     "zstd:1 … zstd:%d",
				     text, LEVEL_MOST);
	*ret_codecs = codecs;
	return NULL;
}

void batch_header_encode(enum batch_codec codec, uint32_t size,
			 uint8_t ret_header[BATCH_HEADER_BYTES])
{
	uint32_t little = htole32(size);

	memset(ret_header, 0, BATCH_HEADER_BYTES);
	ret_header[0] = (uint8_t)codec;
	memcpy(ret_header + 4, &little, sizeof(little));
}

status *batch_header_decode(const uint8_t header[BATCH_HEADER_BYTES], enum batch_codec *ret_codec,
			    uint32_t *ret_size)
{
	uint32_t little;

	memcpy(&little, header + 4, sizeof(little));
	if (header[0] == BATCH_RAW || header[0] >= BATCH_CODECS || header[1] != 0 ||
	    header[2] != 0 || header[3] != 0)
		return status_errorf(STATUS_DATA_LOSS, "a packed batch of an unknown codec (%u)",
				     header[0]);
	*ret_codec = (enum batch_codec)header[0];
	*ret_size = le32toh(little);
	return NULL;
}

status *batch_packer_new(int level, struct batch_packer **ret_packer)
{
	struct batch_packer *packer = calloc(1, sizeof(*packer));

	if (packer == NULL)
		return status_errnof(ENOMEM, "packer");
	packer->level = level;
	*ret_packer = packer;
	return NULL;
}

void batch_packer_free(struct batch_packer *packer)
{
	if (packer == NULL)
		return;
	(void)ZSTD_freeCCtx(packer->pack);
	(void)ZSTD_freeDCtx(packer->unpack);
	free(packer);
}

static size_t pack_zstd(struct batch_packer *packer, const void *data, size_t size, void *packed,
			size_t room)
{
	if (packer->pack == NULL)
		packer->pack = ZSTD_createCCtx();
	if (packer->pack == NULL)
		return 0;
	size_t used = ZSTD_compressCCtx(packer->pack, packed, room, data, size, packer->level);
	return ZSTD_isError(used) ? 0 : used;
}

size_t batch_pack(struct batch_packer *packer, enum batch_codec codec, const void *data,
		  size_t size, void *packed, size_t room)
{
	if (size > INT_MAX || room > INT_MAX)
		return 0;
	if (codec == BATCH_ZSTD)
		return pack_zstd(packer, data, size, packed, room);
	if (codec != BATCH_LZ4)
		return 0;
	int used = LZ4_compress_default(data, packed, (int)size, (int)room);
	return used > 0 ? (size_t)used : 0;
}

status *batch_unpack(struct batch_packer *packer, enum batch_codec codec, const void *packed,
		     size_t packed_size, void *data, size_t size)
{
	bool is_good = packed_size <= INT_MAX && size <= INT_MAX;

	if (is_good && codec == BATCH_LZ4) {
		int got = LZ4_decompress_safe(packed, data, (int)packed_size, (int)size);
		is_good = got >= 0 && (size_t)got == size;
	} else if (is_good && codec == BATCH_ZSTD) {
		if (packer->unpack == NULL)
			packer->unpack = ZSTD_createDCtx();
		if (packer->unpack == NULL)
			return status_errnof(ENOMEM, "packer");
		size_t got = ZSTD_decompressDCtx(packer->unpack, data, size, packed, packed_size);
		is_good = !ZSTD_isError(got) && got == size;
	} else {
		is_good = false;
	}
	return is_good
		   ? NULL
		   : status_errorf(STATUS_DATA_LOSS, "a packed batch of pages cannot be unpacked");
}
