/* SPDX-License-Identifier: Apache-2.0 */
/* What dumping and restoring a tree takes on this node, learnt from the migrations that it has
 * seen: for each kind of work a time that does not depend on the tree, one a page and one a
 * process. */
#ifndef HAUL_ENGINE_MIGRATION_COSTS_H
#define HAUL_ENGINE_MIGRATION_COSTS_H

#include "proto/status.h"

enum cost_kind {
	COST_DUMP_TRACKED, /* of a frozen tree, by the kernel's dirty bits; without sending pages */
	COST_DUMP_READ,	   /* the same where all its memory is read */
	COST_RESTORE,	   /* at this node, all memory filled in */
	COST_RESTORE_LAZY, /* at this node, without the memory that comes later */
	COST_CALLS,	   /* the rest of a downtime: records and calls, without their way */
	COST_KINDS,	   /* the wire's CostKind is one more than these */
};

struct cost_size {
	double pages, processes;
};

struct cost {
	double fixed_ms, page_ms, process_ms;
	unsigned samples; /* that it was learnt from; 0 = a guess */
};

double cost_of(const struct cost *cost, const struct cost_size *size);

/* One piece of work as it was measured. */
struct cost_sample {
	struct cost_size size;
	double took_ms;
};

/* Pure: the line through the samples, oldest first, of which younger ones weigh more and errors
 * count by their share of what was measured; few samples leave what they do not tell as it was
 * guessed. No part is negative. */
struct cost cost_fit(const struct cost_sample *samples, unsigned count, const struct cost *guess);

/* Of a kind of which nothing is known yet. */
struct cost costs_guess(enum cost_kind kind);

struct costs;
/* Goes on with what was kept in the file `path` (copied); NULL: keeps nothing. A file that is
 * missing or damaged only means that all is to be learnt again. */
struct costs *costs_new(const char *path);
/* Writes what was learnt since the last time, if anything. Not while a workload stands still. */
must_check status *costs_keep(struct costs *costs);
/* Any thread. */
void costs_note(struct costs *costs, enum cost_kind kind, const struct cost_sample *sample);
struct cost costs_now(struct costs *costs, enum cost_kind kind);
void costs_free(struct costs *costs);

#endif
