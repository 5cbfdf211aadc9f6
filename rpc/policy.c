/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/policy.h"

#include <cjson/cJSON.h>
#include <string.h>

enum { POLICY_RULES = 256, POLICY_ENTRIES = 256 };

struct text_list {
	char **texts;
	size_t count;
};

struct rule {
	struct text_list identities;
	struct text_list methods;
};

struct policy {
	struct rule *rules;
	size_t rule_count;
	bool is_default;
	bool is_insecure;
};

static void free_list(struct text_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->texts[i]);
	free(list->texts);
}

void policy_free(struct policy *policy)
{
	if (policy == NULL)
		return;
	for (size_t i = 0; i < policy->rule_count; i++) {
		free_list(&policy->rules[i].identities);
		free_list(&policy->rules[i].methods);
	}
	free(policy->rules);
	free(policy);
}

static void free_json(cJSON *json)
{
	cJSON_Delete(json);
}
DEFINE_SCOPE(json, cJSON *, free_json);

static status *parse_list(const cJSON *array, const char *name, struct text_list *list)
{
	int count = cJSON_GetArraySize(array);
	if (!cJSON_IsArray(array) || count < 1 || count > POLICY_ENTRIES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "policy: a rule needs \"%s\", an array of 1 to %d texts", name,
				     POLICY_ENTRIES);
	list->texts = calloc((size_t)count, sizeof(*list->texts));
	if (list->texts == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "policy: out of memory");
	const cJSON *item = NULL;
	cJSON_ArrayForEach(item, array)
	{
		if (!cJSON_IsString(item) || item->valuestring[0] == '\0' ||
		    strlen(item->valuestring) > LIMIT_NAME)
			return status_errorf(
			    STATUS_INVALID_ARGUMENT,
			    "policy: \"%s\" has an entry that is not a text of 1 to %d "
			    "characters",
			    name, LIMIT_NAME);
		list->texts[list->count] = strdup(item->valuestring);
		if (list->texts[list->count] == NULL)
			return status_errorf(STATUS_RESOURCE_EXHAUSTED, "policy: out of memory");
		list->count++;
	}
	return NULL;
}

/* A '*' elsewhere would look as if it meant something. */
static status *check_list(const struct text_list *list, bool is_identity)
{
	for (size_t i = 0; i < list->count; i++) {
		const char *text = list->texts[i];
		const char *star = strchr(text, '*');
		bool is_all = strcmp(text, "*") == 0;
		if (is_identity && star != NULL && !is_all &&
		    (strncmp(text, "*.", 2) != 0 || strchr(star + 1, '*') != NULL))
			return status_errorf(
			    STATUS_INVALID_ARGUMENT,
			    "policy: identity '%s' may have a '*' only alone or at its "
			    "start, as in *.example.org",
			    text);
		if (!is_identity && !is_all && text[0] != '/')
			return status_errorf(
			    STATUS_INVALID_ARGUMENT,
			    "policy: method '%s' is neither /service/Method, /service/* "
			    "nor *",
			    text);
		if (!is_identity && star != NULL && !is_all && (star[1] != '\0' || star[-1] != '/'))
			return status_errorf(
			    STATUS_INVALID_ARGUMENT,
			    "policy: method '%s' may have a '*' only in place of the "
			    "method's name",
			    text);
	}
	return NULL;
}

static status *parse_rule(const cJSON *json, struct rule *rule)
{
	const cJSON *item = NULL;
	const cJSON *identities = NULL;
	const cJSON *methods = NULL;
	if (!cJSON_IsObject(json))
		return status_errorf(STATUS_INVALID_ARGUMENT, "policy: a rule is not an object");
	cJSON_ArrayForEach(item, json)
	{
		if (strcmp(item->string, "identities") == 0 && identities == NULL)
			identities = item;
		else if (strcmp(item->string, "methods") == 0 && methods == NULL)
			methods = item;
		else
			return status_errorf(
			    STATUS_INVALID_ARGUMENT,
			    "policy: a rule has an unknown or repeated member \"%s\"",
			    item->string);
	}
	status *st = parse_list(identities, "identities", &rule->identities);
	if (st == NULL)
		st = parse_list(methods, "methods", &rule->methods);
	if (st == NULL)
		st = check_list(&rule->identities, true);
	return st != NULL ? st : check_list(&rule->methods, false);
}

static status *parse_rules(const cJSON *array, struct policy *policy)
{
	int count = cJSON_GetArraySize(array);
	if (!cJSON_IsArray(array) || count > POLICY_RULES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "policy: \"rules\" must be an array of at most %d rules",
				     POLICY_RULES);
	policy->rules = calloc((size_t)count + 1, sizeof(*policy->rules));
	if (policy->rules == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "policy: out of memory");
	const cJSON *item = NULL;
	cJSON_ArrayForEach(item, array)
	{
		status *st = parse_rule(item, &policy->rules[policy->rule_count++]);
		if (st != NULL)
			return st;
	}
	return NULL;
}

static status *parse_object(const cJSON *root, struct policy *policy)
{
	const cJSON *item = NULL;
	const cJSON *rules = NULL;
	if (!cJSON_IsObject(root))
		return status_errorf(STATUS_INVALID_ARGUMENT, "policy: not a JSON object");
	cJSON_ArrayForEach(item, root)
	{
		if (strcmp(item->string, "rules") == 0 && rules == NULL)
			rules = item;
		else if (strcmp(item->string, "insecure") == 0 && cJSON_IsBool(item))
			policy->is_insecure = cJSON_IsTrue(item);
		else
			return status_errorf(
			    STATUS_INVALID_ARGUMENT,
			    "policy: unknown, repeated or wrongly typed member \"%s\"",
			    item->string);
	}
	if (rules != NULL)
		return parse_rules(rules, policy);
	policy->is_default = true;
	return NULL;
}

status *policy_parse(const char *json, struct policy **ret_policy)
{
	scoped(policy) struct policy *policy = calloc(1, sizeof(*policy));
	if (policy == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "policy: out of memory");
	policy->is_default = json == NULL;
	if (json != NULL) {
		const char *end = NULL;
		if (strlen(json) > LIMIT_CONFIG)
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "policy: longer than %d bytes", LIMIT_CONFIG);
		scoped(json) cJSON *root = cJSON_ParseWithOpts(json, &end, true);
		if (root == NULL)
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "policy: not valid JSON at byte %td",
					     end != NULL ? end - json : (ptrdiff_t)0);
		status *st = parse_object(root, policy);
		if (st != NULL)
			return st;
	}
	*ret_policy = TAKE(policy);
	return NULL;
}

static bool method_matches(const char *pattern, const char *method)
{
	size_t length = strlen(pattern);
	if (strcmp(pattern, "*") == 0 || strcmp(pattern, method) == 0)
		return true;
	return length > 1 && pattern[length - 1] == '*' &&
	       strncmp(pattern, method, length - 1) == 0;
}

/* "*.example.org" stands for any one name below: not for example.org, nor for a.b.example.org. */
static bool name_matches(const char *pattern, const char *name)
{
	if (strcmp(pattern, "*") == 0 || strcmp(pattern, name) == 0)
		return true;
	const char *dot = strchr(name, '.');
	return strncmp(pattern, "*.", 2) == 0 && dot != NULL && dot != name &&
	       strcmp(pattern + 1, dot) == 0;
}

static bool identity_matches(const char *pattern, const struct identity *id)
{
	if (name_matches(pattern, id->name))
		return true;
	for (unsigned i = 0; i < id->name_count; i++)
		if (name_matches(pattern, id->names[i]))
			return true;
	return false;
}

static bool rule_allows(const struct rule *rule, const struct identity *caller, const char *method)
{
	bool is_caller = false;
	for (size_t i = 0; i < rule->identities.count && !is_caller; i++) {
		const char *pattern = rule->identities.texts[i];
		/* A name that nobody proved must not open what a rule gives to that name. */
		is_caller = caller->is_authenticated ? identity_matches(pattern, caller)
						     : strcmp(pattern, "*") == 0;
	}
	for (size_t i = 0; i < rule->methods.count && is_caller; i++)
		if (method_matches(rule->methods.texts[i], method))
			return true;
	return false;
}

static bool default_allows(const char *method)
{
	/* Not Health/Watch: each stream holds one of the data ports that migrations need. */
	return method_matches("/haul.v1.Peer/*", method) ||
	       method_matches("/haul.v1.Node/Info", method) ||
	       method_matches("/haul.v1.Reflection/*", method) ||
	       method_matches("/grpc.health.v1.Health/Check", method);
}

status *policy_check(const struct policy *policy, const struct identity *caller, const char *method)
{
	if (caller->is_local)
		return NULL;
	if (!caller->is_authenticated && !policy->is_insecure)
		return status_errorf(STATUS_UNAUTHENTICATED,
				     "%s needs a certificate that our authority signed", method);
	bool is_allowed = policy->is_default && default_allows(method);
	for (size_t i = 0; i < policy->rule_count && !is_allowed; i++)
		is_allowed = rule_allows(&policy->rules[i], caller, method);
	if (is_allowed)
		return NULL;
	return status_errorf(STATUS_PERMISSION_DENIED,
			     "'%s' may not call %s; a rule in the policy file could allow it",
			     caller->name, method);
}
