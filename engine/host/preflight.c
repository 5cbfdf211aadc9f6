/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/host/preflight.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/host/preflight_parts.h"
#include "proto/clock.h"
#include "proto/reason.h"

enum {
	KERNEL_THREAD = 0x00200000,
	STUCK_MS = 1000, /* uninterruptible for so long: CRIU could not stop it either */
	STUCK_LOOK_MS = 20,
};

status *workload_parse(const char *workload, pid_t *ret_pid)
{
	char *end = NULL;
	long pid = 0;

	if (strncmp(workload, "pid:", 4) == 0 && workload[4] >= '1' && workload[4] <= '9') {
		errno = 0;
		pid = strtol(workload + 4, &end, 10);
		if (errno == 0 && *end == '\0' && pid <= INT32_MAX) {
			*ret_pid = (pid_t)pid;
			return NULL;
		}
	}
	return status_because(
	    status_errorf(STATUS_INVALID_ARGUMENT,
			  "\"%.80s\" is not a workload: write pid:N, for example pid:1234",
			  workload),
	    REASON_NOT_A_WORKLOAD);
}

void trouble_add(struct troubles *troubles, const char *next, const char *fmt, ...)
{
	char text[LIMIT_STATUS_TEXT];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	troubles->count++;
	if (troubles->st == NULL) {
		troubles->st = status_because(status_errorf(STATUS_FAILED_PRECONDITION, "%s", text),
					      REASON_WORKLOAD_UNFIT);
		if (next != NULL)
			troubles->st = status_detailf(troubles->st, "next", "%s", next);
	}
	if (troubles->count <= TROUBLES_TOLD)
		troubles->st =
		    status_detailf(troubles->st, VIOLATION_PREFIX "workload", "%s", text);
}

status *grow(void **array, size_t count, size_t element)
{
	if (count != 0 && (count & (count - 1)) != 0)
		return NULL;
	void *larger = reallocarray(*array, count == 0 ? 1 : count * 2, element);
	if (larger == NULL)
		return status_errnof(ENOMEM, "cannot survey the process tree");
	*array = larger;
	return NULL;
}

bool proc_field(const char *path, const char *key, int base, uint64_t *ret_value)
{
	char line[512];
	bool found = false;
	FILE *file = fopen(path, "re");

	if (file == NULL)
		return false;
	while (!found && fgets(line, sizeof(line), file) != NULL) {
		if (strncmp(line, key, strlen(key)) != 0)
			continue;
		char *end = NULL;
		*ret_value = strtoull(line + strlen(key), &end, base);
		found = end != line + strlen(key);
	}
	(void)fclose(file);
	return found;
}

bool same_namespace(pid_t a, pid_t b, const char *kind)
{
	char path[64];
	struct stat of[2];
	const pid_t pids[2] = {a, b};

	for (size_t i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "/proc/%d/ns/%s",
			       (int)(pids[i] == 0 ? getpid() : pids[i]), kind);
		if (stat(path, &of[i]) != 0)
			return false;
	}
	return of[0].st_ino == of[1].st_ino && of[0].st_dev == of[1].st_dev;
}

/* Not a workload at all: errors of the request, not of the workload's state. */
static status *check_root(pid_t root, const struct proc_stat *stat)
{
	if (root == 1)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "process 1 is this machine's init and cannot be moved");
	if ((stat->flags & KERNEL_THREAD) != 0)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "process %d (%s) is a kernel thread and cannot be moved",
				     (int)root, stat->name);
	for (pid_t pid = getpid(); pid > 1;) {
		struct proc_stat up;
		if (pid == root)
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "process %d (%s) %s: an engine cannot move itself",
					     (int)root, stat->name,
					     root == getpid() ? "is this engine"
							      : "is an ancestor of this engine");
		status *st = proc_stat(pid, &up);
		if (st != NULL)
			return st;
		pid = up.parent;
	}
	return NULL;
}

static uint64_t context_switches(pid_t thread)
{
	char path[64];
	uint64_t count = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
	(void)proc_field(path, "voluntary_ctxt_switches:", 10, &count);
	return count;
}

/* In state D without a moment's break: one look would also catch any thread that just reads a disk.
 */
static bool is_stuck(pid_t thread)
{
	const struct timespec pause = {.tv_nsec = STUCK_LOOK_MS * 1000000L};
	int64_t until = clock_monotonic_ms() + STUCK_MS;
	uint64_t switches = context_switches(thread);

	for (;;) {
		struct proc_stat stat;
		status *st = proc_stat(thread, &stat);
		if (st != NULL) {
			status_free(st);
			return false;
		}
		if (stat.state != 'D' || context_switches(thread) != switches)
			return false;
		if (clock_monotonic_ms() >= until)
			return true;
		(void)nanosleep(&pause, NULL);
	}
}

static void check_thread(struct inspection *in, pid_t thread)
{
	char path[64];
	uint64_t tracer = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)thread);
	if (proc_field(path, "TracerPid:", 10, &tracer) && tracer != 0)
		trouble_add(&in->troubles, "end the debugger (or strace) first",
			    "process %d (%s) is being traced by process %" PRIu64, (int)in->who.pid,
			    in->who.name, tracer);
	if (is_stuck(thread))
		trouble_add(
		    &in->troubles,
		    "wait until what it waits for (a disk, a network file system, a vfork) is done",
		    "process %d (%s) has been in an uninterruptible wait for %d ms",
		    (int)in->who.pid, in->who.name, STUCK_MS);
}

static void check_threads(struct inspection *in)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)in->who.pid);
	DIR *threads = opendir(path);
	if (threads == NULL)
		return;
	/* One trouble of this kind is enough: each costs a second. */
	size_t before = in->troubles.count;
	for (struct dirent *entry;
	     in->troubles.count == before && (entry = readdir(threads)) != NULL;)
		if (entry->d_name[0] != '.')
			check_thread(in, (pid_t)strtol(entry->d_name, NULL, 10));
	(void)closedir(threads);
}

/* What may end while we look is skipped: the tree is told about as it is, not as it was. */
static status *inspect_process(struct inspection *in, pid_t pid)
{
	uint64_t resident = 0;
	status *st = proc_stat(pid, &in->who);

	if (st != NULL || in->who.state == 'Z') {
		bool is_gone = status_code_of(st) == STATUS_NOT_FOUND || st == NULL;
		if (!is_gone)
			return st;
		status_free(st);
		return NULL;
	}
	check_threads(in);
	status_free(proc_resident_bytes(pid, &resident));
	in->survey->resident_bytes += resident;
	st = preflight_mapped(in);
	return st != NULL ? st : preflight_fds(in);
}

static void check_session(struct inspection *in, const struct proc_stat *root)
{
	if (in->options->shell_job || root->session == root->pid ||
	    !same_namespace(root->pid, 0, "pid"))
		return;
	trouble_add(
	    &in->troubles,
	    "start it with setsid, or move the whole session by its leader's pid; --shell-job "
	    "is for jobs started from a shell",
	    "process %d (%s) is not a session leader (its session is %d)", (int)root->pid,
	    root->name, (int)root->session);
}

static status *inspect_tree(struct inspection *in)
{
	status *st = preflight_mounts(in);

	for (size_t i = 0; st == NULL && i < in->survey->pid_count; i++)
		st = inspect_process(in, in->survey->pids[i]);
	if (st == NULL)
		st = preflight_sockets(in);
	return st;
}

status *preflight_tree(pid_t root, const Haul__V1__MigrateOptions *options,
		       struct tree_survey *ret_survey)
{
	const Haul__V1__MigrateOptions defaults = HAUL__V1__MIGRATE_OPTIONS__INIT;
	struct tree_survey survey = {0};
	struct inspection in = {.options = options != NULL ? options : &defaults,
				.survey = &survey};
	struct proc_stat stat;
	status *st = proc_stat(root, &stat);

	if (st == NULL)
		st = check_root(root, &stat);
	if (st != NULL)
		return status_code_of(st) == STATUS_INVALID_ARGUMENT
			   ? status_because(st, REASON_NOT_A_WORKLOAD)
			   : st;
	if (stat.state == 'Z' || stat.state == 'X')
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "process %d (%s) has ended: it is a zombie that its parent, process %d, "
		    "has not reaped",
		    (int)root, stat.name, (int)stat.parent);
	survey.start_ticks = stat.start_ticks;
	st = proc_tree(root, &survey.pids, &survey.pid_count);
	if (st == NULL) {
		check_session(&in, &stat);
		st = inspect_tree(&in);
	}
	free(in.sockets);
	free(in.pty_masters);
	free(in.mounts);
	if (in.troubles.count > TROUBLES_TOLD)
		in.troubles.st = status_detailf(in.troubles.st, "more", "and %zu more",
						in.troubles.count - TROUBLES_TOLD);
	st = status_first(st, in.troubles.st);
	if (st == NULL && !proc_is_alive(root, survey.start_ticks))
		st = status_errorf(STATUS_NOT_FOUND, "process %d (%s) ended while it was looked at",
				   (int)root, stat.name);
	if (st != NULL) {
		tree_survey_free(&survey);
		return st;
	}
	*ret_survey = survey;
	return NULL;
}

void tree_survey_free(struct tree_survey *survey)
{
	if (survey == NULL)
		return;
	for (size_t i = 0; i < survey->file_count; i++)
		free(survey->files[i].path);
	free(survey->files);
	free(survey->pids);
	*survey = (struct tree_survey){0};
}
