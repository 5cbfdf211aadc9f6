/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/inventory.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "inventory.pb-c.h"

/* The magic, the length of the message, the message. */
enum { MAGIC_INVENTORY = 0x58313116, HEADER_BYTES = 8, SPLICE = 1, UPTIME_MOST = 64 };

status *criu_uptime_parse(const char *text, uint64_t *ret_us)
{
	unsigned long long seconds;
	unsigned hundredths;
	int used = 0;

	if (sscanf(text, "%llu.%2u %n", &seconds, &hundredths, &used) != 2 || used == 0)
		return status_errorf(STATUS_DATA_LOSS, "/proc/uptime is no time");
	*ret_us = seconds * 1000000 + hundredths * 10000ULL;
	return NULL;
}

status *criu_inventory_encode(uint64_t uptime_us, struct buffer *ret_content)
{
	Haul__Inventory__Inventory inventory = HAUL__INVENTORY__INVENTORY__INIT;

	inventory.has_dump_uptime = inventory.has_pre_dump_mode = 1;
	inventory.dump_uptime = uptime_us;
	inventory.pre_dump_mode = SPLICE;
	size_t size = haul__inventory__inventory__get_packed_size(&inventory);
	const uint32_t header[] = {htole32(MAGIC_INVENTORY), htole32((uint32_t)size)};
	uint8_t *data = malloc(HEADER_BYTES + size);
	if (data == NULL)
		return status_errnof(ENOMEM, "an inventory");
	memcpy(data, header, HEADER_BYTES);
	(void)haul__inventory__inventory__pack(&inventory, data + HEADER_BYTES);
	*ret_content = (struct buffer){.data = data, .size = HEADER_BYTES + size};
	return NULL;
}

status *criu_uptime_now(uint64_t *ret_us)
{
	struct buffer uptime __attribute__((cleanup(scope_buffer))) = {0};
	char text[UPTIME_MOST + 1] = "";
	status *st = files_read("/proc/uptime", UPTIME_MOST, &uptime);

	if (st != NULL)
		return st;
	memcpy(text, uptime.data, uptime.size);
	return criu_uptime_parse(text, ret_us);
}

status *criu_inventory_write(const char *dir, uint64_t uptime_us)
{
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	char path[FILES_PATH + 16];
	status *st = criu_inventory_encode(uptime_us, &content);

	(void)snprintf(path, sizeof(path), "%s/inventory.img", dir);
	return st == NULL ? files_write(path, content.data, content.size) : st;
}
