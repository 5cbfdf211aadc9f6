/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/migration/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/limits.h"
#include "proto/pack.h"
#include "tests/unit/engine/registry_scene.h"
#include "tests/unit/test.h"

enum { LONG_MS = 60000 };

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
	assert_reason(st, STATUS_NOT_FOUND, "MIGRATION_UNKNOWN");
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
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	request.page_size = LIMIT_HISTORY;
	assert_ok(registry_list(registry, &request, &list));
	assert_int_equal(list->n_migrations, LIMIT_HISTORY);
	assert_string_equal(list->next_page_token, "");
	/* Newest first; what is active is never forgotten. */
	assert_string_equal(list->migrations[0]->id, id);
	assert_string_equal(list->migrations[LIMIT_HISTORY - 1]->id, "active-0");
	haul__v1__list_response__free_unpacked(list, NULL);
	request.active_only = true;
	assert_ok(registry_list(registry, &request, &list));
	assert_int_equal(list->n_migrations, LIMIT_SESSIONS);
	for (size_t i = 0; i < list->n_migrations; i++)
		assert_false(migration_is_over(list->migrations[i]));
	haul__v1__list_response__free_unpacked(list, NULL);
	registry_change(registry, "active-1", set_over, NULL);
	assert_ok(add(registry, "one-more", RUNNING));
}

/* The ids of a list, in a row. */
static void list_ids(struct registry *registry, const Haul__V1__ListRequest *request,
		     char text[256], char token[128])
{
	Haul__V1__ListResponse *list = NULL;

	assert_ok(registry_list(registry, request, &list));
	text[0] = '\0';
	for (size_t i = 0; i < list->n_migrations; i++)
		(void)snprintf(text + strlen(text), 256 - strlen(text), "%s ",
			       list->migrations[i]->id);
	if (token != NULL)
		(void)snprintf(token, 128, "%s", list->next_page_token);
	haul__v1__list_response__free_unpacked(list, NULL);
}

static void lists_are_filtered(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	Haul__V1__MigrationState states[] = {COMPLETED, IN_DOUBT};
	char ids[256];
	static const char *const peers[] = {"tls+tcp://b.example.org:7777", "tls+tcp://[::1]:7777",
					    "haul://b.example.org"};
	for (int i = 0; i < 6; i++) {
		char id[8], workload[16];
		(void)snprintf(id, sizeof(id), "m%d", i);
		(void)snprintf(workload, sizeof(workload), "pid:%d", i % 2);
		Haul__V1__Migration *made = view(id, i < 2   ? COMPLETED
						     : i < 4 ? RUNNING
							     : IN_DOUBT);
		text_set(&made->workload, workload);
		text_set(&made->peer, peers[i % 3]);
		made->started_unix_ms = 1000 + i;
		assert_ok(registry_add(registry, made));
	}
	request.states = states;
	request.n_states = 2;
	list_ids(registry, &request, ids, NULL);
	assert_string_equal(ids, "m5 m4 m1 m0 ");
	request.workload = (char *)"pid:1";
	list_ids(registry, &request, ids, NULL);
	assert_string_equal(ids, "m5 m1 ");
	request.since_unix_ms = 1002;
	list_ids(registry, &request, ids, NULL);
	assert_string_equal(ids, "m5 ");
	request = (Haul__V1__ListRequest)HAUL__V1__LIST_REQUEST__INIT;
	request.peer = (char *)"b.example.org";
	list_ids(registry, &request, ids, NULL);
	assert_string_equal(ids, "m5 m3 m2 m0 ");
	request.peer = (char *)"::1";
	list_ids(registry, &request, ids, NULL);
	assert_string_equal(ids, "m4 m1 ");
	request.peer = (char *)"example.org"; /* no part of a name */
	list_ids(registry, &request, ids, NULL);
	assert_string_equal(ids, "");
}

static void pages_follow_each_other_whatever_comes_and_goes(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	Haul__V1__ListResponse *none = NULL;
	char ids[256], token[128], next[128];
	static const char *const names[] = {"a", "b", "c", "d", "e"};
	for (size_t i = 0; i < array_len(names); i++)
		assert_ok(add(registry, names[i], COMPLETED));
	request.page_size = 2;
	list_ids(registry, &request, ids, token);
	assert_string_equal(ids, "e d ");
	/* One that was on the page goes, a new one comes: the next page is the same. */
	assert_ok(registry_delete(registry, "d"));
	assert_ok(add(registry, "f", COMPLETED));
	request.page_token = token;
	list_ids(registry, &request, ids, next);
	assert_string_equal(ids, "c b ");
	request.page_token = next;
	list_ids(registry, &request, ids, token);
	assert_string_equal(ids, "a ");
	assert_string_equal(token, "");
	static const char *const bad[] = {"x", "12", "99999999999999999999-a", "-"};
	for (size_t i = 0; i < array_len(bad); i++) {
		request.page_token = (char *)bad[i];
		assert_code(registry_list(registry, &request, &none), STATUS_INVALID_ARGUMENT);
	}
}

static void a_page_fits_into_an_answer(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	size_t seen = 0, pages = 0;
	char token[128] = "", *note = malloc(100001);
	assert_non_null(note);
	memset(note, 'x', 100000);
	note[100000] = '\0';
	for (int i = 0; i < 20; i++) {
		char id[8];
		(void)snprintf(id, sizeof(id), "m%d", i);
		Haul__V1__Migration *made = view(id, COMPLETED);
		text_set(&made->doubt, note);
		assert_ok(registry_add(registry, made));
	}
	free(note);
	do {
		Haul__V1__ListResponse *list = NULL;
		request.page_token = token;
		assert_ok(registry_list(registry, &request, &list));
		assert_true(haul__v1__list_response__get_packed_size(list) < LIMIT_UNARY_BYTES);
		seen += list->n_migrations;
		pages++;
		(void)snprintf(token, sizeof(token), "%s", list->next_page_token);
		haul__v1__list_response__free_unpacked(list, NULL);
	} while (token[0] != '\0');
	assert_int_equal(seen, 20);
	assert_true(pages >= 3);
}

static void only_finished_ones_can_be_deleted(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	Haul__V1__Migration *none = NULL;
	assert_ok(add(registry, "a", RUNNING));
	assert_code(registry_delete(registry, "a"), STATUS_FAILED_PRECONDITION);
	assert_code(registry_delete(registry, "b"), STATUS_NOT_FOUND);
	registry_change(registry, "a", set_over, NULL);
	assert_ok(registry_delete(registry, "a"));
	assert_code(registry_get(registry, "a", &none), STATUS_NOT_FOUND);
}

struct kept {
	unsigned kept, forgotten;
	char id[16];
};

static void keep(void *self, const Haul__V1__Migration *over)
{
	struct kept *kept = self;
	assert_true(migration_is_over(over));
	(void)snprintf(kept->id, sizeof(kept->id), "%s", over->id);
	kept->kept++;
}

static void forget(void *self, const char *id)
{
	struct kept *kept = self;
	(void)snprintf(kept->id, sizeof(kept->id), "%s", id);
	kept->forgotten++;
}

static void what_is_over_is_given_to_the_keeper(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct kept kept = {0};
	registry_set_keeper(registry, &(struct registry_keeper){&kept, keep, forget, NULL});
	assert_ok(add(registry, "a", RUNNING));
	registry_change(registry, "a", set_stage, (void *)"freeze");
	assert_int_equal(kept.kept, 0);
	registry_change(registry, "a", set_over, NULL);
	assert_int_equal(kept.kept, 1);
	assert_string_equal(kept.id, "a");
	for (unsigned i = 0; i < LIMIT_HISTORY; i++) {
		char id[16];
		(void)snprintf(id, sizeof(id), "old-%u", i);
		assert_ok(add(registry, id, COMPLETED));
	}
	assert_int_equal(kept.forgotten, 1);
	assert_string_equal(kept.id, "a");
}

struct end_waiter {
	struct registry *registry;
	pthread_t thread;
	atomic_bool is_wanted;
	int64_t timeout_ms;
	Haul__V1__Migration *got;
	status *st;
};

static bool is_wanted(void *self)
{
	return atomic_load(&((struct end_waiter *)self)->is_wanted);
}

static void *await_end(void *self)
{
	struct end_waiter *waiter = self;
	waiter->st = registry_await_end(waiter->registry, "a", waiter->timeout_ms, is_wanted,
					waiter, &waiter->got);
	return NULL;
}

static void start_waiting(struct registry *registry, struct end_waiter *waiter, int64_t timeout_ms)
{
	*waiter = (struct end_waiter){.registry = registry, .timeout_ms = timeout_ms};
	atomic_init(&waiter->is_wanted, true);
	assert_int_equal(pthread_create(&waiter->thread, NULL, await_end, waiter), 0);
}

static void waiting_for_the_end_ends_with_it_or_when_nobody_wants_it(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct end_waiter first, second, late;
	assert_ok(add(registry, "a", RUNNING));
	start_waiting(registry, &late, 20);
	assert_int_equal(pthread_join(late.thread, NULL), 0);
	assert_ok(late.st);
	assert_int_equal(late.got->state, RUNNING);
	migration_view_free(late.got);
	start_waiting(registry, &first, LONG_MS);
	start_waiting(registry, &second, LONG_MS);
	atomic_store(&second.is_wanted, false);
	registry_wake(registry);
	assert_int_equal(pthread_join(second.thread, NULL), 0);
	assert_int_equal(second.got->state, RUNNING);
	migration_view_free(second.got);
	registry_change(registry, "a", set_stage, (void *)"commit");
	registry_change(registry, "a", set_over, NULL);
	assert_int_equal(pthread_join(first.thread, NULL), 0);
	assert_ok(first.st);
	assert_int_equal(first.got->state, COMPLETED);
	migration_view_free(first.got);
}

static void no_more_than_a_few_wait_the_others_are_told_at_once(void **state)
{
	(void)state;
	scoped(registry) struct registry *registry = registry_new();
	struct end_waiter waiters[LIMIT_WAITS + 4];
	size_t at_once = 0;
	assert_ok(add(registry, "a", RUNNING));
	for (size_t i = 0; i < array_len(waiters); i++)
		start_waiting(registry, &waiters[i], LONG_MS);
	/* Four come back without an end; the others only at the end. */
	while (at_once < 4) {
		at_once = 0;
		for (size_t i = 0; i < array_len(waiters); i++)
			if (waiters[i].thread == 0 ||
			    pthread_tryjoin_np(waiters[i].thread, NULL) == 0) {
				waiters[i].thread = 0;
				at_once++;
			}
	}
	assert_int_equal(at_once, 4);
	registry_close(registry);
	for (size_t i = 0; i < array_len(waiters); i++) {
		if (waiters[i].thread == 0) {
			assert_int_equal(waiters[i].got->state, RUNNING);
		} else {
			assert_int_equal(pthread_join(waiters[i].thread, NULL), 0);
			assert_code(waiters[i].st, STATUS_UNAVAILABLE);
		}
		migration_view_free(waiters[i].got);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(readers_get_copies_that_do_not_change),
	    cmocka_unit_test(an_unknown_id_is_not_found_and_a_known_one_not_added),
	    cmocka_unit_test(active_ones_are_limited_and_finished_ones_forgotten),
	    cmocka_unit_test(lists_are_filtered),
	    cmocka_unit_test(pages_follow_each_other_whatever_comes_and_goes),
	    cmocka_unit_test(a_page_fits_into_an_answer),
	    cmocka_unit_test(only_finished_ones_can_be_deleted),
	    cmocka_unit_test(what_is_over_is_given_to_the_keeper),
	    cmocka_unit_test(waiting_for_the_end_ends_with_it_or_when_nobody_wants_it),
	    cmocka_unit_test(no_more_than_a_few_wait_the_others_are_told_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
