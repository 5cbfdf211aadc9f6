/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/shared/flags.h"

#include <string.h>

#include "tests/unit/test.h"

struct settings {
	const char *name, *format;
	int64_t wait_ms;
	uint32_t count;
	bool loud;
	struct flag_list items;
};

static const struct flag flags[] = {
    {"--name", "NAME", FLAG_TEXT, offsetof(struct settings, name), "a name"},
    {"--format", "text|json", FLAG_CHOICE, offsetof(struct settings, format), "a format"},
    {"--wait", "D", FLAG_DURATION, offsetof(struct settings, wait_ms), "a time"},
    {"--count", "N", FLAG_NUMBER, offsetof(struct settings, count), "a number"},
    {"--loud", NULL, FLAG_SWITCH, offsetof(struct settings, loud), "a switch"},
    {"--item", "X", FLAG_LIST, offsetof(struct settings, items), "again and again"},
};

static status *parse(struct settings *settings, struct flag_words *words, const char *a,
		     const char *b, const char *c)
{
	static char text[3][64];
	const char *const given[] = {a, b, c};
	const struct flag_set set = {flags, array_len(flags), settings};
	char *argv[3];
	int argc = 0;

	for (; argc < 3 && given[argc] != NULL; argc++) {
		(void)snprintf(text[argc], sizeof(text[argc]), "%s", given[argc]);
		argv[argc] = text[argc];
	}
	return flags_parse(&set, 1, argc, argv, FLAG_WORDS_MOST, words);
}

static void each_kind_of_flag_is_read(void **state)
{
	struct settings settings = {0};
	struct flag_words words = {0};
	(void)state;

	assert_ok(parse(&settings, &words, "--name=a=b", "--loud", NULL));
	assert_string_equal(settings.name, "a=b");
	assert_true(settings.loud);
	assert_ok(parse(&settings, &words, "--format", "json", "--wait=5s"));
	assert_string_equal(settings.format, "json");
	assert_int_equal(settings.wait_ms, 5000);
	assert_ok(parse(&settings, &words, "--count=4294967295", "--item=1", "--item=2"));
	assert_int_equal(settings.count, UINT32_MAX);
	assert_int_equal(settings.items.count, 2);
}

static void words_stand_anywhere_and_after_two_dashes_everything_is_one(void **state)
{
	struct settings settings = {0};
	struct flag_words words = {0};
	(void)state;

	assert_ok(parse(&settings, &words, "one", "--loud", "two"));
	assert_int_equal(words.count, 2);
	assert_string_equal(words.words[1], "two");
	assert_ok(parse(&settings, &words, "--", "--name", "-"));
	assert_int_equal(words.count, 2);
	assert_string_equal(words.words[0], "--name");
}

static void bad_arguments_are_named(void **state)
{
	static const char *const bad[][2] = {
	    {"--name", NULL},	       {"--name=", NULL},
	    {"--format", "xml"},       {"--format", "text|json"},
	    {"--wait", "5"},	       {"--count", "-1"},
	    {"--count", "4294967296"}, {"--count", "7x"},
	    {"--loud=yes", NULL},      {"-x", NULL},
	};
	struct settings settings = {0};
	struct flag_words words = {0};
	(void)state;

	for (size_t i = 0; i < array_len(bad); i++) {
		scoped(status) status *st = parse(&settings, &words, bad[i][0], bad[i][1], NULL);
		assert_int_equal(status_code_of(st), STATUS_INVALID_ARGUMENT);
		assert_non_null(strstr(status_message(st), bad[i][0][1] == 'x' ? "-x" : "--"));
	}
}

static void the_nearest_flag_is_suggested(void **state)
{
	struct settings settings = {0};
	struct flag_words words = {0};
	(void)state;

	scoped(status) status *near = parse(&settings, &words, "--frmat=json", NULL, NULL);
	assert_string_equal(status_detail_find(near, "next"), "did you mean --format?");
	scoped(status) status *far = parse(&settings, &words, "--entirely-different", NULL, NULL);
	assert_int_equal(status_code_of(far), STATUS_INVALID_ARGUMENT);
	assert_null(status_detail_find(far, "next"));
}

static void too_many_words_and_items_are_refused(void **state)
{
	struct settings settings = {.items = {.count = FLAG_LIST_MOST}};
	struct flag_words words = {0};
	char word[] = "w";
	char *argv[FLAG_WORDS_MOST + 1];
	const struct flag_set set = {flags, array_len(flags), &settings};
	(void)state;

	assert_code(parse(&settings, &words, "--item", "1", NULL), STATUS_INVALID_ARGUMENT);
	for (size_t i = 0; i < array_len(argv); i++)
		argv[i] = word;
	assert_code(flags_parse(&set, 1, FLAG_WORDS_MOST + 1, argv, SIZE_MAX, &words),
		    STATUS_INVALID_ARGUMENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(each_kind_of_flag_is_read),
	    cmocka_unit_test(words_stand_anywhere_and_after_two_dashes_everything_is_one),
	    cmocka_unit_test(bad_arguments_are_named),
	    cmocka_unit_test(the_nearest_flag_is_suggested),
	    cmocka_unit_test(too_many_words_and_items_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
