/* SPDX-License-Identifier: Apache-2.0 */
/* The source's stage table and the one who walks it. Read the table at the end first. */
#include "engine/migration/source_internal.h"

#include "engine/log.h"
#include "proto/clock.h"

struct stage_change {
	const char *name;
};

static void show_stage(void *self, Haul__V1__Migration *view)
{
	const struct stage_change *change = self;

	text_set(&view->stage, change->name);
}

static void enter(struct source *source, enum source_stage stage)
{
	const struct source_row *row = source_row(stage);
	struct stage_change change = {row->name};

	source->stage = stage;
	log_line(LOG_LEVEL_INFO, source->id, "stage %s", row->name);
	registry_change(source->core->registry, source->id, show_stage, &change);
}

/* Keeps the first error: what follows from it is aftermath, told in the log. */
static void keep_error(struct source *source, status *st)
{
	log_status(LOG_LEVEL_WARN, source->id, source_row(source->stage)->name, st);
	if (source->error == NULL)
		source->error = st;
	else
		status_free(st);
}

/* Is this what an interrupt, or its cause, makes of a stage? */
static bool may_be_interrupted(const status *st)
{
	return st == NULL || status_code_of(st) == STATUS_CANCELLED ||
	       status_code_of(st) == STATUS_DEADLINE_EXCEEDED;
}

/* Not in doubt: that may last. */
static bool is_hasty(enum source_stage stage)
{
	return stage == SRC_FREEZE || stage == SRC_RESTORE || stage == SRC_COMMIT;
}

void source_walk(struct source *source)
{
	bool was_hasty = false;

	while (source->stage != SRC_OVER) {
		const struct source_row *row = source_row(source->stage);
		enum source_stage before = source->stage;

		if (is_hasty(before) != was_hasty)
			core_stand_still(source->core, !was_hasty);
		was_hasty = is_hasty(before);
		enter(source, source->stage);
		status *st = row->action(source);
		if (before < SRC_COMMIT)
			source_expire(source);
		if (before < SRC_COMMIT && may_be_interrupted(st)) {
			status *why = source_interrupted(source);
			st = why != NULL ? status_first(why, st) : st;
		}
		if (source->stage !=
		    before) { /* the action chose: in doubt, several ways lead on */
			status_free(st);
			continue;
		}
		if (st != NULL)
			keep_error(source, st);
		source->stage = st == NULL ? row->on_ok : row->on_error;
	}
}

/* clang-format off */
static const struct source_row rows[] = {
/*                    name         action             on success   on error     frozen */
	[SRC_PREFLIGHT] = {"preflight", source_preflight, SRC_PREPARE, SRC_ABORT,  false},
	[SRC_PREPARE]   = {"prepare",   source_prepare,   SRC_PRECOPY, SRC_ABORT,  false},
	[SRC_PRECOPY]   = {"pre-copy",  source_precopy,   SRC_FREEZE,  SRC_ABORT,  false},
	[SRC_FREEZE]    = {"freeze",    source_freeze,    SRC_RESTORE, SRC_RESUME, true},
	[SRC_RESTORE]   = {"restore",   source_restore,   SRC_COMMIT,  SRC_RESUME, true},
	[SRC_COMMIT]    = {"commit",    source_commit,    SRC_FILL,    SRC_ASK,    true},
	[SRC_FILL]      = {"fill",      source_fill,      SRC_FINISH,  SRC_ASK,    true},
	[SRC_ASK]       = {"in-doubt",  source_ask,       SRC_ASK,     SRC_OVER,   true},
	[SRC_FINISH]    = {"finish",    source_finish,    SRC_OVER,    SRC_OVER,   false},
	[SRC_ABORT]     = {"abort",     source_abort,     SRC_OVER,    SRC_OVER,   false},
	[SRC_RESUME]    = {"resume",    source_resume,    SRC_OVER,    SRC_OVER,   true},
	[SRC_LOST]      = {"lost",      source_lost,      SRC_OVER,    SRC_OVER,   false},
	[SRC_OVER]      = {"over",      NULL,             SRC_OVER,    SRC_OVER,   false},
};
/* clang-format on */

const struct source_row *source_row(enum source_stage stage)
{
	return &rows[stage];
}
