/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl migrate: starts a migration and follows it to its end. */
#include <string.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/follow.h"
#include "cmd/haulctl/progress.h"
#include "cmd/haulctl/render.h"
#include "cmd/haulctl/render_json.h"
#include "cmd/shared/rate.h"
#include "proto/pack.h"

/* A doubt that lasts longer than this is the result: a scheduler must not wait for a dead host. */
enum { DOUBT_MS = 10000 };

/* One of the flag's choices. */
static uint32_t on_timeout_of(const char *word)
{
	if (word == NULL || strcmp(word, "abort") == 0)
		return HAUL_ON_TIMEOUT_ABORT;
	return strcmp(word, "stop-copy") == 0 ? HAUL_ON_TIMEOUT_STOP_COPY
					      : HAUL_ON_TIMEOUT_POST_COPY;
}

/* All or none; from 3 on: the others are haulctl's own. */
static status *check_sockets(const struct ctl *ctl)
{
	if (ctl->fd_rpc == 0 && ctl->fd_memory == 0 && ctl->fd_images == 0)
		return NULL;
	if (ctl->server != NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--fd-rpc: sockets are handed over by the local socket only, "
				     "not with --server");
	return ctl_check_sockets(ctl);
}

static status *fill_options(const struct ctl *ctl, struct haul_options *options)
{
	if (ctl->max_rounds > LIMIT_ROUNDS)
		return status_errorf(STATUS_INVALID_ARGUMENT, "--max-rounds: at most %d",
				     LIMIT_ROUNDS);
	if (ctl->no_precopy && ctl->max_rounds != 0)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--no-precopy and --max-rounds exclude each other");
	if (ctl->dest_root != NULL && ctl->dest_root[0] != '/')
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--dest-root: \"%.200s\" is not an absolute path",
				     ctl->dest_root);
	if (ctl->no_precopy && ctl->auto_converge)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "--no-precopy and --auto-converge exclude each other");
	options->max_downtime_ms = (uint32_t)ctl->max_downtime_ms;
	options->auto_converge = ctl->auto_converge;
	options->on_timeout = on_timeout_of(ctl->on_timeout);
	options->max_rounds = ctl->max_rounds;
	options->no_precopy = ctl->no_precopy;
	options->tcp =
	    ctl->tcp != NULL && strcmp(ctl->tcp, "close") == 0 ? HAUL_TCP_CLOSE : HAUL_TCP_REFUSE;
	options->shell_job = ctl->shell_job;
	if (ctl->bandwidth != NULL) {
		status *st = rate_parse(ctl->bandwidth, &options->bandwidth_bytes_per_s);
		if (st != NULL)
			return status_wrapf(st, "--bandwidth");
	}
	options->fd_rpc = (int)ctl->fd_rpc;
	options->fd_memory = (int)ctl->fd_memory;
	options->fd_images = (int)ctl->fd_images;
	options->timeout_ms = (uint32_t)ctl->migration_timeout_ms;
	options->dest_root = ctl->dest_root;
	options->tracking = ctl->tracking;
	options->compression = ctl->compression;
	options->restore = ctl->restore;
	options->mode = ctl->mode;
	options->streams = ctl->streams;
	return NULL;
}

static status *start(struct ctl *ctl, Haul__V1__Migration **ret_started)
{
	struct haul_options options = HAUL_OPTIONS_INIT;
	struct haul_migration *view = NULL;

	if (ctl->to == NULL)
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "--to is missing: where to? For example --to tls+tcp://b:7777");
	status *st = check_sockets(ctl);
	if (st == NULL)
		st = fill_options(ctl, &options);
	if (st == NULL)
		st = ctl_connect(ctl);
	if (st != NULL)
		return st;
	st =
	    ctl_failed(ctl, haul_start(ctl->client, ctl->words.words[0], ctl->to, &options, &view));
	if (st != NULL && rpc_client_may_have_run(st) && status_detail_find(st, "next") == NULL)
		st = status_detailf(st, "next",
				    "it may have been started: haulctl list --active tells");
	return st == NULL ? ctl_migration(view, ret_started) : st;
}

static void show(void *self, const Haul__V1__Migration *migration)
{
	if (self != NULL)
		progress_show(self, migration);
}

static void say(void *self, const char *text)
{
	(void)self;
	(void)fprintf(stderr, "\nhaulctl: %s\n", text);
}

static void report(const struct ctl *ctl, const Haul__V1__Migration *migration, bool has_left)
{
	if (ctl->is_json) {
		json_print(stdout, json_of_migration(migration, false), false);
		return;
	}
	print_report(stdout, migration);
	if (has_left && !state_is_over(migration->state))
		(void)printf("it goes on by itself: haulctl watch %s\n", migration->id);
	if (migration->state == HAUL__V1__MIGRATION_STATE__IN_DOUBT)
		(void)printf("when its destination is gone for good: haulctl resolve --help\n");
	print_migration_error(migration);
}

static status *follow_to_end(struct ctl *ctl, const Haul__V1__Migration *started, int *ret_exit)
{
	struct progress progress;
	Haul__V1__Migration *last = NULL;
	bool has_left = false;

	progress_start(&progress, stderr);
	const struct follow follow = {
	    .ctl = ctl,
	    .id = started->id,
	    .cancels = true,
	    .doubt_ms = DOUBT_MS,
	    .self = ctl->is_json && !progress.is_terminal ? NULL : &progress,
	    .changed = show,
	    .say = say,
	};
	status *st = follow_migration(&follow, &last, &has_left);
	progress_clear(&progress);
	if (st != NULL)
		return st;
	const Haul__V1__Migration *seen = last != NULL ? last : started;
	report(ctl, seen, has_left);
	*ret_exit = migration_exit(seen);
	if (last != NULL)
		haul__v1__migration__free_unpacked(last, NULL);
	return NULL;
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	Haul__V1__Migration *started = NULL;
	status *st = start(ctl, &started);

	if (st != NULL)
		return st;
	if (!ctl->detach) {
		if (!ctl->is_json)
			(void)fprintf(stderr, "migration %s\n", started->id);
		st = follow_to_end(ctl, started, ret_exit);
	} else if (ctl->is_json) {
		json_print(stdout, json_of_migration(started, false), false);
	} else {
		(void)printf("%s\n", started->id);
	}
	haul__v1__migration__free_unpacked(started, NULL);
	return st;
}

static const struct flag flags[] = {
    {"--to", "URL", FLAG_TEXT, CTL_FLAG(to), "the destination's hauld: tls+tcp://HOST:PORT"},
    {"--max-downtime", "D", FLAG_DURATION, CTL_FLAG(max_downtime_ms),
     "go on copying ahead until the predicted downtime is below this, and do not freeze before "
     "(default: 300ms, but freeze when more copying would not help)"},
    {"--max-rounds", "N", FLAG_NUMBER, CTL_FLAG(max_rounds),
     "rounds of copying ahead at most, before the freeze (default: 8; with --max-downtime or "
     "--auto-converge 100)"},
    {"--auto-converge", NULL, FLAG_SWITCH, CTL_FLAG(auto_converge),
     "leave the workload less and less processor time while it changes its memory faster than that "
     "can be copied"},
    {"--mode", "pre-copy|post-copy|hybrid|stop-copy", FLAG_CHOICE, CTL_FLAG(mode),
     "when memory is copied: while the workload runs here (pre-copy), after it runs there "
     "(post-copy), both (hybrid), or while it is frozen (stop-copy). With post-copy and hybrid it "
     "is "
     "lost if this machine is lost before all has been fetched (default: pre-copy)"},
    {"--no-precopy", NULL, FLAG_SWITCH, CTL_FLAG(no_precopy),
     "freeze at once and copy everything while frozen"},
    {"--tcp", "refuse|close", FLAG_CHOICE, CTL_FLAG(tcp),
     "open TCP connections: refuse to migrate, or let the move close them (default: refuse)"},
    {"--shell-job", NULL, FLAG_SWITCH, CTL_FLAG(shell_job),
     "the workload was started from a shell: it is no session leader or has its terminal"},
    {"--dest-root", "DIR", FLAG_TEXT, CTL_FLAG(dest_root),
     "directory at the destination that becomes the workload's root (default: /)"},
    {"--tracking", "auto|soft-dirty|hash|none", FLAG_CHOICE, CTL_FLAG(tracking),
     "how copying ahead finds what has changed: by the kernel's soft-dirty bits, by comparing "
     "content, or not at all (default: auto, the kernel's if it has them)"},
    {"--bandwidth", "R", FLAG_TEXT, CTL_FLAG(bandwidth),
     "memory that is copied ahead takes at most this a second: 800mbit, 50MiB (default: no limit); "
     "haulctl adjust changes it"},
    {"--streams", "N", FLAG_NUMBER, CTL_FLAG(streams),
     "memory goes over N connections side by side, at most 8: for links that are faster than one "
     "processor seals (default: 1)"},
    {"--compression", "C", FLAG_TEXT, CTL_FLAG(compression),
     "of memory on its way: none, lz4, zstd, zstd:1 ... zstd:19, or auto, which takes whatever is "
     "fastest as it goes (default: auto)"},
    {"--restore", "auto|lazy|eager", FLAG_CHOICE, CTL_FLAG(restore),
     "whether the workload goes on before all of its memory is in place at the destination, which "
     "fills it in from what was copied (default: auto, lazy where the destination can)"},
    {"--timeout", "D", FLAG_DURATION, CTL_FLAG(migration_timeout_ms),
     "roll back unless it could be committed within this time (default: no limit)"},
    {"--on-timeout", "abort|stop-copy|post-copy", FLAG_CHOICE, CTL_FLAG(on_timeout),
     "when the time or the rounds are over and --max-downtime cannot be kept: roll back, freeze "
     "and "
     "copy the rest while frozen, or freeze and fetch the rest after it runs there, with the risk "
     "of --mode post-copy (default: abort)"},
    {"--fd-rpc", "N", FLAG_NUMBER, CTL_FLAG(fd_rpc),
     "a stream socket that is open for haulctl and connected to the destination's `haulctl accept "
     "--fd-rpc`: calls go by it, --to is asked only when it is lost"},
    {"--fd-mem", "N", FLAG_NUMBER, CTL_FLAG(fd_memory), "the same, for memory"},
    {"--fd-fs", "N", FLAG_NUMBER, CTL_FLAG(fd_images), "the same, for CRIU's images"},
    {"--detach", NULL, FLAG_SWITCH, CTL_FLAG(detach), "print the id and do not wait"},
};

const struct command command_migrate = {
    .name = "migrate",
    .arguments = "pid:N --to URL",
    .summary = "move a running process tree to another node",
    .text = "Moves the process N with all its descendants to another node. Memory is copied while "
	    "they run;\n"
	    "then they are frozen, moved and go on there with the same pids. Whatever fails before "
	    "the\n"
	    "commit leaves them running here.\n\n"
	    "example: move a service, down for at most a tenth of a second if possible\n"
	    "  haulctl migrate pid:$(pidof mydaemon) --to tls+tcp://b.example.org:7777 "
	    "--max-downtime 100ms\n\n"
	    "Ctrl-C cancels it; a second Ctrl-C leaves it to itself. The exit status is 0 when it "
	    "completed\n"
	    "and 64 plus the status code otherwise (73: it could not be moved as it is, 78: in "
	    "doubt or\n"
	    "out of reach).\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .word_count = 1,
    .takes_signals = true,
    .run = run,
};
