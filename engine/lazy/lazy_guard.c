/* SPDX-License-Identifier: Apache-2.0 */
/* Read take_over first. The guard has one thread, and no log but its exit status: who comes later
 * sees by the marker whether it filled all. */
#include "engine/lazy/lazy_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "engine/lazy/lazy_fill.h"
#include "engine/lazy/lazy_shared.h"

enum {
	END_MS = 1000, /* it has nothing to do but end; one that is stopped is killed */
	GROUP_MS = 10000,
	TELL_SHARED = 1,
	TELL_MEMORY = 2,
	TELL_END = 3,
	TELL_EVENT = 4,
};

struct telling {
	int64_t what;
	int64_t number; /* a pid; of an event the memory's number */
	struct uffd_msg event;
};

/* --- hauld's side --- */

status *lazy_guard_start(const char *program, const char *cgroup, struct lazy_guard *ret_guard)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		return status_errnof(errno, "a socket for the guard of a lazy restore");
	scoped(fd) int ours = pair[0];
	scoped(fd) int its = pair[1];
	const char *argv[] = {program, LAZY_GUARD_VERB, NULL};
	const int fds[] = {-1, -1, STDERR_FILENO, its};
	_Static_assert(array_len(fds) == LAZY_GUARD_FD + 1, "the socket is the last");
	const struct child_spec spec = {.argv = argv,
					.fds = fds,
					.fd_count = array_len(fds),
					.cgroup = cgroup};
	status *st = child_spawn(&spec, &ret_guard->child);
	if (st != NULL)
		return status_wrapf(st, "the guard of a lazy restore");
	ret_guard->socket = TAKE_FD(ours);
	return NULL;
}

static status *tell(const struct lazy_guard *guard, const struct telling *telling, int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec data = {(void *)telling, sizeof(*telling)};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = control;
		message.msg_controllen = sizeof(control);
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	ssize_t sent = sendmsg(guard->socket, &message, MSG_NOSIGNAL);
	if (sent != (ssize_t)sizeof(*telling))
		return status_errnof(sent < 0 ? errno : EIO,
				     "cannot reach the guard of a lazy restore");
	return NULL;
}

status *lazy_guard_share(const struct lazy_guard *guard, int shared)
{
	const struct telling telling = {.what = TELL_SHARED};

	return tell(guard, &telling, shared);
}

status *lazy_guard_hold(const struct lazy_guard *guard, int64_t pid, int uffd)
{
	const struct telling telling = {.what = TELL_MEMORY, .number = pid};

	return tell(guard, &telling, uffd);
}

status *lazy_guard_tell(const struct lazy_guard *guard, size_t memory, const struct uffd_msg *event)
{
	const struct telling telling = {.what = TELL_EVENT,
					.number = (int64_t)memory,
					.event = *event};

	return tell(guard, &telling,
		    event->event == UFFD_EVENT_FORK ? (int)event->arg.fork.ufd : -1);
}

void lazy_guard_leave(struct lazy_guard *guard, bool dismiss)
{
	const struct telling telling = {.what = TELL_END};

	if (dismiss)
		status_free(tell(guard, &telling, -1));
	(void)close(TAKE_FD(guard->socket));
	if (!dismiss)
		return;
	scoped(status) status *st = child_wait(&guard->child, END_MS, NULL);
	if (st != NULL)
		child_kill(&guard->child);
}

status *lazy_guard_find(const char *cgroup, int *ret_shared)
{
	char path[64];
	pid_t *pids = NULL;
	size_t count = 0;
	int found = -1;
	status *st = cgroup_pids(cgroup, &pids, &count);

	for (size_t i = 0; st == NULL && found < 0 && i < count; i++) {
		(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pids[i],
			       LAZY_GUARD_SHARED_FD);
		found = open(path, O_RDWR | O_CLOEXEC);
	}
	free(pids);
	if (st == NULL && found < 0)
		st = status_errorf(STATUS_NOT_FOUND, "there is no guard");
	if (st == NULL)
		*ret_shared = found;
	return st;
}

/* --- the guard's side --- */

struct guarding {
	struct lazy_shared *shared;
	struct lazy_map map;
	struct lazy_fill *fill;
	bool is_dismissed;
	bool has_failed; /* it does not hold, or know, all */
};

static int take_fd(struct msghdr *message)
{
	const struct cmsghdr *header = CMSG_FIRSTHDR(message);
	int fd = -1;

	if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
	    header->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

static status *begin(struct guarding *guarding, int fd)
{
	status *st = lazy_shared_open(fd, &guarding->shared);

	if (st != NULL)
		return st;
	/* Where the next hauld finds it. */
	if (dup3(fd, LAZY_GUARD_SHARED_FD, O_CLOEXEC) < 0)
		return status_errnof(errno, "the list of pages");
	lazy_shared_map(guarding->shared, &guarding->map);
	return lazy_fill_new(&guarding->map, guarding->shared->images, &guarding->fill);
}

/* The descriptor of a fork has another number here. */
static status *replay(struct guarding *guarding, const struct telling *telling, int *fd)
{
	struct uffd_msg event = telling->event;

	if (guarding->fill == NULL || telling->number < 0)
		return status_errorf(STATUS_DATA_LOSS, "an event came too early");
	if (event.event == UFFD_EVENT_FORK)
		event.arg.fork.ufd = (uint32_t)TAKE_FD(*fd);
	return lazy_fill_replay(guarding->fill, (size_t)telling->number, &event);
}

static status *hear(struct guarding *guarding, const struct telling *telling, int fd)
{
	scoped(fd) int owned = fd;

	switch (telling->what) {
	case TELL_SHARED:
		return guarding->shared == NULL ? begin(guarding, owned) : NULL;
	case TELL_MEMORY:
		return guarding->fill != NULL
			   ? lazy_fill_add(guarding->fill, telling->number, TAKE_FD(owned))
			   : status_errorf(STATUS_DATA_LOSS, "a memory came too early");
	case TELL_EVENT:
		return replay(guarding, telling, &owned);
	case TELL_END:
		guarding->is_dismissed = true;
		return NULL;
	default:
		return status_errorf(STATUS_DATA_LOSS, "an unknown word");
	}
}

/* One message; *ret_end: hauld is gone, and what it had sent has been read. */
static status *listen_once(struct guarding *guarding, int socket, bool *ret_end)
{
	char control[CMSG_SPACE(sizeof(int))] = {0};
	struct telling telling = {0};
	struct iovec data = {&telling, sizeof(telling)};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = control,
				 .msg_controllen = sizeof(control)};
	ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);

	if (got < 0 && errno == EINTR)
		return NULL;
	*ret_end = got <= 0;
	if (*ret_end)
		return NULL;
	int fd = take_fd(&message);
	if (got != (ssize_t)sizeof(telling)) {
		close_if_open(fd);
		return status_errorf(STATUS_DATA_LOSS, "half a word");
	}
	return hear(guarding, &telling, fd);
}

/* Nothing that runs may see what is missing: the tree dies while its memory is still held. */
static int give_up(struct guarding *guarding)
{
	atomic_store(&guarding->shared->phase, LAZY_BROKEN);
	status_free(cgroup_freeze(guarding->shared->group, 0));
	status_free(cgroup_kill(guarding->shared->group, GROUP_MS));
	return 1;
}

/* hauld is gone. A tree that has not been committed is not thawed, and needs no freeze: either it
 * is frozen at the end of its restore, or CRIU holds it until the next hauld ends both. */
static int take_over(struct guarding *guarding)
{
	struct lazy_shared *shared = guarding->shared;
	unsigned phase = shared != NULL ? atomic_load(&shared->phase) : LAZY_RESTORING;

	if (phase == LAZY_RESTORING || phase == LAZY_FILLED || guarding->fill == NULL)
		return 0;
	bool may_run = atomic_load(&shared->may_run);
	if (may_run)
		status_free(cgroup_freeze(shared->group, 0));
	if (phase == LAZY_BROKEN || guarding->has_failed || atomic_load(&shared->is_reading) ||
	    !lazy_fill_is_whole(guarding->fill))
		return give_up(guarding);
	atomic_store(&shared->phase, LAZY_SETTLING);
	scoped(status) status *st =
	    lazy_fill_complete(guarding->fill, may_run ? shared->group : NULL);
	if (st != NULL || (unlink(shared->marker) != 0 && errno != ENOENT))
		return give_up(guarding);
	atomic_store(&shared->phase, LAZY_FILLED);
	if (may_run)
		status_free(cgroup_thaw(shared->group, GROUP_MS));
	return 0;
}

/* The last that the kernel should think of when memory is short: it would let the tree's go. */
static void be_spared(void)
{
	scoped(fd) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (fd >= 0 && write(fd, "-1000", 5) != 5)
		return;
}

int lazy_guard_main(int socket)
{
	struct guarding guarding = {0};
	bool is_over = false;

	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)prctl(PR_SET_NAME, "haul-guard");
	be_spared();
	while (!is_over && !guarding.is_dismissed) {
		scoped(status) status *st = listen_once(&guarding, socket, &is_over);
		guarding.has_failed = guarding.has_failed || st != NULL;
	}
	int ended = guarding.is_dismissed ? 0 : take_over(&guarding);
	lazy_fill_free(guarding.fill);
	lazy_shared_free(guarding.shared);
	return ended;
}
