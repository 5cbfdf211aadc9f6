/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/history.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/host/files.h"
#include "proto/limits.h"
#include "proto/pack.h"

static const char deleted[] = "deleted\n"; /* no report begins like this */

struct history {
	char directory[FILES_PATH - LIMIT_ID - 16];
};

status *history_open(const char *state_dir, struct history **ret_history)
{
	struct history *history = calloc(1, sizeof(*history));

	if (history == NULL)
		return status_errnof(ENOMEM, "history");
	size_t room = sizeof(history->directory);
	status *st = NULL;
	if ((size_t)snprintf(history->directory, room, "%s/history", state_dir) >= room)
		st = status_errorf(STATUS_INVALID_ARGUMENT, "state directory's path is too long");
	if (st == NULL)
		st = files_make_directory(history->directory);
	if (st != NULL) {
		free(history);
		return st;
	}
	*ret_history = history;
	return NULL;
}

/* Ids are names of files: nothing else gets in here. */
static bool is_id(const char *id)
{
	size_t length = strlen(id);

	return length > 0 && length <= LIMIT_ID &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == length;
}

static status *put(struct history *history, const char *id, const void *data, size_t size)
{
	char path[FILES_PATH];

	if (!is_id(id))
		return status_errorf(STATUS_INVALID_ARGUMENT, "not a migration's id");
	(void)snprintf(path, sizeof(path), "%s/%s", history->directory, id);
	return files_replace(path, data, size);
}

status *history_keep(struct history *history, const Haul__V1__Migration *view)
{
	scoped(buffer) struct buffer bytes = {0};
	status *st = pack_message(&view->base, LIMIT_UNARY_BYTES, &bytes);

	return st == NULL ? put(history, view->id, bytes.data, bytes.size) : st;
}

status *history_delete(struct history *history, const char *id)
{
	return put(history, id, deleted, sizeof(deleted) - 1);
}

void history_forget(struct history *history, const char *id)
{
	char path[FILES_PATH];

	(void)snprintf(path, sizeof(path), "%s/%s", history->directory, id);
	if (is_id(id))
		(void)unlink(path);
}

Haul__V1__Migration *history_find(struct history *history, const char *id, bool *ret_is_deleted)
{
	scoped(buffer) struct buffer bytes = {0};
	ProtobufCMessage *message = NULL;
	char path[FILES_PATH];

	*ret_is_deleted = false;
	if (!is_id(id))
		return NULL;
	(void)snprintf(path, sizeof(path), "%s/%s", history->directory, id);
	scoped(status) status *st = files_read(path, LIMIT_UNARY_BYTES, &bytes);
	if (st != NULL)
		return NULL;
	*ret_is_deleted = bytes.size == sizeof(deleted) - 1 &&
			  memcmp(bytes.data, deleted, sizeof(deleted) - 1) == 0;
	if (*ret_is_deleted)
		return NULL;
	scoped(status) status *bad = unpack_message(&haul__v1__migration__descriptor, bytes.data,
						    bytes.size, LIMIT_UNARY_BYTES, &message);
	Haul__V1__Migration *view = (Haul__V1__Migration *)message;
	if (bad != NULL || (strcmp(view->id, id) == 0 && migration_is_over(view)))
		return view;
	migration_view_free(view); /* cut by a power failure, or not ours */
	return NULL;
}

struct visiting {
	struct history *history;
	void (*visit)(void *self, const char *id, const Haul__V1__Migration *view);
	void *self;
};

static void visit_file(void *self, const char *name)
{
	const struct visiting *visiting = self;
	bool is_deleted = false;
	scoped(migration_view) Haul__V1__Migration *view =
	    history_find(visiting->history, name, &is_deleted);

	if (view != NULL || is_deleted)
		visiting->visit(visiting->self, name, view);
}

status *history_each(struct history *history,
		     void (*visit)(void *self, const char *id, const Haul__V1__Migration *view),
		     void *self)
{
	struct visiting visiting = {history, visit, self};

	return files_each(history->directory, visit_file, &visiting);
}

void history_free(struct history *history)
{
	free(history);
}
