/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/late_areas.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/criu/live_pages.h"
#include "engine/criu/page_stream.h"

enum { LINE_BYTES = 4608 /* a path of maps has at most 4096 */ };

static FILE *open_file(pid_t pid, const char *name)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return fopen(path, "re");
}

static bool has_locked(pid_t pid)
{
	char line[LINE_BYTES];
	unsigned long long locked = 1;
	FILE *file = open_file(pid, "status");

	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "VmLck: %llu kB", &locked) == 1)
			break;
	if (file != NULL)
		(void)fclose(file);
	return locked != 0;
}

static status *add(struct late_areas *areas, uint64_t start, uint64_t end)
{
	if (areas->count > 0 && areas->list[areas->count - 1].end == start) {
		areas->list[areas->count - 1].end = end;
		return NULL;
	}
	if (areas->count == areas->room) {
		size_t room = areas->room * 2 + 64;
		struct late_area *grown = reallocarray(areas->list, room, sizeof(*grown));
		if (grown == NULL)
			return status_errnof(ENOMEM, "areas of memory");
		areas->list = grown;
		areas->room = room;
	}
	areas->list[areas->count++] = (struct late_area){start, end};
	return NULL;
}

status *late_areas_read(struct late_areas *areas, pid_t pid)
{
	char line[LINE_BYTES];
	struct live_area area;
	uint64_t next = 0;
	status *st = NULL;

	areas->count = 0;
	FILE *maps = has_locked(pid) ? NULL : open_file(pid, "maps");
	while (st == NULL && maps != NULL && fgets(line, sizeof(line), maps) != NULL)
		if (live_area_parse(line, &area) && !area.is_shared && !area.is_vdso &&
		    area.inode == 0 && live_area_cut(&area, &next))
			st = add(areas, area.start, area.end);
	if (maps != NULL)
		(void)fclose(maps);
	return st;
}

bool late_areas_have(const struct late_areas *areas, uint64_t address, uint64_t pages,
		     uint64_t *ret_alike)
{
	size_t low = 0, high = areas->count;

	/* The first area that ends behind it. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (areas->list[middle].end <= address)
			low = middle + 1;
		else
			high = middle;
	}
	bool is_inside = low < areas->count && areas->list[low].start <= address;
	uint64_t end = low == areas->count ? UINT64_MAX
		       : is_inside	   ? areas->list[low].end
					   : areas->list[low].start;
	uint64_t left = (end - address) / PAGE_BYTES;
	*ret_alike = pages < left ? pages : left;
	return is_inside;
}

void late_areas_free(struct late_areas *areas)
{
	free(areas->list);
	*areas = (struct late_areas){0};
}
