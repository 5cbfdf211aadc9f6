/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/page_stream.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

enum {
	PAGES_MOST = 1 << 20, /* 4 GiB in one record; CRIU's are at most a few thousand pages */
	CHANNEL_BYTES = 4 * 1024 * 1024,
};

static uint32_t word(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t long_word(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

static status *bad(const char *field, unsigned long long value)
{
	return status_errorf(STATUS_DATA_LOSS,
			     "a record of the page stream has an impossible %s: %#llx", field,
			     value);
}

static bool flags_fit(uint32_t flags, bool on_wire)
{
	switch (flags) {
	case PAGE_IN_PARENT:
	case PAGE_LAZY:
	case PAGE_PRESENT:
	case PAGE_PRESENT | PAGE_LAZY:
		return true;
	case PAGE_PRESENT | PAGE_ZERO:
	case PAGE_PRESENT | PAGE_LATE:
		return on_wire;
	default:
		return false;
	}
}

static status *check_image(uint64_t image)
{
	uint64_t kind = image & 0xff;

	if ((kind != PAGE_TASK && kind != PAGE_SHMEM) || image >> 8 > UINT32_MAX)
		return bad("image", image);
	return NULL;
}

static status *check_add(const struct page_header *header, bool on_wire)
{
	if (!flags_fit(header->flags, on_wire))
		return bad("flags", header->flags);
	if (header->pages == 0 || header->pages > PAGES_MOST)
		return bad("number of pages", header->pages);
	if (header->address % PAGE_BYTES != 0 ||
	    header->address > UINT64_MAX - (uint64_t)header->pages * PAGE_BYTES)
		return bad("address", header->address);
	return check_image(header->image);
}

status *page_header_decode(const uint8_t bytes[PAGE_HEADER_BYTES], bool on_wire,
			   struct page_header *ret_header)
{
	uint32_t first = word(bytes);
	struct page_header header = {first & 0xffff, first >> 16, word(bytes + 4),
				     long_word(bytes + 8), long_word(bytes + 16)};
	status *st = NULL;

	switch (header.command) {
	case PAGE_ADD:
		st = check_add(&header, on_wire);
		break;
	case PAGE_OPEN:
		st = check_image(header.image);
		break;
	case PAGE_PARENT:
		st = on_wire ? bad("command", header.command) : check_image(header.image);
		break;
	case PAGE_CLOSE:
	case PAGE_FORCE_CLOSE:
		st = on_wire ? bad("command", header.command) : NULL;
		break;
	default:
		st = bad("command", header.command);
	}
	if (st == NULL)
		*ret_header = header;
	return st;
}

void page_header_encode(const struct page_header *header, uint8_t ret_bytes[PAGE_HEADER_BYTES])
{
	uint32_t first = htole32((header->command & 0xffff) | header->flags << 16);
	uint32_t pages = htole32(header->pages);
	uint64_t address = htole64(header->address), image = htole64(header->image);

	memcpy(ret_bytes, &first, sizeof(first));
	memcpy(ret_bytes + 4, &pages, sizeof(pages));
	memcpy(ret_bytes + 8, &address, sizeof(address));
	memcpy(ret_bytes + 16, &image, sizeof(image));
}

/* With the kernel's own 208 KiB the two wait for each other: 256 MiB of shared memory took 210 ms
 * of a dump instead of 130. */
static void make_room(int fd)
{
	const int bytes = CHANNEL_BYTES;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

status *page_channel_open(int *ret_reader, int *ret_criu)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return status_errnof(errno, "cannot make a socket for CRIU's pages");
	make_room(pair[1]);
	*ret_reader = pair[0];
	*ret_criu = pair[1];
	return NULL;
}

uint64_t page_header_data(const struct page_header *header)
{
	if (header->command != PAGE_ADD || (header->flags & PAGE_PRESENT) == 0 ||
	    (header->flags & (PAGE_ZERO | PAGE_LATE)) != 0)
		return 0;
	return (uint64_t)header->pages * PAGE_BYTES;
}
