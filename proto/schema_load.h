/* SPDX-License-Identifier: Apache-2.0 */
/* What the two halves of loading share: schema_load.c reads files, schema.c joins them. */
#ifndef HAUL_PROTO_SCHEMA_LOAD_H
#define HAUL_PROTO_SCHEMA_LOAD_H

#include "haul/descriptor.pb-c.h"
#include "proto/pack.h"
#include "proto/schema.h"

/* Things that begin with a pointer to their name. */
struct schema_list {
	void **items;
	size_t count, capacity;
};

struct schema {
	struct schema_list messages, enums, services;
	struct schema_list files; /* as unpacked: names point into them */
	struct schema_list
	    read_services; /* what services[i] was read from, until they are sorted */
};

/* Reads one file; types are not resolved yet. */
must_check status *schema_add_file(struct schema *schema, const uint8_t *data, size_t size);

#endif
