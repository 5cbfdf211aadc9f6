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
	assert_reason(check(NULL, &node, "/haul.v1.PeerX/Commit"), STATUS_PERMISSION_DENIED,
		      "METHOD_NOT_ALLOWED");
	assert_reason(check(NULL, &nobody, "/haul.v1.Peer/Commit"), STATUS_UNAUTHENTICATED,
		      "CALLER_UNAUTHENTICATED");
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

static status *check_uri(const char *name, const char *method)
{
	static const char json[] =
	    "{\"rules\": [{\"identities\": [\"spiffe://cluster/node/*\"], \"methods\": "
	    "[\"*\"]}, {\"identities\": [\"*.example.org\"], \"methods\": "
	    "[\"/haul.v1.Peer/*\"]}]}";
	struct identity id = {.is_authenticated = true};
	memcpy(id.name, name, strlen(name));
	return check(json, &id, method);
}

static void a_star_in_a_uri_stands_for_its_last_part(void **state)
{
	(void)state;
	assert_ok(check_uri("spiffe://cluster/node/a", "/haul.v1.Peer/Commit"));
	assert_code(check_uri("spiffe://cluster/node/", "/haul.v1.Peer/Commit"),
		    STATUS_PERMISSION_DENIED);
	assert_code(check_uri("spiffe://cluster/node/a/b", "/haul.v1.Peer/Commit"),
		    STATUS_PERMISSION_DENIED);
	assert_code(check_uri("spiffe://cluster/nodes", "/haul.v1.Peer/Commit"),
		    STATUS_PERMISSION_DENIED);
	/* A URI is no host below example.org, however it ends. */
	assert_code(check_uri("x://a.example.org", "/haul.v1.Peer/Commit"),
		    STATUS_PERMISSION_DENIED);
	assert_ok(check_uri("a.example.org", "/haul.v1.Peer/Commit"));
}

static void roles_stand_for_methods(void **state)
{
	static const char json[] =
	    "{\"rules\": [{\"identities\": [\"haul://node-a\"], \"roles\": [\"viewer\", "
	    "\"starter\"]}, {\"identities\": [\"op\"], \"roles\": [\"operator\"], \"methods\": "
	    "[\"/x/Y\"]}], \"roles\": {\"starter\": [\"/haul.v1.Migrations/Start\"]}}";
	static const struct identity op = {.is_authenticated = true, .name = "op"};
	(void)state;
	assert_ok(check(json, &node, "/haul.v1.Migrations/List"));
	assert_ok(check(json, &node, "/haul.v1.Migrations/Start"));
	assert_code(check(json, &node, "/haul.v1.Migrations/Cancel"), STATUS_PERMISSION_DENIED);
	assert_code(check(json, &node, "/haul.v1.Peer/Commit"), STATUS_PERMISSION_DENIED);
	assert_ok(check(json, &op, "/haul.v1.Migrations/Resolve"));
	assert_ok(check(json, &op, "/x/Y"));
	assert_code(check(json, &op, "/haul.v1.Peer/Commit"), STATUS_PERMISSION_DENIED);
	assert_ok(check("{\"rules\": [{\"identities\": [\"*\"], \"roles\": [\"partner\"]}]}", &node,
			"/haul.v1.Peer/Commit"));
}

static void partners_are_asked_for_when_a_migration_begins(void **state)
{
	static const char json[] = "{\"accept-from\": [\"*.example.org\"], \"migrate-to\": "
				   "[\"*.example.org\", \"10.0.0.2\"]}";
	static const struct identity other = {.is_authenticated = true, .name = "b.example.com"};
	scoped(policy) struct policy *policy = NULL;
	(void)state;
	assert_ok(policy_parse(json, &policy));
	assert_ok(policy_check(policy, &node, "/haul.v1.Peer/Prepare"));
	status *st = policy_check(policy, &other, "/haul.v1.Peer/Prepare");
	assert_non_null(strstr(status_message(st), "accept-from"));
	assert_reason(st, STATUS_PERMISSION_DENIED, "SOURCE_NOT_ACCEPTED");
	/* What has begun goes on. */
	assert_ok(policy_check(policy, &other, "/haul.v1.Peer/Commit"));
	assert_ok(policy_check_destination(policy, "b.example.org"));
	assert_ok(policy_check_destination(policy, "10.0.0.2"));
	st = policy_check_destination(policy, "10.0.0.3");
	assert_non_null(strstr(status_message(st), "migrate-to"));
	assert_reason(st, STATUS_PERMISSION_DENIED, "DESTINATION_NOT_ALLOWED");
}

static void without_lists_of_partners_everybody_may_be_one(void **state)
{
	scoped(policy) struct policy *policy = NULL;
	(void)state;
	assert_ok(policy_parse("{}", &policy));
	assert_ok(policy_check(policy, &node, "/haul.v1.Peer/Prepare"));
	assert_ok(policy_check_destination(policy, "anywhere"));
}

static void an_empty_list_of_partners_allows_none(void **state)
{
	scoped(policy) struct policy *policy = NULL;
	(void)state;
	assert_ok(policy_parse("{\"accept-from\": [], \"migrate-to\": []}", &policy));
	assert_code(policy_check(policy, &node, "/haul.v1.Peer/Prepare"), STATUS_PERMISSION_DENIED);
	assert_code(policy_check_destination(policy, "anywhere"), STATUS_PERMISSION_DENIED);
}

static void the_first_limit_that_names_the_caller_counts(void **state)
{
	static const char json[] =
	    "{\"limits\": [{\"identities\": [\"haul://node-a\"], \"calls\": 2, \"sessions\": 1}, "
	    "{\"identities\": [\"*\"], \"calls\": 9, \"streams\": 3}]}";
	static const struct identity other = {.is_authenticated = true, .name = "b"};
	scoped(policy) struct policy *policy = NULL;
	(void)state;
	assert_ok(policy_parse(json, &policy));
	struct policy_limits most = policy_limits_of(policy, &node);
	assert_int_equal(most.calls, 2);
	assert_int_equal(most.sessions, 1);
	assert_int_equal(most.streams, 0);
	most = policy_limits_of(policy, &other);
	assert_int_equal(most.calls, 9);
	assert_int_equal(most.sessions, 0);
	assert_int_equal(most.streams, 3);
	most = policy_limits_of(policy, &nobody);
	assert_int_equal(most.calls, 9);
	most = policy_limits_of(policy, &local);
	assert_int_equal(most.calls, 0);
}

static void rules_can_be_replaced(void **state)
{
	scoped(policy) struct policy *policy = NULL;
	struct policy *by = NULL;
	(void)state;
	assert_ok(policy_parse(NULL, &policy));
	assert_ok(policy_check(policy, &node, "/haul.v1.Peer/Commit"));
	assert_ok(policy_parse("{\"rules\": []}", &by));
	policy_replace(policy, by);
	assert_code(policy_check(policy, &node, "/haul.v1.Peer/Commit"), STATUS_PERMISSION_DENIED);
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
	    "{\"rules\": [{\"identities\": [\"a\"], \"roles\": [\"nobody\"]}]}",
	    "{\"rules\": [{\"identities\": [\"a\"], \"roles\": []}]}",
	    "{\"rules\": [{\"roles\": [\"viewer\"]}]}",
	    "{\"rules\": [{\"identities\": [\"x://*\"], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [\"x://a/*/b\"], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [\"a/*\"], \"methods\": [\"*\"]}]}",
	    "{\"rules\": [{\"identities\": [\"*.\"], \"methods\": [\"*\"]}]}",
	    "{\"roles\": []}",
	    "{\"roles\": {\"viewer\": [\"*\"]}}",
	    "{\"roles\": {\"a\": [\"*\"], \"a\": [\"*\"]}}",
	    "{\"roles\": {\"a b\": [\"*\"]}}",
	    "{\"roles\": {\"\": [\"*\"]}}",
	    "{\"roles\": {\"a\": \"*\"}}",
	    "{\"migrate-to\": \"*\"}",
	    "{\"accept-from\": [\"a*\"]}",
	    "{\"limits\": {}}",
	    "{\"limits\": [{\"calls\": 1}]}",
	    "{\"limits\": [{\"identities\": [\"a\"], \"calls\": 0}]}",
	    "{\"limits\": [{\"identities\": [\"a\"], \"calls\": 1.5}]}",
	    "{\"limits\": [{\"identities\": [\"a\"], \"calls\": -1}]}",
	    "{\"limits\": [{\"identities\": [\"a\"], \"calls\": 1, \"calls\": 2}]}",
	    "{\"limits\": [{\"identities\": [\"a\"], \"call\": 1}]}",
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
	    cmocka_unit_test(a_star_in_a_uri_stands_for_its_last_part),
	    cmocka_unit_test(roles_stand_for_methods),
	    cmocka_unit_test(partners_are_asked_for_when_a_migration_begins),
	    cmocka_unit_test(without_lists_of_partners_everybody_may_be_one),
	    cmocka_unit_test(an_empty_list_of_partners_allows_none),
	    cmocka_unit_test(the_first_limit_that_names_the_caller_counts),
	    cmocka_unit_test(rules_can_be_replaced),
	    cmocka_unit_test(insecure_lets_strangers_have_what_everybody_has),
	    cmocka_unit_test(an_empty_list_of_rules_allows_nothing),
	    cmocka_unit_test(what_is_not_a_policy_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
