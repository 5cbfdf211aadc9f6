/* SPDX-License-Identifier: Apache-2.0 */
/* Complete requests to CRIU: every option, every time (it remembers none). Each function sends one
 * and waits for its end, except the two that hold. */
#ifndef HAUL_ENGINE_CRIU_REQUEST_H
#define HAUL_ENGINE_CRIU_REQUEST_H

#include "engine/criu/swrk.h"

/* Deadlines of CRIU's stages. */
struct criu_limits {
	int64_t short_ms; /* VERSION, FEATURE_CHECK, CPUINFO */
	int64_t long_ms;  /* silence allowed in PRE_DUMP, DUMP, RESTORE */
};

must_check status *criu_version(struct swrk *session, const struct criu_limits *limits,
				unsigned *ret_version); /* 40101 */
must_check status *criu_has_dirty_tracking(struct swrk *session, const struct criu_limits *limits,
					   bool *ret_has);
/* Can CRIU restore lazily on this kernel: userfaultfd, with the events of fork and the like. */
must_check status *criu_has_lazy_pages(struct swrk *session, const struct criu_limits *limits,
				       bool *ret_has);
/* Writes cpuinfo.img in dir / checks dir's cpuinfo.img against this CPU (FAILED_PRECONDITION). */
must_check status *criu_cpuinfo_dump(struct swrk *session, const char *dir,
				     const struct criu_limits *limits);
must_check status *criu_cpuinfo_check(struct swrk *session, const char *dir,
				      const struct criu_limits *limits);

struct criu_dump {
	pid_t pid;
	const char *images_dir; /* this round's */
	const char *parent;	/* "../1", or NULL */
	const char *work_dir;	/* logs: work_dir/<log_file> */
	const char *log_file;
	bool shell_job;
	bool tcp_close;
	bool track_mem;
	const struct criu_limits *limits;
};

/* One round: the tree is stopped for a moment and runs again. */
must_check status *criu_pre_dump(struct swrk *session, const struct criu_dump *dump);

/* Dumps and returns held at post-dump: the tree is stopped by CRIU. */
must_check status *criu_dump_hold(struct swrk *session, const struct criu_dump *dump);
/* Lets the held dump end: kill = true, the tree is killed by CRIU; false, it resumes (or stays
 * frozen by its cgroup). */
must_check status *criu_dump_end(struct swrk *session, const struct criu_dump *dump, bool kill);

/* A file that CRIU takes from its descriptors instead of making it. */
struct criu_inherit {
	unsigned number; /* of the session's `more_fds` */
	char key[48];	 /* CRIU's name of it */
};

struct criu_restore {
	const char *images_dir;
	const char *work_dir;
	const char *log_file;
	const char *root; /* --dest-root or NULL; must be a mount point: see request.c */
	bool shell_job;
	bool tcp_close;
	/* Pages that are marked so in the pagemaps are left out, and the tree's memories handed
	 * over on the socket in work_dir (engine/lazy). */
	bool is_lazy;
	struct criu_inherit *inherits;
	size_t inherit_count; /* at most SWRK_MORE_FDS */
	const struct criu_limits *limits;
};

/* Restores up to post-restore (memory, files and sockets are back, nothing runs) and goes on to
 * pre-resume, where the tasks are stopped by CRIU at the last instruction of its restorer; calls
 * before_resume(self) there: the caller freezes the tree's group. Then CRIU lets go and ends. On an
 * error of any step, or of before_resume, the error is returned and the caller must kill the group.
 * *ret_pid is the root. */
must_check status *criu_restore_frozen(struct swrk *session, const struct criu_restore *restore,
				       status *(*before_resume)(void *self, pid_t root), void *self,
				       pid_t *ret_pid);

#endif
