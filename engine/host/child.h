/* SPDX-License-Identifier: Apache-2.0 */
/* The only place that starts processes: posix_spawn, nothing inherited but what is listed, born in
 * the given cgroup (so that whatever it forks is there too). */
#ifndef HAUL_ENGINE_HOST_CHILD_H
#define HAUL_ENGINE_HOST_CHILD_H

#include <sys/types.h>

#include "proto/status.h"

struct child_spec {
	const char *const *argv; /* argv[0] is searched in PATH */
	const int *fds;	       /* fds[i] becomes descriptor i; -1 = /dev/null; the rest is closed */
	size_t fd_count;       /* at least 3 */
	const char *cgroup;    /* directory of the cgroup to be born in; NULL = ours */
	const char *directory; /* working directory; NULL = "/" */
	const char *const *environment; /* NULL = ours */
};

struct child {
	pid_t pid;
	int pidfd;
};

must_check status *child_spawn(const struct child_spec *spec, struct child *ret_child);

/* Waits at most timeout_ms (-1: for ever) for the end; *ret_status is waitpid's.
 * DEADLINE_EXCEEDED if it still runs. */
must_check status *child_wait(struct child *child, int64_t timeout_ms, int *ret_wait_status);

/* SIGKILL, reaps, closes the pidfd. Does nothing to one that was waited for. */
void child_kill(struct child *child);

/* Reaps any of our children that has ended and is not waited for by child_wait: restored trees'
 * roots are our children (rst_sibling). Returns its pid, 0 when there is none. */
pid_t child_reap(pid_t pid, int *ret_wait_status);

/* Reaps all of our children that have ended as members of this cgroup (which may be gone by now):
 * roots of trees whose restore failed, of which nobody knows the ids, but whose ids nobody else
 * could have. */
void child_reap_group(const char *cgroup);

#endif
