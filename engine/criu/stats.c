/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/stats.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "stats.pb-c.h"

/* Two magics (service image, stats), the length of the message, the message. */
enum {
	STATS_LIMIT = 4096,
	STATS_HEADER = 12,
	MAGIC_SERVICE = 0x55105940,
	MAGIC_STATS = 0x57093306
};

static uint32_t word(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

void criu_stats_decode(const uint8_t *data, size_t size, double *ret_ms)
{
	if (size < STATS_HEADER || word(data) != MAGIC_SERVICE || word(data + 4) != MAGIC_STATS ||
	    word(data + 8) > size - STATS_HEADER)
		return;
	Haul__Stats__Stats *stats =
	    haul__stats__stats__unpack(NULL, word(data + 8), data + STATS_HEADER);
	if (stats == NULL)
		return;
	if (stats->dump != NULL)
		*ret_ms =
		    ((double)stats->dump->freezing_time + (double)stats->dump->frozen_time) / 1000;
	haul__stats__stats__free_unpacked(stats, NULL);
}

void criu_stats_frozen_ms(const char *work_dir, double *ret_ms)
{
	char path[FILES_PATH + 16];
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};

	(void)snprintf(path, sizeof(path), "%s/stats-dump", work_dir);
	scoped(status) status *st = files_read(path, STATS_LIMIT, &content);
	if (st == NULL)
		criu_stats_decode(content.data, content.size, ret_ms);
}
