/* SPDX-License-Identifier: Apache-2.0 */
/* The second holder of a lazily restored tree's memory: a process of its own, which does nothing as
 * long as its hauld lives. When that dies, it freezes the tree, fills all that is missing, and lets
 * it go on. What is still at the source it waits for: a new hauld fetches it (late_store.h). So one
 * of the two may die at any time, and no page is ever read as zeros.
 *
 * It is told over a SEQPACKET socket: first the shared area (a descriptor), then each userfaultfd
 * with its pid, then the events that were read, then the end. What lies in the socket is held,
 * too. */
#ifndef HAUL_ENGINE_LAZY_LAZY_GUARD_H
#define HAUL_ENGINE_LAZY_LAZY_GUARD_H

#include "engine/host/child.h"

struct uffd_msg;

struct lazy_guard {
	struct child child;
	int socket;
};

/* What hauld is started as to be one, argv[1]; and its socket. */
#define LAZY_GUARD_VERB "lazy-guard"
enum {
	LAZY_GUARD_FD = 3,
	LAZY_GUARD_SHARED_FD = 64, /* where it keeps the shared area */
};

/* program: hauld's own; cgroup: to be born in. */
must_check status *lazy_guard_start(const char *program, const char *cgroup,
				    struct lazy_guard *ret_guard);
must_check status *lazy_guard_share(const struct lazy_guard *guard, int shared);
must_check status *lazy_guard_hold(const struct lazy_guard *guard, int64_t pid, int uffd);
/* An event that was read; memory is its number in the fill. */
must_check status *lazy_guard_tell(const struct lazy_guard *guard, size_t memory,
				   const struct uffd_msg *event);
/* Closes the socket. With `dismiss` it is not needed any more: it has ended when this returns.
 * Without, it takes over. */
void lazy_guard_leave(struct lazy_guard *guard, bool dismiss);

/* The shared area of a guard that an earlier hauld has left in this cgroup. NOT_FOUND. */
must_check status *lazy_guard_find(const char *cgroup, int *ret_shared);

/* The guard itself. Returns its exit status. */
int lazy_guard_main(int socket);

#endif
