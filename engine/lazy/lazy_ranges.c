/* SPDX-License-Identifier: Apache-2.0 */
/* CRIU registers exactly these mappings with userfaultfd when it restores lazily. */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/criu/page_stream.h"
#include "engine/lazy/lazy_map.h"
#include "mm.pb-c.h"

enum {
	MAGIC_IMAGE = 0x54564319,
	MAGIC_MM = 0x57492820,
	HEADER_BYTES = 8,
	LENGTH_BYTES = 4,
	/* CRIU's kinds of mappings that have MAP_ANONYMOUS, but not memory of the task's. */
	KIND_VSYSCALL = 1 << 2,
	KIND_VDSO = 1 << 3,
	KIND_VVAR = 1 << 12,
};

static uint32_t word(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static bool can_be_lazy(const Haul__Mm__Vma *vma)
{
	return (vma->flags & MAP_ANONYMOUS) != 0 && (vma->flags & MAP_PRIVATE) != 0 &&
	       (vma->flags & (MAP_LOCKED | MAP_HUGETLB)) == 0 &&
	       (vma->status & (KIND_VSYSCALL | KIND_VDSO | KIND_VVAR)) == 0;
}

static status *collect(const Haul__Mm__Mm *mm, struct lazy_range *ranges, size_t *ret_count)
{
	uint64_t from = 0;

	for (size_t i = 0; i < mm->n_vmas; i++) {
		const Haul__Mm__Vma *vma = mm->vmas[i];
		if (vma->start < from || vma->end <= vma->start || vma->start % PAGE_BYTES != 0 ||
		    vma->end % PAGE_BYTES != 0)
			return status_errorf(STATUS_DATA_LOSS,
					     "an mm image has an impossible mapping at %#llx",
					     (unsigned long long)vma->start);
		from = vma->end;
		if (can_be_lazy(vma))
			ranges[(*ret_count)++] = (struct lazy_range){vma->start, vma->end};
	}
	return NULL;
}

status *lazy_ranges_decode(const uint8_t *data, size_t size, struct lazy_range **ret_ranges,
			   size_t *ret_count)
{
	if (size < HEADER_BYTES + LENGTH_BYTES || word(data) != MAGIC_IMAGE ||
	    word(data + LENGTH_BYTES) != MAGIC_MM ||
	    word(data + HEADER_BYTES) != size - HEADER_BYTES - LENGTH_BYTES)
		return status_errorf(STATUS_DATA_LOSS, "an mm image does not begin like one");
	Haul__Mm__Mm *mm = haul__mm__mm__unpack(NULL, size - HEADER_BYTES - LENGTH_BYTES,
						data + HEADER_BYTES + LENGTH_BYTES);
	if (mm == NULL)
		return status_errorf(STATUS_DATA_LOSS, "an mm image cannot be read");
	struct lazy_range *ranges = calloc(mm->n_vmas + 1, sizeof(*ranges));
	size_t count = 0;
	status *st = ranges == NULL
			 ? status_errnof(ENOMEM, "an mm image of %zu mappings", mm->n_vmas)
			 : collect(mm, ranges, &count);
	haul__mm__mm__free_unpacked(mm, NULL);
	if (st != NULL) {
		free(ranges);
		return st;
	}
	*ret_ranges = ranges;
	*ret_count = count;
	return NULL;
}
