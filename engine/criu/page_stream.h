/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU's page-server wire format (version 4.1): pure decoding, no I/O. Little-endian headers of
 * 24 bytes, each maybe followed by pages. The bulk pipe carries the same records in batches. */
#ifndef HAUL_ENGINE_CRIU_PAGE_STREAM_H
#define HAUL_ENGINE_CRIU_PAGE_STREAM_H

#include "proto/status.h"

enum { PAGE_BYTES = 4096, PAGE_HEADER_BYTES = 24 };

enum page_command {
	PAGE_ADD = 6,	 /* flags; PRESENT is followed by data */
	PAGE_OPEN = 4,	 /* start of an image; answered by one byte: has parent */
	PAGE_PARENT = 5, /* does the parent have this image? answered by an int32 */
	PAGE_CLOSE = 0x1023,
	PAGE_FORCE_CLOSE = 0x1024, /* end of a round; answered by an int32 */
};

enum page_flags {
	PAGE_IN_PARENT = 1,
	PAGE_LAZY = 2,
	PAGE_PRESENT = 4,
	PAGE_ZERO = 0x4000, /* ours, on the bulk pipe only: PRESENT, content all zero, no data */
	PAGE_LATE = 0x2000, /* ours, on the bulk pipe and in the destination's pagemaps: PRESENT, no
			       data; the source keeps the content until it is asked for */
};

enum page_image_kind { PAGE_TASK = 1, PAGE_SHMEM = 2 };

struct page_header {
	uint32_t command; /* low 16 bits */
	uint32_t flags;	  /* high 16 bits */
	uint32_t pages;
	uint64_t address;
	uint64_t image; /* id << 8 | kind */
};

/* INVALID: unknown command or flags, unaligned address, too many pages or an address range that
 * wraps, image kind unknown: DATA_LOSS naming the field. */
must_check status *page_header_decode(const uint8_t bytes[PAGE_HEADER_BYTES], bool on_wire,
				      struct page_header *ret_header);
void page_header_encode(const struct page_header *header, uint8_t ret_bytes[PAGE_HEADER_BYTES]);

/* Bytes of data behind this header. */
uint64_t page_header_data(const struct page_header *header);

/* The two ends of a stream: the reader's, and CRIU's, which has room to write on while its pages
 * are being looked at. */
must_check status *page_channel_open(int *ret_reader, int *ret_criu);

#endif
