/* SPDX-License-Identifier: Apache-2.0 */
/* The journal: what this engine has decided, on disk before it is done.
 *
 * One append-only file: a 16-byte header (magic, format version), then records of length, xxh3-32
 * and a packed haul.v1.JournalRecord. Each append is fsync'ed before it returns. A torn tail (power
 * cut in the middle of a write) is cut off; damage before the tail is refused, since it could hide
 * a commit. Room for deciding records is reserved ahead, so that a full disk refuses new migrations
 * and never the end of one. */
#ifndef HAUL_ENGINE_MIGRATION_JOURNAL_H
#define HAUL_ENGINE_MIGRATION_JOURNAL_H

#include "haul/v1/journal.pb-c.h"
#include "proto/status.h"

struct journal;

/* Opens or creates dir/journal, locks it (ALREADY_EXISTS: another hauld has this state directory),
 * replays and compacts. DATA_LOSS: damaged; FAILED_PRECONDITION: written by a newer haul. */
must_check status *journal_open(const char *dir, struct journal **ret_journal);

/* Durable when it returns NULL. On an error the record is certainly not in the journal, or the
 * journal is broken and refuses everything from then on (journal_is_broken): then only a restart
 * can tell. */
must_check status *journal_append(struct journal *journal, const Haul__V1__JournalRecord *record);

bool journal_is_broken(struct journal *journal);

/* Makes sure that the records still to come of one more migration have room. RESOURCE_EXHAUSTED:
 * disk full. */
must_check status *journal_reserve(struct journal *journal);

/* The id's latest record, merged: fields that later records leave empty keep the earlier value.
 * A copy (haul__v1__journal_record__free_unpacked), or NULL. Source and destination records of
 * one id do not mix: as_source chooses. */
Haul__V1__JournalRecord *journal_find(struct journal *journal, const char *id, bool as_source);

/* All latest records, oldest first; the record is borrowed during the visit. The visit must not
 * append. */
void journal_each(struct journal *journal,
		  void (*visit)(void *self, const Haul__V1__JournalRecord *record), void *self);

/* Nothing more is to be done about it: DONE, RESUMED, LOST, ABORTED, SETTLED, ENDED. */
bool journal_event_is_final(Haul__V1__JournalEvent event);
bool journal_event_is_source(Haul__V1__JournalEvent event);

/* Pure part, for tests and fuzzing: counts good records in a file's bytes and says where they end.
 * *ret_good is the offset after the last good record; errors as journal_open. */
must_check status *journal_scan(const uint8_t *data, size_t size, size_t *ret_good,
				void (*visit)(void *self, const Haul__V1__JournalRecord *record),
				void *self);

void journal_close(struct journal *journal);

DEFINE_SCOPE(journal, struct journal *, journal_close);
static inline void journal_record_free(Haul__V1__JournalRecord *record)
{
	haul__v1__journal_record__free_unpacked(record, NULL);
}
DEFINE_SCOPE(journal_record, Haul__V1__JournalRecord *, journal_record_free);

#endif
