/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

static bool seize_task(struct fake_tree *tree, pid_t task)
{
	if (tree->task_count == FAKE_TASKS || ptrace(PTRACE_SEIZE, task, NULL, NULL) != 0)
		return false;
	if (ptrace(PTRACE_INTERRUPT, task, NULL, NULL) != 0 || waitpid(task, NULL, __WALL) != task)
		return false;
	tree->tasks[tree->task_count++] = task;
	return true;
}

static void add_children(struct fake_tree *tree, pid_t pid, pid_t task)
{
	char path[64];
	int child;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, task);
	FILE *file = fopen(path, "re");
	while (file != NULL && fscanf(file, "%d", &child) == 1)
		if (tree->count < FAKE_PIDS)
			tree->pids[tree->count++] = child;
	if (file != NULL)
		(void)fclose(file);
}

/* Its threads are stopped first, so that none of them makes children while we look. */
static bool seize_process(struct fake_tree *tree, pid_t pid)
{
	char path[64];
	bool is_stopped = true;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *dir = opendir(path);
	if (dir == NULL)
		return false;
	for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		pid_t task = (pid_t)strtol(entry->d_name, NULL, 10);
		if (task <= 0)
			continue;
		/* Of the tree only the root must be alive: a zombie cannot be stopped. */
		is_stopped = seize_task(tree, task) && is_stopped;
		add_children(tree, pid, task);
	}
	(void)closedir(dir);
	return is_stopped;
}

bool tree_seize(pid_t root, struct fake_tree *ret_tree)
{
	*ret_tree = (struct fake_tree){.pids = {root}, .count = 1};
	if (!seize_process(ret_tree, root)) {
		tree_release(ret_tree);
		return false;
	}
	for (size_t i = 1; i < ret_tree->count; i++)
		(void)seize_process(ret_tree, ret_tree->pids[i]);
	return true;
}

void tree_release(const struct fake_tree *tree)
{
	for (size_t i = 0; i < tree->task_count; i++)
		(void)ptrace(PTRACE_DETACH, tree->tasks[i], NULL, NULL);
}

void tree_kill(const struct fake_tree *tree)
{
	for (size_t i = 0; i < tree->count; i++)
		(void)kill(tree->pids[i], SIGKILL);
	for (size_t i = 0; i < tree->task_count; i++)
		(void)waitpid(tree->tasks[i], NULL, __WALL);
}
