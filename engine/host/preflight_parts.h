/* SPDX-License-Identifier: Apache-2.0 */
/* Inside preflight only: what its files share. */
#ifndef HAUL_ENGINE_HOST_PREFLIGHT_PARTS_H
#define HAUL_ENGINE_HOST_PREFLIGHT_PARTS_H

#include "engine/host/preflight.h"
#include "engine/host/proc.h"
#include "proto/limits.h"

/* Told of everything that is wrong, so that reason, state and others still have room. */
enum { TROUBLES_TOLD = LIMIT_STATUS_DETAILS - 8 };

/* What was found wrong: the first trouble is the sentence, all are its details. */
struct troubles {
	status *st;
	size_t count;
};

/* `next` (may be NULL) tells what to do; it becomes a detail when this trouble is the first. */
void trouble_add(struct troubles *troubles, const char *next, const char *fmt, ...)
    format_like(3, 4);

/* A socket of the tree and where it was seen first. */
struct seen_socket {
	uint64_t inode;
	pid_t pid;
	int fd;
};

struct inspection {
	const Haul__V1__MigrateOptions *options; /* never NULL */
	struct tree_survey *survey;
	struct troubles troubles;
	struct proc_stat who;	     /* the process looked at now */
	struct seen_socket *sockets; /* by inode once preflight_sockets sorted them */
	size_t socket_count;
	unsigned *pty_masters; /* indexes of the ptys whose master the tree holds */
	size_t pty_master_count;
	uint64_t *mounts; /* ids that the tree can see, sorted */
	size_t mount_count;
};

/* Makes room for one more element in an array that doubles; the count is the caller's. */
must_check status *grow(void **array, size_t count, size_t element);

/* Number after `key` ("mnt_id:") in a file of /proc; false when either is missing. */
bool proc_field(const char *path, const char *key, int base, uint64_t *ret_value);

/* Are these the same namespace ("net", "mnt", "pid") of two processes? 0 is ourselves. */
bool same_namespace(pid_t a, pid_t b, const char *kind);

/* Adds a file unless its path is there; check_size and size are merged. */
must_check status *survey_add_file(struct inspection *in, const char *path, uint64_t size,
				   bool check_size);

/* Notes the locks that are held through a descriptor; `info` is its fdinfo. The path was added. */
void survey_add_locks(struct inspection *in, const char *path, const char *info);

must_check status *preflight_mounts(struct inspection *in);  /* fills in->mounts */
must_check status *preflight_mapped(struct inspection *in);  /* of in->who: exe, cwd, mappings */
must_check status *preflight_fds(struct inspection *in);     /* of in->who */
must_check status *preflight_sockets(struct inspection *in); /* of the tree */

#endif
