/* SPDX-License-Identifier: Apache-2.0 */
/* A task's memory: `pages` pages, the first ones zero, the others with their owner, number and
 * version in them. In round 1 all of them go; in later rounds every fourth, and the others are said
 * to be in the parent. */
#include "tests/fake/fake.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/criu/page_stream.h"

enum { ZEROS = 16, WORDS = FAKE_PAGE / 8, LONGEST_RUN = 24, ENTRY = 64 };

static bool goes(unsigned page, unsigned round)
{
	return round == 1 || page % 4 == round % 4;
}

static unsigned version_of(unsigned page, unsigned round)
{
	while (!goes(page, round))
		round--;
	return round;
}

static void make_page(pid_t pid, unsigned page, unsigned version, uint64_t words[WORDS])
{
	memset(words, 0, FAKE_PAGE);
	for (unsigned i = 0; page >= ZEROS && i < WORDS; i++)
		words[i] =
		    ((uint64_t)pid << 40 | (uint64_t)page << 16 | version) * 0x9e3779b97f4a7c15U +
		    i;
}

/* --- sending --- */

static bool put(int fd, const void *data, size_t size)
{
	while (size > 0) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		data = (const uint8_t *)data + sent;
		size -= (size_t)sent;
	}
	return true;
}

static bool ask(const struct fake_memory *memory, uint32_t command, pid_t pid, void *answer,
		size_t size)
{
	struct page_header header = {.command = command};
	uint8_t bytes[PAGE_HEADER_BYTES];

	if (pid > 0)
		header.image = (uint64_t)pid << 8 | PAGE_TASK;
	page_header_encode(&header, bytes);
	return put(memory->fd, bytes, sizeof(bytes)) &&
	       recv(memory->fd, answer, size, MSG_WAITALL) == (ssize_t)size;
}

bool pages_ask_parent(const struct fake_memory *memory, pid_t pid)
{
	int32_t has;

	return ask(memory, PAGE_PARENT, pid, &has, sizeof(has));
}

/* A page of the tree, if it has a place for it (fake-victim). */
static void write_into(pid_t pid, unsigned page, const uint64_t words[WORDS])
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	(void)pwrite(fd, words, FAKE_PAGE, FAKE_ADDRESS + (off_t)page * FAKE_PAGE);
	if (fd >= 0)
		(void)close(fd);
}

static bool send_run(const struct fake_memory *memory, pid_t pid, unsigned begin, unsigned end)
{
	bool has_data = goes(begin, memory->round);
	struct page_header header = {
	    .command = PAGE_ADD,
	    .flags = has_data ? PAGE_PRESENT : PAGE_IN_PARENT,
	    .pages = end - begin,
	    .address = FAKE_ADDRESS + (uint64_t)begin * FAKE_PAGE,
	    .image = (uint64_t)pid << 8 | PAGE_TASK,
	};
	uint8_t bytes[PAGE_HEADER_BYTES];
	uint64_t words[WORDS];

	fault_point("pages");
	(void)usleep((useconds_t)fault_number("slow", 0) * 1000);
	page_header_encode(&header, bytes);
	bool is_sent = put(memory->fd, bytes, sizeof(bytes));
	for (unsigned page = begin; page < end && has_data && is_sent; page++) {
		make_page(pid, page, memory->round, words);
		write_into(pid, page, words);
		is_sent = put(memory->fd, words, sizeof(words));
	}
	return is_sent;
}

bool pages_send(const struct fake_memory *memory, pid_t pid)
{
	uint8_t has_parent = 0;

	if (!ask(memory, PAGE_OPEN, pid, &has_parent, sizeof(has_parent)))
		return false;
	if (memory->round > 1 && !has_parent)
		return false;
	for (unsigned begin = 0, end; begin < memory->pages; begin = end) {
		for (end = begin + 1; end < memory->pages && end - begin < LONGEST_RUN &&
				      goes(end, memory->round) == goes(begin, memory->round);
		     end++)
			;
		if (!send_run(memory, pid, begin, end))
			return false;
	}
	return true;
}

bool pages_close(const struct fake_memory *memory)
{
	int32_t verdict = -1;

	fault_point("close");
	return ask(memory, PAGE_FORCE_CLOSE, 0, &verdict, sizeof(verdict)) && verdict == 0;
}

/* --- checking --- */

static bool next_entry(FILE *file, uint64_t fields[8])
{
	uint32_t length = 0;
	uint8_t data[ENTRY];

	memset(fields, 0, 8 * sizeof(*fields));
	if (fread(&length, sizeof(length), 1, file) != 1 || length > sizeof(data) ||
	    fread(data, 1, length, file) != length)
		return false;
	for (size_t at = 0; at < length;) {
		unsigned field = data[at++] >> 3;
		uint64_t value = 0;
		for (unsigned shift = 0; at < length && shift < 64; shift += 7) {
			value |= (uint64_t)(data[at] & 0x7f) << shift;
			if ((data[at++] & 0x80) == 0)
				break;
		}
		if (field < 8)
			fields[field] = value;
	}
	return true;
}

static bool read_page(int images, uint64_t pages_id, uint64_t index, uint64_t words[WORDS])
{
	char name[64];

	(void)snprintf(name, sizeof(name), "pages-%llu.img", (unsigned long long)pages_id);
	int fd = openat(images, name, O_RDONLY | O_CLOEXEC);
	bool is_read = pread(fd, words, FAKE_PAGE, (off_t)(index * FAKE_PAGE)) == FAKE_PAGE;
	(void)close(fd);
	return is_read;
}

/* Looks the page up in one directory; *ret_above: it is in the parent. */
static bool look_up(int images, pid_t pid, uint64_t address, uint64_t words[WORDS], bool *ret_above)
{
	char name[64];
	uint32_t magics[2];
	uint64_t head[8], fields[8], index = 0;
	bool is_found = false;

	*ret_above = false;
	(void)snprintf(name, sizeof(name), "pagemap-%d.img", pid);
	int fd = openat(images, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd >= 0 ? fdopen(fd, "rb") : NULL;
	if (file == NULL)
		return false;
	if (fread(magics, sizeof(magics), 1, file) != 1 || magics[0] != 0x54564319 ||
	    magics[1] != 0x56084025 || !next_entry(file, head)) {
		(void)fclose(file);
		return false;
	}
	while (!is_found && !*ret_above && next_entry(file, fields)) {
		bool is_here = address >= fields[1] && address < fields[1] + fields[2] * FAKE_PAGE;
		if (is_here && fields[4] == PAGE_PRESENT)
			is_found = read_page(images, head[1],
					     index + (address - fields[1]) / FAKE_PAGE, words);
		*ret_above = is_here && fields[4] == PAGE_IN_PARENT;
		index += fields[4] == PAGE_PRESENT ? fields[2] : 0;
	}
	(void)fclose(file);
	return is_found;
}

static bool find_page(int images, pid_t pid, uint64_t address, uint64_t words[WORDS])
{
	int dir = dup(images);
	bool is_above = false, is_found;

	for (;;) {
		is_found = look_up(dir, pid, address, words, &is_above);
		if (is_found || !is_above)
			break;
		int parent = openat(dir, "parent", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		(void)close(dir);
		dir = parent;
		if (dir < 0)
			return false;
	}
	(void)close(dir);
	return is_found;
}

bool pages_check(int images, pid_t pid, unsigned round, unsigned pages, char ret_why[256])
{
	uint64_t want[WORDS], got[WORDS];

	for (unsigned page = 0; page < pages; page++) {
		make_page(pid, page, version_of(page, round), want);
		if (!find_page(images, pid, FAKE_ADDRESS + (uint64_t)page * FAKE_PAGE, got)) {
			(void)snprintf(ret_why, 256, "page %u of process %d is missing", page, pid);
			return false;
		}
		if (memcmp(want, got, FAKE_PAGE) != 0) {
			(void)snprintf(ret_why, 256, "page %u of process %d is wrong", page, pid);
			return false;
		}
	}
	return true;
}
