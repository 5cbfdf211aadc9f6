/* SPDX-License-Identifier: Apache-2.0 */
/* Those who watch a migration. */
#include "engine/migration/registry_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/unit/engine/registry_scene.h"
#include "tests/unit/test.h"

/* More watchers than are woken up at a time. */
enum { LONG_MS = 60000, WAITERS = 40 };

struct waiter {
	struct registry *registry;
	pthread_t thread;
	uint64_t sequence;
	int64_t timeout_ms;
	atomic_int tid;
	struct packed_view *got;
	status *st;
};

static void *wait_for_change(void *self)
{
	struct waiter *waiter = self;

	atomic_store(&waiter->tid, gettid());
	waiter->st = registry_watch(waiter->registry, "a", waiter->sequence, waiter->timeout_ms,
				    &waiter->got);
	return NULL;
}

static void start_waiters(struct registry *registry, struct waiter waiters[WAITERS],
			  uint64_t sequence)
{
	for (int i = 0; i < WAITERS; i++) {
		waiters[i] = (struct waiter){.registry = registry,
					     .sequence = sequence,
					     .timeout_ms = LONG_MS};
		assert_int_equal(pthread_create(&waiters[i].thread, NULL, wait_for_change,
						&waiters[i]),
				 0);
	}
}

/* Waits for them: all have seen this, and share one packing of it. */
static void expect_seen(struct waiter waiters[WAITERS], const char *stage, uint64_t sequence,
			bool is_over)
{
	for (int i = 0; i < WAITERS; i++) {
		assert_int_equal(pthread_join(waiters[i].thread, NULL), 0);
		assert_ok(waiters[i].st);
		assert_ptr_equal(waiters[i].got, waiters[0].got);
	}
	const struct packed_view *got = waiters[0].got;
	Haul__V1__Migration *view = haul__v1__migration__unpack(NULL, got->size, got->bytes);
	assert_non_null(view);
	assert_string_equal(view->stage, stage);
	assert_true(view->sequence == sequence && got->sequence == sequence);
	assert_true(migration_is_over(view) == is_over && got->is_over == is_over);
	migration_view_free(view);
	for (int i = 0; i < WAITERS; i++)
		packed_view_release(waiters[i].got);
}

static void all_who_wait_are_woken_by_a_change(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct waiter waiters[WAITERS];
	assert_ok(add(registry, "a", RUNNING));
	start_waiters(registry, waiters, 1);
	registry_change(registry, "a", set_stage, (void *)"commit");
	expect_seen(waiters, "commit", 2, false);
}

/* Once it sleeps, it does so in registry_watch: nobody else has the lock for long. */
static void await_asleep(struct waiter *waiter)
{
	char path[64], state = 'R';

	while (state != 'S') {
		(void)snprintf(path, sizeof(path), "/proc/self/task/%d/stat",
			       atomic_load(&waiter->tid));
		FILE *file = fopen(path, "re");
		if (file != NULL) {
			assert_int_equal(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
			(void)fclose(file);
		}
	}
}

static void while_hushed_only_an_end_wakes_watchers(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct waiter waiters[WAITERS];
	assert_ok(add(registry, "a", RUNNING));
	registry->latest_ms = LONG_MS;
	start_waiters(registry, waiters, 1);
	for (int i = 0; i < WAITERS; i++)
		await_asleep(&waiters[i]);
	registry_hush(registry, true);
	registry_hush(registry, true);
	registry_change(registry, "a", set_stage, (void *)"freeze");
	registry_change(registry, "a", set_stage, (void *)"restore");
	registry_hush(registry, false);
	/* One of two has ended: still nobody was told. */
	for (int i = 0; i < WAITERS; i++)
		assert_int_equal(pthread_tryjoin_np(waiters[i].thread, NULL), EBUSY);
	registry_hush(registry, false);
	expect_seen(waiters, "restore", 3, false);
	start_waiters(registry, waiters, 3);
	registry_hush(registry, true);
	registry_change(registry, "a", set_over, NULL);
	expect_seen(waiters, "restore", 4, true);
	registry_hush(registry, false);
}

static void a_hush_that_lasts_is_not_waited_for(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct waiter waiters[WAITERS];
	assert_ok(add(registry, "a", RUNNING));
	registry_hush(registry, true);
	start_waiters(registry, waiters, 1);
	registry_change(registry, "a", set_stage, (void *)"freeze");
	expect_seen(waiters, "freeze", 2, false);
	registry_hush(registry, false);
}

static void changes_that_come_together_are_told_as_one(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct waiter waiters[WAITERS];
	assert_ok(add(registry, "a", RUNNING));
	registry->latest_ms = LONG_MS;
	start_waiters(registry, waiters, 1);
	for (int i = 0; i < WAITERS; i++)
		await_asleep(&waiters[i]);
	registry_hush(registry, true);
	registry_change(registry, "a", set_stage, (void *)"freeze");
	registry_change(registry, "a", set_stage, (void *)"restore");
	registry_change(registry, "a", set_stage, (void *)"commit");
	registry_hush(registry, false);
	expect_seen(waiters, "commit", 4, false);
}

static void one_packing_is_not_taken_for_anothers(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	for (int i = 0; i < 2 * REGISTRY_BELLS; i++) {
		scoped(packed_view) struct packed_view *got = NULL;
		char id[32];
		(void)snprintf(id, sizeof(id), "old-%d", i);
		assert_ok(add(registry, id, COMPLETED));
		assert_ok(registry_watch(registry, id, 0, LONG_MS, &got));
		assert_string_equal(got->id, id);
		assert_true(got->is_over);
	}
	/* One that is deleted may come back with the same sequence. */
	scoped(packed_view) struct packed_view *again = NULL;
	const char *last = "old-127";
	assert_ok(registry_delete(registry, last));
	assert_ok(add(registry, last, RUNNING));
	assert_ok(registry_watch(registry, last, 0, LONG_MS, &again));
	assert_false(again->is_over);
}

static void closing_ends_all_waiting(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	scoped(migration_view) Haul__V1__Migration *got = NULL;
	struct waiter waiters[WAITERS];
	assert_ok(add(registry, "a", RUNNING));
	start_waiters(registry, waiters, 1);
	registry_close(registry);
	for (int i = 0; i < WAITERS; i++) {
		assert_int_equal(pthread_join(waiters[i].thread, NULL), 0);
		assert_code(waiters[i].st, STATUS_CANCELLED);
		assert_null(waiters[i].got);
	}
	/* What is known can still be read. */
	assert_ok(registry_get(registry, "a", &got));
}

static void waiting_ends_with_the_time(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	scoped(packed_view) struct packed_view *got = NULL;
	assert_ok(add(registry, "a", RUNNING));
	assert_code(registry_watch(registry, "a", 1, 30, &got), STATUS_DEADLINE_EXCEEDED);
	assert_null(got);
	assert_ok(registry_watch(registry, "a", 0, 0, &got));
	/* What is over and was seen is not waited for. */
	scoped(packed_view) struct packed_view *none = NULL;
	registry_change(registry, "a", set_over, NULL);
	assert_ok(registry_watch(registry, "a", 2, LONG_MS, &none));
	assert_null(none);
	assert_code(registry_watch(registry, "b", 0, LONG_MS, &none), STATUS_NOT_FOUND);
}

static void *change_often(void *self)
{
	for (int i = 0; i < 500; i++)
		registry_change(self, "a", set_stage, (void *)(i % 2 == 0 ? "freeze" : "restore"));
	registry_change(self, "a", set_over, NULL);
	return NULL;
}

static void a_watcher_misses_no_end_however_fast_the_changes(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	pthread_t writer;
	uint64_t sequence = 0;
	bool is_over = false;
	assert_ok(add(registry, "a", RUNNING));
	assert_int_equal(pthread_create(&writer, NULL, change_often, registry), 0);
	while (!is_over) {
		scoped(packed_view) struct packed_view *got = NULL;
		assert_ok(registry_watch(registry, "a", sequence, LONG_MS, &got));
		assert_true(got->sequence > sequence);
		sequence = got->sequence;
		is_over = got->is_over;
	}
	assert_true(sequence == 502);
	assert_int_equal(pthread_join(writer, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(all_who_wait_are_woken_by_a_change),
	    cmocka_unit_test(while_hushed_only_an_end_wakes_watchers),
	    cmocka_unit_test(a_hush_that_lasts_is_not_waited_for),
	    cmocka_unit_test(changes_that_come_together_are_told_as_one),
	    cmocka_unit_test(one_packing_is_not_taken_for_anothers),
	    cmocka_unit_test(closing_ends_all_waiting),
	    cmocka_unit_test(waiting_ends_with_the_time),
	    cmocka_unit_test(a_watcher_misses_no_end_however_fast_the_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
