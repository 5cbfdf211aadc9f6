/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a connection, as proven by its certificate or by the kernel. */
#ifndef HAUL_RPC_IDENTITY_H
#define HAUL_RPC_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/limits.h"

enum { IDENTITY_NAMES = 16 };

struct identity {
	bool is_local;	       /* over the root-only local socket */
	bool is_authenticated; /* certificate verified, or local; false only with --insecure */
	/* What people call it: first URI or DNS SAN, else the CN; "local" for the local socket. */
	char name[LIMIT_NAME + 1];
	/* All SANs (URI, DNS, IP as text), for the policy. */
	char names[IDENTITY_NAMES][LIMIT_NAME + 1];
	unsigned name_count;
};

bool identity_has_name(const struct identity *id, const char *name);

/* Same peer for the purpose of "who prepared may commit": compares names. */
bool identity_equal(const struct identity *a, const struct identity *b);

#endif
