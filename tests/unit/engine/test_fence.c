/* SPDX-License-Identifier: Apache-2.0 */
/* Real processes in real cgroups: skipped where this user may not make any. */
#include "engine/migration/fence.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/host/proc.h"
#include "tests/unit/engine/workload.h"
#include "tests/unit/test.h"

enum { QUIET_MS = 200, PATIENCE_MS = 30000, FAMILY = 3 };

struct scene {
	struct core core;
	struct workload workload;
	struct fence fence;
	pid_t pids[FAMILY]; /* root first */
	char home[CGROUP_PATH], other[CGROUP_PATH];
};

static int start(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));
	char base[CGROUP_PATH];

	*state = scene;
	if (scene == NULL)
		return -1;
	scoped(status) status *st = cgroup_base(base);
	if (st != NULL)
		return 0; /* the tests skip */
	(void)snprintf(scene->core.cgroup_mount, CGROUP_PATH, "%.*s",
		       (int)(strlen(base) - strlen("/haul")), base);
	(void)snprintf(scene->core.cgroups, CGROUP_PATH, "%.400s/test-%d", base, getpid());
	(void)snprintf(scene->home, CGROUP_PATH, "%.450s/home", scene->core.cgroups);
	(void)snprintf(scene->other, CGROUP_PATH, "%.450s/other", scene->core.cgroups);
	assert_ok(cgroup_make(scene->core.cgroups));
	assert_ok(cgroup_make(scene->home));
	assert_ok(cgroup_make(scene->other));
	scene->workload = workload_start("family", -1, false);
	pid_t *pids = NULL;
	size_t count = 0;
	assert_ok(proc_tree(scene->workload.pid, &pids, &count));
	assert_int_equal(count, FAMILY);
	memcpy(scene->pids, pids, sizeof(scene->pids));
	free(pids);
	assert_ok(cgroup_add(scene->home, scene->pids[0]));
	assert_ok(cgroup_add(scene->home, scene->pids[1]));
	assert_ok(cgroup_add(scene->other, scene->pids[2]));
	assert_ok(fence_survey(&scene->fence, &scene->core, "test", scene->pids, FAMILY));
	return 0;
}

static int stop(void **state)
{
	struct scene *scene = *state;

	if (scene->core.cgroups[0] != '\0') {
		workload_end(&scene->workload);
		fence_fini(&scene->fence);
		status_free(cgroup_kill(scene->core.cgroups, PATIENCE_MS));
		assert_false(cgroup_exists(scene->core.cgroups));
	}
	free(scene);
	return 0;
}

static struct scene *scene_of(void **state)
{
	struct scene *scene = *state;

	if (scene->core.cgroups[0] == '\0')
		skip();
	return scene;
}

static void assert_group(const struct scene *scene, pid_t pid, const char *want)
{
	char where[CGROUP_PATH];

	assert_ok(cgroup_of(pid, scene->core.cgroup_mount, where));
	assert_string_equal(where, want);
}

static bool answers(const struct scene *scene, int timeout_ms)
{
	struct pollfd from = {.fd = scene->workload.from, .events = POLLIN};
	char word;

	if (poll(&from, 1, timeout_ms) <= 0)
		return false;
	return read(scene->workload.from, &word, 1) == 1;
}

static void assert_frozen(const struct scene *scene)
{
	bool is_frozen = false, exists = false, has_run = true;

	assert_ok(cgroup_is_frozen(scene->fence.path, &is_frozen));
	assert_true(is_frozen);
	for (int i = 0; i < FAMILY; i++)
		assert_group(scene, scene->pids[i], scene->fence.path);
	fence_look(&scene->fence, scene->pids[0], 0, &exists, &has_run);
	assert_true(exists);
	assert_false(has_run);
	/* Asked, it does not answer: not even what woke it is read. */
	assert_int_equal(write(scene->workload.to, "p", 1), 1);
	assert_false(answers(scene, QUIET_MS));
}

static void a_closed_fence_holds_the_whole_tree(void **state)
{
	struct scene *scene = scene_of(state);
	bool exists, has_run;

	fence_look(&scene->fence, scene->pids[0], 0, &exists, &has_run);
	assert_true(exists && has_run);
	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	assert_frozen(scene);
	/* Closing again is fine: a repeated attempt must not fail. */
	assert_ok(fence_close(&scene->fence, scene->pids[0]));
}

static void a_tree_that_its_tracer_let_go_is_told_from_a_held_one(void **state)
{
	struct scene *scene = scene_of(state);

	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	assert_ok(fence_check_held(&scene->fence, 0)); /* by nobody, and nobody does */
	assert_code(fence_check_held(&scene->fence, getpid()), STATUS_ABORTED);
	assert_ok(fence_open(&scene->fence));
}

static void an_opened_fence_gives_all_back_to_where_they_were(void **state)
{
	struct scene *scene = scene_of(state);

	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	assert_frozen(scene);
	assert_ok(fence_open(&scene->fence));
	assert_true(answers(scene, PATIENCE_MS));
	assert_group(scene, scene->pids[0], scene->home);
	assert_group(scene, scene->pids[1], scene->home);
	assert_group(scene, scene->pids[2], scene->other);
	assert_false(cgroup_exists(scene->fence.path));
	/* Nothing to open is fine. */
	assert_ok(fence_open(&scene->fence));
}

static void a_group_that_is_gone_is_made_again(void **state)
{
	struct scene *scene = scene_of(state);

	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	assert_ok(cgroup_remove(scene->other));
	assert_ok(fence_open(&scene->fence));
	assert_group(scene, scene->pids[2], scene->other);
}

static void a_fence_recalled_from_the_journal_opens_the_same(void **state)
{
	struct scene *scene = scene_of(state);
	Haul__V1__JournalRecord record = HAUL__V1__JOURNAL_RECORD__INIT;
	struct fence recalled = {0};

	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	record.id = (char *)"test";
	record.origin_cgroups = scene->fence.origins;
	record.n_origin_cgroups = scene->fence.origin_count;
	fence_recall(&recalled, &scene->core, &record);
	assert_string_equal(recalled.path, scene->fence.path);
	assert_ok(fence_open(&recalled));
	fence_fini(&recalled);
	assert_group(scene, scene->pids[0], scene->home);
	assert_group(scene, scene->pids[2], scene->other);
}

static void a_process_that_is_not_listed_goes_to_the_roots_group(void **state)
{
	struct scene *scene = scene_of(state);

	fence_fini(&scene->fence);
	assert_ok(fence_survey(&scene->fence, &scene->core, "test", scene->pids, 1));
	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	assert_ok(fence_open(&scene->fence));
	assert_group(scene, scene->pids[2], scene->home);
}

static void a_killed_fence_leaves_nothing(void **state)
{
	struct scene *scene = scene_of(state);
	bool exists = true, has_run = true;

	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	assert_ok(fence_kill(&scene->fence));
	assert_false(cgroup_exists(scene->fence.path));
	for (int i = 0; i < FAMILY; i++)
		assert_false(proc_is_alive(scene->pids[i], 0));
	fence_look(&scene->fence, scene->pids[0], 0, &exists, &has_run);
	assert_false(exists);
	assert_false(has_run);
	assert_ok(fence_kill(&scene->fence));
}

static void a_tree_that_somebody_thawed_has_run(void **state)
{
	struct scene *scene = scene_of(state);
	bool exists = false, has_run = false;

	assert_ok(fence_close(&scene->fence, scene->pids[0]));
	assert_ok(cgroup_thaw(scene->fence.path, PATIENCE_MS));
	fence_look(&scene->fence, scene->pids[0], 0, &exists, &has_run);
	assert_true(exists && has_run);
	/* Frozen, but not in there: the same. */
	assert_ok(cgroup_add(scene->home, scene->pids[0]));
	assert_ok(cgroup_freeze(scene->fence.path, PATIENCE_MS));
	fence_look(&scene->fence, scene->pids[0], 0, &exists, &has_run);
	assert_true(exists && has_run);
	/* Another process with its number is not the tree. */
	fence_look(&scene->fence, scene->pids[0], 1, &exists, &has_run);
	assert_false(exists || has_run);
}

static void a_tree_whose_root_is_gone_is_not_fenced(void **state)
{
	struct scene *scene = scene_of(state);

	assert_int_equal(kill(scene->pids[0], SIGKILL), 0);
	assert_int_equal(waitpid(scene->pids[0], NULL, 0), scene->pids[0]);
	status *st = fence_close(&scene->fence, scene->pids[0]);
	assert_non_null(st);
	status_free(st);
	scene->pids[0] = scene->pids[1];
}

static int play(const char *part)
{
	if (strcmp(part, "family") == 0) {
		for (int i = 1; i < FAMILY; i++) {
			char program[] = "/proc/self/exe", role[] = "part", name[] = "child";
			char *argv[] = {program, role, name, NULL};
			pid_t pid;
			(void)posix_spawn(&pid, program, NULL, NULL, argv, environ);
		}
		while (part_ready())
			;
		return 0;
	}
	for (;;)
		(void)pause();
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
	    TEST(a_closed_fence_holds_the_whole_tree),
	    TEST(a_tree_that_its_tracer_let_go_is_told_from_a_held_one),
	    TEST(an_opened_fence_gives_all_back_to_where_they_were),
	    TEST(a_group_that_is_gone_is_made_again),
	    TEST(a_fence_recalled_from_the_journal_opens_the_same),
	    TEST(a_process_that_is_not_listed_goes_to_the_roots_group),
	    TEST(a_killed_fence_leaves_nothing),
	    TEST(a_tree_that_somebody_thawed_has_run),
	    TEST(a_tree_whose_root_is_gone_is_not_fenced),
	};

	if (argc == 3 && strcmp(argv[1], "part") == 0)
		_exit(play(argv[2]));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
