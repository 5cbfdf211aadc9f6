/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by leases.c (the set, a lease's beginning and end), lease_criu.c (its CRIU),
 * lease_serve.c (what is said to it) and lease_memory.c (where its memory goes or comes from). */
#ifndef HAUL_ENGINE_RELAY_LEASE_INTERNAL_H
#define HAUL_ENGINE_RELAY_LEASE_INTERNAL_H

#include <poll.h>
#include <pthread.h>

#include "engine/host/child.h"
#include "engine/host/files.h"
#include "engine/pipe/memory_pipe.h"
#include "engine/relay/leases.h"

/* Descriptors of the leased CRIU. */
enum { LEASE_RPC_FD = 3, LEASE_MEMORY_FD = 4, LEASE_FIRST_FD = 5, LEASE_FDS_MOST = 8 };

enum { LEASE_ID_BYTES = 8, LEASE_ID = 2 * LEASE_ID_BYTES + 1 };

struct lease {
	struct leases *leases;
	struct core *core;
	struct stream *stream;
	char id[LEASE_ID];
	int wake; /* eventfd, never read: once written, everything of the lease ends */
	atomic_bool is_draining, is_closing;

	/* Its CRIU, one at a time, by the thread that waits for it. */
	struct child criu;
	unsigned criu_count;
	char group[CGROUP_PATH]; /* of the one that runs */

	/* Its memory. */
	int memory[2]; /* ours, CRIU's; -1 without memory_to */
	struct pipe *pipe;
	Haul__V1__PipeAddress *address; /* of the pipe that this side listens at */
	struct memory_sender *sender;
	struct page_store *store;
	pthread_t mover;
	bool has_mover;
};

/* "<state_dir>/lease/<id>/<below>". */
void lease_path(const struct lease *lease, const char *below, char ret_path[FILES_PATH]);

/* Makes images_dir/<round>, which is a link to pages/<round>: CRIU 4.1 takes the name of a
 * directory of images only where it is a link, and goes where that says. */
must_check status *lease_link_round(const struct lease *lease, unsigned round);

/* Polls the descriptors (at most 2) for ever; false = the lease ends. */
bool lease_wait(const struct lease *lease, struct pollfd *fds, size_t count);

/* Makes all of the lease end. Any thread. */
void lease_end(struct lease *lease);

must_check status *lease_tell(struct lease *lease, const Haul__V1__LeaseEvent *event);

/* Starts a CRIU whose RPC socket is `rpc`; `extra` become its descriptors from LEASE_FIRST_FD on.
 * All are borrowed. */
must_check status *lease_start_criu(struct lease *lease, int rpc, const int *extra, size_t count);
/* Of a CRIU that has ended, or ends now: reaped, and told. */
must_check status *lease_end_criu(struct lease *lease);
/* Of a lease that ends. */
void lease_kill_criu(struct lease *lease);

/* Listens, or dials; before the offer. */
must_check status *lease_open_memory(struct lease *lease, const struct rpc_call *call,
				     const Haul__V1__LeaseRequest *request);
/* After the offer. */
must_check status *lease_start_memory(struct lease *lease);
void lease_stop_memory(struct lease *lease);

/* CRIU at a unix socket, one connection after the other. */
must_check status *lease_open_socket(struct lease *lease, int *ret_fd, char *ret_path, size_t size);
must_check status *lease_serve_socket(struct lease *lease, int listener);
/* CRIU in the stream. */
must_check status *lease_serve_stream(struct lease *lease);

/* The cgroup of the lease's CRIU of this number. */
void leases_group(const struct leases *leases, const char *id, unsigned number,
		  char ret_group[CGROUP_PATH]);

/* The set's lock, which keeps a new CRIU's group from being swept away. */
void leases_lock(struct leases *leases);
void leases_unlock(struct leases *leases);

#endif
