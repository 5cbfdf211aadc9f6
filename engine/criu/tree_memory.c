/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/criu/tree_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "engine/host/cgroup.h"
#include "engine/host/proc.h"

struct task {
	pid_t image; /* as the tree sees it */
	int memory;  /* /proc/PID/mem: it reads also what is protected */
};

struct tree_memory {
	char group[CGROUP_PATH];
	struct task *tasks;
	size_t count;
};

static status *check_frozen(const char *group)
{
	bool is_frozen = false;
	status *st = cgroup_is_frozen(group, &is_frozen);

	if (st == NULL && !is_frozen)
		st = status_errorf(STATUS_FAILED_PRECONDITION,
				   "the tree here was let run: its memory is not what was dumped");
	return st;
}

static status *open_task(pid_t pid, struct task *ret_task)
{
	char path[64];
	pid_t image = 0;
	status *st = proc_innermost_pid(pid, &image);

	if (st != NULL)
		return st;
	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return status_errnof(errno, "cannot open %s", path);
	*ret_task = (struct task){image, fd};
	return NULL;
}

static status *open_tasks(struct tree_memory *memory)
{
	pid_t *pids = NULL;
	size_t count = 0;
	status *st = cgroup_pids(memory->group, &pids, &count);

	if (st == NULL)
		memory->tasks = calloc(count + 1, sizeof(*memory->tasks));
	if (st == NULL && memory->tasks == NULL)
		st = status_errnof(ENOMEM, "memory of the tree");
	for (size_t i = 0; st == NULL && i < count; i++) {
		status *opened = open_task(pids[i], &memory->tasks[memory->count]);
		if (opened == NULL)
			memory->count++;
		/* A zombie has none. */
		status_free(opened);
	}
	free(pids);
	return st;
}

status *tree_memory_new(const char *group, struct tree_memory **ret_memory)
{
	scoped(tree_memory) struct tree_memory *memory = calloc(1, sizeof(*memory));

	if (memory == NULL)
		return status_errnof(ENOMEM, "memory of the tree");
	(void)snprintf(memory->group, sizeof(memory->group), "%s", group);
	status *st = check_frozen(group);
	if (st == NULL)
		st = open_tasks(memory);
	if (st == NULL)
		*ret_memory = TAKE(memory);
	return st;
}

static status *read_all(int fd, uint64_t address, size_t bytes, uint8_t *data)
{
	while (bytes > 0) {
		ssize_t got = pread(fd, data, bytes, (off_t)address);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return status_recode(
			    status_errnof(got < 0 ? errno : ESRCH,
					  "the page at %#llx of the frozen tree cannot be read",
					  (unsigned long long)address),
			    STATUS_DATA_LOSS);
		data += got;
		address += (uint64_t)got;
		bytes -= (size_t)got;
	}
	return NULL;
}

status *tree_memory_read(struct tree_memory *memory, int64_t pid, uint64_t address, size_t bytes,
			 uint8_t *data)
{
	for (size_t i = 0; i < memory->count; i++) {
		if (memory->tasks[i].image != pid)
			continue;
		status *st = read_all(memory->tasks[i].memory, address, bytes, data);
		/* Afterwards: whoever thaws it later changes nothing about what was read. */
		return st == NULL ? check_frozen(memory->group) : st;
	}
	return status_errorf(STATUS_NOT_FOUND, "process %lld is not in the frozen tree",
			     (long long)pid);
}

void tree_memory_free(struct tree_memory *memory)
{
	if (memory == NULL)
		return;
	for (size_t i = 0; i < memory->count; i++)
		(void)close(memory->tasks[i].memory);
	free(memory->tasks);
	free(memory);
}
