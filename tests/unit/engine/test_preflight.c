/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/preflight.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "engine/host/proc.h"
#include "tests/unit/engine/workload.h"
#include "tests/unit/test.h"

static const Haul__V1__MigrateOptions plain_options = HAUL__V1__MIGRATE_OPTIONS__INIT;

/* The part must be refused, with this in the sentence. */
static void refuse_pid(pid_t pid, const Haul__V1__MigrateOptions *options, const char *why)
{
	struct tree_survey survey;
	scoped(status) status *st = preflight_tree(pid, options, &survey);

	if (st == NULL)
		tree_survey_free(&survey);
	assert_non_null(st);
	if (strstr(status_message(st), why) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", status_message(st), why);
	assert_int_equal(status_code_of(st), STATUS_FAILED_PRECONDITION);
}

static void refuse(const char *part, int error, const Haul__V1__MigrateOptions *options,
		   const char *why)
{
	struct workload workload = workload_start(part, error, false);

	refuse_pid(workload.pid, options, why);
	workload_end(&workload);
}

static void accept_part(const char *part, const Haul__V1__MigrateOptions *options)
{
	struct workload workload = workload_start(part, -1, false);
	struct tree_survey survey = {0};

	assert_ok(preflight_tree(workload.pid, options, &survey));
	tree_survey_free(&survey);
	workload_end(&workload);
}

static const struct survey_file *find_file(const struct tree_survey *survey, const char *path)
{
	for (size_t i = 0; i < survey->file_count; i++)
		if (strcmp(survey->files[i].path, path) == 0)
			return &survey->files[i];
	return NULL;
}

static void workload_names_are_checked(void **state)
{
	static const char *const bad[] = {"",	    "123",    "pid:",	"pid:0",
					  "pid:-1", "pid:1x", "pid: 1", "pid:99999999999",
					  "PID:1"};
	pid_t pid = 0;
	(void)state;

	assert_ok(workload_parse("pid:1234", &pid));
	assert_int_equal(pid, 1234);
	for (size_t i = 0; i < array_len(bad); i++)
		assert_reason(workload_parse(bad[i], &pid), STATUS_INVALID_ARGUMENT,
			      "NOT_A_WORKLOAD");
}

static void a_plain_process_is_surveyed(void **state)
{
	struct workload workload = workload_start("plain", -1, false);
	struct tree_survey survey = {0};
	struct proc_stat who;
	struct stat program;
	char exe[4096] = "";
	(void)state;

	assert_ok(preflight_tree(workload.pid, &plain_options, &survey));
	assert_ok(proc_stat(workload.pid, &who));
	assert_int_equal(survey.pid_count, 1);
	assert_int_equal(survey.pids[0], workload.pid);
	assert_int_equal(survey.start_ticks, who.start_ticks);
	assert_true(survey.resident_bytes > 0);
	assert_true(readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0);
	assert_int_equal(stat(exe, &program), 0);
	const struct survey_file *file = find_file(&survey, exe);
	assert_non_null(file);
	assert_true(file->check_size);
	assert_int_equal(file->size, program.st_size);
	for (size_t i = 1; i < survey.file_count; i++)
		assert_true(strcmp(survey.files[i - 1].path, survey.files[i].path) < 0);
	assert_ok(preflight_frozen(&survey));
	tree_survey_free(&survey);
	workload_end(&workload);
}

static void open_files_are_listed_and_deleted_ones_are_not(void **state)
{
	char directory[] = "/tmp/haul-preflight-XXXXXX", path[3][64];
	struct tree_survey survey = {0};
	(void)state;

	assert_non_null(mkdtemp(directory));
	for (int i = 0; i < 3; i++) {
		(void)snprintf(path[i], sizeof(path[i]), "%s/%d", directory, i);
		int fd = open(path[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		assert_true(fd >= 0);
		assert_int_equal(write(fd, "four", 4), 4);
		(void)close(fd);
	}
	assert_int_equal(setenv("PART_DIRECTORY", directory, 1), 0);
	struct workload workload = workload_start("files", -1, false);
	assert_ok(preflight_tree(workload.pid, &plain_options, &survey));
	const struct survey_file *reads = find_file(&survey, path[0]);
	assert_non_null(reads);
	assert_true(reads->check_size);
	assert_int_equal(reads->size, 4);
	const struct survey_file *writes = find_file(&survey, path[1]);
	assert_non_null(writes);
	assert_false(writes->check_size);
	assert_null(find_file(&survey, path[2]));
	assert_non_null(find_file(&survey, directory));
	tree_survey_free(&survey);
	workload_end(&workload);
	for (int i = 0; i < 3; i++)
		(void)unlink(path[i]);
	(void)rmdir(directory);
}

static void what_is_no_workload_is_an_invalid_argument(void **state)
{
	struct tree_survey survey;
	struct workload workload = workload_start("plain", -1, false);
	(void)state;

	assert_code(preflight_tree(1, &plain_options, &survey), STATUS_INVALID_ARGUMENT);
	assert_code(preflight_tree(getpid(), &plain_options, &survey), STATUS_INVALID_ARGUMENT);
	workload_end(&workload);
	assert_code(preflight_tree(workload.pid, &plain_options, &survey), STATUS_NOT_FOUND);
}

static void an_ended_root_is_called_a_zombie(void **state)
{
	struct workload workload = workload_start("plain", -1, false);
	siginfo_t info;
	(void)state;

	assert_int_equal(kill(workload.pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)workload.pid, &info, WEXITED | WNOWAIT), 0);
	refuse_pid(workload.pid, &plain_options, "zombie");
	workload_end(&workload);
}

static void a_traced_process_is_refused(void **state)
{
	struct workload workload = workload_start("plain", -1, false);
	(void)state;

	assert_int_equal(ptrace(PTRACE_SEIZE, workload.pid, NULL, NULL), 0);
	refuse_pid(workload.pid, &plain_options, "traced by process");
	workload_end(&workload);
}

static void a_process_outside_of_its_session_needs_shell_job(void **state)
{
	Haul__V1__MigrateOptions shell = HAUL__V1__MIGRATE_OPTIONS__INIT;
	struct workload workload = workload_start("plain", -1, true);
	struct tree_survey survey = {0};
	(void)state;

	refuse_pid(workload.pid, &plain_options, "session leader");
	shell.shell_job = true;
	assert_ok(preflight_tree(workload.pid, &shell, &survey));
	tree_survey_free(&survey);
	workload_end(&workload);
}

static void a_process_in_an_endless_uninterruptible_wait_is_refused(void **state)
{
	struct workload workload = workload_start("stuck", -1, false);
	struct proc_stat stat = {0};
	const struct timespec pause = {.tv_nsec = 1000000};
	(void)state;

	while (stat.state != 'D') {
		assert_ok(proc_stat(workload.pid, &stat));
		(void)nanosleep(&pause, NULL);
	}
	refuse_pid(workload.pid, &plain_options, "uninterruptible");
	workload_end(&workload);
}

static void a_pidfd_is_refused_by_type_and_number(void **state)
{
	(void)state;
	refuse("pidfd", -1, &plain_options, "descriptor 3 is a pidfd");
}

static void an_eventfd_of_more_than_32_bits_is_refused(void **state)
{
	(void)state;
	refuse("eventfd", -1, &plain_options, "more than 32 bits");
}

static void an_eventfd_that_grew_is_found_when_frozen(void **state)
{
	struct workload workload = workload_start("eventfd-later", -1, false);
	struct tree_survey survey = {0};
	(void)state;

	assert_ok(preflight_tree(workload.pid, &plain_options, &survey));
	assert_ok(preflight_frozen(&survey));
	workload_poke(&workload);
	assert_code(preflight_frozen(&survey), STATUS_FAILED_PRECONDITION);
	tree_survey_free(&survey);
	workload_end(&workload);
}

static void an_open_tcp_connection_is_refused_unless_it_may_be_closed(void **state)
{
	Haul__V1__MigrateOptions closes = HAUL__V1__MIGRATE_OPTIONS__INIT;
	(void)state;

	refuse("tcp", -1, &plain_options, "TCP connection to 127.0.0.1:");
	closes.tcp = HAUL__V1__TCP_MODE__TCP_CLOSE;
	accept_part("tcp", &closes);
}

static void a_listening_socket_is_accepted(void **state)
{
	(void)state;
	accept_part("tcp-listen", &plain_options);
}

static void a_unix_stream_within_the_tree_is_accepted(void **state)
{
	(void)state;
	accept_part("unix-pair", &plain_options);
}

static void a_unix_stream_to_outside_is_refused(void **state)
{
	int ends[2];
	(void)state;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	refuse("plain", ends[1], &plain_options,
	       "descriptor 2 is connected to a unix socket outside");
	(void)close(ends[0]);
	(void)close(ends[1]);
}

static void a_terminal_needs_shell_job(void **state)
{
	Haul__V1__MigrateOptions shell = HAUL__V1__MIGRATE_OPTIONS__INIT;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	struct tree_survey survey = {0};
	(void)state;

	assert_true(master >= 0);
	assert_int_equal(grantpt(master) | unlockpt(master), 0);
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(slave >= 0);
	struct workload workload = workload_start("plain", slave, false);
	refuse_pid(workload.pid, &plain_options, "terminal");
	shell.shell_job = true;
	assert_ok(preflight_tree(workload.pid, &shell, &survey));
	tree_survey_free(&survey);
	workload_end(&workload);
	(void)close(slave);
	(void)close(master);
}

static void a_terminal_whose_master_is_in_the_tree_is_accepted(void **state)
{
	(void)state;
	accept_part("pty", &plain_options);
}

static void several_troubles_are_all_told(void **state)
{
	struct workload workload = workload_start("many", -1, false);
	struct tree_survey survey;
	(void)state;

	scoped(status) status *st = preflight_tree(workload.pid, &plain_options, &survey);
	assert_int_equal(status_code_of(st), STATUS_FAILED_PRECONDITION);
	size_t violations = 0;
	for (size_t i = 0; i < status_detail_count(st); i++)
		violations += strcmp(status_detail_at(st, i).label, "violation.workload") == 0;
	assert_true(violations > 1);
	assert_string_equal(status_detail_find(st, "violation.workload"), status_message(st));
	assert_string_equal(status_detail_find(st, "reason"), "WORKLOAD_UNFIT");
	assert_non_null(status_detail_find(st, "next"));
	workload_end(&workload);
}

static status *destination(int32_t pid, Haul__V1__OpenFile *file, uint64_t memory, const char *root)
{
	Haul__V1__PrepareRequest request = HAUL__V1__PREPARE_REQUEST__INIT;
	char root_text[128];

	(void)snprintf(root_text, sizeof(root_text), "%s", root);
	request.root = root_text;
	request.memory_bytes = memory;
	request.pids = &pid;
	request.n_pids = pid != 0;
	request.files = &file;
	request.n_files = file != NULL;
	return preflight_destination(&request, "/tmp");
}

static void a_destination_with_everything_is_fit(void **state)
{
	Haul__V1__OpenFile file = HAUL__V1__OPEN_FILE__INIT;
	char path[] = "/etc/passwd";
	struct stat info;
	(void)state;

	assert_int_equal(stat(path, &info), 0);
	file.path = path;
	file.size = (uint64_t)info.st_size;
	file.check_size = true;
	assert_ok(destination(0, &file, 4096, ""));
	file.size++;
	assert_code(destination(0, &file, 4096, ""), STATUS_FAILED_PRECONDITION);
	file.check_size = false;
	assert_ok(destination(0, &file, 4096, ""));
}

/* What the destination says of a file on which the tree holds these locks. */
static status *with_locks(char *path, Haul__V1__Lock flock, Haul__V1__Lock record_lock)
{
	Haul__V1__OpenFile file = HAUL__V1__OPEN_FILE__INIT;

	file.path = path;
	file.flock = flock;
	file.record_lock = record_lock;
	return destination(0, &file, 4096, "");
}

static void locks_are_surveyed_and_must_be_free_at_the_destination(void **state)
{
	static const Haul__V1__Lock none = HAUL__V1__LOCK__LOCK_NONE,
				    shared = HAUL__V1__LOCK__LOCK_SHARED,
				    exclusive = HAUL__V1__LOCK__LOCK_EXCLUSIVE;
	char path[] = "/tmp/haul-lock-XXXXXX";
	(void)state;

	int fd = mkstemp(path);
	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(setenv("PART_LOCKED", path, 1), 0);
	for (Haul__V1__Lock held = shared; held <= exclusive; held++) {
		struct workload workload =
		    workload_start(held == shared ? "lock-shared" : "lock", -1, false);
		struct tree_survey survey = {0};
		assert_ok(preflight_tree(workload.pid, &plain_options, &survey));
		const struct survey_file *file = find_file(&survey, path);
		assert_non_null(file);
		assert_int_equal(file->flock, held);
		assert_int_equal(file->record_lock, held);
		tree_survey_free(&survey);
		assert_ok(with_locks(path, none, none));
		assert_code(with_locks(path, exclusive, none), STATUS_FAILED_PRECONDITION);
		assert_code(with_locks(path, none, exclusive), STATUS_FAILED_PRECONDITION);
		scoped(status) status *st = with_locks(path, shared, shared);
		assert_int_equal(st == NULL, held == shared);
		workload_end(&workload);
		assert_ok(with_locks(path, exclusive, exclusive));
	}
	(void)unlink(path);
}

static void pids_in_use_are_the_only_trouble_or_one_of_several(void **state)
{
	Haul__V1__OpenFile file = HAUL__V1__OPEN_FILE__INIT;
	char path[] = "/nowhere/at/all";
	struct workload workload = workload_start("plain", -1, false);
	siginfo_t info;
	(void)state;

	assert_int_equal(kill(workload.pid, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)workload.pid, &info, WEXITED | WNOWAIT), 0);
	scoped(status) status *st = destination(workload.pid, NULL, 0, "");
	assert_int_equal(status_code_of(st), STATUS_ALREADY_EXISTS);
	assert_non_null(strstr(status_detail_find(st, "violation.pid"), "zombie"));
	assert_string_equal(status_detail_find(st, "reason"), "PIDS_IN_USE");
	file.path = path;
	assert_reason(destination(workload.pid, &file, 0, ""), STATUS_FAILED_PRECONDITION,
		      "DESTINATION_UNFIT");
	pid_t pid = workload.pid;
	workload_end(&workload);
	assert_ok(destination(pid, NULL, 0, ""));
}

static void a_destination_without_memory_and_disk_says_so(void **state)
{
	(void)state;
	scoped(status) status *st = destination(0, NULL, UINT64_MAX / 4, "");
	assert_int_equal(status_code_of(st), STATUS_FAILED_PRECONDITION);
	assert_non_null(status_detail_find(st, "violation.memory"));
	assert_non_null(status_detail_find(st, "violation.disk"));
}

static void links_below_the_destinations_root_do_not_lead_out_of_it(void **state)
{
	char directory[] = "/tmp/haul-root-XXXXXX", link_path[64], path[] = "/link/passwd";
	Haul__V1__OpenFile file = HAUL__V1__OPEN_FILE__INIT;
	(void)state;

	assert_non_null(mkdtemp(directory));
	(void)snprintf(link_path, sizeof(link_path), "%s/link", directory);
	assert_int_equal(symlink("/etc", link_path), 0);
	file.path = path;
	assert_code(destination(0, &file, 0, directory), STATUS_FAILED_PRECONDITION);
	assert_code(destination(0, NULL, 0, "relative"), STATUS_INVALID_ARGUMENT);
	assert_int_equal(unlink(link_path) | rmdir(directory), 0);
	assert_code(destination(0, NULL, 0, directory), STATUS_FAILED_PRECONDITION);
}

static void part_files(const char *directory)
{
	(void)!chdir(directory);
	(void)open("0", O_RDONLY | O_CLOEXEC);
	(void)open("1", O_WRONLY | O_APPEND | O_CLOEXEC);
	(void)open("2", O_RDWR | O_CLOEXEC);
	(void)unlink("2");
}

static void part_lock(const char *path, bool is_shared)
{
	struct flock record = {.l_type = is_shared ? F_RDLCK : F_WRLCK, .l_start = 8, .l_len = 8};
	int whole = open(path, O_RDWR | O_CLOEXEC), part = open(path, O_RDWR | O_CLOEXEC);

	if (flock(whole, is_shared ? LOCK_SH : LOCK_EX) != 0 ||
	    fcntl(part, F_OFD_SETLK, &record) != 0)
		_exit(1);
}

static void part_tcp(bool is_connected)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof(address);
	int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(server, (struct sockaddr *)&address, sizeof(address)) != 0 ||
	    listen(server, 1) != 0 || getsockname(server, (struct sockaddr *)&address, &size) != 0)
		_exit(1);
	if (is_connected) {
		int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (connect(client, (struct sockaddr *)&address, sizeof(address)) != 0)
			_exit(1);
		(void)accept4(server, NULL, NULL, SOCK_CLOEXEC);
	}
}

/* A parent whose child does not end waits in state D: vfork's wait. */
static void part_stuck(void)
{
	char word = 'r';

	(void)!write(1, &word, 1);
	if (syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0) == 0) {
		(void)syscall(SYS_read, 0, &word, 1);
		syscall(SYS_exit_group, 0);
	}
}

static void part_eventfd(uint64_t value)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	(void)!write(fd, &value, sizeof(value));
}

static void part_pty(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (grantpt(master) != 0 || unlockpt(master) != 0 ||
	    open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC) < 0)
		_exit(1);
}

static int play(const char *part)
{
	int ends[2];

	if (strcmp(part, "files") == 0)
		part_files(getenv("PART_DIRECTORY"));
	else if (strncmp(part, "lock", 4) == 0)
		part_lock(getenv("PART_LOCKED"), strcmp(part, "lock-shared") == 0);
	else if (strcmp(part, "stuck") == 0)
		part_stuck();
	else if (strcmp(part, "pidfd") == 0 || strcmp(part, "many") == 0)
		(void)pidfd_open(getpid(), 0);
	if (strcmp(part, "eventfd") == 0 || strcmp(part, "many") == 0)
		part_eventfd(1ULL << 33);
	else if (strcmp(part, "tcp") == 0 || strcmp(part, "tcp-listen") == 0)
		part_tcp(strcmp(part, "tcp") == 0);
	else if (strcmp(part, "pty") == 0)
		part_pty();
	else if (strcmp(part, "unix-pair") == 0)
		(void)socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
	while (part_ready())
		if (strcmp(part, "eventfd-later") == 0)
			part_eventfd(1ULL << 33);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(workload_names_are_checked),
	    cmocka_unit_test(a_plain_process_is_surveyed),
	    cmocka_unit_test(open_files_are_listed_and_deleted_ones_are_not),
	    cmocka_unit_test(what_is_no_workload_is_an_invalid_argument),
	    cmocka_unit_test(an_ended_root_is_called_a_zombie),
	    cmocka_unit_test(a_traced_process_is_refused),
	    cmocka_unit_test(a_process_outside_of_its_session_needs_shell_job),
	    cmocka_unit_test(a_process_in_an_endless_uninterruptible_wait_is_refused),
	    cmocka_unit_test(a_pidfd_is_refused_by_type_and_number),
	    cmocka_unit_test(an_eventfd_of_more_than_32_bits_is_refused),
	    cmocka_unit_test(an_eventfd_that_grew_is_found_when_frozen),
	    cmocka_unit_test(an_open_tcp_connection_is_refused_unless_it_may_be_closed),
	    cmocka_unit_test(a_listening_socket_is_accepted),
	    cmocka_unit_test(a_unix_stream_within_the_tree_is_accepted),
	    cmocka_unit_test(a_unix_stream_to_outside_is_refused),
	    cmocka_unit_test(a_terminal_needs_shell_job),
	    cmocka_unit_test(a_terminal_whose_master_is_in_the_tree_is_accepted),
	    cmocka_unit_test(several_troubles_are_all_told),
	    cmocka_unit_test(a_destination_with_everything_is_fit),
	    cmocka_unit_test(locks_are_surveyed_and_must_be_free_at_the_destination),
	    cmocka_unit_test(pids_in_use_are_the_only_trouble_or_one_of_several),
	    cmocka_unit_test(a_destination_without_memory_and_disk_says_so),
	    cmocka_unit_test(links_below_the_destinations_root_do_not_lead_out_of_it),
	};

	if (argc == 3 && strcmp(argv[1], "part") == 0)
		_exit(play(argv[2]));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
