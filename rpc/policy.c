/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/policy.h"

#include <ctype.h>
#include <pthread.h>
#include <string.h>

#include "proto/reason.h"
#include "rpc/policy_rules.h"

/* clang-format off */
static const struct {
	const char *role, *method;
} built_in[] = {
	{"partner", "/haul.v1.Peer/*"},
	{"partner", "/haul.v1.Node/Info"},
	{"partner", "/haul.v1.Reflection/*"},
	/* Not Health/Watch: each stream holds one of the data ports that migrations need. */
	{"partner", "/grpc.health.v1.Health/Check"},
	{"viewer", "/haul.v1.Migrations/Get"},
	{"viewer", "/haul.v1.Migrations/List"},
	{"viewer", "/haul.v1.Migrations/Wait"},
	{"viewer", "/haul.v1.Migrations/Watch"},
	{"viewer", "/haul.v1.Node/Info"},
	{"viewer", "/haul.v1.Node/Check"},
	{"viewer", "/haul.v1.Reflection/*"},
	{"viewer", "/grpc.health.v1.Health/*"},
	{"operator", "/haul.v1.Migrations/*"},
	{"operator", "/haul.v1.Node/*"},
	{"operator", "/haul.v1.Reflection/*"},
	{"operator", "/grpc.health.v1.Health/*"},
};
/* clang-format on */

struct policy {
	pthread_rwlock_t lock;
	struct rules rules;
};

status *policy_parse(const char *json, struct policy **ret_policy)
{
	scoped(policy) struct policy *policy = calloc(1, sizeof(*policy));
	if (policy == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "policy: out of memory");
	(void)pthread_rwlock_init(&policy->lock, NULL);
	status *st = json != NULL ? rules_parse(json, &policy->rules) : NULL;
	if (st == NULL)
		*ret_policy = TAKE(policy);
	return st;
}

void policy_free(struct policy *policy)
{
	if (policy == NULL)
		return;
	rules_free(&policy->rules);
	(void)pthread_rwlock_destroy(&policy->lock);
	free(policy);
}

void policy_replace(struct policy *policy, struct policy *by)
{
	(void)pthread_rwlock_wrlock(&policy->lock);
	const struct rules before = policy->rules;
	policy->rules = by->rules; /* nobody else knows `by` */
	by->rules = before;
	(void)pthread_rwlock_unlock(&policy->lock);
	policy_free(by);
}

static bool method_matches(const char *pattern, const char *method)
{
	size_t length = strlen(pattern);
	if (strcmp(pattern, "*") == 0 || strcmp(pattern, method) == 0)
		return true;
	return length > 1 && pattern[length - 1] == '*' &&
	       strncmp(pattern, method, length - 1) == 0;
}

/* "*.example.org" stands for any one name below: not for example.org, nor for a.b.example.org, nor
 * for a URI that ends so. */
static bool is_name_below(const char *pattern, const char *name)
{
	size_t length = 0;
	while (isalnum((unsigned char)name[length]) || name[length] == '-' || name[length] == '_')
		length++;
	return strncmp(pattern, "*.", 2) == 0 && length > 0 &&
	       strcmp(pattern + 1, name + length) == 0;
}

/* A URI whose last part is a star stands for any one segment there. */
static bool is_uri_below(const char *pattern, const char *name)
{
	size_t length = strlen(pattern);
	if (length < 2 || strcmp(pattern + length - 2, "/*") != 0 ||
	    strncmp(pattern, name, length - 1) != 0)
		return false;
	const char *segment = name + length - 1;
	return segment[0] != '\0' && strchr(segment, '/') == NULL;
}

static bool name_matches(const char *pattern, const char *name)
{
	return strcmp(pattern, "*") == 0 || strcmp(pattern, name) == 0 ||
	       is_name_below(pattern, name) || is_uri_below(pattern, name);
}

static bool has_name(const struct text_list *patterns, const char *name)
{
	for (size_t i = 0; i < patterns->count; i++)
		if (name_matches(patterns->texts[i], name))
			return true;
	return false;
}

/* A name that nobody proved must not open what is given to that name. */
static bool has_identity(const struct text_list *patterns, const struct identity *id)
{
	for (size_t i = 0; i < patterns->count && !id->is_authenticated; i++)
		if (strcmp(patterns->texts[i], "*") == 0)
			return true;
	if (!id->is_authenticated)
		return false;
	bool found = has_name(patterns, id->name);
	for (unsigned i = 0; i < id->name_count && !found; i++)
		found = has_name(patterns, id->names[i]);
	return found;
}

static bool has_method(const struct text_list *patterns, const char *method)
{
	for (size_t i = 0; i < patterns->count; i++)
		if (method_matches(patterns->texts[i], method))
			return true;
	return false;
}

bool role_exists(const struct rules *rules, const char *name)
{
	for (size_t i = 0; i < array_len(built_in); i++)
		if (strcmp(built_in[i].role, name) == 0)
			return true;
	for (size_t i = 0; i < rules->role_count; i++)
		if (strcmp(rules->roles[i].name, name) == 0)
			return true;
	return false;
}

static bool role_allows(const struct rules *rules, const char *name, const char *method)
{
	for (size_t i = 0; i < array_len(built_in); i++)
		if (strcmp(built_in[i].role, name) == 0 &&
		    method_matches(built_in[i].method, method))
			return true;
	for (size_t i = 0; i < rules->role_count; i++)
		if (strcmp(rules->roles[i].name, name) == 0)
			return has_method(&rules->roles[i].methods, method);
	return false;
}

static bool rule_allows(const struct rules *rules, const struct rule *rule,
			const struct identity *caller, const char *method)
{
	if (!has_identity(&rule->identities, caller))
		return false;
	bool is_allowed = has_method(&rule->methods, method);
	for (size_t i = 0; i < rule->roles.count && !is_allowed; i++)
		is_allowed = role_allows(rules, rule->roles.texts[i], method);
	return is_allowed;
}

static status *check(const struct rules *rules, const struct identity *caller, const char *method)
{
	if (!caller->is_authenticated && !rules->is_insecure)
		return status_because(
		    status_errorf(STATUS_UNAUTHENTICATED,
				  "%s needs a certificate that our authority signed", method),
		    REASON_CALLER_UNAUTHENTICATED);
	bool is_allowed = !rules->has_rules && role_allows(rules, "partner", method);
	for (size_t i = 0; i < rules->rule_count && !is_allowed; i++)
		is_allowed = rule_allows(rules, &rules->rules[i], caller, method);
	if (!is_allowed)
		return status_because(
		    status_errorf(STATUS_PERMISSION_DENIED,
				  "'%s' may not call %s; a rule in the policy file could allow it",
				  caller->name, method),
		    REASON_METHOD_NOT_ALLOWED);
	if (strcmp(method, "/haul.v1.Peer/Prepare") == 0 && rules->has_accept_from &&
	    !has_identity(&rules->accept_from, caller))
		return status_because(
		    status_errorf(STATUS_PERMISSION_DENIED,
				  "this node takes no workloads from '%s': it is not in "
				  "\"accept-from\" of the policy file",
				  caller->name),
		    REASON_SOURCE_NOT_ACCEPTED);
	return NULL;
}

status *policy_check(struct policy *policy, const struct identity *caller, const char *method)
{
	if (caller->is_local)
		return NULL;
	(void)pthread_rwlock_rdlock(&policy->lock);
	status *st = check(&policy->rules, caller, method);
	(void)pthread_rwlock_unlock(&policy->lock);
	return st;
}

status *policy_check_destination(struct policy *policy, const char *host)
{
	(void)pthread_rwlock_rdlock(&policy->lock);
	bool is_allowed =
	    !policy->rules.has_migrate_to || has_name(&policy->rules.migrate_to, host);
	(void)pthread_rwlock_unlock(&policy->lock);
	if (is_allowed)
		return NULL;
	return status_because(
	    status_errorf(STATUS_PERMISSION_DENIED,
			  "workloads of this node may not leave for '%.255s': it is not in "
			  "\"migrate-to\" of the policy file",
			  host),
	    REASON_DESTINATION_NOT_ALLOWED);
}

struct policy_limits policy_limits_of(struct policy *policy, const struct identity *caller)
{
	struct policy_limits most = {0};
	bool is_found = caller->is_local;
	(void)pthread_rwlock_rdlock(&policy->lock);
	for (size_t i = 0; i < policy->rules.limit_count && !is_found; i++) {
		is_found = has_identity(&policy->rules.limits[i].identities, caller);
		if (is_found)
			most = policy->rules.limits[i].most;
	}
	(void)pthread_rwlock_unlock(&policy->lock);
	return most;
}
