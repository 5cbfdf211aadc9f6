/* SPDX-License-Identifier: Apache-2.0 */
/* The set of leases; how one begins and ends. */
#include "engine/relay/leases.h"

#include <errno.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "engine/host/proc.h"
#include "engine/log.h"
#include "engine/relay/lease_internal.h"
#include "proto/reason.h"

enum { GROUP_TIMEOUT_MS = 10000, RETRY_MS = 10000, COMM = 15, SEND_MS = 30000, TAG = 40 };

#define GROUP_KIND "lease"
#define SOCKET_NAME "criu-"

struct leases {
	struct core *core;
	char tag[TAG]; /* what our groups' names begin with */
	pthread_mutex_t lock;
	struct lease *list[LIMIT_LEASES];
	size_t count;
	bool is_draining;
};

struct leases *leases_new(struct core *core)
{
	struct leases *leases = calloc(1, sizeof(*leases));

	if (leases == NULL)
		abort();
	leases->core = core;
	(void)snprintf(leases->tag, sizeof(leases->tag), "%s-", core->tag);
	(void)pthread_mutex_init(&leases->lock, NULL);
	return leases;
}

void leases_lock(struct leases *leases)
{
	(void)pthread_mutex_lock(&leases->lock);
}

void leases_unlock(struct leases *leases)
{
	(void)pthread_mutex_unlock(&leases->lock);
}

void leases_group(const struct leases *leases, const char *id, unsigned number,
		  char ret_group[CGROUP_PATH])
{
	char name[TAG + LEASE_ID + 16];

	(void)snprintf(name, sizeof(name), "%s%s-%u", leases->tag, id, number);
	cgroup_path(leases->core->cgroups, GROUP_KIND, name, ret_group);
}

/* --- what stays behind --- */

/* The directory of the group, when it is one of ours. */
static bool is_ours(const struct leases *leases, const char *id, char ret_group[CGROUP_PATH])
{
	cgroup_path(leases->core->cgroups, GROUP_KIND, id, ret_group);
	return strncmp(id, leases->tag, strlen(leases->tag)) == 0;
}

/* A tree that was restored stays in its group; when it has ended, the group is removed. */
static void sweep_group(void *self, const char *id)
{
	const struct leases *leases = self;
	char group[CGROUP_PATH];

	if (!is_ours(leases, id, group))
		return;
	child_reap_group(group);
	status_free(cgroup_remove(group)); /* fails as long as somebody lives there */
}

static void sweep(struct leases *leases)
{
	leases_lock(leases);
	status_free(cgroup_each(leases->core->cgroups, GROUP_KIND, sweep_group, leases));
	leases_unlock(leases);
}

/* By the name of its program, which the kernel cuts; CRIU writes over its arguments. */
static bool is_criu(const struct core *core, pid_t pid)
{
	const char *slash = strrchr(core->config.criu, '/');
	const char *name = slash != NULL ? slash + 1 : core->config.criu;
	struct proc_stat stat;
	scoped(status) status *st = proc_stat(pid, &stat);

	return st == NULL && strncmp(stat.name, name, COMM) == 0;
}

/* A CRIU there has not finished: nor is what it holds. */
static void end_leftover(void *self, const char *id)
{
	const struct leases *leases = self;
	char group[CGROUP_PATH];
	pid_t *pids = NULL;
	size_t count = 0;
	bool is_unfinished = false;

	if (!is_ours(leases, id, group))
		return;
	status_free(cgroup_pids(group, &pids, &count));
	for (size_t i = 0; i < count; i++)
		is_unfinished |= is_criu(leases->core, pids[i]);
	free(pids);
	if (is_unfinished)
		status_free(cgroup_kill(group, GROUP_TIMEOUT_MS));
}

static void remove_socket(void *self, const char *name)
{
	const struct leases *leases = self;
	char path[FILES_PATH];

	if (strncmp(name, SOCKET_NAME, strlen(SOCKET_NAME)) != 0)
		return;
	(void)snprintf(path, sizeof(path), "%s/%s", leases->core->config.local_dir, name);
	(void)unlink(path);
}

status *leases_recover(struct leases *leases)
{
	char path[FILES_PATH];

	status_free(cgroup_each(leases->core->cgroups, GROUP_KIND, end_leftover, leases));
	sweep(leases);
	status_free(files_each(leases->core->config.local_dir, remove_socket, leases));
	core_path(leases->core, "lease", "", "", path);
	return files_remove_tree(path);
}

/* --- one lease --- */

void lease_path(const struct lease *lease, const char *below, char ret_path[FILES_PATH])
{
	core_path(lease->core, "lease", lease->id, below, ret_path);
}

status *lease_link_round(const struct lease *lease, unsigned round)
{
	char below[32], link[FILES_PATH], target[FILES_PATH];

	(void)snprintf(below, sizeof(below), "images/%u", round);
	lease_path(lease, below, link);
	(void)snprintf(below, sizeof(below), "pages/%u", round);
	lease_path(lease, below, target);
	return symlink(target, link) == 0 ? NULL : status_errnof(errno, "cannot make %s", link);
}

bool lease_wait(const struct lease *lease, struct pollfd *fds, size_t count)
{
	struct pollfd all[3] = {{.fd = lease->wake, .events = POLLIN}};

	for (size_t i = 0; i < count; i++)
		all[i + 1] = fds[i];
	while (poll(all, (nfds_t)count + 1, -1) < 0)
		; /* interrupted */
	for (size_t i = 0; i < count; i++)
		fds[i].revents = all[i + 1].revents;
	return all[0].revents == 0;
}

status *lease_tell(struct lease *lease, const Haul__V1__LeaseEvent *event)
{
	return stream_send(lease->stream, &event->base, SEND_MS);
}

void lease_end(struct lease *lease)
{
	(void)eventfd_write(lease->wake, 1);
}

static void wake(void *self)
{
	lease_end(self);
}

static status *add(struct leases *leases, struct lease *lease)
{
	status *st = NULL;

	leases_lock(leases);
	if (leases->is_draining)
		st = status_errorf(STATUS_UNAVAILABLE, "the engine stops");
	else if (leases->count == array_len(leases->list))
		st = status_retry_after(status_errorf(STATUS_RESOURCE_EXHAUSTED,
						      "%zu leases of CRIU are out: try later",
						      leases->count),
					RETRY_MS);
	else
		leases->list[leases->count++] = lease;
	leases_unlock(leases);
	return st;
}

static void forget(struct leases *leases, const struct lease *lease)
{
	leases_lock(leases);
	for (size_t i = 0; i < leases->count; i++)
		if (leases->list[i] == lease)
			leases->list[i] = leases->list[--leases->count];
	leases_unlock(leases);
}

static status *lease_open(struct lease *lease)
{
	unsigned char bytes[LEASE_ID_BYTES];
	char path[FILES_PATH];

	if (RAND_bytes(bytes, sizeof(bytes)) != 1)
		return status_errorf(STATUS_INTERNAL, "no random numbers to be had");
	for (size_t i = 0; i < sizeof(bytes); i++)
		(void)snprintf(lease->id + 2 * i, 3, "%02x", bytes[i]);
	lease->wake = eventfd(0, EFD_CLOEXEC);
	if (lease->wake < 0)
		return status_errnof(errno, "cannot make an eventfd");
	lease_path(lease, "work", path);
	status *st = files_make_directory(path);
	lease_path(lease, "images", path);
	if (st == NULL)
		st = files_make_directory(path);
	lease_path(lease, "pages/0", path);
	if (st == NULL)
		st = files_make_directory(path);
	return st == NULL ? lease_link_round(lease, 0) : st;
}

static void lease_close(struct lease *lease)
{
	char path[FILES_PATH];

	lease_stop_memory(lease);
	lease_kill_criu(lease);
	if (lease->id[0] != '\0') {
		lease_path(lease, "", path);
		scoped(status) status *st = files_remove_tree(path);
		if (st != NULL)
			log_status(LOG_LEVEL_WARN, lease->id, "a lease's images stay behind", st);
		log_line(LOG_LEVEL_INFO, lease->id, "the lease of CRIU has ended");
	}
	close_if_open(lease->wake);
	sweep(lease->leases);
}

static status *check(const struct leases *leases, const struct rpc_call *call,
		     const Haul__V1__LeaseRequest *request)
{
	if (leases->core->criu_version == 0)
		return status_errorf(STATUS_FAILED_PRECONDITION, "%s", leases->core->trouble);
	if (request->socket && !call->caller->is_local)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "socket: only for who calls over the local socket");
	if (request->memory_to != NULL && request->memory_from)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "memory_to, memory_from: one of them, a lease is one side");
	return NULL;
}

static status *offer(struct lease *lease, const char *socket)
{
	Haul__V1__LeaseEvent event = HAUL__V1__LEASE_EVENT__INIT;
	Haul__V1__LeaseOffer what = HAUL__V1__LEASE_OFFER__INIT;
	char images[FILES_PATH];

	lease_path(lease, "images", images);
	event.offer = &what;
	what.id = lease->id;
	what.socket = (char *)socket;
	what.images_dir = images;
	what.memory_fd = lease->sender != NULL ? LEASE_MEMORY_FD : 0;
	what.first_fd = socket[0] != '\0' ? LEASE_FIRST_FD : 0;
	what.memory = lease->address;
	return lease_tell(lease, &event);
}

static status *run(struct lease *lease, int listener, const char *path)
{
	stream_on_cancel(lease->stream, wake, lease);
	status *st = offer(lease, path);

	if (st == NULL)
		st = lease_start_memory(lease);
	if (st == NULL)
		st =
		    listener >= 0 ? lease_serve_socket(lease, listener) : lease_serve_stream(lease);
	stream_on_cancel(lease->stream, NULL, NULL);
	return st;
}

static status *serve(struct lease *lease, const struct rpc_call *call,
		     const Haul__V1__LeaseRequest *request)
{
	char path[FILES_PATH] = "";
	scoped(fd) int listener = -1;
	status *st = lease_open(lease);

	if (st == NULL)
		st = lease_open_memory(lease, call, request);
	if (st == NULL && request->socket)
		st = lease_open_socket(lease, &listener, path, sizeof(path));
	if (st != NULL)
		return st;
	log_line(LOG_LEVEL_INFO, lease->id, "CRIU is leased to %s", call->caller->name);
	st = run(lease, listener, path);
	if (path[0] != '\0')
		(void)unlink(path);
	return st;
}

status *leases_serve(struct leases *leases, const struct rpc_call *call,
		     const Haul__V1__LeaseRequest *request, struct stream *stream)
{
	struct lease lease = {
	    .leases = leases,
	    .core = leases->core,
	    .stream = stream,
	    .wake = -1,
	    .criu = {0, -1},
	    .memory = {-1, -1},
	};
	status *st = check(leases, call, request);

	if (st != NULL)
		return st;
	sweep(leases);
	st = add(leases, &lease);
	if (st != NULL)
		return st;
	st = serve(&lease, call, request);
	forget(leases, &lease);
	lease_close(&lease);
	if (!atomic_load(&lease.is_draining))
		return st;
	status_free(st);
	return status_errorf(STATUS_UNAVAILABLE, "the engine stops");
}

void leases_drain(struct leases *leases)
{
	leases_lock(leases);
	leases->is_draining = true;
	for (size_t i = 0; i < leases->count; i++) {
		atomic_store(&leases->list[i]->is_draining, true);
		stream_stop(leases->list[i]->stream);
		lease_end(leases->list[i]);
	}
	leases_unlock(leases);
}

void leases_free(struct leases *leases)
{
	if (leases == NULL)
		return;
	(void)pthread_mutex_destroy(&leases->lock);
	free(leases);
}
