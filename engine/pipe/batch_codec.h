/* SPDX-License-Identifier: Apache-2.0 */
/* Packing batches of pages: which codecs there are, and one of them at work. */
#ifndef HAUL_ENGINE_PIPE_BATCH_CODEC_H
#define HAUL_ENGINE_PIPE_BATCH_CODEC_H

#include "proto/status.h"

/* Numbers are on the wire. */
enum batch_codec { BATCH_RAW = 0, BATCH_LZ4 = 1, BATCH_ZSTD = 2, BATCH_CODECS = 3 };

/* Sets of codecs are bits, 1 << codec: what an engine can unpack, said in Hello. */
enum { BATCH_CODECS_ALL = 1 << BATCH_RAW | 1 << BATCH_LZ4 | 1 << BATCH_ZSTD };

/* What a migration may use. */
struct batch_codecs {
	unsigned set; /* RAW is always in it: what does not shrink goes as it is */
	int level;    /* of zstd */
};

/* From "auto" (or ""), "none", "lz4", "zstd" or "zstd:1" … "zstd:19". INVALID_ARGUMENT. */
must_check status *batch_codecs_parse(const char *text, struct batch_codecs *ret_codecs);

const char *batch_codec_name(enum batch_codec codec);

/* What stands before a packed batch in its frame: codec, 3 zero bytes, the batch's own size (4
 * bytes, little-endian). */
enum { BATCH_HEADER_BYTES = 8 };
void batch_header_encode(enum batch_codec codec, uint32_t size,
			 uint8_t ret_header[BATCH_HEADER_BYTES]);
/* From a peer: DATA_LOSS unless it is one of a codec that packs. */
must_check status *batch_header_decode(const uint8_t header[BATCH_HEADER_BYTES],
				       enum batch_codec *ret_codec, uint32_t *ret_size);

/* The working memory of both directions; one thread at a time. level: of zstd, for packing. */
struct batch_packer;
must_check status *batch_packer_new(int level, struct batch_packer **ret_packer);
void batch_packer_free(struct batch_packer *packer);

/* Packs into at most `room` bytes; 0 when it does not fit, or for RAW. */
size_t batch_pack(struct batch_packer *packer, enum batch_codec codec, const void *data,
		  size_t size, void *packed, size_t room);

/* Unpacks into exactly `size` bytes, from a peer: DATA_LOSS when that is not what is in there. */
must_check status *batch_unpack(struct batch_packer *packer, enum batch_codec codec,
				const void *packed, size_t packed_size, void *data, size_t size);

DEFINE_SCOPE(batch_packer, struct batch_packer *, batch_packer_free);

#endif
