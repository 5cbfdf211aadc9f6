/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and requests, against the fake CRIU: its answers, its lies and its deaths. */
#include "tests/unit/test.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/criu/request.h"
#include "engine/host/child.h"
#include "engine/host/files.h"
#include "engine/host/proc.h"
#include "engine/pipe/memory_pipe.h"
#include "proto/clock.h"
#include "tests/unit/engine/pipe_pair.h"

enum { PLENTY_MS = 60000, SHORT_MS = 400, POLL_MS = 5 };

static const struct batch_codecs codecs = {BATCH_CODECS_ALL, 1};
static const struct memory_feed tracked = {.live_fd = -1, .is_criu = true, .is_tracked = true};
static const struct criu_limits plenty = {.short_ms = PLENTY_MS, .long_ms = PLENTY_MS};
static const struct criu_limits little = {.short_ms = SHORT_MS, .long_ms = SHORT_MS};

struct scene {
	char dir[64], images[128], store_dir[128];
	struct swrk *session;
	struct child workload;
	struct criu_dump dump;
	struct pipe_set from, to;
	struct memory_sender *sender;
	struct page_store *store;
	unsigned round;
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	*scene = (struct scene){.workload = {0, -1}, .from = {{NULL}, 1}, .to = {{NULL}, 1}};
	scratch_make(scene->dir);
	(void)snprintf(scene->store_dir, sizeof(scene->store_dir), "%s/store", scene->dir);
	assert_ok(files_make_directory(scene->store_dir));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	swrk_free(scene->session);
	memory_sender_free(scene->sender);
	page_store_free(scene->store);
	pipe_set_free(&scene->from);
	pipe_set_free(&scene->to);
	child_kill(&scene->workload);
	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

static void open_session(struct scene *scene, const char *faults)
{
	struct swrk_options options = {FAKE_CRIU, NULL, scene->dir, true, false, NULL, NULL, 0};

	assert_int_equal(setenv("HAUL_FAKE_CRIU", faults, 1), 0);
	assert_ok(swrk_open(&options, &scene->session));
}

static void start_workload(struct scene *scene)
{
	const char *argv[] = {"sleep", "1000", NULL};
	const int fds[] = {-1, -1, -1};
	struct child_spec spec = {.argv = argv, .fds = fds, .fd_count = 3};

	assert_ok(child_spawn(&spec, &scene->workload));
}

/* A round's directories and its sender; the receiver runs when the sender is done: the rounds are
 * small. */
static void begin_round(struct scene *scene, const struct criu_limits *limits)
{
	if (scene->sender == NULL) {
		start_workload(scene);
		pipe_pair_open(&scene->to.pipes[0], &scene->from.pipes[0]);
		assert_ok(memory_sender_new(swrk_memory_fd(scene->session), &scene->from, &codecs,
					    &scene->sender));
		assert_ok(page_store_new(scene->store_dir, &scene->store));
	}
	scene->round++;
	(void)snprintf(scene->images, sizeof(scene->images), "%s/images/%u", scene->dir,
		       scene->round);
	assert_ok(files_make_directory(scene->images));
	assert_ok(page_store_begin(scene->store, scene->round));
	assert_ok(memory_sender_begin(scene->sender, scene->round, &tracked));
	scene->dump = (struct criu_dump){
	    .pid = scene->workload.pid,
	    .images_dir = scene->images,
	    .parent = scene->round > 1 ? "../1" : NULL,
	    .work_dir = scene->dir,
	    .log_file = "dump.log",
	    .track_mem = true,
	    .limits = limits,
	};
}

static struct memory_round end_round(struct scene *scene)
{
	struct memory_round sent = {0}, got = {0};

	assert_ok(memory_sender_end(scene->sender, PLENTY_MS, &sent));
	assert_ok(memory_receive_round(&scene->to, scene->store, scene->round, PLENTY_MS, &got));
	assert_true(sent.digest == got.digest);
	return sent;
}

static char state_of(pid_t pid)
{
	struct proc_stat stat;

	assert_ok(proc_stat(pid, &stat));
	return stat.state;
}

static void expect_state(pid_t pid, char want)
{
	int64_t until = clock_monotonic_ms() + PLENTY_MS;

	while (state_of(pid) != want) {
		if (clock_monotonic_ms() > until)
			fail_msg("process %d is %c, not %c", pid, state_of(pid), want);
		(void)poll(NULL, 0, POLL_MS);
	}
}

/* --- short requests --- */

static void one_session_answers_all_short_requests(void **state)
{
	struct scene *scene = *state;
	unsigned version = 0;
	bool has = false;

	open_session(scene, "version=40203");
	assert_ok(criu_version(scene->session, &plenty, &version));
	assert_int_equal(version, 40203);
	assert_ok(criu_has_dirty_tracking(scene->session, &plenty, &has));
	assert_true(has);
	assert_ok(criu_cpuinfo_dump(scene->session, scene->dir, &plenty));
	assert_ok(criu_cpuinfo_check(scene->session, scene->dir, &plenty));
	assert_ok(criu_version(scene->session, &plenty, &version));
}

static void a_kernel_without_tracking_or_support_is_told(void **state)
{
	struct scene *scene = *state;
	bool has = true;

	open_session(scene, "no-track");
	assert_ok(criu_has_dirty_tracking(scene->session, &plenty, &has));
	assert_false(has);
	swrk_free(TAKE(scene->session));
	open_session(scene, "no-kernel");
	scoped(status) status *st = criu_has_dirty_tracking(scene->session, &plenty, &has);
	assert_non_null(strstr(status_message(st), "CRIU could not work on this kernel"));
	assert_non_null(status_detail_find(st, "next"));
}

static void another_cpu_is_a_precondition_that_fails(void **state)
{
	struct scene *scene = *state;
	unsigned version = 0;

	open_session(scene, "cpu-mismatch");
	assert_ok(criu_cpuinfo_dump(scene->session, scene->dir, &plenty));
	scoped(status) status *st = criu_cpuinfo_check(scene->session, scene->dir, &plenty);
	assert_int_equal(status_code_of(st), STATUS_FAILED_PRECONDITION);
	assert_non_null(strstr(status_detail_find(st, "criu"), "CPU instruction capabilities"));
	assert_ok(criu_version(scene->session, &plenty, &version));
}

/* --- how sessions end --- */

static void a_dead_criu_is_told_with_its_signal_every_time(void **state)
{
	struct scene *scene = *state;
	unsigned version;

	open_session(scene, "die=version");
	for (int i = 0; i < 2; i++) {
		scoped(status) status *st = criu_version(scene->session, &plenty, &version);
		assert_int_equal(status_code_of(st), STATUS_UNAVAILABLE);
		assert_non_null(strstr(status_message(st), "killed by signal 9"));
	}
}

static void a_missing_program_is_told(void **state)
{
	struct scene *scene = *state;
	const struct swrk_options options = {.criu = "no-such-criu", .work_dir = scene->dir};
	scoped(status) status *st = swrk_open(&options, &scene->session);

	assert_int_equal(status_code_of(st), STATUS_NOT_FOUND);
	assert_non_null(status_detail_find(st, "next"));
}

static void a_program_that_is_no_criu_is_told_with_what_it_said(void **state)
{
	struct scene *scene = *state;
	struct swrk_options options = {"ls", NULL, scene->dir, false, false, NULL, NULL, 0};
	unsigned version;

	assert_ok(swrk_open(&options, &scene->session));
	scoped(status) status *st = criu_version(scene->session, &plenty, &version);
	assert_int_equal(status_code_of(st), STATUS_UNAVAILABLE);
	assert_non_null(strstr(status_message(st), "exit status 2"));
	assert_non_null(status_detail_find(st, "criu"));
}

/* What is behind a descriptor of CRIU's, "" when it is not open. */
static void behind(const struct swrk *session, int fd, char text[64])
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", swrk_pid(session), fd);
	ssize_t length = readlink(path, text, 63);
	text[length > 0 ? length : 0] = '\0';
}

/* Else its socket would end with the engine, which CRIU takes for consent at pre-resume. */
static void a_criu_that_outlives_its_engine_holds_both_ends_and_its_death_is_noticed(void **state)
{
	struct scene *scene = *state;
	char its[64], ours[64];
	unsigned version;

	open_session(scene, "");
	assert_ok(criu_version(scene->session, &plenty, &version));
	behind(scene->session, SWRK_ENGINE_FD, ours);
	assert_string_equal(ours, "");
	swrk_free(TAKE(scene->session));

	struct swrk_options options = {FAKE_CRIU, NULL, scene->dir, false, true, NULL, NULL, 0};
	assert_ok(swrk_open(&options, &scene->session));
	assert_ok(criu_version(scene->session, &plenty, &version));
	behind(scene->session, SWRK_RPC_FD, its);
	behind(scene->session, SWRK_ENGINE_FD, ours);
	assert_int_equal(strncmp(ours, "socket:", 7), 0);
	assert_string_not_equal(ours, its);
	assert_int_equal(kill(swrk_pid(scene->session), SIGKILL), 0);
	assert_code(criu_version(scene->session, &plenty, &version), STATUS_UNAVAILABLE);
}

static void a_message_that_cannot_be_read_is_data_loss(void **state)
{
	struct scene *scene = *state;
	unsigned version;

	open_session(scene, "garbage=version");
	assert_code(criu_version(scene->session, &plenty, &version), STATUS_DATA_LOSS);
}

static void silence_ends_by_the_deadline(void **state)
{
	struct scene *scene = *state;
	unsigned version;

	open_session(scene, "hang=version");
	assert_code(criu_version(scene->session, &little, &version), STATUS_DEADLINE_EXCEEDED);
}

static void the_time_for_it_ends_a_wait_before_the_silence_does(void **state)
{
	struct scene *scene = *state;
	bool has;
	open_session(scene, "hang=feature-check");
	swrk_set_deadline(scene->session, clock_monotonic_ms() + 300);
	assert_code(criu_has_dirty_tracking(scene->session, &plenty, &has),
		    STATUS_DEADLINE_EXCEEDED);
}

static void a_stopped_criu_ends_by_the_deadline(void **state)
{
	struct scene *scene = *state;
	unsigned version;

	open_session(scene, "");
	assert_ok(criu_version(scene->session, &plenty, &version));
	assert_int_equal(kill(swrk_pid(scene->session), SIGSTOP), 0);
	expect_state(swrk_pid(scene->session), 'T');
	assert_code(criu_version(scene->session, &little, &version), STATUS_DEADLINE_EXCEEDED);
}

static void *interrupt(void *self)
{
	swrk_interrupt(self);
	return NULL;
}

static void an_interrupt_ends_the_wait_until_resumed(void **state)
{
	struct scene *scene = *state;
	unsigned version;
	pthread_t thread;

	open_session(scene, "hang=feature-check");
	assert_int_equal(pthread_create(&thread, NULL, interrupt, scene->session), 0);
	bool has;
	assert_code(criu_has_dirty_tracking(scene->session, &plenty, &has), STATUS_CANCELLED);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_code(criu_version(scene->session, &plenty, &version), STATUS_CANCELLED);
	swrk_free(TAKE(scene->session));
	open_session(scene, "");
	swrk_interrupt(scene->session);
	swrk_resume(scene->session);
	assert_ok(criu_version(scene->session, &plenty, &version));
}

/* --- dumps --- */

static void rounds_and_the_dump_follow_each_other_in_one_session(void **state)
{
	struct scene *scene = *state;
	struct memory_round first, second, last;
	int ended = 0;

	open_session(scene, "");
	begin_round(scene, &plenty);
	assert_ok(criu_pre_dump(scene->session, &scene->dump));
	first = end_round(scene);
	assert_true(state_of(scene->workload.pid) != 't');
	begin_round(scene, &plenty);
	assert_ok(criu_pre_dump(scene->session, &scene->dump));
	second = end_round(scene);
	assert_true(second.pages_sent < first.pages_sent);
	assert_int_equal(second.pages_sent + second.pages_skipped + second.pages_same,
			 first.pages_sent);
	begin_round(scene, &plenty);
	assert_ok(criu_dump_hold(scene->session, &scene->dump));
	last = end_round(scene);
	assert_true(last.pages_skipped > 0);
	expect_state(scene->workload.pid, 't');
	assert_ok(criu_dump_end(scene->session, &scene->dump, true));
	assert_ok(child_wait(&scene->workload, PLENTY_MS, &ended));
	assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
}

static void hold(struct scene *scene, const char *faults)
{
	open_session(scene, faults);
	begin_round(scene, &plenty);
	assert_ok(criu_dump_hold(scene->session, &scene->dump));
	(void)end_round(scene);
}

static void a_dump_that_is_refused_lets_the_tree_go(void **state)
{
	struct scene *scene = *state;

	hold(scene, "");
	expect_state(scene->workload.pid, 't');
	assert_ok(criu_dump_end(scene->session, &scene->dump, false));
	expect_state(scene->workload.pid, 'S');
}

static void ending_a_session_lets_a_held_tree_go(void **state)
{
	struct scene *scene = *state;

	hold(scene, "");
	expect_state(scene->workload.pid, 't');
	swrk_free(TAKE(scene->session));
	expect_state(scene->workload.pid, 'S');
}

static void a_criu_that_dies_or_hangs_while_it_holds_is_noticed(void **state)
{
	struct scene *scene = *state;

	hold(scene, "die=post-dump");
	assert_code(criu_dump_end(scene->session, &scene->dump, true), STATUS_UNAVAILABLE);
	expect_state(scene->workload.pid, 'S');
}

static void a_criu_that_hangs_at_the_kill_is_noticed(void **state)
{
	struct scene *scene = *state;

	hold(scene, "hang=kill");
	scene->dump.limits = &little;
	assert_code(criu_dump_end(scene->session, &scene->dump, true), STATUS_DEADLINE_EXCEEDED);
}

/* The dump fails at one point, whichever way: the tree goes on and the page server's round ends,
 * too. */
static void expect_failed_dump(void **state, const char *faults, enum status_code want,
			       bool is_last)
{
	struct scene *scene = *state;
	struct memory_round sent;

	open_session(scene, faults);
	begin_round(scene, want == STATUS_DEADLINE_EXCEEDED ? &little : &plenty);
	if (is_last)
		assert_code(criu_dump_hold(scene->session, &scene->dump), want);
	else
		assert_code(criu_pre_dump(scene->session, &scene->dump), want);
	scoped(status) status *st = memory_sender_end(scene->sender, PLENTY_MS, &sent);
	assert_non_null(st);
	assert_int_not_equal(status_code_of(st), STATUS_DEADLINE_EXCEEDED);
	swrk_free(TAKE(scene->session));
	expect_state(scene->workload.pid, 'S');
}

static void a_pre_dump_that_fails_leaves_the_tree_running(void **state)
{
	expect_failed_dump(state, "fail=pre-dump", STATUS_ABORTED, false);
}

static void a_pre_dump_that_dies_leaves_the_tree_running(void **state)
{
	expect_failed_dump(state, "die=pages", STATUS_UNAVAILABLE, false);
}

static void a_pre_dump_that_hangs_leaves_the_tree_running(void **state)
{
	expect_failed_dump(state, "hang=pre-dump", STATUS_DEADLINE_EXCEEDED, false);
}

static void a_dump_that_fails_leaves_the_tree_running(void **state)
{
	expect_failed_dump(state, "fail=dump", STATUS_ABORTED, true);
}

static void a_dump_that_dies_leaves_the_tree_running(void **state)
{
	expect_failed_dump(state, "die=close", STATUS_UNAVAILABLE, true);
}

static void a_dump_that_hangs_leaves_the_tree_running(void **state)
{
	expect_failed_dump(state, "hang=pages", STATUS_DEADLINE_EXCEEDED, true);
}

static void a_slow_dump_is_not_a_silent_one(void **state)
{
	struct scene *scene = *state;
	const struct criu_limits limits = {PLENTY_MS, 2000};

	/* Some 25 records, 200 ms apart: longer than the silence that is allowed. */
	open_session(scene, "slow=200 pages=600");
	begin_round(scene, &limits);
	int64_t begun = clock_monotonic_ms();
	assert_ok(criu_dump_hold(scene->session, &scene->dump));
	assert_true(clock_monotonic_ms() - begun > 4000);
	assert_int_equal(end_round(scene).pages_sent, 600);
}

/* --- restore --- */

struct restoring {
	pid_t root;
	status *refusal;
	bool is_called;
};

static status *before_resume(void *self, pid_t root)
{
	struct restoring *restoring = self;

	restoring->root = root;
	restoring->is_called = true;
	return TAKE(restoring->refusal);
}

/* Dumps, ends the workload, and restores it; images and pages are in one directory then. */
static status *restore(struct scene *scene, const char *faults, struct restoring *restoring,
		       pid_t *ret_pid)
{
	char images[160];

	hold(scene, "");
	(void)snprintf(images, sizeof(images), "%s/1", scene->store_dir);
	(void)pipe_pair_carry_images(scene->from.pipes[0], scene->images, scene->to.pipes[0],
				     images);
	assert_ok(criu_dump_end(scene->session, &scene->dump, true));
	assert_ok(child_wait(&scene->workload, PLENTY_MS, NULL));
	memory_sender_free(TAKE(scene->sender));
	swrk_free(TAKE(scene->session));
	open_session(scene, faults);
	struct criu_restore request = {.images_dir = images,
				       .work_dir = scene->dir,
				       .log_file = "restore.log",
				       .limits =
					   strstr(faults, "hang") != NULL ? &little : &plenty};
	return criu_restore_frozen(scene->session, &request, before_resume, restoring, ret_pid);
}

static void a_restored_tree_is_our_child_with_its_old_id(void **state)
{
	struct scene *scene = *state;
	struct restoring restoring = {0};
	struct proc_stat stat;
	pid_t root = 0;

	assert_ok(restore(scene, "", &restoring, &root));
	assert_true(restoring.is_called);
	assert_int_equal(restoring.root, root);
	assert_int_equal(root, scene->dump.pid);
	assert_ok(proc_stat(root, &stat));
	assert_int_equal(stat.parent, getpid());
	assert_int_equal(kill(root, SIGKILL), 0);
	assert_int_equal(waitpid(root, NULL, __WALL), root);
}

static void a_refusal_before_the_resume_is_returned_and_never_acknowledged(void **state)
{
	struct scene *scene = *state;
	struct restoring restoring = {.refusal = status_errorf(STATUS_INTERNAL, "no")};
	pid_t root = 0;

	assert_code(restore(scene, "", &restoring, &root), STATUS_INTERNAL);
	assert_int_equal(root, 0);
	assert_int_equal(kill(restoring.root, SIGKILL), 0);
	assert_int_equal(waitpid(restoring.root, NULL, __WALL), restoring.root);
}

static void a_restore_that_fails_is_explained(void **state)
{
	struct scene *scene = *state;
	struct restoring restoring = {0};
	pid_t root = 0;

	scoped(status) status *st = restore(scene, "fail=restore", &restoring, &root);
	assert_int_equal(status_code_of(st), STATUS_ABORTED);
	assert_non_null(strstr(status_message(st), "Told to fail at restore"));
	assert_false(restoring.is_called);
}

static void a_restore_that_hangs_ends_by_the_deadline(void **state)
{
	struct scene *scene = *state;
	struct restoring restoring = {0};
	pid_t root = 0;

	assert_code(restore(scene, "hang=restore", &restoring, &root), STATUS_DEADLINE_EXCEEDED);
}

static void a_restore_that_dies_before_its_answer_is_an_error(void **state)
{
	struct scene *scene = *state;
	struct restoring restoring = {0};
	pid_t root = 0;

	assert_code(restore(scene, "die=response", &restoring, &root), STATUS_UNAVAILABLE);
	assert_true(restoring.is_called);
	assert_int_equal(kill(restoring.root, SIGKILL), 0);
	assert_int_equal(waitpid(restoring.root, NULL, __WALL), restoring.root);
}

int main(void)
{
#define SWRK_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    SWRK_TEST(one_session_answers_all_short_requests),
	    SWRK_TEST(a_kernel_without_tracking_or_support_is_told),
	    SWRK_TEST(another_cpu_is_a_precondition_that_fails),
	    SWRK_TEST(a_dead_criu_is_told_with_its_signal_every_time),
	    SWRK_TEST(a_missing_program_is_told),
	    SWRK_TEST(a_program_that_is_no_criu_is_told_with_what_it_said),
	    SWRK_TEST(a_criu_that_outlives_its_engine_holds_both_ends_and_its_death_is_noticed),
	    SWRK_TEST(a_message_that_cannot_be_read_is_data_loss),
	    SWRK_TEST(silence_ends_by_the_deadline),
	    SWRK_TEST(the_time_for_it_ends_a_wait_before_the_silence_does),
	    SWRK_TEST(a_stopped_criu_ends_by_the_deadline),
	    SWRK_TEST(an_interrupt_ends_the_wait_until_resumed),
	    SWRK_TEST(rounds_and_the_dump_follow_each_other_in_one_session),
	    SWRK_TEST(a_dump_that_is_refused_lets_the_tree_go),
	    SWRK_TEST(ending_a_session_lets_a_held_tree_go),
	    SWRK_TEST(a_criu_that_dies_or_hangs_while_it_holds_is_noticed),
	    SWRK_TEST(a_criu_that_hangs_at_the_kill_is_noticed),
	    SWRK_TEST(a_pre_dump_that_fails_leaves_the_tree_running),
	    SWRK_TEST(a_pre_dump_that_dies_leaves_the_tree_running),
	    SWRK_TEST(a_pre_dump_that_hangs_leaves_the_tree_running),
	    SWRK_TEST(a_dump_that_fails_leaves_the_tree_running),
	    SWRK_TEST(a_dump_that_dies_leaves_the_tree_running),
	    SWRK_TEST(a_dump_that_hangs_leaves_the_tree_running),
	    SWRK_TEST(a_slow_dump_is_not_a_silent_one),
	    SWRK_TEST(a_restored_tree_is_our_child_with_its_old_id),
	    SWRK_TEST(a_refusal_before_the_resume_is_returned_and_never_acknowledged),
	    SWRK_TEST(a_restore_that_fails_is_explained),
	    SWRK_TEST(a_restore_that_hangs_ends_by_the_deadline),
	    SWRK_TEST(a_restore_that_dies_before_its_answer_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
