/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/engine/lazy_scene.h"

#include <endian.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "engine/host/files.h"
#include "mm.pb-c.h"
#include "tests/unit/engine/pipe_pair.h"
#include "tests/unit/test.h"

enum { WORDS = PAGE_BYTES / 8, IMAGE = LAZY_PID << 8 | PAGE_TASK, VMAS_MOST = 8 };

void lazy_rounds_make(struct lazy_rounds *rounds)
{
	*rounds = (struct lazy_rounds){.round = 0};
	scratch_make(rounds->dir);
	assert_ok(page_store_new(rounds->dir, &rounds->store));
}

void lazy_rounds_remove(struct lazy_rounds *rounds)
{
	page_store_free(rounds->store);
	scratch_remove(rounds->dir);
}

void lazy_round_begin(struct lazy_rounds *rounds)
{
	const struct page_header open = {.command = PAGE_OPEN, .image = IMAGE};

	assert_ok(page_store_begin(rounds->store, ++rounds->round));
	assert_ok(page_store_record(rounds->store, &open, NULL));
}

uint64_t lazy_word(uint64_t address, unsigned round)
{
	return address << 8 | round;
}

void lazy_round_add(struct lazy_rounds *rounds, uint32_t flags, uint64_t address, uint32_t pages)
{
	const struct page_header header = {PAGE_ADD, flags, pages, address, IMAGE};
	uint64_t *data = calloc(pages, PAGE_BYTES);

	assert_non_null(data);
	for (size_t word = 0; word < (size_t)pages * WORDS; word++)
		data[word] = lazy_word(address + word / WORDS * PAGE_BYTES, rounds->round);
	assert_ok(page_store_record(rounds->store, &header, (const uint8_t *)data));
	free(data);
}

void lazy_round_end(struct lazy_rounds *rounds)
{
	uint64_t pages;

	assert_ok(page_store_end(rounds->store, &pages));
}

void lazy_round_mappings(const struct lazy_rounds *rounds, const struct lazy_vma *mappings,
			 size_t count)
{
	Haul__Mm__Vma vmas[VMAS_MOST], *list[VMAS_MOST];
	Haul__Mm__Mm mm = HAUL__MM__MM__INIT;
	uint8_t image[4096];
	char path[128];

	assert_true(count <= VMAS_MOST);
	for (size_t i = 0; i < count; i++) {
		haul__mm__vma__init(&vmas[i]);
		vmas[i].start = mappings[i].address;
		vmas[i].end = mappings[i].address + mappings[i].pages * PAGE_BYTES;
		vmas[i].flags = mappings[i].flags;
		vmas[i].status = 1;
		list[i] = &vmas[i];
	}
	mm.vmas = list;
	mm.n_vmas = count;
	uint32_t head[] = {htole32(0x54564319), htole32(0x57492820),
			   htole32((uint32_t)haul__mm__mm__get_packed_size(&mm))};
	memcpy(image, head, sizeof(head));
	assert_true(haul__mm__mm__get_packed_size(&mm) < sizeof(image) - sizeof(head));
	size_t size = sizeof(head) + haul__mm__mm__pack(&mm, image + sizeof(head));
	(void)snprintf(path, sizeof(path), "%s/%u/mm-%d.img", rounds->dir, rounds->round, LAZY_PID);
	assert_ok(files_write(path, image, size));
}

bool lazy_memory_make(size_t pages, uint64_t **ret_words, int *ret_uffd)
{
	struct uffdio_api api = {.api = UFFD_API,
				 .features = UFFD_FEATURE_EVENT_FORK | UFFD_FEATURE_EVENT_REMAP |
					     UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP};
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0) {
		close_if_open(fd);
		return false;
	}
	void *words = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(words != MAP_FAILED);
	assert_int_equal(madvise(words, pages * PAGE_BYTES, MADV_NOHUGEPAGE), 0);
	struct uffdio_register registered = {.range = {(uint64_t)(uintptr_t)words,
						       pages * PAGE_BYTES},
					     .mode = UFFDIO_REGISTER_MODE_MISSING};
	assert_int_equal(ioctl(fd, UFFDIO_REGISTER, &registered), 0);
	*ret_words = words;
	*ret_uffd = fd;
	return true;
}

void lazy_memory_remove(uint64_t *words, size_t pages)
{
	(void)munmap(words, pages * PAGE_BYTES);
}
