/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl watch: follows a migration that was started before. */
#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/follow.h"
#include "cmd/haulctl/progress.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "proto/pack.h"

struct view {
	bool is_json;
	struct progress progress;
	uint64_t sequence;
};

static void show(void *self, const Haul__V1__Migration *migration)
{
	struct view *view = self;

	if (!view->is_json) {
		progress_show(&view->progress, migration);
		return;
	}
	/* The engine repeats itself as a sign of life; programs want changes. */
	if (migration->sequence != view->sequence)
		json_print(stdout, json_of_migration(migration, true), true);
	view->sequence = migration->sequence;
}

static void say(void *self, const char *text)
{
	(void)self;
	(void)fprintf(stderr, "\nhaulctl: %s\n", text);
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	struct view view = {.is_json = ctl->is_json};
	Haul__V1__Migration *last = NULL;
	scoped(str) char *id = NULL;
	bool has_left = false;
	status *st = ctl_id(ctl, &id);

	if (st != NULL)
		return st;
	progress_start(&view.progress, stderr);
	const struct follow follow = {
	    .ctl = ctl, .id = id, .self = &view, .changed = show, .say = say};
	st = follow_migration(&follow, &last, &has_left);
	progress_clear(&view.progress);
	if (st != NULL)
		return st;
	if (last == NULL)
		return NULL;
	*ret_exit = migration_exit(last);
	if (!ctl->is_json) {
		print_report(stdout, last);
		print_migration_error(last);
	}
	haul__v1__migration__free_unpacked(last, NULL);
	return NULL;
}

const struct command command_watch = {
    .name = "watch",
    .arguments = "ID",
    .summary = "follow a migration to its end",
    .text = "Shows a migration's progress until it is over, then its report. Ctrl-C ends the "
	    "watching, not\n"
	    "the migration. With --json every change is one line with one object. The exit status "
	    "is the\n"
	    "migration's, as for migrate.\n\n"
	    "example:\n"
	    "  haulctl watch 7f3a2c\n",
    .word_count = 1,
    .takes_signals = true,
    .run = run,
};
