/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <endian.h>
#include <string.h>

#include "engine/criu/mend.h"
#include "files.pb-c.h"

/* files.img with one timer: magics, length, message. A field that the mender does not know rides
 * along. */
static size_t image_with(uint64_t ticks, uint64_t left_ns, uint64_t period_ns, uint8_t *out)
{
	Haul__Files__File file = HAUL__FILES__FILE__INIT;
	Haul__Files__Timerfd timer = HAUL__FILES__TIMERFD__INIT;
	uint32_t magics[2] = {htole32(0x54564319), htole32(0x56303138)};
	static const uint8_t unknown[] = {0x08, 0x0b, 0x10, 0x2a}; /* type = 11, id = 42 */

	timer.ticks = ticks;
	timer.vnsec = left_ns;
	timer.insec = period_ns;
	file.tfd = &timer;
	memcpy(out, magics, sizeof(magics));
	memcpy(out + 12, unknown, sizeof(unknown));
	size_t size = sizeof(unknown) + haul__files__file__pack(&file, out + 12 + sizeof(unknown));
	uint32_t length = htole32((uint32_t)size);
	memcpy(out + 8, &length, sizeof(length));
	return 12 + size;
}

static void a_stuck_periodic_timer_expires_at_once(void **state)
{
	uint8_t image[128];
	struct buffer mended __attribute__((cleanup(scope_buffer))) = {0};
	unsigned count = 0;
	size_t size = image_with(3, 0, 20000000, image);

	(void)state;
	assert_ok(criu_mend_files(image, size, &mended, &count));
	assert_int_equal(count, 1);
	Haul__Files__File *file =
	    haul__files__file__unpack(NULL, mended.size - 12, mended.data + 12);
	assert_non_null(file);
	assert_int_equal(file->tfd->vnsec, 1);
	assert_int_equal(file->tfd->ticks, 3);
	assert_int_equal(file->tfd->insec, 20000000);
	assert_int_equal(file->base.n_unknown_fields, 2);
	haul__files__file__free_unpacked(file, NULL);
}

static void other_timers_stay_as_they_are(void **state)
{
	static const struct {
		uint64_t ticks, left, period;
	} timers[] = {{0, 0, 20}, {1, 5, 20}, {1, 0, 0}, {0, 0, 0}};

	(void)state;
	for (size_t i = 0; i < array_len(timers); i++) {
		uint8_t image[128];
		struct buffer mended __attribute__((cleanup(scope_buffer))) = {0};
		unsigned count = 9;
		size_t size = image_with(timers[i].ticks, timers[i].left, timers[i].period, image);
		assert_ok(criu_mend_files(image, size, &mended, &count));
		assert_int_equal(count, 0);
		assert_null(mended.data);
	}
}

static void a_cut_image_is_refused(void **state)
{
	uint8_t image[128];
	size_t size = image_with(3, 0, 20, image);

	(void)state;
	for (size_t cut = 0; cut < size; cut++) {
		struct buffer mended __attribute__((cleanup(scope_buffer))) = {0};
		unsigned count = 0;
		if (cut != 8) /* an image without records is one */
			assert_code(criu_mend_files(image, cut, &mended, &count), STATUS_DATA_LOSS);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_stuck_periodic_timer_expires_at_once),
	    cmocka_unit_test(other_timers_stay_as_they_are),
	    cmocka_unit_test(a_cut_image_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
