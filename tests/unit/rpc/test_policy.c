/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/test.h"

#include <string.h>

#include "rpc/policy.h"

static const struct identity local = {.is_local = true, .is_authenticated = true, .name = "local"};
static const struct identity nobody = {.name = "unauthenticated"};
static const struct identity node = {
    .is_authenticated = true,
    .name = "haul://node-a",
    .names = {"haul://node-a", "a.example.org", "10.0.0.1"},
    .name_count = 3,
};

static status *check(const char *json, const struct identity *caller, const char *method)
{
	scoped(policy) struct policy *policy = NULL;
	assert_ok(policy_parse(json, &policy));
	return policy_check(policy, caller, method);
}

static void without_a_file_peers_may_be_partners_and_local_may_all(void **state)
{
	(void)state;
	assert_ok(check(NULL, &local, "/haul.v1.Migrations/Start"));
	assert_ok(check(NULL, &node, "/haul.v1.Peer/Commit"));
	assert_ok(check(NULL, &node, "/haul.v1.Node/Info"));
	assert_ok(check(NULL, &node, "/haul.v1.Reflection/ListServices"));
	assert_ok(check(NULL, &node, "/grpc.health.v1.Health/Check"));
	assert_code(check(NULL, &node, "/grpc.health.v1.Health/Watch"), STATUS_PERMISSION_DENIED);
	assert_code(check(NULL, &node, "/haul.v1.Node/Check"), STATUS_PERMISSION_DENIED);
	assert_code(check(NULL, &node, "/haul.v1.Migrations/Start"), STATUS_PERMISSION_DENIED);
	assert_code(check(NULL, &node, "/haul.v1.PeerX/Commit"), STATUS_PERMISSION_DENIED);
	assert_code(check(NULL, &nobody, "/haul.v1.Peer/Commit"), STATUS_UNAUTHENTICATED);
}

static void rules_name_identities_and_methods(void **state)
{
	static const char json[] = "{\"rules\": [{\"identities\": [\"*.example.org\"], "
				   "\"methods\": [\"/haul.v1.Peer/*\"]},"
				   "{\"identities\": [\"haul://node-b\"], \"methods\": [\"*\"]}]}";
	static const struct {
		const char *name;
		const char *method;
		bool is_allowed;
	} cases[] = {
	    {"a.example.org", "/haul.v1.Peer/Commit", true},
	    {"a.example.org", "/haul.v1.Node/Info", false},
	    {"example.org", "/haul.v1.Peer/Commit", false},
	    {"b.a.example.org", "/haul.v1.Peer/Commit", false},
	    {".example.org", "/haul.v1.Peer/Commit", false},
	    {"a.example.org.evil", "/haul.v1.Peer/Commit", false},
	    {"haul://node-b", "/haul.v1.Migrations/Start", true},
	    {"haul://node-bb", "/haul.v1.Migrations/Start", false},
	};
	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		struct identity id = {.is_authenticated = true};
		memcpy(id.name, cases[i].name, strlen(cases[i].name));
		status *st = check(json, &id, cases[i].method);
		if (st != NULL)
			assert_non_null(strstr(status_message(st), cases[i].name));
		assert_code(st, cases[i].is_allowed ? STATUS_OK : STATUS_PERMISSION_DENIED);
	}
	/* Any of the names will do. */
	assert_ok(check(json, &node, "/haul.v1.Peer/Commit"));
}

static void insecure_lets_strangers_have_what_everybody_has(void **state)
{
	static const char json[] =
	    "{\"insecure\": true, \"rules\": [{\"identities\": [\"*\"], \"methods\": "
	    "[\"/haul.v1.Peer/*\"]}, {\"identities\": [\"unauthenticated\"], \"methods\": "
	    "[\"*\"]}]}";
	(void)state;
	assert_ok(check(json, &nobody, "/haul.v1.Peer/Commit"));
	/* A name without proof is no name. */
	assert_code(check(json, &nobody, "/haul.v1.Migrations/Start"), STATUS_PERMISSION_DENIED);
	assert_ok(check("{\"insecure\": true}", &nobody, "/haul.v1.Peer/Commit"));
	assert_code(check("{\"insecure\": false}", &nobody, "/haul.v1.Peer/Commit"),
		    STATUS_UNAUTHENTICATED);
}

static void an_empty_list_of_rules_allows_nothing(void **state)
{
	(void)state;
	assert_code(check("{\"rules\": []}", &node, "/haul.v1.Peer/Commit"),
		    STATUS_PERMISSION_DENIED);
	assert_ok(check("{\"rules\": []}", &local, "/haul.v1.Peer/Commit"));
}

static void what_is_not_a_policy_is_refused(void **state)
{
	static const char *const texts[] = {
	    "",
	    "[]",
	    "{",
	    "{} x",
	    "{\"rule\": []}",
	    "{\"rules\": {}}",
	    "{\"rules\": [1]}",
	    "{\"rules\": [], \"rules\": []}",
	    "{\"insecure\": 1}",
	    "{\"rules\": [{\"identities\": [\"a\"]}]}",
	    "{\"rules\": [{\"identities\": [], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [1], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [\"\"], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [\"a\"], \"methods\": [\"*\"], \"x\": 1}]}",
	    "{\"rules\": [{\"identities\": [\"a*\"], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [\"*.*\"], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [\"a\"], \"methods\": [\"Commit\"]}]}",
	    "{\"rules\": [{\"identities\": [\"a\"], \"methods\": [\"/x/C*\"]}]}",
	};
	(void)state;
	for (size_t i = 0; i < array_len(texts); i++) {
		struct policy *policy = NULL;
		assert_code(policy_parse(texts[i], &policy), STATUS_INVALID_ARGUMENT);
		assert_null(policy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(without_a_file_peers_may_be_partners_and_local_may_all),
	    cmocka_unit_test(rules_name_identities_and_methods),
	    cmocka_unit_test(insecure_lets_strangers_have_what_everybody_has),
	    cmocka_unit_test(an_empty_list_of_rules_allows_nothing),
	    cmocka_unit_test(what_is_not_a_policy_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
