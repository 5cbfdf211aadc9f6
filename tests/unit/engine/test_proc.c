/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/proc.h"

#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/unit/engine/workload.h"
#include "tests/unit/test.h"

static void a_process_is_described(void **state)
{
	struct proc_stat stat;
	(void)state;

	assert_ok(proc_stat(getpid(), &stat));
	assert_int_equal(stat.pid, getpid());
	assert_int_equal(stat.parent, getppid());
	assert_int_equal(stat.session, getsid(0));
	assert_true(stat.state == 'R' || stat.state == 'S');
	assert_true(stat.start_ticks > 0);
}

static void dirty_bits_are_reset_of_who_is_there(void **state)
{
	(void)state;

	assert_ok(proc_reset_dirty(getpid()));
	assert_code(proc_reset_dirty(0x3ffffe), STATUS_NOT_FOUND);
}

static void a_name_with_parentheses_and_spaces_is_read_whole(void **state)
{
	struct workload workload = workload_start("named", -1, false);
	struct proc_stat stat;
	(void)state;

	assert_ok(proc_stat(workload.pid, &stat));
	assert_string_equal(stat.name, "a) S 1 (b) x");
	assert_int_equal(stat.parent, getpid());
	assert_int_equal(stat.session, workload.pid);
	workload_end(&workload);
}

static void a_pid_that_nobody_has_is_not_found(void **state)
{
	struct workload workload = workload_start("plain", -1, false);
	struct proc_stat stat;
	pid_t *pids;
	size_t count;
	uint64_t bytes;
	(void)state;

	workload_end(&workload);
	assert_code(proc_stat(workload.pid, &stat), STATUS_NOT_FOUND);
	assert_code(proc_tree(workload.pid, &pids, &count), STATUS_NOT_FOUND);
	assert_code(proc_resident_bytes(workload.pid, &bytes), STATUS_NOT_FOUND);
	assert_false(proc_is_alive(workload.pid, 0));
}

static void a_tree_lists_parents_before_children(void **state)
{
	struct workload workload = workload_start("family", -1, false);
	pid_t *pids = NULL;
	size_t count = 0;
	struct proc_stat stat;
	(void)state;

	assert_ok(proc_tree(workload.pid, &pids, &count));
	assert_int_equal(count, 3);
	assert_int_equal(pids[0], workload.pid);
	assert_ok(proc_stat(pids[1], &stat));
	assert_int_equal(stat.parent, workload.pid);
	assert_ok(proc_stat(pids[2], &stat));
	assert_int_equal(stat.parent, workload.pid);
	free(pids);
	workload_end(&workload);
}

static void a_zombie_and_a_reused_pid_are_not_alive(void **state)
{
	struct workload workload = workload_start("plain", -1, false);
	struct proc_stat stat;
	siginfo_t info;
	(void)state;

	assert_ok(proc_stat(workload.pid, &stat));
	assert_true(proc_is_alive(workload.pid, 0));
	assert_true(proc_is_alive(workload.pid, stat.start_ticks));
	assert_false(proc_is_alive(workload.pid, stat.start_ticks + 1));
	assert_int_equal(kill(workload.pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)workload.pid, &info, WEXITED | WNOWAIT), 0);
	assert_ok(proc_stat(workload.pid, &stat));
	assert_int_equal(stat.state, 'Z');
	assert_false(proc_is_alive(workload.pid, 0));
	workload_end(&workload);
}

static void resident_memory_is_counted_in_bytes(void **state)
{
	uint64_t bytes = 0;
	(void)state;

	assert_ok(proc_resident_bytes(getpid(), &bytes));
	assert_true(bytes >= 64 * 1024);
	assert_int_equal(bytes % (uint64_t)sysconf(_SC_PAGESIZE), 0);
}

static void the_boot_id_is_the_kernels(void **state)
{
	char first[40], second[40];
	(void)state;

	assert_ok(proc_boot_id(first));
	assert_ok(proc_boot_id(second));
	assert_int_equal(strlen(first), 36);
	assert_string_equal(first, second);
}

static void spawn_sibling(void)
{
	char program[] = "/proc/self/exe", role[] = "part", name[] = "quiet";
	char *argv[] = {program, role, name, NULL};
	pid_t pid;

	(void)posix_spawn(&pid, program, NULL, NULL, argv, environ);
}

static int play(const char *part)
{
	if (strcmp(part, "named") == 0)
		(void)prctl(PR_SET_NAME, "a) S 1 (b) x");
	if (strcmp(part, "quiet") == 0) {
		char word;
		(void)!read(0, &word, 1);
		return 0;
	}
	if (strcmp(part, "family") == 0) {
		spawn_sibling();
		spawn_sibling();
	}
	while (part_ready())
		;
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_process_is_described),
	    cmocka_unit_test(dirty_bits_are_reset_of_who_is_there),
	    cmocka_unit_test(a_name_with_parentheses_and_spaces_is_read_whole),
	    cmocka_unit_test(a_pid_that_nobody_has_is_not_found),
	    cmocka_unit_test(a_tree_lists_parents_before_children),
	    cmocka_unit_test(a_zombie_and_a_reused_pid_are_not_alive),
	    cmocka_unit_test(resident_memory_is_counted_in_bytes),
	    cmocka_unit_test(the_boot_id_is_the_kernels),
	};

	if (argc == 3 && strcmp(argv[1], "part") == 0)
		_exit(play(argv[2]));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
