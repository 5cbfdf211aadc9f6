/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/pipe/stripes.h"

#include <pthread.h>

#include "haul/v1/pipe.pb-c.h"
#include "proto/clock.h"
#include "tests/unit/engine/pipe_pair.h"
#include "tests/unit/test.h"

enum { PIPES = 3, FRAMES = 100, BYTES = 20000, PLENTY_MS = 60000, SOON_MS = 300 };

struct scene {
	struct pipe_set from, to;
	struct stripes_out *out;
	size_t bytes; /* that were noted */
	unsigned noted;
	atomic_uint_fast64_t limit;
};

static void note(void *self, size_t bytes, double blocked_ms)
{
	struct scene *scene = self;

	assert_true(blocked_ms >= 0);
	scene->bytes += bytes;
	scene->noted++;
}

static void open_out(struct scene *scene, unsigned codecs)
{
	const struct batch_codecs some = {codecs, 1};
	const struct stripes_sent sent = {note, scene};

	assert_ok(stripes_out_new(&scene->from, &some, &sent, &scene->out));
}

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	scene->from.count = scene->to.count = PIPES;
	for (unsigned i = 0; i < PIPES; i++)
		pipe_pair_open(&scene->to.pipes[i], &scene->from.pipes[i]);
	open_out(scene, 1 << BATCH_RAW);
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	stripes_out_free(scene->out);
	pipe_set_free(&scene->from);
	pipe_set_free(&scene->to);
	free(scene);
	return 0;
}

/* Frame k is k + 1 bytes of its number, and more where there is much to pack. */
static size_t size_of(unsigned number, bool is_long)
{
	return (is_long ? BYTES : 0) + number + 1;
}

static status *send_one(struct scene *scene, unsigned number, bool is_long)
{
	struct pipe_out frame;
	size_t size = size_of(number, is_long);

	assert_ok(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, BYTES + FRAMES, &frame));
	memset(frame.body, (int)number, size);
	return stripes_out_send(scene->out, &frame, size, false);
}

static status *send_end(struct scene *scene, unsigned round)
{
	Haul__V1__RoundEnd round_end = HAUL__V1__ROUND_END__INIT;

	round_end.round = round;
	return stripes_out_end(scene->out, &round_end.base);
}

struct sending {
	struct scene *scene;
	unsigned frames;
	bool is_long;
	pthread_t thread;
};

static void *send_round(void *self)
{
	const struct sending *sending = self;

	for (unsigned i = 0; i < sending->frames; i++)
		assert_ok(send_one(sending->scene, i, sending->is_long));
	assert_ok(send_end(sending->scene, 1));
	return NULL;
}

static void start_sending(struct sending *sending)
{
	assert_int_equal(pthread_create(&sending->thread, NULL, send_round, sending), 0);
}

static void expect_frame(struct stripes_in *in, unsigned number, bool is_long, size_t *wire)
{
	struct stripe_frame frame;

	assert_ok(stripes_in_next(in, &frame));
	assert_int_equal(frame.kind, HAUL__V1__FRAME_KIND__FRAME_BATCH);
	assert_int_equal(frame.size, size_of(number, is_long));
	for (size_t i = 0; i < frame.size; i++)
		assert_int_equal(frame.data[i], number);
	*wire += frame.wire;
}

static void expect_end(struct stripes_in *in)
{
	struct stripe_frame frame;

	assert_ok(stripes_in_next(in, &frame));
	assert_int_equal(frame.kind, HAUL__V1__FRAME_KIND__FRAME_ROUND);
}

/* Rounds that do not fit the number of pipes: each begins with the first one again. */
static void frames_come_in_their_order(void **state)
{
	struct scene *scene = *state;
	static const unsigned lengths[] = {FRAMES, 0, 1, PIPES, PIPES + 1};
	size_t wire = 0;
	unsigned total = 0;

	for (unsigned round = 0; round < sizeof(lengths) / sizeof(lengths[0]); round++) {
		struct sending sending = {.scene = scene, .frames = lengths[round]};
		struct stripes_in *in = NULL;
		start_sending(&sending);
		assert_ok(stripes_in_new(&scene->to, PLENTY_MS, &in));
		for (unsigned i = 0; i < sending.frames; i++)
			expect_frame(in, i, false, &wire);
		expect_end(in);
		stripes_in_free(in);
		assert_int_equal(pthread_join(sending.thread, NULL), 0);
		total += sending.frames;
	}
	assert_int_equal(scene->bytes, wire);
	assert_int_equal(scene->noted, total);
}

static void packed_frames_come_unpacked(void **state)
{
	struct scene *scene = *state;
	struct sending sending = {.scene = scene, .frames = FRAMES, .is_long = true};
	struct stripes_in *in = NULL;
	size_t wire = 0;

	stripes_out_free(TAKE(scene->out));
	open_out(scene, 1 << BATCH_ZSTD);
	start_sending(&sending);
	assert_ok(stripes_in_new(&scene->to, PLENTY_MS, &in));
	for (unsigned i = 0; i < FRAMES; i++)
		expect_frame(in, i, true, &wire);
	expect_end(in);
	stripes_in_free(in);
	assert_int_equal(pthread_join(sending.thread, NULL), 0);
	assert_true(wire < (size_t)FRAMES * BYTES / 10);
	assert_int_equal(scene->bytes, wire);
}

/* What came before on the other pipes still counts, in its order. */
static void a_lost_pipe_ends_the_round_where_its_turn_is(void **state)
{
	struct scene *scene = *state;
	struct stripes_in *in = NULL;
	struct stripe_frame frame;
	size_t wire = 0;

	for (unsigned i = 0; i < PIPES + 1; i++)
		assert_ok(send_one(scene, i, false));
	assert_ok(stripes_in_new(&scene->to, PLENTY_MS, &in));
	for (unsigned i = 0; i < PIPES + 1; i++)
		expect_frame(in, i, false, &wire);
	pipe_hang_up(scene->from.pipes[1]);
	assert_code(stripes_in_next(in, &frame), STATUS_UNAVAILABLE);
	stripes_in_free(in);
	/* The others are hung up then: the sender hears of it at the latest when it sends. */
	status *st = NULL;
	for (unsigned i = 0; st == NULL && i < FRAMES; i++)
		st = send_one(scene, i, true);
	assert_code(st, STATUS_UNAVAILABLE);
	assert_code(send_end(scene, 1), STATUS_UNAVAILABLE);
}

static void a_frame_behind_the_end_is_refused(void **state)
{
	struct scene *scene = *state;
	Haul__V1__RoundEnd round_end = HAUL__V1__ROUND_END__INIT;
	struct stripes_in *in = NULL;
	struct stripe_frame frame;

	assert_ok(pipe_send_message(scene->from.pipes[0], HAUL__V1__FRAME_KIND__FRAME_ROUND,
				    &round_end.base, PLENTY_MS));
	for (unsigned i = 1; i < PIPES; i++)
		assert_ok(pipe_send_message(scene->from.pipes[i], HAUL__V1__FRAME_KIND__FRAME_BATCH,
					    &round_end.base, PLENTY_MS));
	assert_ok(stripes_in_new(&scene->to, PLENTY_MS, &in));
	assert_code(stripes_in_next(in, &frame), STATUS_DATA_LOSS);
	stripes_in_free(in);
}

static void a_frame_of_another_kind_is_refused(void **state)
{
	struct scene *scene = *state;
	Haul__V1__RoundEnd round_end = HAUL__V1__ROUND_END__INIT;
	struct stripes_in *in = NULL;
	struct stripe_frame frame;

	assert_ok(pipe_send_message(scene->from.pipes[0], HAUL__V1__FRAME_KIND__FRAME_IMAGE,
				    &round_end.base, PLENTY_MS));
	assert_ok(stripes_in_new(&scene->to, PLENTY_MS, &in));
	assert_code(stripes_in_next(in, &frame), STATUS_DATA_LOSS);
	stripes_in_free(in);
}

static void silence_on_the_pipe_whose_turn_it_is_ends_it(void **state)
{
	struct scene *scene = *state;
	struct stripes_in *in = NULL;
	struct stripe_frame frame;

	assert_ok(stripes_in_new(&scene->to, SOON_MS, &in));
	assert_code(stripes_in_next(in, &frame), STATUS_DEADLINE_EXCEEDED);
	stripes_in_free(in);
}

/* Half the silence between two frames: each pipe has one only after thrice as long. */
static void *send_slowly(void *self)
{
	const struct timespec pause = {0, SOON_MS / 2 * 1000000L};

	for (unsigned i = 0; i < 3 * PIPES; i++) {
		assert_ok(send_one(self, i, false));
		(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
	}
	assert_ok(send_end(self, 1));
	return NULL;
}

static void a_pipe_may_be_silent_while_the_others_have_their_turns(void **state)
{
	struct scene *scene = *state;
	struct stripes_in *in = NULL;
	pthread_t thread;
	size_t wire = 0;

	assert_ok(stripes_in_new(&scene->to, SOON_MS, &in));
	assert_int_equal(pthread_create(&thread, NULL, send_slowly, scene), 0);
	for (unsigned i = 0; i < 3 * PIPES; i++)
		expect_frame(in, i, false, &wire);
	expect_end(in);
	assert_int_equal(pthread_join(thread, NULL), 0);
	stripes_in_free(in);
}

/* Nobody takes anything: sending waits, and is woken. */
static void *stop_soon(void *self)
{
	const struct timespec soon = {0, SOON_MS * 1000000L};

	(void)clock_nanosleep(CLOCK_MONOTONIC, 0, &soon, NULL);
	stripes_out_stop(((struct scene *)self)->out);
	return NULL;
}

static void a_sender_that_waits_can_be_stopped(void **state)
{
	struct scene *scene = *state;
	pthread_t thread;
	status *st = NULL;

	assert_int_equal(pthread_create(&thread, NULL, stop_soon, scene), 0);
	while (st == NULL)
		st = send_one(scene, 1, true);
	assert_code(st, STATUS_CANCELLED);
	assert_int_equal(pthread_join(thread, NULL), 0);
}

/* All pipes together keep to it. */
static void a_limit_is_kept(void **state)
{
	struct scene *scene = *state;
	struct sending sending = {.scene = scene, .frames = FRAMES, .is_long = true};
	struct stripes_in *in = NULL;
	size_t wire = 0;

	atomic_store(&scene->limit, (uint64_t)FRAMES * BYTES * 2);
	stripes_out_limit(scene->out, &scene->limit);
	double begun = clock_monotonic_fine_ms();
	start_sending(&sending);
	assert_ok(stripes_in_new(&scene->to, PLENTY_MS, &in));
	for (unsigned i = 0; i < FRAMES; i++)
		expect_frame(in, i, true, &wire);
	expect_end(in);
	stripes_in_free(in);
	assert_int_equal(pthread_join(sending.thread, NULL), 0);
	assert_true(clock_monotonic_fine_ms() - begun > 400);
}

int main(void)
{
#define SCENE_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    SCENE_TEST(frames_come_in_their_order),
	    SCENE_TEST(packed_frames_come_unpacked),
	    SCENE_TEST(a_lost_pipe_ends_the_round_where_its_turn_is),
	    SCENE_TEST(a_frame_behind_the_end_is_refused),
	    SCENE_TEST(a_frame_of_another_kind_is_refused),
	    SCENE_TEST(silence_on_the_pipe_whose_turn_it_is_ends_it),
	    SCENE_TEST(a_pipe_may_be_silent_while_the_others_have_their_turns),
	    SCENE_TEST(a_sender_that_waits_can_be_stopped),
	    SCENE_TEST(a_limit_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
