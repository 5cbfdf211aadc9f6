/* SPDX-License-Identifier: Apache-2.0 */
/* Plans as text: "slow,kill-a@17,power-b@23". */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

static const struct {
	const char *word;
	size_t place; /* of a bool in struct plan */
} manners[] = {
    {"lazy", offsetof(struct plan, is_lazy)},	      {"slow", offsetof(struct plan, is_slow)},
    {"restless", offsetof(struct plan, is_restless)}, {"far", offsetof(struct plan, is_far)},
    {"narrow", offsetof(struct plan, is_narrow)},
};

void plan_print(const struct plan *plan, FILE *file)
{
	const char *comma = "";

	for (size_t i = 0; i < array_len(manners); i++) {
		if (*(const bool *)((const char *)plan + manners[i].place)) {
			(void)fprintf(file, "%s%s", comma, manners[i].word);
			comma = ",";
		}
	}
	if (plan->big_journal != 0) {
		(void)fprintf(file, "%sbig-%c:%u", comma, 'a' + plan->big_journal - 1,
			      plan->big_room);
		comma = ",";
	}
	for (unsigned i = 0; i < plan->count; i++, comma = ",")
		(void)fprintf(file, "%s%s@%u", comma, fault_menu[plan->faults[i].fault].name,
			      plan->faults[i].point);
}

bool plan_set_manner(struct plan *plan, const char *word)
{
	for (size_t i = 0; i < array_len(manners); i++) {
		if (strcmp(word, manners[i].word) == 0) {
			*(bool *)((char *)plan + manners[i].place) = true;
			return true;
		}
	}
	return false;
}

static bool parse_word(char *word, struct plan *plan)
{
	char *at = strchr(word, '@'), *colon = strchr(word, ':');

	if (plan_set_manner(plan, word))
		return true;
	if (colon != NULL && strncmp(word, "big-", 4) == 0) {
		plan->big_journal = 1 + word[4] - 'a';
		plan->big_room = (unsigned)strtoul(colon + 1, NULL, 10);
		return true;
	}
	if (at == NULL || plan->count == PLAN_MOST)
		return false;
	*at = '\0';
	for (unsigned i = 0; i < fault_count; i++) {
		if (strcmp(fault_menu[i].name, word) != 0)
			continue;
		plan->faults[plan->count++] =
		    (struct planned){i, (unsigned)strtoul(at + 1, NULL, 10)};
		return true;
	}
	return false;
}

bool plan_parse(char *spec, struct plan *plan)
{
	char *rest = NULL;

	for (char *word = strtok_r(spec, ",", &rest); word != NULL;
	     word = strtok_r(NULL, ",", &rest)) {
		if (!parse_word(word, plan)) {
			(void)fprintf(stderr, "sim: what is \"%s\"?\n", word);
			return false;
		}
	}
	return true;
}
