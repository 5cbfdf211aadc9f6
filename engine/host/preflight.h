/* SPDX-License-Identifier: Apache-2.0 */
/* Everything about a tree and this host that can be checked before anything is frozen. */
#ifndef HAUL_ENGINE_HOST_PREFLIGHT_H
#define HAUL_ENGINE_HOST_PREFLIGHT_H

#include "haul/v1/migrations.pb-c.h"
#include "haul/v1/node.pb-c.h"
#include "haul/v1/peer.pb-c.h"
#include "proto/status.h"

#include <sys/types.h>

/* What preflight learned of the tree, for Prepare. */
struct tree_survey {
	pid_t *pids;
	size_t pid_count;
	uint64_t start_ticks;	 /* of the root */
	uint64_t resident_bytes; /* sum over the tree */
	struct survey_file {
		char *path;
		uint64_t size;
		bool check_size; /* mapped, or open for reading only: others may grow meanwhile */
		Haul__V1__Lock flock, record_lock; /* the strongest held */
	} *files; /* open and mapped regular files, directories, fifos; unique */
	size_t file_count;
};

/* "pid:123" to 123; INVALID_ARGUMENT says what a workload looks like. */
must_check status *workload_parse(const char *workload, pid_t *ret_pid);

/* Surveys the tree below root. Errors name the process, what is wrong, and what to do:
 * NOT_FOUND (no such pid), INVALID_ARGUMENT (kernel thread, pid 1, this engine itself or an
 * ancestor of it), FAILED_PRECONDITION (traced, a zombie root, uninterruptible for long, an object
 * that CRIU cannot dump: perf_event, bpf, io_uring, userfaultfd, pidfd, vsock, AF_ALG, a device; a
 * terminal without shell_job; an established TCP connection with TCP_REFUSE; a connected unix
 * stream whose peer is outside of the tree; an eventfd counter of more than 32 bits, which CRIU 4.1
 * cuts silently). Objects are told by type and descriptor number. */
must_check status *preflight_tree(pid_t root, const Haul__V1__MigrateOptions *options,
				  struct tree_survey *ret_survey);

/* Cheap repeat of what may have changed, while the tree is frozen at post-dump: eventfd counters.
 */
must_check status *preflight_frozen(const struct tree_survey *survey);

void tree_survey_free(struct tree_survey *survey);

/* Destination: pids free, files present with their sizes (below root_dir if not empty), the
 * locks on them to be had, enough memory and disk (images_dir's file system). All failures are
 * details of one FAILED_PRECONDITION (ALREADY_EXISTS when pids are the only trouble: says which,
 * and by what process, zombie named as such). */
must_check status *preflight_destination(const Haul__V1__PrepareRequest *request,
					 const char *images_dir);

/* Memory that could be had now, swap included; 0 when the kernel does not tell. */
uint64_t preflight_available_bytes(void);

#endif
