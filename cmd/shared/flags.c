/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/shared/flags.h"

#include <errno.h>
#include <string.h>

#include "cmd/shared/duration.h"

enum {
	NEAREST_LENGTH = 40, /* longer words are not compared */
	NEAREST_EDITS = 3,
	HELP_COLUMN = 26,
	HELP_WIDTH = 96,
};

/* Levenshtein's distance, one row at a time. */
static size_t edits_between(const char *a, const char *b)
{
	size_t row[NEAREST_LENGTH + 1], length = strlen(b);

	for (size_t j = 0; j <= length; j++)
		row[j] = j;
	for (size_t i = 0; a[i] != '\0'; i++) {
		size_t diagonal = row[0];
		row[0] = i + 1;
		for (size_t j = 0; j < length; j++) {
			size_t best = diagonal + (a[i] != b[j]);
			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j + 1] + 1 < best)
				best = row[j + 1] + 1;
			diagonal = row[j + 1];
			row[j + 1] = best;
		}
	}
	return row[length];
}

const char *nearest_word(const char *word, const char *(*candidate)(const void *self, size_t i),
			 const void *self)
{
	const char *best = NULL, *other;
	size_t least = NEAREST_EDITS + 1;

	if (strlen(word) > NEAREST_LENGTH)
		return NULL;
	for (size_t i = 0; (other = candidate(self, i)) != NULL; i++) {
		size_t edits = strlen(other) > NEAREST_LENGTH ? least : edits_between(word, other);
		if (edits < least && edits < strlen(other)) {
			least = edits;
			best = other;
		}
	}
	return best;
}

/* Is the word one of "a|b|c"? */
static bool is_choice(const char *choices, const char *word)
{
	size_t length = strlen(word);

	for (const char *at = choices; length > 0; at++) {
		size_t next = strcspn(at, "|");
		if (next == length && strncmp(at, word, length) == 0)
			return true;
		at += next;
		if (*at == '\0')
			return false;
	}
	return false;
}

static status *set_number(const struct flag *flag, uint32_t *number, const char *value)
{
	char *end = NULL;

	errno = 0;
	unsigned long read = value[0] >= '0' && value[0] <= '9' ? strtoul(value, &end, 10) : 0;
	if (end == NULL || *end != '\0' || errno != 0 || read > UINT32_MAX)
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s: \"%.40s\" is not a number",
				     flag->name, value);
	*number = (uint32_t)read;
	return NULL;
}

static status *add_to_list(const struct flag *flag, struct flag_list *list, const char *value)
{
	if (list->count == FLAG_LIST_MOST)
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s was given more than %d times",
				     flag->name, FLAG_LIST_MOST);
	list->items[list->count++] = value;
	return NULL;
}

status *flag_set_value(const struct flag *flag, void *target, const char *value)
{
	void *place = (char *)target + flag->offset;
	status *st = NULL;

	if (flag->kind != FLAG_SWITCH && value[0] == '\0')
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s: its value (%s) is empty",
				     flag->name, flag->value);
	switch (flag->kind) {
	case FLAG_SWITCH:
		*(bool *)place = true;
		return NULL;
	case FLAG_CHOICE:
		if (!is_choice(flag->value, value))
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "%s: \"%.40s\" is not one of %s", flag->name, value,
					     flag->value);
		*(const char **)place = value;
		return NULL;
	case FLAG_TEXT:
		*(const char **)place = value;
		return NULL;
	case FLAG_DURATION:
		st = duration_parse(value, place);
		return st != NULL ? status_wrapf(st, "%s", flag->name) : NULL;
	case FLAG_NUMBER:
		return set_number(flag, place, value);
	case FLAG_LIST:
		return add_to_list(flag, place, value);
	default:
		return NULL;
	}
}

struct found {
	const struct flag *flag;
	void *target;
};

static struct found find_flag(const struct flag_set *sets, size_t set_count, const char *name,
			      size_t length)
{
	for (size_t s = 0; s < set_count; s++)
		for (size_t i = 0; i < sets[s].count; i++) {
			const struct flag *flag = &sets[s].flags[i];
			if (strlen(flag->name) == length && strncmp(flag->name, name, length) == 0)
				return (struct found){flag, sets[s].target};
		}
	return (struct found){NULL, NULL};
}

struct all_flags {
	const struct flag_set *sets;
	size_t count;
};

static const char *flag_name_at(const void *self, size_t i)
{
	const struct all_flags *all = self;

	for (size_t s = 0; s < all->count; s++) {
		if (i < all->sets[s].count)
			return all->sets[s].flags[i].name;
		i -= all->sets[s].count;
	}
	return NULL;
}

static status *unknown_flag(const struct flag_set *sets, size_t set_count, const char *argument)
{
	char name[NEAREST_LENGTH + 1];
	const struct all_flags all = {sets, set_count};

	(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(argument, "="), argument);
	const char *nearest = nearest_word(name, flag_name_at, &all);
	status *st = status_errorf(STATUS_INVALID_ARGUMENT, "there is no flag %s", name);
	if (nearest != NULL)
		st = status_detailf(st, "next", "did you mean %s?", nearest);
	return st;
}

/* Reads the flag at argv[at]; *ret_used is 1 or 2. */
static status *read_flag(const struct flag_set *sets, size_t set_count, int left, char *const *argv,
			 int *ret_used)
{
	const char *equals = strchr(argv[0], '=');
	size_t length = equals != NULL ? (size_t)(equals - argv[0]) : strlen(argv[0]);
	struct found found = find_flag(sets, set_count, argv[0], length);

	if (found.flag == NULL)
		return unknown_flag(sets, set_count, argv[0]);
	*ret_used = 1;
	if (found.flag->kind == FLAG_SWITCH) {
		if (equals != NULL)
			return status_errorf(STATUS_INVALID_ARGUMENT, "%s takes no value",
					     found.flag->name);
		return flag_set_value(found.flag, found.target, NULL);
	}
	if (equals != NULL)
		return flag_set_value(found.flag, found.target, equals + 1);
	if (left < 2)
		return status_errorf(STATUS_INVALID_ARGUMENT, "%s needs a value: %s %s",
				     found.flag->name, found.flag->name, found.flag->value);
	*ret_used = 2;
	return flag_set_value(found.flag, found.target, argv[1]);
}

status *flags_parse(const struct flag_set *sets, size_t set_count, int argc, char *const *argv,
		    size_t most_words, struct flag_words *ret_words)
{
	struct flag_words words = {0};
	bool only_words = false;
	int at = 0;

	while (at < argc && words.count < most_words) {
		int used = 1;
		if (!only_words && strcmp(argv[at], "--") == 0) {
			only_words = true;
		} else if (!only_words && argv[at][0] == '-' && argv[at][1] != '\0') {
			status *st = read_flag(sets, set_count, argc - at, argv + at, &used);
			if (st != NULL)
				return st;
		} else if (words.count == FLAG_WORDS_MOST) {
			return status_errorf(STATUS_INVALID_ARGUMENT,
					     "\"%.80s\" is one argument too many", argv[at]);
		} else {
			words.words[words.count++] = argv[at];
		}
		at += used;
	}
	words.used = at;
	*ret_words = words;
	return NULL;
}

/* Writes the text from a column on, broken between words. */
static void wrap(FILE *out, const char *text)
{
	int column = HELP_COLUMN;

	while (*text != '\0') {
		int length = (int)strcspn(text, " ");
		if (column + length + 1 > HELP_WIDTH) {
			(void)fprintf(out, "\n%*s", HELP_COLUMN, "");
			column = HELP_COLUMN;
		}
		(void)fprintf(out, " %.*s", length, text);
		column += length + 1;
		text += length;
		text += *text == ' ';
	}
	(void)fputc('\n', out);
}

void flags_help(FILE *out, const struct flag *flags, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int used =
		    fprintf(out, "  %s%s%s", flags[i].name, flags[i].value != NULL ? " " : "",
			    flags[i].value != NULL ? flags[i].value : "");
		if (used > HELP_COLUMN)
			(void)fprintf(out, "\n%*s", HELP_COLUMN, "");
		else
			(void)fprintf(out, "%*s", HELP_COLUMN - used, "");
		wrap(out, flags[i].help);
	}
}
