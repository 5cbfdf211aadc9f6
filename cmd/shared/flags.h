/* SPDX-License-Identifier: Apache-2.0 */
/* Command-line flags as tables: one row says how a flag is written, explained, read and kept. */
#ifndef HAUL_CMD_SHARED_FLAGS_H
#define HAUL_CMD_SHARED_FLAGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/status.h"

enum flag_kind {
	FLAG_SWITCH,   /* bool */
	FLAG_TEXT,     /* const char *, borrowed from the arguments; not empty */
	FLAG_CHOICE,   /* const char *, one of the words of `value` ("text|json") */
	FLAG_DURATION, /* int64_t, milliseconds */
	FLAG_NUMBER,   /* uint32_t */
	FLAG_LIST,     /* struct flag_list: may be given again */
};

enum { FLAG_LIST_MOST = 16, FLAG_WORDS_MOST = 8 };

struct flag_list {
	const char *items[FLAG_LIST_MOST];
	size_t count;
};

struct flag {
	const char *name;  /* "--config" */
	const char *value; /* what stands for the value in --help; NULL for a switch */
	enum flag_kind kind;
	size_t offset; /* where it is kept in the set's target */
	const char *help;
};

struct flag_set {
	const struct flag *flags;
	size_t count;
	void *target;
};

/* What is no flag, in order. */
struct flag_words {
	const char *words[FLAG_WORDS_MOST];
	size_t count;
	int used; /* arguments read, flags and words */
};

/* Reads "--name value" and "--name=value"; "--" ends the flags. An earlier set wins over a later
 * one. Stops after `most_words` words.
 * INVALID_ARGUMENT names the argument that is wrong, and the flag that was probably meant. */
must_check status *flags_parse(const struct flag_set *sets, size_t set_count, int argc,
			       char *const *argv, size_t most_words, struct flag_words *ret_words);

/* Gives one flag its value (NULL for a switch) in `target`. */
must_check status *flag_set_value(const struct flag *flag, void *target, const char *value);

/* One aligned paragraph a flag. */
void flags_help(FILE *out, const struct flag *flags, size_t count);

/* The candidate that is nearest to a mistyped word, or NULL when none is near. candidate(self, i)
 * is the i-th, NULL after the last. */
const char *nearest_word(const char *word, const char *(*candidate)(const void *self, size_t i),
			 const void *self);

#endif
