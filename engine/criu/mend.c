/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/mend.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "files.pb-c.h"

enum {
	MAGIC_IMAGE = 0x54564319,
	MAGIC_FILES = 0x56303138,
	HEADER_BYTES = 8,
	LENGTH_BYTES = 4,
	RECORD_MOST = 64 * 1024,
	IMAGE_MOST = 64 * 1024 * 1024,
	GROWTH = 4, /* a mended record is at most so much longer: one varint byte, with room */
};

static uint32_t word(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static void put_word(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static bool is_stuck(const Haul__Files__Timerfd *timer)
{
	return timer != NULL && timer->vsec == 0 && timer->vnsec == 0 && timer->ticks > 0 &&
	       (timer->isec > 0 || timer->insec > 0);
}

/* Copies one record to `out`, mended if it needs to be; returns its length there. */
static size_t copy_record(const uint8_t *record, uint32_t length, uint8_t *out, unsigned *count)
{
	Haul__Files__File *file = haul__files__file__unpack(NULL, length, record + LENGTH_BYTES);
	uint32_t written = length;

	memcpy(out, record, LENGTH_BYTES + (size_t)length);
	if (file == NULL) /* not for us to judge */
		return LENGTH_BYTES + (size_t)length;
	if (is_stuck(file->tfd)) {
		file->tfd->vnsec = 1;
		size_t size = haul__files__file__get_packed_size(file);
		if (size <= (size_t)length + GROWTH) {
			written = (uint32_t)haul__files__file__pack(file, out + LENGTH_BYTES);
			put_word(out, written);
			(*count)++;
		}
	}
	haul__files__file__free_unpacked(file, NULL);
	return LENGTH_BYTES + (size_t)written;
}

static status *count_records(const uint8_t *data, size_t size, size_t *ret_count)
{
	if (size < HEADER_BYTES || word(data) != MAGIC_IMAGE || word(data + 4) != MAGIC_FILES)
		return status_errorf(STATUS_DATA_LOSS, "files.img does not begin like one");
	for (size_t at = HEADER_BYTES; at < size; (*ret_count)++) {
		if (size - at < LENGTH_BYTES || word(data + at) > RECORD_MOST ||
		    word(data + at) > size - at - LENGTH_BYTES)
			return status_errorf(STATUS_DATA_LOSS,
					     "files.img ends in the middle of a record");
		at += LENGTH_BYTES + word(data + at);
	}
	return NULL;
}

status *criu_mend_files(const uint8_t *data, size_t size, struct buffer *ret_mended,
			unsigned *ret_count)
{
	size_t records = 0, used = HEADER_BYTES;
	unsigned count = 0;
	status *st = count_records(data, size, &records);

	if (st != NULL)
		return st;
	scoped(bytes) uint8_t *out = malloc(size + records * GROWTH);
	if (out == NULL)
		return status_errnof(ENOMEM, "cannot mend files.img");
	memcpy(out, data, HEADER_BYTES);
	for (size_t at = HEADER_BYTES; at < size; at += LENGTH_BYTES + word(data + at))
		used += copy_record(data + at, word(data + at), out + used, &count);
	*ret_count = count;
	if (count > 0)
		*ret_mended = (struct buffer){TAKE(out), used};
	return NULL;
}

status *criu_mend(const char *dir, unsigned *ret_count)
{
	char path[FILES_PATH + 16];
	struct buffer image __attribute__((cleanup(scope_buffer))) = {0};
	struct buffer mended __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(path, sizeof(path), "%s/" CRIU_MENDED_IMAGE, dir);
	*ret_count = 0;
	status *st = files_read(path, IMAGE_MOST, &image);
	if (status_code_of(st) == STATUS_NOT_FOUND) {
		status_free(st);
		return NULL;
	}
	if (st == NULL)
		st = criu_mend_files(image.data, image.size, &mended, ret_count);
	if (st == NULL && mended.data != NULL)
		st = files_write(path, mended.data, mended.size);
	return st;
}
