/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/journal.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "engine/host/files.h"
#include "proto/limits.h"
#include "proto/pack.h"

enum {
	JOURNAL_VERSION = 1,
	HEADER_BYTES = 16,
	RECORD_HEADER_BYTES = 8,
	RESERVE_BYTES = 1024 * 1024,   /* kept allocated ahead of the end */
	FILE_LIMIT = 64 * 1024 * 1024, /* compaction keeps it far below */
	COMPACT_ABOVE = 4 * 1024 * 1024,
};

static const char magic[8] = {'h', 'a', 'u', 'l', '-', 'j', 'n', 'l'};

struct journal {
	pthread_mutex_t lock;
	char path[FILES_PATH];
	char dir[FILES_PATH];
	int fd;
	int lock_fd;
	size_t end;	   /* where the next record goes */
	size_t compact_at; /* size that is worth a rewrite */
	bool is_broken;
	Haul__V1__JournalRecord **latest; /* one per id and role, oldest first */
	size_t count, room;
};

bool journal_event_is_source(Haul__V1__JournalEvent event)
{
	return event > HAUL__V1__JOURNAL_EVENT__J_UNKNOWN &&
	       event < HAUL__V1__JOURNAL_EVENT__J_DEST_PREPARED;
}

bool journal_event_is_final(Haul__V1__JournalEvent event)
{
	switch ((int)event) {
	case HAUL__V1__JOURNAL_EVENT__J_SOURCE_DONE:
	case HAUL__V1__JOURNAL_EVENT__J_SOURCE_RESUMED:
	case HAUL__V1__JOURNAL_EVENT__J_SOURCE_LOST:
	case HAUL__V1__JOURNAL_EVENT__J_DEST_ABORTED:
	case HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED:
	case HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED:
	case HAUL__V1__JOURNAL_EVENT__J_DEST_BROKEN:
		return true;
	default:
		return false;
	}
}

/* A decision once made is never unmade by a later record: what was committed only gets SETTLED and
 * ENDED behind it, or BROKEN as long as its source does not know better; what ended in another way
 * nothing. */
static bool may_follow(Haul__V1__JournalEvent earlier, Haul__V1__JournalEvent later)
{
	switch ((int)earlier) {
	case HAUL__V1__JOURNAL_EVENT__J_DEST_COMMITTED:
		return later == HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED ||
		       later == HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED ||
		       later == HAUL__V1__JOURNAL_EVENT__J_DEST_BROKEN;
	case HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED:
	case HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED:
		return later == HAUL__V1__JOURNAL_EVENT__J_DEST_SETTLED ||
		       later == HAUL__V1__JOURNAL_EVENT__J_DEST_ENDED;
	default:
		return !journal_event_is_final(earlier);
	}
}

static uint32_t checksum(const uint8_t *data, size_t size)
{
	return (uint32_t)XXH3_64bits(data, size);
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

/* The record at `data`, or NULL when these bytes are none. */
static Haul__V1__JournalRecord *record_at(const uint8_t *data, size_t size, size_t *ret_length)
{
	if (size < RECORD_HEADER_BYTES)
		return NULL;
	uint32_t length = get32(data);
	if (length == 0 || length > LIMIT_JOURNAL_RECORD || length > size - RECORD_HEADER_BYTES ||
	    checksum(data + RECORD_HEADER_BYTES, length) != get32(data + 4))
		return NULL;
	*ret_length = RECORD_HEADER_BYTES + length;
	return haul__v1__journal_record__unpack(NULL, length, data + RECORD_HEADER_BYTES);
}

/* Is there a whole record anywhere behind a bad place? Then it was no torn tail. */
static bool has_record_behind(const uint8_t *data, size_t size)
{
	for (size_t at = 1; at + RECORD_HEADER_BYTES < size; at++) {
		size_t length;
		Haul__V1__JournalRecord *record = record_at(data + at, size - at, &length);
		if (record != NULL) {
			haul__v1__journal_record__free_unpacked(record, NULL);
			return true;
		}
	}
	return false;
}

static status *check_header(const uint8_t *data, size_t size)
{
	if (size < HEADER_BYTES || memcmp(data, magic, sizeof(magic)) != 0)
		return status_errorf(STATUS_DATA_LOSS, "this is not a journal of haul");
	if (get32(data + 8) > JOURNAL_VERSION)
		return status_errorf(
		    STATUS_FAILED_PRECONDITION,
		    "written by a newer haul (format %u, this one knows %d): start "
		    "that version again",
		    get32(data + 8), JOURNAL_VERSION);
	return NULL;
}

status *journal_scan(const uint8_t *data, size_t size, size_t *ret_good,
		     void (*visit)(void *self, const Haul__V1__JournalRecord *record), void *self)
{
	status *st = check_header(data, size);
	size_t at = HEADER_BYTES;

	if (st != NULL)
		return st;
	for (size_t length; at < size; at += length) {
		scoped(journal_record) Haul__V1__JournalRecord *record =
		    record_at(data + at, size - at, &length);
		if (record == NULL)
			break;
		visit(self, record);
	}
	if (at < size && has_record_behind(data + at, size - at))
		return status_errorf(STATUS_DATA_LOSS, "damaged at byte %zu with records behind it",
				     at);
	*ret_good = at;
	return NULL;
}

static Haul__V1__JournalRecord *record_copy(const Haul__V1__JournalRecord *record)
{
	uint8_t bytes[LIMIT_JOURNAL_RECORD];
	size_t size = haul__v1__journal_record__get_packed_size(record);

	if (size > sizeof(bytes))
		return NULL;
	(void)haul__v1__journal_record__pack(record, bytes);
	return haul__v1__journal_record__unpack(NULL, size, bytes);
}

static bool is_empty(const char *text)
{
	return text == NULL || text[0] == '\0';
}

/* What the later record does not say stays as the earlier one said. */
static void merge_text(char **later, char **earlier)
{
	if (!is_empty(*later) || is_empty(*earlier))
		return;
	char *empty = *later;
	*later = *earlier;
	*earlier = empty;
}

static void merge(Haul__V1__JournalRecord *later, Haul__V1__JournalRecord *earlier)
{
	merge_text(&later->peer_url, &earlier->peer_url);
	merge_text(&later->peer_identity, &earlier->peer_identity);
	merge_text(&later->workload, &earlier->workload);
	merge_text(&later->boot_id, &earlier->boot_id);
	merge_text(&later->reason, &earlier->reason);
	if (later->pid == 0) {
		later->pid = earlier->pid;
		later->start_ticks = earlier->start_ticks;
	}
	if (later->n_origin_cgroups == 0 && earlier->n_origin_cgroups != 0) {
		later->origin_cgroups = TAKE(earlier->origin_cgroups);
		later->n_origin_cgroups = earlier->n_origin_cgroups;
		earlier->n_origin_cgroups = 0;
	}
}

static size_t place_of(const struct journal *journal, const char *id, bool as_source)
{
	for (size_t i = 0; i < journal->count; i++) {
		if (strcmp(journal->latest[i]->id, id) == 0 &&
		    journal_event_is_source(journal->latest[i]->event) == as_source)
			return i;
	}
	return journal->count;
}

/* Takes the record. */
static void remember(struct journal *journal, Haul__V1__JournalRecord *record)
{
	size_t place = place_of(journal, record->id, journal_event_is_source(record->event));

	if (place < journal->count) {
		Haul__V1__JournalRecord *earlier = journal->latest[place];
		merge(record, earlier);
		haul__v1__journal_record__free_unpacked(earlier, NULL);
		memmove(journal->latest + place, journal->latest + place + 1,
			(journal->count - place - 1) * sizeof(*journal->latest));
		journal->count--;
	} else if (journal->count == journal->room) {
		size_t room = journal->room == 0 ? 64 : journal->room * 2;
		void *grown = realloc(journal->latest, room * sizeof(*journal->latest));
		if (grown == NULL)
			abort(); /* a journal that forgets is worse than a restart */
		journal->latest = grown;
		journal->room = room;
	}
	journal->latest[journal->count++] = record;
}

static void replay(void *self, const Haul__V1__JournalRecord *record)
{
	struct journal *journal = self;
	size_t place = place_of(journal, record->id, journal_event_is_source(record->event));

	if (place < journal->count && !may_follow(journal->latest[place]->event, record->event))
		return;
	Haul__V1__JournalRecord *copy = record_copy(record);
	if (copy != NULL)
		remember(journal, copy);
}

static status *write_all(int fd, const uint8_t *data, size_t size, size_t at)
{
	while (size > 0) {
		ssize_t wrote = pwrite(fd, data, size, (off_t)at);
		if (wrote < 0 && errno != EINTR)
			return status_errnof(errno, "cannot write the journal");
		size_t step = wrote > 0 ? (size_t)wrote : 0;
		data += step;
		size -= step;
		at += step;
	}
	return NULL;
}

static status *record_bytes(const Haul__V1__JournalRecord *record, uint8_t **ret_bytes,
			    size_t *ret_size)
{
	size_t length = haul__v1__journal_record__get_packed_size(record);

	if (length == 0 || length > LIMIT_JOURNAL_RECORD)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "journal record of %zu bytes",
				     length);
	uint8_t *bytes = malloc(RECORD_HEADER_BYTES + length);
	if (bytes == NULL)
		return status_errnof(ENOMEM, "cannot write the journal");
	(void)haul__v1__journal_record__pack(record, bytes + RECORD_HEADER_BYTES);
	put32(bytes, (uint32_t)length);
	put32(bytes + 4, checksum(bytes + RECORD_HEADER_BYTES, length));
	*ret_bytes = bytes;
	*ret_size = RECORD_HEADER_BYTES + length;
	return NULL;
}

/* Back to what was durable before; broken when even that fails. */
static void take_back(struct journal *journal)
{
	if (ftruncate(journal->fd, (off_t)journal->end) != 0 || fsync(journal->fd) != 0)
		journal->is_broken = true;
}

/* --- rewriting --- */

static status *write_header(int fd)
{
	uint8_t header[HEADER_BYTES] = {0};

	memcpy(header, magic, sizeof(magic));
	put32(header + 8, JOURNAL_VERSION);
	return write_all(fd, header, sizeof(header), 0);
}

static status *sync_directory(const char *dir)
{
	scoped(fd) int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) != 0)
		return status_errnof(errno, "cannot sync %s", dir);
	return NULL;
}

/* Which finished migrations are kept: the youngest LIMIT_HISTORY. */
static void forget_old(struct journal *journal)
{
	size_t finished = 0, kept = 0;

	for (size_t i = 0; i < journal->count; i++)
		finished += journal_event_is_final(journal->latest[i]->event) ? 1 : 0;
	for (size_t i = 0; i < journal->count; i++) {
		Haul__V1__JournalRecord *record = journal->latest[i];
		if (finished > LIMIT_HISTORY && journal_event_is_final(record->event)) {
			finished--;
			haul__v1__journal_record__free_unpacked(record, NULL);
		} else {
			journal->latest[kept++] = record;
		}
	}
	journal->count = kept;
}

/* Writes what is still worth knowing into a new file and puts it in the old one's place. */
static status *rewrite(struct journal *journal)
{
	char fresh[FILES_PATH + 8];

	forget_old(journal);
	(void)snprintf(fresh, sizeof(fresh), "%s.new", journal->path);
	int fd = open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return status_errnof(errno, "cannot create %s", fresh);
	status *st = write_header(fd);
	size_t end = HEADER_BYTES;
	for (size_t i = 0; i < journal->count && st == NULL; i++) {
		scoped(bytes) uint8_t *bytes = NULL;
		size_t size = 0;
		st = record_bytes(journal->latest[i], &bytes, &size);
		if (st == NULL)
			st = write_all(fd, bytes, size, end);
		end += size;
	}
	if (st == NULL && (fsync(fd) != 0 || rename(fresh, journal->path) != 0))
		st = status_errnof(errno, "cannot replace %s", journal->path);
	if (st != NULL) {
		(void)close(fd);
		(void)unlink(fresh);
		return st;
	}
	close_if_open(journal->fd);
	journal->fd = fd;
	journal->end = end;
	journal->compact_at = end * 2 > COMPACT_ABOVE ? end * 2 : COMPACT_ABOVE;
	/* Until the directory is durable a power cut could bring the old file back, without what is
	 * appended from now on. */
	st = sync_directory(journal->dir);
	journal->is_broken = st != NULL;
	return st;
}

/* The file does not grow for ever under an engine that runs for months. A failure changes nothing:
 * the old file goes on. */
static void compact_if_large(struct journal *journal)
{
	if (journal->end < journal->compact_at)
		return;
	status_free(rewrite(journal));
	journal->compact_at = journal->end * 2 > COMPACT_ABOVE ? journal->end * 2 : COMPACT_ABOVE;
	(void)fallocate(journal->fd, FALLOC_FL_KEEP_SIZE, (off_t)journal->end, RESERVE_BYTES);
}

static status *append_locked(struct journal *journal, const Haul__V1__JournalRecord *record)
{
	scoped(bytes) uint8_t *bytes = NULL;
	size_t size;

	if (journal->is_broken)
		return status_errorf(
		    STATUS_UNAVAILABLE,
		    "the journal %s failed earlier: restart hauld when the disk works again",
		    journal->path);
	size_t place = place_of(journal, record->id, journal_event_is_source(record->event));
	if (place < journal->count && !may_follow(journal->latest[place]->event, record->event))
		return status_errorf(STATUS_FAILED_PRECONDITION,
				     "migration %s is decided already (journal event %d)",
				     record->id, journal->latest[place]->event);
	status *st = record_bytes(record, &bytes, &size);
	if (st != NULL)
		return st;
	st = write_all(journal->fd, bytes, size, journal->end);
	if (st == NULL && fdatasync(journal->fd) != 0)
		st = status_errnof(errno, "cannot make the journal durable");
	if (st != NULL) {
		take_back(journal);
		return st;
	}
	journal->end += size;
	Haul__V1__JournalRecord *copy = record_copy(record);
	if (copy == NULL)
		abort();
	remember(journal, copy);
	compact_if_large(journal);
	return NULL;
}

status *journal_append(struct journal *journal, const Haul__V1__JournalRecord *record)
{
	(void)pthread_mutex_lock(&journal->lock);
	status *st = append_locked(journal, record);
	(void)pthread_mutex_unlock(&journal->lock);
	return st;
}

bool journal_is_broken(struct journal *journal)
{
	(void)pthread_mutex_lock(&journal->lock);
	bool is_broken = journal->is_broken;
	(void)pthread_mutex_unlock(&journal->lock);
	return is_broken;
}

status *journal_reserve(struct journal *journal)
{
	status *st = NULL;

	(void)pthread_mutex_lock(&journal->lock);
	if (journal->is_broken)
		st = status_errorf(STATUS_UNAVAILABLE, "the journal %s is broken", journal->path);
	else if (fallocate(journal->fd, FALLOC_FL_KEEP_SIZE, (off_t)journal->end, RESERVE_BYTES) !=
		     0 &&
		 errno != EOPNOTSUPP)
		st = status_errnof(errno, "no room for the journal in %s", journal->dir);
	(void)pthread_mutex_unlock(&journal->lock);
	return st;
}

Haul__V1__JournalRecord *journal_find(struct journal *journal, const char *id, bool as_source)
{
	Haul__V1__JournalRecord *found = NULL;

	(void)pthread_mutex_lock(&journal->lock);
	size_t place = place_of(journal, id, as_source);
	if (place < journal->count)
		found = record_copy(journal->latest[place]);
	(void)pthread_mutex_unlock(&journal->lock);
	return found;
}

void journal_each(struct journal *journal,
		  void (*visit)(void *self, const Haul__V1__JournalRecord *record), void *self)
{
	(void)pthread_mutex_lock(&journal->lock);
	for (size_t i = 0; i < journal->count; i++)
		visit(self, journal->latest[i]);
	(void)pthread_mutex_unlock(&journal->lock);
}

/* --- opening --- */

static status *load(struct journal *journal)
{
	struct buffer content __attribute__((cleanup(scope_buffer))) = {0};
	struct stat info;

	if (fstat(journal->fd, &info) != 0)
		return status_errnof(errno, "cannot look at %s", journal->path);
	if (info.st_size == 0)
		return rewrite(journal);
	status *st = files_read(journal->path, FILE_LIMIT, &content);
	if (st == NULL)
		st = journal_scan(content.data, content.size, &journal->end, replay, journal);
	if (st != NULL)
		return status_detailf(
		    status_wrapf(st, "journal %s", journal->path), "next", "%s",
		    "it decides who runs: do not delete it while a migration may be open; move it "
		    "aside only when "
		    "`haulctl list` of the peers shows none in doubt with this node");
	if (journal->end < content.size && ftruncate(journal->fd, (off_t)journal->end) != 0)
		return status_errnof(errno, "cannot cut the torn tail off %s", journal->path);
	journal->compact_at = COMPACT_ABOVE;
	if (content.size > COMPACT_ABOVE || journal->count > 2 * (size_t)LIMIT_HISTORY)
		return rewrite(journal);
	return fsync(journal->fd) == 0 ? NULL : status_errnof(errno, "cannot sync the journal");
}

static status *take_lock(struct journal *journal)
{
	char path[FILES_PATH + 8];

	(void)snprintf(path, sizeof(path), "%s/lock", journal->dir);
	journal->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (journal->lock_fd < 0)
		return status_errnof(errno, "cannot open %s", path);
	if (flock(journal->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return status_errorf(STATUS_ALREADY_EXISTS,
				     "another hauld uses the state directory %s: stop it first, or "
				     "give this one its "
				     "own --state-dir",
				     journal->dir);
	return NULL;
}

status *journal_open(const char *dir, struct journal **ret_journal)
{
	scoped(journal) struct journal *journal = calloc(1, sizeof(*journal));

	if (journal == NULL)
		return status_errnof(ENOMEM, "cannot open the journal");
	(void)pthread_mutex_init(&journal->lock, NULL);
	journal->fd = journal->lock_fd = -1;
	if ((size_t)snprintf(journal->dir, sizeof(journal->dir), "%s", dir) >= FILES_PATH - 16)
		return status_errorf(STATUS_INVALID_ARGUMENT, "state directory's path is too long");
	(void)snprintf(journal->path, sizeof(journal->path), "%.*s/journal", FILES_PATH - 16, dir);
	status *st = take_lock(journal);
	if (st != NULL)
		return st;
	journal->fd = open(journal->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (journal->fd < 0)
		return status_errnof(errno, "cannot open %s", journal->path);
	st = load(journal);
	if (st != NULL)
		return st;
	*ret_journal = TAKE(journal);
	return NULL;
}

void journal_close(struct journal *journal)
{
	if (journal == NULL)
		return;
	for (size_t i = 0; i < journal->count; i++)
		haul__v1__journal_record__free_unpacked(journal->latest[i], NULL);
	free(journal->latest);
	close_if_open(journal->fd);
	close_if_open(journal->lock_fd);
	(void)pthread_mutex_destroy(&journal->lock);
	free(journal);
}
