/* SPDX-License-Identifier: Apache-2.0 */
/* The socket on which a CRIU that restores lazily (version 4.1) hands over its tree's memories: for
 * each task its pid (int32, as the tree sees it; negative for a zombie, which has none) and then
 * one byte with the userfaultfd; at the end the word "RSTF". */
#ifndef HAUL_ENGINE_LAZY_LAZY_SOCKET_H
#define HAUL_ENGINE_LAZY_LAZY_SOCKET_H

#include "proto/status.h"

#include <stdbool.h>

/* Listens in CRIU's work directory. */
must_check status *lazy_socket_listen(const char *work_dir, int *ret_fd);

/* What came next. */
struct lazy_said {
	bool is_end; /* the tree is restored */
	int64_t pid;
	int uffd; /* the receiver's; -1: a zombie, or the end */
};
/* Reads one, waiting for what CRIU sends as one. DATA_LOSS for what is none of these; ABORTED when
 * CRIU closed it. */
must_check status *lazy_socket_hear(int fd, struct lazy_said *ret_said);

#endif
