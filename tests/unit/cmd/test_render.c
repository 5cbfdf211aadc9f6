/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/haulctl/render.h"

#include <string.h>

#include "cmd/haulctl/ctl.h"
#include "cmd/haulctl/render_json.h"
#include "proto/reason.h"
#include "tests/unit/test.h"

static char id[] = "7f3a", stage[] = "finish", tracking[] = "soft-dirty", lazy[] = "lazy",
	    mode[] = "hybrid", note[] = "no \"delta\"";
static char workload[] = "pid:42", peer[] = "tls+tcp://b:7777", role[] = "source";
static char message[] = "pid 42 is used", label[] = "next", text[] = "end it";
static char *notes[] = {note};

static void fill(Haul__V1__Migration *migration)
{
	haul__v1__migration__init(migration);
	migration->id = id;
	migration->state = HAUL__V1__MIGRATION_STATE__COMPLETED;
	migration->stage = stage;
	migration->role = role;
	migration->workload = workload;
	migration->peer = peer;
	migration->downtime_ms = 41.5;
	migration->predicted_downtime_ms = 40;
	migration->prediction_error_ms = 1.5;
	migration->total_ms = 1200;
	migration->bytes_on_wire = 123456789;
	migration->criu_freeze_ms = 12.25;
	migration->criu_restore_ms = 20;
	migration->restored_pid = 42;
	migration->tracking = tracking;
	migration->restore = lazy;
	migration->mode = mode;
	migration->streams = 2;
	migration->late_pages = 90;
	migration->late_faults = 2;
	migration->lazy_pages = 100;
	migration->lazy_faults = 3;
	migration->fill_ms = 7.5;
	migration->notes = notes;
	migration->n_notes = 1;
}

/* The JSON, printed and kept until the next call. */
static const char *printed(cJSON *json)
{
	static char *kept;

	free(kept);
	kept = NULL;
	if (json == NULL)
		return NULL;
	char *unformatted = cJSON_PrintUnformatted(json);
	kept = strdup(unformatted);
	cJSON_free(unformatted);
	cJSON_Delete(json);
	return kept;
}

static void a_completed_migration_is_the_promised_object(void **state)
{
	Haul__V1__Migration migration;
	Haul__V1__Round round = HAUL__V1__ROUND__INIT;
	Haul__V1__Round *rounds[] = {&round};
	(void)state;

	fill(&migration);
	round.pages_sent = 4096;
	round.pages_skipped = 10;
	round.pages_same = 7;
	round.pages_zero = 5;
	round.bytes = 16777216;
	round.duration_ms = 100.5;
	round.frozen_ms = 3;
	migration.rounds = rounds;
	migration.n_rounds = 1;
	assert_string_equal(
	    printed(json_of_migration(&migration, false)),
	    "{\"id\":\"7f3a\",\"state\":\"COMPLETED\",\"stage\":\"finish\",\"downtimeMs\":41.5,"
	    "\"predictedDowntimeMs\":40,\"predictionErrorMs\":1.5,"
	    "\"totalMs\":1200,\"rounds\":[{\"pagesSent\":4096,\"pagesSkipped\":10,"
	    "\"pagesSame\":7,\"pagesZero\":5,\"bytes\":16777216,"
	    "\"durationMs\":100.5,\"frozenMs\":3}],\"bytesOnWire\":123456789,"
	    "\"criu\":{\"freezeMs\":12.25,\"restoreMs\":20},\"restoredPid\":42,"
	    "\"tracking\":\"soft-dirty\",\"mode\":\"hybrid\",\"streams\":2,\"restore\":{\"mode\":"
	    "\"lazy\","
	    "\"lazyPages\":100,"
	    "\"lazyFaults\":3,\"fillMs\":7.5,\"latePages\":90,\"lateFaults\":2,"
	    "\"lateMissing\":0},\"notes\":[\"no \\\"delta\\\"\"],\"error\":null}");
	(void)printed(NULL);
}

static void an_error_is_an_object_with_its_details(void **state)
{
	Haul__V1__Migration migration;
	Haul__V1__Status error = HAUL__V1__STATUS__INIT;
	Haul__V1__Status__Detail detail = HAUL__V1__STATUS__DETAIL__INIT;
	Haul__V1__Status__Detail *details[] = {&detail};
	(void)state;

	fill(&migration);
	detail.label = label;
	detail.text = text;
	error.code = STATUS_ALREADY_EXISTS;
	error.message = message;
	error.details = details;
	error.n_details = 1;
	migration.state = HAUL__V1__MIGRATION_STATE__ABORTED;
	migration.error = &error;
	cJSON *json = json_of_migration(&migration, false);
	cJSON *part = cJSON_DetachItemFromObject(json, "error");
	cJSON_Delete(json);
	assert_string_equal(printed(part),
			    "{\"code\":\"ALREADY_EXISTS\",\"message\":\"pid 42 is used\","
			    "\"details\":[{\"label\":\"next\",\"text\":\"end it\"}]}");
	(void)printed(NULL);
	assert_int_equal(migration_exit(&migration), EXIT_BASE + STATUS_ALREADY_EXISTS);
}

static void the_exit_status_follows_the_state(void **state)
{
	Haul__V1__Migration migration;
	(void)state;

	fill(&migration);
	assert_int_equal(migration_exit(&migration), 0);
	migration.state = HAUL__V1__MIGRATION_STATE__IN_DOUBT;
	assert_int_equal(migration_exit(&migration), 64 + 14);
	migration.state = HAUL__V1__MIGRATION_STATE__CANCELLED;
	assert_int_equal(migration_exit(&migration), 64 + 1);
	migration.state = HAUL__V1__MIGRATION_STATE__ABORTED;
	assert_int_equal(migration_exit(&migration), 64 + 10);
	migration.state = HAUL__V1__MIGRATION_STATE__LOST;
	assert_int_equal(migration_exit(&migration), 64 + 15);
	migration.state = HAUL__V1__MIGRATION_STATE__RUNNING;
	assert_int_equal(migration_exit(&migration), 0);
}

static void a_state_from_a_newer_engine_has_a_number(void **state)
{
	(void)state;
	assert_string_equal(state_name((Haul__V1__MigrationState)9), "STATE_9");
	assert_false(state_is_over((Haul__V1__MigrationState)9));
}

static void a_list_is_a_table_without_control_characters(void **state)
{
	Haul__V1__ListResponse list = HAUL__V1__LIST_RESPONSE__INIT;
	Haul__V1__Migration migration, *migrations[] = {&migration};
	char evil[] = "dest\033[2Jroyed\n", *out = NULL;
	size_t size = 0;
	(void)state;

	fill(&migration);
	migration.doubt = evil;
	list.migrations = migrations;
	list.n_migrations = 1;
	FILE *file = open_memstream(&out, &size);
	assert_non_null(file);
	print_list(file, &list);
	(void)fclose(file);
	assert_string_equal(
	    out, "ID    STATE      STAGE   ROLE    WORKLOAD  PEER              SINCE  DOUBT\n"
		 "7f3a  COMPLETED  finish  source  pid:42    tls+tcp://b:7777  -      "
		 "dest?[2Jroyed?\n");
	free(out);
}

static void an_error_has_what_grpc_s_richer_errors_have(void **state)
{
	(void)state;
	scoped(status) status *st =
	    status_because(status_errorf(STATUS_FAILED_PRECONDITION, "first"),
			   REASON_WORKLOAD_UNFIT);
	st = status_detailf(st, "violation.workload", "first");
	st = status_detailf(st, "violation.pid", "second");
	st = status_detailf(status_retry_after(st, 1500), "debug", "a\nb\n");
	const char *json = printed(json_of_status(st));
	assert_non_null(strstr(json, "\"reason\":\"WORKLOAD_UNFIT\",\"domain\":\"haul\""));
	assert_non_null(
	    strstr(json,
		   "\"preconditionFailure\":{\"violations\":[{\"type\":\"workload\","
		   "\"description\":\"first\"},{\"type\":\"pid\",\"description\":\"second\"}]}"));
	assert_non_null(strstr(json, "\"retryInfo\":{\"retryDelay\":\"1.500s\"}"));
	assert_non_null(strstr(json, "\"debugInfo\":{\"stackEntries\":[\"a\",\"b\"]"));
	(void)printed(NULL);
}

static void numbers_are_written_for_people(void **state)
{
	char line[RENDER_NUMBER];
	(void)state;

	format_bytes(line, 0);
	assert_string_equal(line, "0 B");
	format_bytes(line, 50.0 * 1024 * 1024);
	assert_string_equal(line, "50.0 MiB");
	format_bytes(line, 1e30);
	assert_non_null(strstr(line, "TiB"));
	format_duration(line, 41.26);
	assert_string_equal(line, "41.3 ms");
	format_duration(line, 61000);
	assert_string_equal(line, "61.00 s");
	format_moment(line, 0);
	assert_string_equal(line, "-");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_completed_migration_is_the_promised_object),
	    cmocka_unit_test(an_error_is_an_object_with_its_details),
	    cmocka_unit_test(the_exit_status_follows_the_state),
	    cmocka_unit_test(a_state_from_a_newer_engine_has_a_number),
	    cmocka_unit_test(a_list_is_a_table_without_control_characters),
	    cmocka_unit_test(an_error_has_what_grpc_s_richer_errors_have),
	    cmocka_unit_test(numbers_are_written_for_people),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
