/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fake/fake.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The word that begins with `begin`, as far as the next separator. */
static bool find(const char *begin, char *ret_word, size_t room)
{
	const char *all = getenv("HAUL_FAKE_CRIU");
	size_t length = strlen(begin);

	for (const char *at = all != NULL ? all : ""; *at != '\0';) {
		size_t size = strcspn(at, " ,");
		if (size >= length && size < room && strncmp(at, begin, length) == 0) {
			memcpy(ret_word, at, size);
			ret_word[size] = '\0';
			return true;
		}
		at += size;
		at += strspn(at, " ,");
	}
	return false;
}

bool fault_word(const char *word)
{
	char found[64];

	return find(word, found, sizeof(found)) && strcmp(found, word) == 0;
}

bool fault_is(const char *verb, const char *point)
{
	char word[64];

	(void)snprintf(word, sizeof(word), "%s=%s", verb, point);
	return fault_word(word);
}

long fault_number(const char *name, long otherwise)
{
	char begin[32], found[64];

	(void)snprintf(begin, sizeof(begin), "%s=", name);
	return find(begin, found, sizeof(found)) ? strtol(found + strlen(begin), NULL, 10)
						 : otherwise;
}

void fault_point(const char *point)
{
	if (fault_is("die", point))
		(void)raise(SIGKILL);
	while (fault_is("hang", point))
		(void)pause();
}
