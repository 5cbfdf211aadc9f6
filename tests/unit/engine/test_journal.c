/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "engine/host/files.h"
#include "proto/limits.h"
#include "proto/pack.h"
#include "tests/unit/test.h"

#define J(event) HAUL__V1__JOURNAL_EVENT__J_##event

static char directory[64]; /* one a test */

static int make_directory(void **state)
{
	(void)state;
	(void)snprintf(directory, sizeof(directory), "/tmp/haul-journal-XXXXXX");
	return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_directory(void **state)
{
	(void)state;
	assert_ok(files_remove_tree(directory));
	return 0;
}

static const char *journal_file(void)
{
	static char path[128];

	(void)snprintf(path, sizeof(path), "%s/journal", directory);
	return path;
}

static struct journal *open_journal(void)
{
	struct journal *journal = NULL;

	assert_ok(journal_open(directory, &journal));
	return journal;
}

static status *append(struct journal *journal, const char *id, Haul__V1__JournalEvent event)
{
	Haul__V1__JournalRecord record = HAUL__V1__JOURNAL_RECORD__INIT;

	record.event = event;
	record.id = (char *)id;
	return journal_append(journal, &record);
}

/* The id's event, or 0. */
static int event_of(struct journal *journal, const char *id, bool as_source)
{
	scoped(journal_record) Haul__V1__JournalRecord *record =
	    journal_find(journal, id, as_source);

	return record != NULL ? (int)record->event : 0;
}

static struct buffer content(void)
{
	struct buffer bytes = {0};

	assert_ok(files_read(journal_file(), 64 * 1024 * 1024, &bytes));
	return bytes;
}

static void put_content(const uint8_t *data, size_t size)
{
	(void)unlink(journal_file());
	assert_ok(files_write(journal_file(), data, size));
}

static void ignore(void *self, const Haul__V1__JournalRecord *record)
{
	(void)record;
	if (self != NULL)
		++*(unsigned *)self;
}

static void what_is_appended_is_there_after_reopening(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	assert_ok(append(journal, "a", J(SOURCE_BEGUN)));
	assert_ok(append(journal, "a", J(SOURCE_COMMITTING)));
	assert_ok(append(journal, "b", J(DEST_PREPARED)));
	for (int round = 0; round < 2; round++) {
		assert_int_equal(event_of(journal, "a", true), J(SOURCE_COMMITTING));
		assert_int_equal(event_of(journal, "b", false), J(DEST_PREPARED));
		assert_null(journal_find(journal, "c", true));
		journal_close(journal);
		journal = open_journal();
	}
	journal_close(journal);
}

static void source_and_destination_of_one_id_do_not_mix(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	assert_ok(append(journal, "a", J(SOURCE_COMMITTING)));
	assert_ok(append(journal, "a", J(DEST_ABORTED)));
	assert_int_equal(event_of(journal, "a", true), J(SOURCE_COMMITTING));
	assert_int_equal(event_of(journal, "a", false), J(DEST_ABORTED));
	journal_close(journal);
}

static void check_merged(struct journal *journal)
{
	scoped(journal_record) Haul__V1__JournalRecord *record = journal_find(journal, "a", true);

	assert_non_null(record);
	assert_int_equal(record->event, J(SOURCE_DONE));
	assert_string_equal(record->peer_url, "tcp://there:1");
	assert_int_equal(record->pid, 42);
	assert_true(record->start_ticks == 4711);
	assert_string_equal(record->workload, "pid:42");
	assert_string_equal(record->boot_id, "second");
	assert_int_equal(record->n_origin_cgroups, 2);
	assert_string_equal(record->origin_cgroups[1], "43 /y");
}

static void later_records_keep_what_they_do_not_say(void **state)
{
	(void)state;
	char *origins[] = {(char *)"42 /x", (char *)"43 /y"};
	Haul__V1__JournalRecord first = HAUL__V1__JOURNAL_RECORD__INIT, second = first,
				last = first;
	first.event = J(SOURCE_BEGUN);
	first.id = second.id = last.id = (char *)"a";
	first.peer_url = (char *)"tcp://there:1";
	first.boot_id = (char *)"first";
	first.pid = 42;
	first.start_ticks = 4711;
	second.event = J(SOURCE_FENCED);
	second.workload = (char *)"pid:42";
	second.origin_cgroups = origins;
	second.n_origin_cgroups = 2;
	last.event = J(SOURCE_DONE);
	last.boot_id = (char *)"second";
	struct journal *journal = open_journal();
	assert_ok(journal_append(journal, &first));
	assert_ok(journal_append(journal, &second));
	assert_ok(journal_append(journal, &last));
	check_merged(journal);
	journal_close(journal);
	journal = open_journal();
	check_merged(journal);
	journal_close(journal);
}

/* Files of two whole records and the first `cut` bytes of a third; `fill` puts zeros behind the
 * cut. */
static void check_cut(const struct buffer *whole, size_t start, size_t cut, bool fill)
{
	scoped(bytes) uint8_t *copy = calloc(1, whole->size);

	assert_non_null(copy);
	memcpy(copy, whole->data, cut);
	put_content(copy, fill ? whole->size : cut);
	struct journal *journal = open_journal();
	if (event_of(journal, "b", false) != J(DEST_RESTORED))
		fail_msg("cut at %zu: the record before is lost", cut);
	struct stat info;
	assert_int_equal(stat(journal_file(), &info), 0);
	if ((size_t)info.st_size != start)
		fail_msg("cut at %zu: the tail stays", cut);
	assert_ok(append(journal, "b", J(DEST_ABORTED)));
	journal_close(journal);
	journal = open_journal();
	assert_int_equal(event_of(journal, "b", false), J(DEST_ABORTED));
	assert_int_equal(event_of(journal, "a", true), J(SOURCE_BEGUN));
	journal_close(journal);
}

static void a_tail_torn_at_any_byte_is_cut_off(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	assert_ok(append(journal, "a", J(SOURCE_BEGUN)));
	assert_ok(append(journal, "b", J(DEST_RESTORED)));
	struct buffer before = content();
	assert_ok(append(journal, "b", J(DEST_COMMITTED)));
	struct buffer whole = content();
	journal_close(journal);
	assert_true(whole.size > before.size + 8);
	for (size_t cut = before.size; cut < whole.size; cut++) {
		check_cut(&whole, before.size, cut, false);
		/* The last byte of a record may be a zero itself: then nothing is torn. */
		if (cut + 2 < whole.size)
			check_cut(&whole, before.size, cut, true);
	}
	buffer_free(&before);
	buffer_free(&whole);
}

static void a_flipped_bit_before_the_last_record_is_data_loss(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	assert_ok(append(journal, "a", J(SOURCE_BEGUN)));
	assert_ok(append(journal, "b", J(DEST_COMMITTED)));
	struct buffer before = content();
	assert_ok(append(journal, "c", J(SOURCE_BEGUN)));
	journal_close(journal);
	struct buffer whole = content();
	for (size_t at = 16; at < before.size; at++) {
		size_t good;
		for (unsigned bit = 1; bit < 256; bit <<= 1) {
			whole.data[at] ^= (uint8_t)bit;
			assert_code(journal_scan(whole.data, whole.size, &good, ignore, NULL),
				    STATUS_DATA_LOSS);
			whole.data[at] ^= (uint8_t)bit;
		}
	}
	whole.data[before.size - 3] ^= 1;
	put_content(whole.data, whole.size);
	journal = NULL;
	status *st = journal_open(directory, &journal);
	assert_non_null(st);
	assert_int_equal(status_code_of(st), STATUS_DATA_LOSS);
	assert_non_null(strstr(status_message(st), journal_file()));
	assert_non_null(status_detail_find(st, "next"));
	assert_null(journal);
	status_free(st);
	buffer_free(&before);
	buffer_free(&whole);
}

static void another_file_and_a_newer_version_are_refused(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	assert_ok(append(journal, "a", J(SOURCE_BEGUN)));
	journal_close(journal);
	struct buffer whole = content();
	whole.data[8] = 2;
	put_content(whole.data, whole.size);
	assert_code(journal_open(directory, &journal), STATUS_FAILED_PRECONDITION);
	struct buffer after = content();
	assert_int_equal(after.size, whole.size);
	assert_memory_equal(after.data, whole.data, whole.size);
	whole.data[8] = 1;
	whole.data[0] ^= 1;
	put_content(whole.data, whole.size);
	assert_code(journal_open(directory, &journal), STATUS_DATA_LOSS);
	put_content(whole.data, 9);
	assert_code(journal_open(directory, &journal), STATUS_DATA_LOSS);
	buffer_free(&whole);
	buffer_free(&after);
}

static void a_second_opener_is_told_that_it_is_the_second(void **state)
{
	(void)state;
	struct journal *journal = open_journal(), *second = NULL;
	status *st = journal_open(directory, &second);
	assert_int_equal(status_code_of(st), STATUS_ALREADY_EXISTS);
	assert_non_null(strstr(status_message(st), directory));
	status_free(st);
	assert_null(second);
	assert_ok(append(journal, "a", J(SOURCE_BEGUN)));
	journal_close(journal);
	journal_close(open_journal());
}

/* What may come behind what; everything else is refused and changes nothing. */
static void decided_is_decided(void **state)
{
	(void)state;
	static const Haul__V1__JournalEvent source[] = {J(SOURCE_BEGUN),  J(SOURCE_RESERVED),
							J(SOURCE_FENCED), J(SOURCE_COMMITTING),
							J(SOURCE_DONE),	  J(SOURCE_RESUMED),
							J(SOURCE_LOST)};
	static const Haul__V1__JournalEvent dest[] = {J(DEST_PREPARED),	 J(DEST_RESTORED),
						      J(DEST_COMMITTED), J(DEST_ABORTED),
						      J(DEST_SETTLED),	 J(DEST_ENDED),
						      J(DEST_BROKEN)};
	char id[16];

	for (size_t i = 0; i < array_len(source) * array_len(source); i++) {
		Haul__V1__JournalEvent first = source[i / array_len(source)],
				       then = source[i % array_len(source)];
		struct journal *journal = open_journal();
		(void)snprintf(id, sizeof(id), "s%zu", i);
		assert_ok(append(journal, id, first));
		bool allowed = first < J(SOURCE_DONE);
		assert_code(append(journal, id, then),
			    allowed ? STATUS_OK : STATUS_FAILED_PRECONDITION);
		journal_close(journal);
		journal = open_journal();
		assert_int_equal(event_of(journal, id, true), allowed ? then : first);
		journal_close(journal);
	}
	for (size_t i = 0; i < array_len(dest) * array_len(dest); i++) {
		Haul__V1__JournalEvent first = dest[i / array_len(dest)],
				       then = dest[i % array_len(dest)];
		struct journal *journal = open_journal();
		(void)snprintf(id, sizeof(id), "d%zu", i);
		assert_ok(append(journal, id, first));
		bool allowed = first < J(DEST_COMMITTED) ||
			       (first != J(DEST_ABORTED) && first != J(DEST_BROKEN) &&
				(then == J(DEST_SETTLED) || then == J(DEST_ENDED))) ||
			       (first == J(DEST_COMMITTED) && then == J(DEST_BROKEN));
		assert_code(append(journal, id, then),
			    allowed ? STATUS_OK : STATUS_FAILED_PRECONDITION);
		assert_int_equal(event_of(journal, id, false), allowed ? then : first);
		journal_close(journal);
	}
}

/* A file in which somebody wrote against the rule: replay keeps to it as well. */
static void replay_does_not_undo_a_decision(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	assert_ok(append(journal, "a", J(DEST_ABORTED)));
	struct buffer aborted = content();
	journal_close(journal);
	(void)unlink(journal_file());
	journal = open_journal();
	assert_ok(append(journal, "a", J(DEST_COMMITTED)));
	journal_close(journal);
	struct buffer both = content();
	uint8_t bytes[1024];
	assert_true(both.size + aborted.size < sizeof(bytes));
	memcpy(bytes, both.data, both.size);
	memcpy(bytes + both.size, aborted.data + 16, aborted.size - 16);
	put_content(bytes, both.size + aborted.size - 16);
	journal = open_journal();
	assert_int_equal(event_of(journal, "a", false), J(DEST_COMMITTED));
	journal_close(journal);
	buffer_free(&aborted);
	buffer_free(&both);
}

static status *append_long(struct journal *journal, const char *id, Haul__V1__JournalEvent event)
{
	char reason[4001];
	Haul__V1__JournalRecord record = HAUL__V1__JOURNAL_RECORD__INIT;

	memset(reason, 'r', sizeof(reason) - 1);
	reason[sizeof(reason) - 1] = '\0';
	record.event = event;
	record.id = (char *)id;
	record.reason = reason;
	return journal_append(journal, &record);
}

static size_t journal_size(void)
{
	struct stat info;

	assert_int_equal(stat(journal_file(), &info), 0);
	return (size_t)info.st_size;
}

struct seen {
	unsigned open, final;
	bool has_first, has_last;
};

static void see(void *self, const Haul__V1__JournalRecord *record)
{
	struct seen *seen = self;

	if (journal_event_is_final(record->event))
		seen->final++;
	else
		seen->open++;
	seen->has_first = seen->has_first || strcmp(record->id, "m0") == 0;
	seen->has_last = seen->has_last || strcmp(record->id, "m2999") == 0;
}

static void compaction_keeps_the_open_ones_and_the_youngest(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	size_t largest = 0;
	assert_ok(append(journal, "open-source", J(SOURCE_COMMITTING)));
	assert_ok(append(journal, "open-dest", J(DEST_COMMITTED)));
	for (int i = 0; i < 3000; i++) {
		char id[16];
		(void)snprintf(id, sizeof(id), "m%d", i);
		assert_ok(append_long(journal, id, J(SOURCE_DONE)));
		largest = journal_size() > largest ? journal_size() : largest;
	}
	/* 12 MB went in; it was rewritten while it was open. */
	assert_true(largest < 9 * 1024 * 1024);
	journal_close(journal);
	for (int round = 0; round < 2; round++) {
		struct seen seen = {0};
		journal = open_journal();
		journal_each(journal, see, &seen);
		assert_int_equal(seen.open, 2);
		assert_int_equal(seen.final, LIMIT_HISTORY);
		assert_true(seen.has_last);
		assert_false(seen.has_first);
		assert_int_equal(event_of(journal, "open-source", true), J(SOURCE_COMMITTING));
		assert_int_equal(event_of(journal, "open-dest", false), J(DEST_COMMITTED));
		journal_close(journal);
	}
}

static void an_oversized_record_is_refused_and_nothing_written(void **state)
{
	(void)state;
	struct journal *journal = open_journal();
	char *reason = calloc(1, 20001);
	assert_non_null(reason);
	memset(reason, 'x', 20000);
	Haul__V1__JournalRecord record = HAUL__V1__JOURNAL_RECORD__INIT;
	record.event = J(SOURCE_BEGUN);
	record.id = (char *)"a";
	record.reason = reason;
	size_t before = journal_size();
	assert_code(journal_append(journal, &record), STATUS_RESOURCE_EXHAUSTED);
	assert_int_equal(journal_size(), before);
	assert_false(journal_is_broken(journal));
	assert_ok(append(journal, "a", J(SOURCE_BEGUN)));
	free(reason);
	journal_close(journal);
}

/* A limit on the file's size: the write breaks off in the middle of a record, at every place. */
static void a_write_that_breaks_off_leaves_no_trace(void **state)
{
	(void)state;
	struct rlimit was;
	struct journal *journal = open_journal();
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
	assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	assert_ok(append(journal, "a", J(DEST_RESTORED)));
	for (rlim_t room = 0; room < 13; room++) {
		size_t before = journal_size();
		struct rlimit tight = {before + room, was.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
		status *st = append(journal, "a", J(DEST_COMMITTED));
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
		assert_non_null(st);
		status_free(st);
		assert_int_equal(journal_size(), before);
		assert_int_equal(event_of(journal, "a", false), J(DEST_RESTORED));
		assert_false(journal_is_broken(journal));
	}
	assert_ok(append(journal, "a", J(DEST_COMMITTED)));
	journal_close(journal);
	journal = open_journal();
	assert_int_equal(event_of(journal, "a", false), J(DEST_COMMITTED));
	journal_close(journal);
}

/* Fills the disk with one file; its path. */
static void fill_disk(const char *path)
{
	static const char block[4096];
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	while (write(fd, block, sizeof(block)) > 0)
		;
	assert_int_equal(errno, ENOSPC);
	(void)close(fd);
}

static void a_full_disk_refuses_new_ones_and_harms_none(void **state)
{
	(void)state;
	char ballast[128];
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", directory, "tmpfs", 0, "size=2m") != 0) {
		skip(); /* not root */
		return;
	}
	(void)snprintf(ballast, sizeof(ballast), "%s/ballast", directory);
	struct journal *journal = open_journal();
	assert_ok(append(journal, "a", J(DEST_RESTORED)));
	assert_ok(journal_reserve(journal));
	fill_disk(ballast);
	/* The one that was let in still has room for its decision … */
	assert_ok(append(journal, "a", J(DEST_COMMITTED)));
	/* … and a new one would find that there is none for it, once what is reserved has been
	 * used. */
	status *st = NULL;
	unsigned written = 0;
	for (; st == NULL && written < 1000; written++)
		st = append_long(journal, "b", J(SOURCE_FENCED));
	assert_int_equal(status_code_of(st), STATUS_RESOURCE_EXHAUSTED);
	status_free(st);
	assert_true(written > 200); /* about 1 MiB had been reserved */
	assert_code(journal_reserve(journal), STATUS_RESOURCE_EXHAUSTED);
	assert_int_equal(event_of(journal, "a", false), J(DEST_COMMITTED));
	assert_false(journal_is_broken(journal));
	assert_int_equal(unlink(ballast), 0);
	assert_ok(append(journal, "c", J(SOURCE_BEGUN)));
	journal_close(journal);
	journal = open_journal();
	assert_int_equal(event_of(journal, "a", false), J(DEST_COMMITTED));
	assert_int_equal(event_of(journal, "b", true), J(SOURCE_FENCED));
	assert_int_equal(event_of(journal, "c", true), J(SOURCE_BEGUN));
	journal_close(journal);
	assert_int_equal(umount2(directory, MNT_DETACH), 0);
}

static void a_state_directory_that_is_missing_or_strange_is_an_error(void **state)
{
	(void)state;
	struct journal *journal = NULL;
	char path[128];
	assert_code(journal_open("/nowhere/at/all", &journal), STATUS_NOT_FOUND);
	/* A link in the journal's place is not followed. */
	(void)snprintf(path, sizeof(path), "%s/elsewhere", directory);
	assert_ok(files_write(path, "", 0));
	assert_int_equal(symlink(path, journal_file()), 0);
	status *st = journal_open(directory, &journal);
	assert_non_null(st);
	status_free(st);
	assert_null(journal);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_directory, remove_directory)
	const struct CMUnitTest tests[] = {
	    TEST(what_is_appended_is_there_after_reopening),
	    TEST(source_and_destination_of_one_id_do_not_mix),
	    TEST(later_records_keep_what_they_do_not_say),
	    TEST(a_tail_torn_at_any_byte_is_cut_off),
	    TEST(a_flipped_bit_before_the_last_record_is_data_loss),
	    TEST(another_file_and_a_newer_version_are_refused),
	    TEST(a_second_opener_is_told_that_it_is_the_second),
	    TEST(decided_is_decided),
	    TEST(replay_does_not_undo_a_decision),
	    TEST(compaction_keeps_the_open_ones_and_the_youngest),
	    TEST(an_oversized_record_is_refused_and_nothing_written),
	    TEST(a_write_that_breaks_off_leaves_no_trace),
	    TEST(a_full_disk_refuses_new_ones_and_harms_none),
	    TEST(a_state_directory_that_is_missing_or_strange_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
