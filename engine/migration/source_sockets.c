/* SPDX-License-Identifier: Apache-2.0 */
/* What the tree's clients see of the tree that stays here, frozen, while the one over there runs
 * and its memory comes in: nothing. */
#include <stdlib.h>

#include "engine/host/tree_sockets.h"
#include "engine/log.h"
#include "engine/migration/source_internal.h"

typedef status *(*tree_act)(const pid_t *pids, size_t count, const char *record);

static status *act_on_tree(const struct source *source, tree_act act)
{
	char record[FILES_PATH];
	pid_t *pids = NULL;
	size_t count = 0;

	core_path(source->core, "out", source->id, "listeners", record);
	status *st = cgroup_exists(source->fence.path)
			 ? cgroup_pids(source->fence.path, &pids, &count)
			 : NULL;
	if (st == NULL)
		st = act(pids, count, record);
	free(pids);
	return st;
}

/* Best effort: they end with the tree at the latest, and at once when nothing is awaited. */
void source_shut_sockets(const struct source *source)
{
	scoped(status) status *st =
	    source->is_filling ? act_on_tree(source, tree_sockets_shut) : NULL;

	if (st != NULL)
		log_status(LOG_LEVEL_WARN, source->id,
			   "clients of the frozen tree here may wait for it until it ends", st);
}

void source_reopen_sockets(struct source *source)
{
	scoped(status) status *st = act_on_tree(source, tree_sockets_reopen);

	if (st == NULL)
		return;
	log_status(LOG_LEVEL_ERROR, source->id, "the tree here does not listen everywhere", st);
	source_note(source, "not all of the tree's listening sockets here listen again");
}
