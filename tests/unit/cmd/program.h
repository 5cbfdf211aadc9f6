/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl as users start it. */
#ifndef HAUL_TESTS_UNIT_CMD_PROGRAM_H
#define HAUL_TESTS_UNIT_CMD_PROGRAM_H

#include <sys/types.h>

enum { OUTPUT = 16384, ARGUMENTS = 12 };

struct started {
	pid_t pid;
	int out, err;
};

struct outcome {
	int exit;
	char out[OUTPUT], err[OUTPUT];
};

/* With --local=url, unless it is "". `input` is its standard input; NULL: nothing. */
struct started program_start(const char *url, const char *const arguments[ARGUMENTS],
			     const char *input);
struct outcome program_end(struct started *started);

/* Fails unless the text has that part. */
void says(const char *text, const char *part);

#endif
