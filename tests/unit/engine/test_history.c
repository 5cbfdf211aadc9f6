/* SPDX-License-Identifier: Apache-2.0 */
/* Reports that outlive their engine; and a Start that is repeated after a restart. */
#include "tests/unit/test.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "engine/core.h"
#include "engine/host/files.h"
#include "engine/migration/source.h"
#include "proto/envelope.h"

static char directory[64];

static int make_directory(void **state)
{
	(void)state;
	(void)snprintf(directory, sizeof(directory), "/tmp/haul-history-XXXXXX");
	return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_directory(void **state)
{
	(void)state;
	assert_ok(files_remove_tree(directory));
	return 0;
}

static Haul__V1__Migration *report(const char *id, Haul__V1__MigrationState migration_state)
{
	Haul__V1__Migration *made = malloc(sizeof(*made));

	assert_non_null(made);
	haul__v1__migration__init(made);
	made->id = text_copy(id);
	made->state = migration_state;
	made->downtime_ms = 41.5;
	return made;
}

#define COMPLETED HAUL__V1__MIGRATION_STATE__COMPLETED

static void count(void *self, const char *id, const Haul__V1__Migration *view)
{
	(void)id;
	*(unsigned *)self += view != NULL ? 1 : 100;
}

static void reports_are_found_again_and_deleted_ones_not(void **state)
{
	(void)state;
	struct history *history = NULL;
	bool is_deleted = false;
	unsigned found = 0;
	scoped(migration_view) Haul__V1__Migration *a = report("a", COMPLETED);
	scoped(migration_view) Haul__V1__Migration *b = report("b", COMPLETED);
	assert_ok(history_open(directory, &history));
	assert_ok(history_keep(history, a));
	assert_ok(history_keep(history, b));
	a->downtime_ms = 7;
	assert_ok(history_keep(history, a));
	history_free(history);
	assert_ok(history_open(directory, &history));
	scoped(migration_view) Haul__V1__Migration *again = history_find(history, "a", &is_deleted);
	assert_non_null(again);
	assert_true(again->downtime_ms == 7);
	assert_ok(history_delete(history, "a"));
	assert_null(history_find(history, "a", &is_deleted));
	assert_true(is_deleted);
	assert_ok(history_each(history, count, &found));
	assert_int_equal(found, 101);
	history_forget(history, "a");
	assert_null(history_find(history, "a", &is_deleted));
	assert_false(is_deleted);
	history_free(history);
}

static void what_is_damaged_or_no_report_is_not_there(void **state)
{
	(void)state;
	struct history *history = NULL;
	bool is_deleted = false;
	unsigned found = 0;
	char path[128];
	scoped(migration_view) Haul__V1__Migration *running =
	    report("running", HAUL__V1__MIGRATION_STATE__RUNNING);
	scoped(migration_view) Haul__V1__Migration *outside = report("../outside", COMPLETED);
	assert_ok(history_open(directory, &history));
	assert_ok(history_keep(history, running));
	assert_code(history_keep(history, outside), STATUS_INVALID_ARGUMENT);
	static const char *const files[] = {"empty", "noise", "Strange.new"};
	for (size_t i = 0; i < array_len(files); i++) {
		(void)snprintf(path, sizeof(path), "%s/history/%s", directory, files[i]);
		assert_ok(files_write(path, "\xff\xff\xff", i));
	}
	assert_null(history_find(history, "running", &is_deleted));
	assert_null(history_find(history, "empty", &is_deleted));
	assert_null(history_find(history, "noise", &is_deleted));
	assert_false(is_deleted);
	assert_null(history_find(history, "../journal", &is_deleted));
	assert_ok(history_each(history, count, &found));
	assert_int_equal(found, 0);
	history_free(history);
}

/* --- an engine's source side, without CRIU: what it starts is refused in preflight --- */

static void keep(void *self, const Haul__V1__Migration *view)
{
	assert_ok(history_keep(self, view));
}

static status *hide(void *self, const char *id)
{
	return history_delete(self, id);
}

static void core_open(struct core *core, struct sources **ret_sources)
{
	static char cgroups[96];

	memset(core, 0, sizeof(*core));
	(void)snprintf(cgroups, sizeof(cgroups), "%s/cgroups", directory);
	engine_config_defaults(&core->config);
	core->config.state_dir = directory;
	(void)snprintf(core->cgroups, sizeof(core->cgroups), "%s", cgroups);
	(void)snprintf(core->trouble, sizeof(core->trouble), "CRIU is not here");
	assert_ok(files_make_directory(cgroups));
	assert_ok(journal_open(directory, &core->journal));
	assert_ok(history_open(directory, &core->history));
	core->registry = registry_new();
	registry_set_keeper(core->registry, &(struct registry_keeper){.self = core->history,
								      .keep = keep,
								      .hide = hide});
	*ret_sources = sources_new(core);
	assert_ok(sources_recover(*ret_sources));
}

static void core_close(struct core *core, struct sources *sources)
{
	sources_free(sources);
	registry_free(core->registry);
	history_free(core->history);
	journal_close(core->journal);
}

static status *start(struct sources *sources, uint8_t request_byte, const char *workload,
		     char ret_id[LIMIT_ID + 1])
{
	const struct identity caller = {.is_local = true, .name = "local"};
	uint8_t request_id[REQUEST_ID_BYTES] = {request_byte};
	const struct rpc_call call = {.caller = &caller, .request_id = request_id};
	scoped(migration_view) Haul__V1__Migration *view = NULL;
	Haul__V1__StartRequest request = HAUL__V1__START_REQUEST__INIT;

	request.workload = (char *)workload;
	request.to = (char *)"tcp://127.0.0.1:9";
	status *st = sources_start(sources, &call, &request, &view);
	if (st == NULL)
		(void)snprintf(ret_id, LIMIT_ID + 1, "%s", view->id);
	return st;
}

static bool want(void *self)
{
	(void)self;
	return true;
}

static void a_start_repeated_after_a_restart_finds_what_it_started(void **state)
{
	(void)state;
	struct core core;
	struct sources *sources = NULL;
	char first[LIMIT_ID + 1], again[LIMIT_ID + 1], other[LIMIT_ID + 1];
	Haul__V1__ListRequest request = HAUL__V1__LIST_REQUEST__INIT;
	Haul__V1__ListResponse *list = NULL;
	core_open(&core, &sources);
	assert_ok(start(sources, 1, "pid:1", first));
	scoped(migration_view) Haul__V1__Migration *before = NULL;
	assert_ok(registry_await_end(core.registry, first, 60000, want, NULL, &before));
	assert_ok(start(sources, 1, "pid:1", again));
	assert_string_equal(again, first);
	core_close(&core, sources);

	core_open(&core, &sources);
	scoped(migration_view) Haul__V1__Migration *after = NULL;
	assert_ok(registry_get(core.registry, first, &after));
	assert_int_equal(after->state, before->state);
	assert_true(after->started_unix_ms == before->started_unix_ms);
	assert_string_equal(after->error->message, before->error->message);
	assert_true(after->sequence >= before->sequence);
	assert_ok(start(sources, 1, "pid:1", again));
	assert_string_equal(again, first);
	assert_code(start(sources, 1, "pid:2", again), STATUS_ALREADY_EXISTS);
	assert_ok(registry_list(core.registry, &request, &list));
	assert_int_equal(list->n_migrations, 1);
	haul__v1__list_response__free_unpacked(list, NULL);
	assert_ok(start(sources, 2, "pid:1", other));
	assert_string_not_equal(other, first);
	core_close(&core, sources);
}

static void a_deleted_one_stays_away_after_a_restart(void **state)
{
	(void)state;
	struct core core;
	struct sources *sources = NULL;
	char id[LIMIT_ID + 1];
	core_open(&core, &sources);
	assert_ok(start(sources, 1, "pid:1", id));
	scoped(migration_view) Haul__V1__Migration *over = NULL;
	assert_ok(registry_await_end(core.registry, id, 60000, want, NULL, &over));
	assert_ok(registry_delete(core.registry, id));
	core_close(&core, sources);
	core_open(&core, &sources);
	Haul__V1__Migration *none = NULL;
	assert_code(registry_get(core.registry, id, &none), STATUS_NOT_FOUND);
	core_close(&core, sources);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(reports_are_found_again_and_deleted_ones_not,
					    make_directory, remove_directory),
	    cmocka_unit_test_setup_teardown(what_is_damaged_or_no_report_is_not_there,
					    make_directory, remove_directory),
	    cmocka_unit_test_setup_teardown(a_start_repeated_after_a_restart_finds_what_it_started,
					    make_directory, remove_directory),
	    cmocka_unit_test_setup_teardown(a_deleted_one_stays_away_after_a_restart,
					    make_directory, remove_directory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
