/* SPDX-License-Identifier: Apache-2.0 */
/* The CRIU of this host, driven as a migration drives it: from dump to thaw, and what must hold
 * when it dies, stalls or is refused. Needs root, CRIU and a cgroup v2 of its own; otherwise it is
 * skipped. */
#include "tests/unit/test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "engine/criu/request.h"
#include "engine/host/cgroup.h"
#include "engine/host/files.h"
#include "engine/pipe/memory_pipe.h"
#include "proto/clock.h"
#include "tests/unit/engine/pipe_pair.h"

enum { PLENTY_MS = 120000, SKIPPED = 77, POLL_MS = 10 };

static const struct batch_codecs codecs = {BATCH_CODECS_ALL, 1};
static const struct memory_feed once = {.live_fd = -1, .is_criu = true, .is_last = true};

static const struct criu_limits plenty = {.short_ms = PLENTY_MS, .long_ms = PLENTY_MS};

/* One workload and all that a migration of it would have on both sides. */
struct scene {
	char dir[64], base[CGROUP_PATH];
	char out[CGROUP_PATH], in[CGROUP_PATH], source_group[CGROUP_PATH],
	    destination_group[CGROUP_PATH];
	char source_dir[128], destination_dir[128], images_dir[128], status_file[128];
	pid_t workload;
	struct swrk *source;
	struct criu_dump dump;
};

/* --- the workload --- */

static void start_workload(struct scene *scene, const char *option)
{
	char program[] = WORKLOADS "/memory", mib[] = "32", rate[] = "20", text[32];
	char *argv[] = {program, scene->status_file, mib, rate, option != NULL ? text : NULL, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;

	(void)snprintf(text, sizeof(text), "%s", option != NULL ? option : "");
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attributes);
	for (int fd = 0; fd < 3; fd++)
		(void)posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
	(void)posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	(void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
	assert_int_equal(posix_spawn(&scene->workload, program, &actions, &attributes, argv,
				     environ),
			 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
}

/* How often it has beaten and how often it has checked all of its memory; fails if it found damage.
 */
static unsigned long look(const struct scene *scene, unsigned long *ret_passes)
{
	struct buffer line __attribute__((cleanup(scope_buffer))) = {0};
	char word[16] = "", text[512];
	unsigned long beats = 0;

	*ret_passes = 0;
	scoped(status) status *st = files_read(scene->status_file, 4096, &line);
	if (st != NULL || line.size == 0)
		return 0;
	(void)snprintf(text, sizeof(text), "%.*s", (int)line.size, (const char *)line.data);
	(void)sscanf(text, "%15s %lu gap_ms=%*u at_ms=%*u pid=%*d passes=%lu", word, &beats,
		     ret_passes);
	if (strcmp(word, "CORRUPT") == 0)
		fail_msg("%s", text);
	return beats;
}

/* Returns when it has beaten and checked its memory twice more. */
static void expect_runs(const struct scene *scene)
{
	unsigned long before_passes = 0, passes = 0;
	unsigned long before = look(scene, &before_passes);
	int64_t until = clock_monotonic_ms() + PLENTY_MS;

	while (look(scene, &passes) < before + 20 || passes < before_passes + 2) {
		if (clock_monotonic_ms() > until)
			fail_msg("the workload does not run");
		(void)poll(NULL, 0, POLL_MS);
	}
}

/* It would beat every 50 ms. */
static void expect_stands(const struct scene *scene)
{
	unsigned long passes;
	unsigned long before = look(scene, &passes);

	(void)poll(NULL, 0, 500);
	assert_int_equal(look(scene, &passes), before);
}

/* CRIU has taken its own code out of the process again. */
static void expect_clean(const struct scene *scene)
{
	char path[64], line[512];
	unsigned lines = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/maps", scene->workload);
	FILE *file = fopen(path, "re");
	assert_non_null(file);
	while (fgets(line, sizeof(line), file) != NULL) {
		lines++;
		assert_null(strstr(line, "CRIU"));
	}
	assert_true(lines > 0);
	(void)fclose(file);
}

/* --- the scene --- */

static int make_scene(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	char id[40];

	assert_non_null(scene);
	scratch_make(scene->dir);
	assert_ok(cgroup_base(scene->base));
	(void)snprintf(id, sizeof(id), "test-%d", getpid());
	cgroup_path(scene->base, "out", id, scene->out);
	cgroup_path(scene->base, "in", id, scene->in);
	cgroup_path(scene->base, "criu", id, scene->source_group);
	(void)snprintf(id, sizeof(id), "test-%d-d", getpid());
	cgroup_path(scene->base, "criu", id, scene->destination_group);
	(void)snprintf(scene->source_dir, sizeof(scene->source_dir), "%s/source", scene->dir);
	(void)snprintf(scene->destination_dir, sizeof(scene->destination_dir), "%s/destination",
		       scene->dir);
	(void)snprintf(scene->images_dir, sizeof(scene->images_dir), "%s/source/1", scene->dir);
	(void)snprintf(scene->status_file, sizeof(scene->status_file), "%s/status", scene->dir);
	assert_ok(files_make_directory(scene->images_dir));
	assert_ok(files_make_directory(scene->destination_dir));
	assert_ok(cgroup_make(scene->out));
	assert_ok(cgroup_make(scene->in));
	assert_ok(cgroup_make(scene->source_group));
	assert_ok(cgroup_make(scene->destination_group));
	struct swrk_options options = {
	    "criu", scene->source_group, scene->source_dir, true, false, NULL, NULL, 0};
	assert_ok(swrk_open(&options, &scene->source));
	*state = scene;
	return 0;
}

static int end_scene(void **state)
{
	struct scene *scene = *state;

	swrk_free(scene->source);
	assert_ok(cgroup_kill(scene->in, PLENTY_MS));
	assert_ok(cgroup_kill(scene->out, PLENTY_MS));
	assert_ok(cgroup_kill(scene->source_group, PLENTY_MS));
	assert_ok(cgroup_kill(scene->destination_group, PLENTY_MS));
	if (scene->workload > 0)
		(void)kill(scene->workload, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0)
		;
	scratch_remove(scene->dir);
	free(scene);
	return 0;
}

static void prepare_dump(struct scene *scene, const struct criu_limits *limits)
{
	scene->dump = (struct criu_dump){
	    .pid = scene->workload,
	    .images_dir = scene->images_dir,
	    .work_dir = scene->source_dir,
	    .log_file = "dump.log",
	    .limits = limits,
	};
}

/* --- tests --- */

struct receiving {
	struct pipe *pipe;
	struct page_store *store;
	struct memory_round round;
	status *st;
};

static void *receive(void *self)
{
	struct receiving *receiving = self;

	const struct pipe_set pipes = pipe_set_of(receiving->pipe);
	receiving->st =
	    memory_receive_round(&pipes, receiving->store, 1, PLENTY_MS, &receiving->round);
	return NULL;
}

/* Dumps into base/1 of the destination; the tree is held and fenced. */
static void copy(struct scene *scene, char images[160])
{
	struct pipe *from = NULL, *to = NULL;
	struct memory_sender *sender = NULL;
	struct memory_round sent = {0};
	struct receiving receiving = {0};
	pthread_t thread;

	pipe_pair_open(&to, &from);
	receiving.pipe = to;
	assert_ok(page_store_new(scene->destination_dir, &receiving.store));
	assert_ok(page_store_begin(receiving.store, 1));
	assert_int_equal(pthread_create(&thread, NULL, receive, &receiving), 0);
	const struct pipe_set pipes = pipe_set_of(from);
	assert_ok(memory_sender_new(swrk_memory_fd(scene->source), &pipes, &codecs, &sender));
	assert_ok(memory_sender_begin(sender, 1, &once));
	assert_ok(criu_dump_hold(scene->source, &scene->dump));
	assert_ok(memory_sender_end(sender, PLENTY_MS, &sent));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_ok(receiving.st);
	assert_true(sent.pages_sent > 32 * 256);
	assert_int_equal(receiving.round.pages_sent, sent.pages_sent);
	assert_true(receiving.round.digest == sent.digest);
	memory_sender_free(sender);
	page_store_free(receiving.store);
	pipe_free(from);
	pipe_free(to);
	pipe_pair_open(&to, &from);
	(void)snprintf(images, 160, "%s/1", scene->destination_dir);
	assert_true(pipe_pair_carry_images(from, scene->images_dir, to, images) > 4);
	pipe_free(from);
	pipe_free(to);
}

struct thawing {
	const struct scene *scene;
	struct swrk *session;
};

static status *freeze(void *self, pid_t root)
{
	struct thawing *thawing = self;
	status *st = cgroup_add(thawing->scene->destination_group, swrk_pid(thawing->session));

	assert_int_equal(root, thawing->scene->workload);
	return st == NULL ? cgroup_freeze(thawing->scene->in, PLENTY_MS) : st;
}

static void check_cpu(struct scene *scene, struct swrk *destination)
{
	char from[160], to[160];
	struct buffer cpu __attribute__((cleanup(scope_buffer))) = {0};

	assert_ok(criu_cpuinfo_dump(scene->source, scene->source_dir, &plenty));
	(void)snprintf(from, sizeof(from), "%s/cpuinfo.img", scene->source_dir);
	(void)snprintf(to, sizeof(to), "%s/cpuinfo.img", scene->destination_dir);
	assert_ok(files_read(from, 65536, &cpu));
	assert_ok(files_write(to, cpu.data, cpu.size));
	assert_ok(criu_cpuinfo_check(destination, scene->destination_dir, &plenty));
}

/* The workload is dumped, fenced and ended; its images are at the destination. */
static void move_images(struct scene *scene, const char *option, char images[160])
{
	int ended = 0;

	start_workload(scene, option);
	expect_runs(scene);
	prepare_dump(scene, &plenty);
	copy(scene, images);
	assert_ok(cgroup_add(scene->out, scene->workload));
	assert_ok(cgroup_freeze(scene->out, PLENTY_MS));
	assert_ok(criu_dump_end(scene->source, &scene->dump, true));
	assert_int_equal(waitpid(scene->workload, &ended, 0), scene->workload);
	assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
}

static status *restore(struct scene *scene, const char *images, struct swrk *destination,
		       pid_t *ret_root)
{
	struct criu_restore request = {.images_dir = images,
				       .work_dir = scene->destination_dir,
				       .log_file = "restore.log",
				       .limits = &plenty};
	struct thawing thawing = {scene, destination};

	return criu_restore_frozen(destination, &request, freeze, &thawing, ret_root);
}

static struct swrk *open_destination(struct scene *scene)
{
	struct swrk *destination = NULL;
	struct swrk_options options = {"criu", scene->in, scene->destination_dir,
				       false,  false,	  NULL,
				       NULL,   0};

	assert_ok(swrk_open(&options, &destination));
	return destination;
}

static void migrate_with(struct scene *scene, const char *option)
{
	char images[160];
	pid_t root = 0;
	struct swrk *destination = open_destination(scene);

	check_cpu(scene, destination);
	move_images(scene, option, images);
	assert_ok(restore(scene, images, destination, &root));
	assert_int_equal(root, scene->workload);
	swrk_free(destination);
	expect_stands(scene);
	assert_ok(cgroup_thaw(scene->in, PLENTY_MS));
	expect_runs(scene);
}

static void a_restore_that_fails_is_explained_and_leaves_nothing(void **state)
{
	struct scene *scene = *state;
	char images[160];
	pid_t root = 0;
	struct swrk *destination = open_destination(scene);

	move_images(scene, NULL, images);
	assert_int_equal(unlink(scene->status_file), 0);
	scoped(status) status *st = restore(scene, images, destination, &root);
	assert_int_equal(status_code_of(st), STATUS_FAILED_PRECONDITION);
	assert_non_null(strstr(status_message(st), "missing at the destination"));
	assert_ok(cgroup_kill(scene->in, PLENTY_MS));
	swrk_free(destination);
	/* The id is free for the next try. */
	assert_int_equal(kill(scene->workload, 0), -1);
}

static void private_memory_arrives_frozen_and_right(void **state)
{
	migrate_with(*state, NULL);
}

static void shared_memory_arrives_frozen_and_right(void **state)
{
	migrate_with(*state, "--shared");
}

static void version_and_tracking_are_told_by_one_session(void **state)
{
	struct scene *scene = *state;
	unsigned version = 0;
	bool has_tracking = false;

	assert_ok(criu_version(scene->source, &plenty, &version));
	assert_true(version >= 40000 && version < 100000);
	assert_ok(criu_has_dirty_tracking(scene->source, &plenty, &has_tracking));
	assert_ok(criu_version(scene->source, &plenty, &version));
}

static void hold(struct scene *scene)
{
	char images[160];

	start_workload(scene, NULL);
	expect_runs(scene);
	prepare_dump(scene, &plenty);
	copy(scene, images);
	expect_stands(scene);
}

static void a_refused_dump_lets_the_tree_run_on(void **state)
{
	struct scene *scene = *state;

	hold(scene);
	assert_ok(criu_dump_end(scene->source, &scene->dump, false));
	expect_runs(scene);
	expect_clean(scene);
}

static void a_fenced_tree_stands_though_criu_is_killed(void **state)
{
	struct scene *scene = *state;

	hold(scene);
	assert_ok(cgroup_add(scene->out, scene->workload));
	assert_ok(cgroup_freeze(scene->out, PLENTY_MS));
	swrk_free(TAKE(scene->source));
	expect_stands(scene);
	assert_ok(cgroup_thaw(scene->out, PLENTY_MS));
	expect_runs(scene);
}

static void a_dump_without_a_page_server_ends_by_silence_and_the_tree_runs_on(void **state)
{
	struct scene *scene = *state;
	const struct criu_limits short_limits = {.short_ms = PLENTY_MS, .long_ms = 700};

	start_workload(scene, NULL);
	expect_runs(scene);
	prepare_dump(scene, &short_limits);
	assert_code(criu_dump_hold(scene->source, &scene->dump), STATUS_DEADLINE_EXCEEDED);
	expect_runs(scene);
	expect_clean(scene);
}

static void a_missing_process_is_told_as_such(void **state)
{
	struct scene *scene = *state;

	scene->workload = 0;
	prepare_dump(scene, &plenty);
	scene->dump.pid = 999999;
	/* After a failure, too, CRIU takes its leave of the page server, and waits for its answer.
	 */
	swrk_shut_memory(scene->source);
	scoped(status) status *st = criu_dump_hold(scene->source, &scene->dump);
	assert_non_null(st);
	if (strstr(status_message(st), "CRIU could not dump the tree") == NULL)
		fail_msg("%s", status_message(st));
	assert_non_null(status_detail_find(st, "criu"));
}

static bool can_run(void)
{
	char base[CGROUP_PATH];
	scoped(status) status *st = cgroup_base(base);

	return st == NULL && geteuid() == 0 && system("criu --version >/dev/null 2>&1") == 0;
}

int main(void)
{
#define SCENE_TEST(name) cmocka_unit_test_setup_teardown(name, make_scene, end_scene)
	const struct CMUnitTest tests[] = {
	    SCENE_TEST(version_and_tracking_are_told_by_one_session),
	    SCENE_TEST(private_memory_arrives_frozen_and_right),
	    SCENE_TEST(shared_memory_arrives_frozen_and_right),
	    SCENE_TEST(a_restore_that_fails_is_explained_and_leaves_nothing),
	    SCENE_TEST(a_refused_dump_lets_the_tree_run_on),
	    SCENE_TEST(a_fenced_tree_stands_though_criu_is_killed),
	    SCENE_TEST(a_dump_without_a_page_server_ends_by_silence_and_the_tree_runs_on),
	    SCENE_TEST(a_missing_process_is_told_as_such),
	};

	if (!can_run()) {
		(void)fprintf(stderr, "skipped: needs root, CRIU and cgroup v2\n");
		return SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
