/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/hauld/audit.h"

#include <cjson/cJSON.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "engine/log.h"
#include "proto/schema.h"
#include "tests/unit/test.h"

static const struct identity node = {.is_authenticated = true, .name = "a.example.org"};

/* What one call leaves on standard error. */
static void audit(const char *method, const status *st, char *ret_text, size_t room)
{
	const struct rpc_call call = {.caller = &node,
				      .peer = "10.0.0.1:4711",
				      .method = method,
				      .id = "m\" x=1"};
	FILE *file = tmpfile();
	int saved = dup(STDERR_FILENO);

	assert_non_null(file);
	(void)fflush(stderr);
	assert_true(dup2(fileno(file), STDERR_FILENO) >= 0);
	audit_observer.called(audit_observer.self, &call, st, 1234);
	(void)fflush(stderr);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	(void)close(saved);
	assert_int_equal(fseek(file, 0, SEEK_SET), 0);
	ret_text[fread(ret_text, 1, room - 1, file)] = '\0';
	(void)fclose(file);
}

static void a_change_leaves_a_line_of_text(void **state)
{
	char text[2048];
	(void)state;

	log_configure(false, LOG_LEVEL_INFO);
	audit("/haul.v1.Peer/Commit", NULL, text, sizeof(text));
	assert_non_null(strstr(text, "level=info msg=\"audit\" caller=a.example.org "
				     "peer=10.0.0.1:4711 method=/haul.v1.Peer/Commit "
				     "migration=\"m\\\" x=1\" code=OK took_us=1234\n"));
	scoped(status) status *st = status_errorf(STATUS_ABORTED, "it \"failed\"\nbadly");
	audit("/haul.v1.Peer/Commit", st, text, sizeof(text));
	assert_non_null(
	    strstr(text, "code=ABORTED took_us=1234 error=\"it \\\"failed\\\" badly\"\n"));
}

static void a_change_leaves_a_line_of_json(void **state)
{
	char text[2048];
	(void)state;

	log_configure(true, LOG_LEVEL_INFO);
	scoped(status) status *st = status_errorf(STATUS_ABORTED, "it \"failed\"");
	audit("/haul.v1.Migrations/Start", st, text, sizeof(text));
	log_configure(false, LOG_LEVEL_INFO);
	cJSON *json = cJSON_Parse(text);
	assert_non_null(json);
	static const char *const members[][2] = {
	    {"level", "info"},		 {"msg", "audit"},
	    {"caller", "a.example.org"}, {"method", "/haul.v1.Migrations/Start"},
	    {"code", "ABORTED"},	 {"error", "it \"failed\""},
	};
	for (size_t i = 0; i < array_len(members); i++)
		assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, members[i][0])),
				    members[i][1]);
	assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "took_us")) == 1234);
	cJSON_Delete(json);
}

static void what_only_asks_leaves_none_unless_it_is_refused(void **state)
{
	char text[2048];
	(void)state;

	log_configure(false, LOG_LEVEL_DEBUG);
	audit("/haul.v1.Migrations/List", NULL, text, sizeof(text));
	assert_string_equal(text, "");
	scoped(status) status *failed = status_errorf(STATUS_NOT_FOUND, "not there");
	audit("/haul.v1.Migrations/Get", failed, text, sizeof(text));
	assert_string_equal(text, "");
	scoped(status) status *refused = status_errorf(STATUS_PERMISSION_DENIED, "you may not");
	audit("/haul.v1.Migrations/List", refused, text, sizeof(text));
	assert_non_null(strstr(text, "level=warn"));
	assert_non_null(strstr(text, "PERMISSION_DENIED"));
}

static void an_unknown_method_is_taken_for_a_change(void **state)
{
	(void)state;
	assert_true(audit_is_mutating("/haul.v1.New/Thing"));
	assert_false(audit_is_mutating("/haul.v1.Node/Info"));
}

static void what_the_services_say_only_reads_leaves_none(void **state)
{
	scoped(schema) struct schema *schema = NULL;
	const struct schema_service *service = NULL;
	(void)state;

	assert_ok(schema_load_own(&schema));
	for (size_t i = 0; (service = schema_service_at(schema, i)) != NULL; i++)
		for (size_t j = 0; j < service->method_count; j++) {
			char name[128];
			(void)snprintf(name, sizeof(name), "/%s/%s", service->name,
				       service->methods[j].name);
			assert_false(service->methods[j].has_no_side_effects &&
				     audit_is_mutating(name));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_change_leaves_a_line_of_text),
	    cmocka_unit_test(a_change_leaves_a_line_of_json),
	    cmocka_unit_test(what_only_asks_leaves_none_unless_it_is_refused),
	    cmocka_unit_test(an_unknown_method_is_taken_for_a_change),
	    cmocka_unit_test(what_the_services_say_only_reads_leaves_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
