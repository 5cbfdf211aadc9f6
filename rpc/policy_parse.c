/* SPDX-License-Identifier: Apache-2.0 */
/* A policy file as rules. What is not understood is refused: a typing error must not open a door.
 */
#include <cjson/cJSON.h>
#include <string.h>

#include "rpc/policy_rules.h"

static void free_list(struct text_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->texts[i]);
	free(list->texts);
}

void rules_free(struct rules *rules)
{
	for (size_t i = 0; i < rules->role_count; i++) {
		free(rules->roles[i].name);
		free_list(&rules->roles[i].methods);
	}
	for (size_t i = 0; i < rules->rule_count; i++) {
		free_list(&rules->rules[i].identities);
		free_list(&rules->rules[i].roles);
		free_list(&rules->rules[i].methods);
	}
	for (size_t i = 0; i < rules->limit_count; i++)
		free_list(&rules->limits[i].identities);
	free_list(&rules->migrate_to);
	free_list(&rules->accept_from);
	free(rules->roles);
	free(rules->rules);
	free(rules->limits);
	*rules = (struct rules){0};
}

static void free_json(cJSON *json)
{
	cJSON_Delete(json);
}
DEFINE_SCOPE(json, cJSON *, free_json);

static status *no_memory(void)
{
	return status_errorf(STATUS_RESOURCE_EXHAUSTED, "policy: out of memory");
}

static status *wrong_member(const char *where, const char *name)
{
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "policy: %s has an unknown, repeated or wrongly typed member "
			     "\"%.80s\"",
			     where, name);
}

static status *bad_identity(const char *text)
{
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "policy: identity '%s' may have a '*' only alone, at its start as in "
			     "*.example.org, or for the last part of a URI as in "
			     "spiffe://example.org/node/*",
			     text);
}

/* A '*' elsewhere would look as if it meant something. */
static status *check_identity(const char *text)
{
	const char *star = strchr(text, '*');
	bool is_host = strncmp(text, "*.", 2) == 0 && text[2] != '\0';
	bool is_uri = strstr(text, "://") != NULL && star != NULL && star[1] == '\0' &&
		      star[-1] == '/' && strstr(text, "://") + 3 < star - 1;
	if (star == NULL || strcmp(text, "*") == 0)
		return NULL;
	return (is_host || is_uri) && strchr(star + 1, '*') == NULL ? NULL : bad_identity(text);
}

static status *check_method(const char *text)
{
	const char *star = strchr(text, '*');
	if (strcmp(text, "*") == 0)
		return NULL;
	if (text[0] != '/')
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "policy: method '%s' is neither /service/Method, /service/* nor *", text);
	if (star == NULL || (star[1] == '\0' && star[-1] == '/'))
		return NULL;
	return status_errorf(
	    STATUS_INVALID_ARGUMENT,
	    "policy: method '%s' may have a '*' only in place of the method's name", text);
}

static status *check_role_name(const char *text)
{
	static const char letters[] =
	    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	if (text[strspn(text, letters)] == '\0')
		return NULL;
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "policy: role '%s' has other than letters, digits, - and _", text);
}

/* What a list of texts is called, and what makes a good entry. */
struct list_kind {
	const char *name;
	size_t least;
	status *(*check)(const char *text);
};

static const struct list_kind identities_kind = {"identities", 1, check_identity};
static const struct list_kind methods_kind = {"methods", 1, check_method};
static const struct list_kind roles_kind = {"roles", 1, check_role_name};
static const struct list_kind migrate_to_kind = {"migrate-to", 0, check_identity};
static const struct list_kind accept_from_kind = {"accept-from", 0, check_identity};

static status *parse_entry(const cJSON *item, const struct list_kind *kind, struct text_list *list)
{
	if (!cJSON_IsString(item) || item->valuestring[0] == '\0' ||
	    strlen(item->valuestring) > LIMIT_NAME)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "policy: \"%s\" has an entry that is not a text of 1 to %d "
				     "characters",
				     kind->name, LIMIT_NAME);
	status *st = kind->check(item->valuestring);
	if (st != NULL)
		return st;
	list->texts[list->count] = strdup(item->valuestring);
	return list->texts[list->count++] != NULL ? NULL : no_memory();
}

static status *parse_list(const cJSON *array, const struct list_kind *kind, struct text_list *list)
{
	int count = cJSON_GetArraySize(array);
	const cJSON *item = NULL;
	status *st = NULL;
	if (!cJSON_IsArray(array) || (size_t)count < kind->least || count > POLICY_ENTRIES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "policy: \"%s\" must be an array of %zu to %d texts",
				     kind->name, kind->least, POLICY_ENTRIES);
	list->texts = calloc((size_t)count + 1, sizeof(*list->texts));
	if (list->texts == NULL)
		return no_memory();
	cJSON_ArrayForEach(item, array)
	{
		st = parse_entry(item, kind, list);
		if (st != NULL)
			break;
	}
	return st;
}

static status *parse_rule(const cJSON *json, struct rules *rules)
{
	struct rule *rule = &rules->rules[rules->rule_count++];
	const cJSON *item = NULL;
	status *st = NULL;
	if (!cJSON_IsObject(json))
		return status_errorf(STATUS_INVALID_ARGUMENT, "policy: a rule is not an object");
	cJSON_ArrayForEach(item, json)
	{
		if (strcmp(item->string, "identities") == 0 && rule->identities.texts == NULL)
			st = parse_list(item, &identities_kind, &rule->identities);
		else if (strcmp(item->string, "methods") == 0 && rule->methods.texts == NULL)
			st = parse_list(item, &methods_kind, &rule->methods);
		else if (strcmp(item->string, "roles") == 0 && rule->roles.texts == NULL)
			st = parse_list(item, &roles_kind, &rule->roles);
		else
			st = wrong_member("a rule", item->string);
		if (st != NULL)
			return st;
	}
	if (rule->identities.count > 0 && rule->methods.count + rule->roles.count > 0)
		return NULL;
	return status_errorf(STATUS_INVALID_ARGUMENT,
			     "policy: a rule needs \"identities\", and \"roles\" or \"methods\"");
}

static status *parse_limit(const cJSON *json, struct rules *rules)
{
	struct limit *limit = &rules->limits[rules->limit_count++];
	const struct {
		const char *name;
		unsigned *value;
	} members[] = {{"calls", &limit->most.calls},
		       {"sessions", &limit->most.sessions},
		       {"streams", &limit->most.streams}};
	const cJSON *item = NULL;
	status *st = NULL;
	if (!cJSON_IsObject(json))
		return status_errorf(STATUS_INVALID_ARGUMENT, "policy: a limit is not an object");
	cJSON_ArrayForEach(item, json)
	{
		unsigned *value = NULL;
		for (size_t i = 0; i < array_len(members); i++)
			if (strcmp(item->string, members[i].name) == 0 && *members[i].value == 0)
				value = members[i].value;
		bool is_count = cJSON_IsNumber(item) && item->valuedouble >= 1 &&
				item->valuedouble <= POLICY_LIMIT_MOST &&
				item->valuedouble == (double)(unsigned)item->valuedouble;
		if (value != NULL && is_count)
			*value = (unsigned)item->valuedouble;
		else if (strcmp(item->string, "identities") == 0 && limit->identities.texts == NULL)
			st = parse_list(item, &identities_kind, &limit->identities);
		else
			st = wrong_member("a limit", item->string);
		if (st != NULL)
			return st;
	}
	if (limit->identities.count > 0)
		return NULL;
	return status_errorf(STATUS_INVALID_ARGUMENT, "policy: a limit needs \"identities\"");
}

/* Checks the size of an array of objects, and makes room for them. */
static status *open_array(const cJSON *array, const char *name, size_t size, void **ret_room)
{
	int count = cJSON_GetArraySize(array);
	if (!cJSON_IsArray(array) || count > POLICY_RULES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "policy: \"%s\" must be an array of at most %d objects", name,
				     POLICY_RULES);
	*ret_room = calloc((size_t)count + 1, size);
	return *ret_room != NULL ? NULL : no_memory();
}

static status *parse_rules(const cJSON *array, struct rules *rules)
{
	const cJSON *item = NULL;
	void *room = NULL;
	status *st = open_array(array, "rules", sizeof(*rules->rules), &room);
	rules->rules = room;
	rules->has_rules = true;
	if (st == NULL)
		cJSON_ArrayForEach(item, array)
		{
			st = parse_rule(item, rules);
			if (st != NULL)
				break;
		}
	return st;
}

static status *parse_limits(const cJSON *array, struct rules *rules)
{
	const cJSON *item = NULL;
	void *room = NULL;
	status *st = open_array(array, "limits", sizeof(*rules->limits), &room);
	rules->limits = room;
	if (st == NULL)
		cJSON_ArrayForEach(item, array)
		{
			st = parse_limit(item, rules);
			if (st != NULL)
				break;
		}
	return st;
}

static status *parse_role(const cJSON *item, struct rules *rules)
{
	status *st = check_role_name(item->string);
	if (st != NULL)
		return st;
	if (item->string[0] == '\0' || role_exists(rules, item->string))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "policy: there is a role \"%s\" already; choose another name",
				     item->string);
	struct role *role = &rules->roles[rules->role_count++];
	role->name = strdup(item->string);
	return role->name != NULL ? parse_list(item, &methods_kind, &role->methods) : no_memory();
}

static status *parse_roles(const cJSON *object, struct rules *rules)
{
	int count = cJSON_GetArraySize(object);
	const cJSON *item = NULL;
	status *st = NULL;
	if (!cJSON_IsObject(object) || count > POLICY_RULES)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "policy: \"roles\" must be an object of at most %d roles",
				     POLICY_RULES);
	rules->roles = calloc((size_t)count + 1, sizeof(*rules->roles));
	if (rules->roles == NULL)
		return no_memory();
	cJSON_ArrayForEach(item, object)
	{
		st = parse_role(item, rules);
		if (st != NULL)
			break;
	}
	return st;
}

static status *parse_migrate_to(const cJSON *array, struct rules *rules)
{
	rules->has_migrate_to = true;
	return parse_list(array, &migrate_to_kind, &rules->migrate_to);
}

static status *parse_accept_from(const cJSON *array, struct rules *rules)
{
	rules->has_accept_from = true;
	return parse_list(array, &accept_from_kind, &rules->accept_from);
}

static status *parse_insecure(const cJSON *item, struct rules *rules)
{
	rules->is_insecure = cJSON_IsTrue(item);
	return cJSON_IsBool(item) ? NULL : wrong_member("the file", item->string);
}

/* A rule may name a role that stands behind it, but none that is nowhere. */
static status *check_roles(const struct rules *rules)
{
	for (size_t i = 0; i < rules->rule_count; i++)
		for (size_t j = 0; j < rules->rules[i].roles.count; j++)
			if (!role_exists(rules, rules->rules[i].roles.texts[j]))
				return status_errorf(STATUS_INVALID_ARGUMENT,
						     "policy: a rule names the role \"%s\", which "
						     "is not in \"roles\" and not built in "
						     "(partner, viewer, operator)",
						     rules->rules[i].roles.texts[j]);
	return NULL;
}

static status *parse_object(const cJSON *root, struct rules *rules)
{
	static const struct {
		const char *name;
		status *(*parse)(const cJSON *item, struct rules *rules);
	} members[] = {{"roles", parse_roles},		 {"rules", parse_rules},
		       {"migrate-to", parse_migrate_to}, {"accept-from", parse_accept_from},
		       {"limits", parse_limits},	 {"insecure", parse_insecure}};
	bool is_there[array_len(members)] = {false};
	const cJSON *item = NULL;
	if (!cJSON_IsObject(root))
		return status_errorf(STATUS_INVALID_ARGUMENT, "policy: not a JSON object");
	cJSON_ArrayForEach(item, root)
	{
		size_t i = 0;
		while (i < array_len(members) && strcmp(item->string, members[i].name) != 0)
			i++;
		if (i == array_len(members) || is_there[i])
			return wrong_member("the file", item->string);
		is_there[i] = true;
		status *st = members[i].parse(item, rules);
		if (st != NULL)
			return st;
	}
	return check_roles(rules);
}

status *rules_parse(const char *json, struct rules *rules)
{
	const char *end = NULL;
	if (strlen(json) > LIMIT_CONFIG)
		return status_errorf(STATUS_INVALID_ARGUMENT, "policy: longer than %d bytes",
				     LIMIT_CONFIG);
	scoped(json) cJSON *root = cJSON_ParseWithOpts(json, &end, true);
	if (root == NULL)
		return status_errorf(STATUS_INVALID_ARGUMENT, "policy: not valid JSON at byte %td",
				     end != NULL ? end - json : (ptrdiff_t)0);
	return parse_object(root, rules);
}
