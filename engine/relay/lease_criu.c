/* SPDX-License-Identifier: Apache-2.0 */
/* The leased CRIU: each is born in a cgroup of its own, so that what one leaves behind is told from
 * what another has restored. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "engine/criu/criu_error.h"
#include "engine/log.h"
#include "engine/relay/lease_internal.h"

enum { GROUP_TIMEOUT_MS = 10000, LAST_WORD_MS = 10000 };

static status *spawn(struct lease *lease, int errors, int rpc, const int *extra, size_t count)
{
	char number[16], work[FILES_PATH];
	int fds[LEASE_FIRST_FD + LEASE_FDS_MOST] = {-1, errors, errors, rpc, lease->memory[1]};

	for (size_t i = 0; i < count; i++)
		fds[LEASE_FIRST_FD + i] = extra[i];
	lease_path(lease, "work", work);
	(void)snprintf(number, sizeof(number), "%d", LEASE_RPC_FD);
	const char *argv[] = {lease->core->config.criu, "swrk", number, NULL};
	const struct child_spec spec = {
	    .argv = argv,
	    .fds = fds,
	    .fd_count = LEASE_FIRST_FD + count,
	    .cgroup = lease->group,
	    .directory = work,
	};
	return child_spawn(&spec, &lease->criu);
}

status *lease_start_criu(struct lease *lease, int rpc, const int *extra, size_t count)
{
	char path[FILES_PATH];

	lease_path(lease, "work/" CRIU_STDERR, path);
	scoped(fd) int errors =
	    open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (errors < 0)
		return status_errnof(errno, "cannot make %s", path);
	leases_lock(lease->leases);
	leases_group(lease->leases, lease->id, ++lease->criu_count, lease->group);
	status *st = cgroup_make(lease->group);
	if (st == NULL)
		st = spawn(lease, errors, rpc, extra, count);
	leases_unlock(lease->leases);
	if (st == NULL)
		log_line(LOG_LEVEL_INFO, lease->id, "CRIU, process %d, serves the lease",
			 lease->criu.pid);
	return st;
}

/* What a CRIU that failed or was killed has left is no whole thing: it holds a tree that it dumps,
 * or is a half restored one. */
static void end_group(const struct lease *lease)
{
	scoped(status) status *st = cgroup_kill(lease->group, GROUP_TIMEOUT_MS);

	if (st != NULL)
		log_status(LOG_LEVEL_ERROR, lease->id, "what CRIU has left does not end", st);
	child_reap_group(lease->group);
}

status *lease_end_criu(struct lease *lease)
{
	Haul__V1__LeaseEvent event = HAUL__V1__LEASE_EVENT__INIT;
	Haul__V1__LeaseCriuEnd end = HAUL__V1__LEASE_CRIU_END__INIT;
	char work[FILES_PATH], words[CRIU_LAST_WORDS];
	int ended = 0;

	end.pid = lease->criu.pid;
	scoped(status) status *lives = child_wait(&lease->criu, LAST_WORD_MS, &ended);
	if (lives != NULL) {
		child_kill(&lease->criu); /* it has closed its socket: nobody can talk to it */
		ended = SIGKILL;
	}
	if (WIFSIGNALED(ended))
		end.signal = WTERMSIG(ended);
	else
		end.exit_status = WEXITSTATUS(ended);
	if (ended != 0)
		end_group(lease);
	lease_path(lease, "work", work);
	criu_last_words(work, words);
	end.last_words = words;
	event.criu_end = &end;
	return lease_tell(lease, &event);
}

void lease_kill_criu(struct lease *lease)
{
	if (lease->criu.pid <= 0)
		return;
	end_group(lease);
	child_kill(&lease->criu);
}
