/* SPDX-License-Identifier: Apache-2.0 */
/* The TCP sockets of a frozen tree that runs elsewhere now. As long as they are open a client that
 * was connected waits for an answer, and one that comes anew is taken into the queue of a listener
 * that nobody empties; with them shut both see that at once, and look for the workload where it is.
 * What listened can listen again, should the tree have to run here after all. */
#ifndef HAUL_ENGINE_HOST_TREE_SOCKETS_H
#define HAUL_ENGINE_HOST_TREE_SOCKETS_H

#include <stddef.h>
#include <sys/types.h>

#include "proto/status.h"

/* Shuts what the processes' connections and listeners have to do with others, as their end would;
 * not a listener that another process has, too, whose it is as much.
 * `record` is a file that tells what listened; it is written before, and added to when it is there
 * already. Everything that can be shut is, also when there is an error. */
must_check status *tree_sockets_shut(const pid_t *pids, size_t count, const char *record);

/* What the record says that listened does so again; a missing record says nothing. Connections stay
 * closed. An error tells the first that cannot: its port may have been taken. */
must_check status *tree_sockets_reopen(const pid_t *pids, size_t count, const char *record);

#endif
