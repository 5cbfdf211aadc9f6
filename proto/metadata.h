/* SPDX-License-Identifier: Apache-2.0 */
/* What goes along with a call or stream, beside its messages: names and texts, as gRPC's metadata.
 * A name is made of a-z, 0-9, '-', '_' and '.'; those that begin with "haul-" or "grpc-" are for
 * the libraries on both sides and not for who calls them. */
#ifndef HAUL_PROTO_METADATA_H
#define HAUL_PROTO_METADATA_H

#include "haul/v1/envelope.pb-c.h"
#include "proto/status.h"

/* Adds an entry (copied). INVALID_ARGUMENT for a name or value that cannot be, or a reserved name;
 * RESOURCE_EXHAUSTED when there are LIMIT_METADATA already. */
must_check status *metadata_add(Haul__V1__Metadata *metadata, const char *key, const char *value);

/* The same for the libraries themselves: the name may be reserved. */
must_check status *metadata_add_reserved(Haul__V1__Metadata *metadata, const char *key,
					 const char *value);

/* Is this what metadata_add would have made? NULL is. INVALID_ARGUMENT. */
must_check status *metadata_check(const Haul__V1__Metadata *metadata, bool may_be_reserved);

/* The first value of that name, borrowed; NULL when there is none, or no metadata. */
const char *metadata_find(const Haul__V1__Metadata *metadata, const char *key);

/* Heap; free with metadata_free. Without memory the process aborts. */
Haul__V1__Metadata *metadata_new(void);
Haul__V1__Metadata *metadata_copy(const Haul__V1__Metadata *metadata); /* of NULL: NULL */
void metadata_free(Haul__V1__Metadata *metadata);

DEFINE_SCOPE(metadata, Haul__V1__Metadata *, metadata_free);

#endif
