/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/identity.h"

#include <string.h>

bool identity_has_name(const struct identity *id, const char *name)
{
	if (strcmp(id->name, name) == 0)
		return true;
	for (unsigned i = 0; i < id->name_count; i++)
		if (strcmp(id->names[i], name) == 0)
			return true;
	return false;
}

bool identity_equal(const struct identity *a, const struct identity *b)
{
	return a->is_local == b->is_local && a->is_authenticated == b->is_authenticated &&
	       strcmp(a->name, b->name) == 0;
}
