/* SPDX-License-Identifier: Apache-2.0 */
/* Skipped where there is no cgroup v2 to write to. */
#include "tests/unit/test.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "engine/host/cgroup.h"
#include "engine/host/child.h"

enum { PLENTY_MS = 60000, SKIPPED = 77 };

struct scene {
	char base[CGROUP_PATH], mount[CGROUP_PATH], group[CGROUP_PATH];
	char id[32];
};

static int make(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	assert_ok(cgroup_base(scene->base));
	(void)snprintf(scene->mount, sizeof(scene->mount), "%s", scene->base);
	*strrchr(scene->mount, '/') = '\0';
	(void)snprintf(scene->id, sizeof(scene->id), "test-%d", getpid());
	cgroup_path(scene->base, "in", scene->id, scene->group);
	assert_ok(cgroup_make(scene->group));
	*state = scene;
	return 0;
}

static int end(void **state)
{
	struct scene *scene = *state;

	assert_ok(cgroup_kill(scene->group, PLENTY_MS));
	while (waitpid(-1, NULL, 0) > 0)
		;
	free(scene);
	return 0;
}

static pid_t spawn_in(const char *group)
{
	const char *argv[] = {"sh", "-c", "sleep 1000 & sleep 1000", NULL};
	const int fds[] = {-1, -1, -1};
	struct child_spec spec = {.argv = argv, .fds = fds, .fd_count = 3, .cgroup = group};
	struct child child;

	assert_ok(child_spawn(&spec, &child));
	(void)close(child.pidfd);
	return child.pid;
}

static void a_child_and_its_children_are_born_in_the_group(void **state)
{
	struct scene *scene = *state;
	char where[CGROUP_PATH] = "";
	pid_t pid = spawn_in(scene->group);
	size_t count = 0;

	assert_ok(cgroup_of(pid, scene->mount, where));
	assert_string_equal(where, scene->group);
	while (count != 3) {
		pid_t *pids = NULL;
		assert_ok(cgroup_pids(scene->group, &pids, &count));
		assert_true(count >= 1 && count <= 3);
		free(pids);
	}
}

static void a_frozen_group_says_so_and_can_be_killed(void **state)
{
	struct scene *scene = *state;
	bool is_frozen = false, is_populated = false;
	int ended = 0;
	pid_t pid = spawn_in(scene->group);

	assert_ok(cgroup_is_frozen(scene->group, &is_frozen));
	assert_false(is_frozen);
	assert_ok(cgroup_freeze(scene->group, PLENTY_MS));
	assert_ok(cgroup_is_frozen(scene->group, &is_frozen));
	assert_true(is_frozen);
	assert_ok(cgroup_thaw(scene->group, PLENTY_MS));
	assert_ok(cgroup_freeze(scene->group, PLENTY_MS));
	assert_ok(cgroup_is_populated(scene->group, &is_populated));
	assert_true(is_populated);
	assert_code(cgroup_remove(scene->group), STATUS_FAILED_PRECONDITION);
	assert_ok(cgroup_kill(scene->group, PLENTY_MS));
	assert_false(cgroup_exists(scene->group));
	assert_int_equal(waitpid(pid, &ended, 0), pid);
	assert_true(WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL);
}

static void groups_below_are_killed_and_removed_too(void **state)
{
	struct scene *scene = *state;
	char below[CGROUP_PATH + 16];
	size_t count = 0;
	pid_t *pids = NULL;

	(void)snprintf(below, sizeof(below), "%s/below", scene->group);
	assert_ok(cgroup_make(below));
	(void)spawn_in(below);
	assert_ok(cgroup_pids(scene->group, &pids, &count));
	assert_true(count >= 1);
	free(pids);
	assert_ok(cgroup_kill(scene->group, PLENTY_MS));
	assert_false(cgroup_exists(scene->group));
	assert_ok(cgroup_kill(scene->group, PLENTY_MS)); /* missing is fine */
	assert_ok(cgroup_remove(scene->group));
}

static void a_process_that_is_not_there_cannot_be_added(void **state)
{
	struct scene *scene = *state;

	assert_code(cgroup_add(scene->group, 4194303), STATUS_NOT_FOUND);
}

struct seen {
	const char *want;
	unsigned count;
};

static void visit(void *self, const char *id)
{
	struct seen *seen = self;

	seen->count += strcmp(id, seen->want) == 0;
}

static void groups_are_found_by_kind(void **state)
{
	struct scene *scene = *state;
	struct seen seen = {scene->id, 0};

	assert_ok(cgroup_each(scene->base, "in", visit, &seen));
	assert_int_equal(seen.count, 1);
	assert_ok(cgroup_each(scene->base, "out", visit, &seen));
	assert_ok(cgroup_each(scene->base, "i", visit, &seen));
	assert_int_equal(seen.count, 1);
}

int main(void)
{
#define GROUP_TEST(name) cmocka_unit_test_setup_teardown(name, make, end)
	const struct CMUnitTest tests[] = {
	    GROUP_TEST(a_child_and_its_children_are_born_in_the_group),
	    GROUP_TEST(a_frozen_group_says_so_and_can_be_killed),
	    GROUP_TEST(groups_below_are_killed_and_removed_too),
	    GROUP_TEST(a_process_that_is_not_there_cannot_be_added),
	    GROUP_TEST(groups_are_found_by_kind),
	};
	char base[CGROUP_PATH];
	scoped(status) status *st = cgroup_base(base);

	if (st != NULL) {
		(void)fprintf(stderr, "skipped: %s\n", status_message(st));
		return SKIPPED;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
