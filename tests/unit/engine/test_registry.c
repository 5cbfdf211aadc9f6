/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/registry.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "proto/limits.h"
#include "proto/pack.h"
#include "tests/unit/test.h"

enum { LONG_MS = 60000 };

static Haul__V1__Migration *view(const char *id, Haul__V1__MigrationState migration_state)
{
	Haul__V1__Migration *made = malloc(sizeof(*made));

	assert_non_null(made);
	haul__v1__migration__init(made);
	made->id = text_copy(id);
	made->state = migration_state;
	made->stage = text_copy("prepare");
	made->role = text_copy("source");
	made->workload = text_copy("pid:1");
	made->peer = text_copy("");
	made->tracking = text_copy("");
	made->doubt = text_copy("");
	return made;
}

static status *add(struct registry *registry, const char *id,
		   Haul__V1__MigrationState migration_state)
{
	return registry_add(registry, view(id, migration_state));
}

#define RUNNING HAUL__V1__MIGRATION_STATE__RUNNING
#define COMPLETED HAUL__V1__MIGRATION_STATE__COMPLETED
#define IN_DOUBT HAUL__V1__MIGRATION_STATE__IN_DOUBT

static void set_stage(void *self, Haul__V1__Migration *changed)
{
	text_set(&changed->stage, self);
}

static void set_over(void *self, Haul__V1__Migration *changed)
{
	(void)self;
	changed->state = COMPLETED;
}

static void readers_get_copies_that_do_not_change(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	scoped(migration_view) Haul__V1__Migration *before = NULL, *after = NULL;
	assert_ok(add(registry, "a", RUNNING));
	assert_ok(registry_get(registry, "a", &before));
	registry_change(registry, "a", set_stage, (void *)"freeze");
	assert_ok(registry_get(registry, "a", &after));
	assert_string_equal(before->stage, "prepare");
	assert_string_equal(after->stage, "freeze");
	assert_true(after->sequence > before->sequence);
	/* A change of what is not there is nothing. */
	registry_change(registry, "b", set_stage, (void *)"freeze");
}

static void an_unknown_id_is_not_found_and_a_known_one_not_added(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	Haul__V1__Migration *none = NULL;
	status *st = registry_get(registry, "a", &none);
	assert_int_equal(status_code_of(st), STATUS_NOT_FOUND);
	assert_non_null(status_detail_find(st, "next"));
	status_free(st);
	assert_null(none);
	assert_ok(add(registry, "a", RUNNING));
	assert_code(add(registry, "a", RUNNING), STATUS_ALREADY_EXISTS);
}

static void active_ones_are_limited_and_finished_ones_forgotten(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	char id[32];
	unsigned active, in_doubt;
	for (unsigned i = 0; i < LIMIT_SESSIONS; i++) {
		(void)snprintf(id, sizeof(id), "active-%u", i);
		assert_ok(add(registry, id, i == 0 ? IN_DOUBT : RUNNING));
	}
	assert_code(add(registry, "one-more", RUNNING), STATUS_RESOURCE_EXHAUSTED);
	for (unsigned i = 0; i < LIMIT_HISTORY + 10; i++) {
		(void)snprintf(id, sizeof(id), "old-%u", i);
		assert_ok(add(registry, id, COMPLETED));
	}
	registry_count(registry, &active, &in_doubt);
	assert_int_equal(active, LIMIT_SESSIONS);
	assert_int_equal(in_doubt, 1);
	Haul__V1__ListResponse *list = NULL;
	assert_ok(registry_list(registry, false, &list));
	assert_int_equal(list->n_migrations, LIMIT_HISTORY);
	/* Newest first; what is active is never forgotten. */
	assert_string_equal(list->migrations[0]->id, id);
	assert_string_equal(list->migrations[LIMIT_HISTORY - 1]->id, "active-0");
	haul__v1__list_response__free_unpacked(list, NULL);
	assert_ok(registry_list(registry, true, &list));
	assert_int_equal(list->n_migrations, LIMIT_SESSIONS);
	for (size_t i = 0; i < list->n_migrations; i++)
		assert_false(migration_is_over(list->migrations[i]));
	haul__v1__list_response__free_unpacked(list, NULL);
	registry_change(registry, "active-1", set_over, NULL);
	assert_ok(add(registry, "one-more", RUNNING));
}

struct waiter {
	struct registry *registry;
	pthread_t thread;
	uint64_t sequence;
	int64_t timeout_ms;
	Haul__V1__Migration *got;
	status *st;
};

static void *wait_for_change(void *self)
{
	struct waiter *waiter = self;

	waiter->st = registry_wait(waiter->registry, "a", waiter->sequence, waiter->timeout_ms,
				   &waiter->got);
	return NULL;
}

static void start_waiters(struct registry *registry, struct waiter waiters[4], uint64_t sequence)
{
	for (int i = 0; i < 4; i++) {
		waiters[i] = (struct waiter){.registry = registry,
					     .sequence = sequence,
					     .timeout_ms = LONG_MS};
		assert_int_equal(pthread_create(&waiters[i].thread, NULL, wait_for_change,
						&waiters[i]),
				 0);
	}
}

static void all_who_wait_are_woken_by_a_change(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct waiter waiters[4];
	assert_ok(add(registry, "a", RUNNING));
	start_waiters(registry, waiters, 1);
	registry_change(registry, "a", set_stage, (void *)"commit");
	for (int i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(waiters[i].thread, NULL), 0);
		assert_ok(waiters[i].st);
		assert_string_equal(waiters[i].got->stage, "commit");
		assert_true(waiters[i].got->sequence == 2);
		migration_view_free(waiters[i].got);
	}
}

static void closing_ends_all_waiting(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	scoped(migration_view) Haul__V1__Migration *got = NULL;
	struct waiter waiters[4];
	assert_ok(add(registry, "a", RUNNING));
	start_waiters(registry, waiters, 1);
	registry_close(registry);
	for (int i = 0; i < 4; i++) {
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
	Haul__V1__Migration *got = NULL;
	assert_ok(add(registry, "a", RUNNING));
	assert_code(registry_wait(registry, "a", 1, 30, &got), STATUS_DEADLINE_EXCEEDED);
	assert_ok(registry_wait(registry, "a", 0, 0, &got));
	migration_view_free(got);
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
		scoped(migration_view) Haul__V1__Migration *got = NULL;
		assert_ok(registry_wait(registry, "a", sequence, LONG_MS, &got));
		assert_true(got->sequence > sequence);
		sequence = got->sequence;
		is_over = migration_is_over(got);
	}
	assert_true(sequence == 502);
	assert_int_equal(pthread_join(writer, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(readers_get_copies_that_do_not_change),
	    cmocka_unit_test(an_unknown_id_is_not_found_and_a_known_one_not_added),
	    cmocka_unit_test(active_ones_are_limited_and_finished_ones_forgotten),
	    cmocka_unit_test(all_who_wait_are_woken_by_a_change),
	    cmocka_unit_test(closing_ends_all_waiting),
	    cmocka_unit_test(waiting_ends_with_the_time),
	    cmocka_unit_test(a_watcher_misses_no_end_however_fast_the_changes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
