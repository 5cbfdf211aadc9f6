/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of a policy as its file has them: what policy_parse.c makes and policy.c asks. */
#ifndef HAUL_RPC_POLICY_RULES_H
#define HAUL_RPC_POLICY_RULES_H

#include "rpc/policy.h"

enum { POLICY_RULES = 256, POLICY_ENTRIES = 256, POLICY_LIMIT_MOST = 100000 };

struct text_list {
	char **texts;
	size_t count;
};

struct role {
	char *name;
	struct text_list methods;
};

struct rule {
	struct text_list identities;
	struct text_list roles; /* each is one of the file's or a built-in one */
	struct text_list methods;
};

struct limit {
	struct text_list identities;
	struct policy_limits most;
};

struct rules {
	struct role *roles;
	size_t role_count;
	struct rule *rules;
	size_t rule_count;
	struct limit *limits;
	size_t limit_count;
	struct text_list migrate_to, accept_from;
	bool has_rules, has_migrate_to, has_accept_from; /* an empty list allows nobody */
	bool is_insecure;
};

must_check status *rules_parse(const char *json, struct rules *rules); /* filled in part on error */
void rules_free(struct rules *rules);

/* A built-in role, or one of the rules. */
bool role_exists(const struct rules *rules, const char *name);

#endif
