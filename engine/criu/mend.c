/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/mend.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/criu/image_records.h"
#include "engine/host/files.h"
#include "files.pb-c.h"

enum {
	MAGIC_FILES = 0x56303138,
	IMAGE_MOST = 64 * 1024 * 1024,
	GROWTH = 4, /* a mended record is at most so much longer: one varint byte, with room */
};

static bool is_stuck(const Haul__Files__Timerfd *timer)
{
	return timer != NULL && timer->vsec == 0 && timer->vnsec == 0 && timer->ticks > 0 &&
	       (timer->isec > 0 || timer->insec > 0);
}

/* Copies one record to `out`, mended if it needs to be; returns its length there. */
static size_t copy_record(const uint8_t *message, uint32_t length, uint8_t *out, unsigned *count)
{
	Haul__Files__File *file = haul__files__file__unpack(NULL, length, message);
	size_t written = 0;

	if (file != NULL && is_stuck(file->tfd)) {
		file->tfd->vnsec = 1;
		if (haul__files__file__get_packed_size(file) <= (size_t)length + GROWTH) {
			written = image_put_message(&file->base, out);
			(*count)++;
		}
	}
	if (file != NULL) /* else not for us to judge */
		haul__files__file__free_unpacked(file, NULL);
	return written > 0 ? written : image_put_bytes(message, length, out);
}

status *criu_mend_files(const uint8_t *data, size_t size, struct buffer *ret_mended,
			unsigned *ret_count)
{
	struct image_records records;
	const uint8_t *message;
	uint32_t length;
	unsigned count = 0;
	status *st = image_records_open("files.img", MAGIC_FILES, data, size, &records);

	if (st != NULL)
		return st;
	scoped(bytes) uint8_t *out = malloc(size + records.count * GROWTH);
	if (out == NULL)
		return status_errnof(ENOMEM, "cannot mend files.img");
	size_t used = image_put_header(MAGIC_FILES, out);
	while (image_records_next(&records, &message, &length))
		used += copy_record(message, length, out + used, &count);
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
