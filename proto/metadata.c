/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/metadata.h"

#include <string.h>

#include "proto/limits.h"
#include "proto/pack.h"

static void *must_realloc(void *memory, size_t size)
{
	void *grown = realloc(memory, size);

	if (grown == NULL)
		abort();
	return grown;
}

static bool is_key(const char *key)
{
	size_t length = strlen(key);

	for (size_t i = 0; i < length; i++) {
		bool is_letter = key[i] >= 'a' && key[i] <= 'z';
		bool is_other = (key[i] >= '0' && key[i] <= '9') || strchr("-_.", key[i]) != NULL;
		if (!is_letter && !is_other)
			return false;
	}
	return length > 0 && length <= LIMIT_NAME;
}

/* Printable ASCII: it reaches terminals and logs. */
static bool is_value(const char *value)
{
	size_t length = strlen(value);

	for (size_t i = 0; i < length; i++)
		if (value[i] < ' ' || value[i] > '~')
			return false;
	return length <= LIMIT_NAME;
}

static bool is_reserved(const char *key)
{
	return strncmp(key, "haul-", 5) == 0 || strncmp(key, "grpc-", 5) == 0;
}

static status *check_entry(const char *key, const char *value, bool may_be_reserved)
{
	if (!is_key(key))
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "a name of metadata is 1 to %d characters of a-z 0-9 - _ .",
				     LIMIT_NAME);
	if (!is_value(value))
		return status_errorf(
		    STATUS_INVALID_ARGUMENT,
		    "metadata \"%s\": its value is at most %d characters of printable ASCII", key,
		    LIMIT_NAME);
	if (is_reserved(key) && !may_be_reserved)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "metadata \"%s\": names that begin with haul- or grpc- are "
				     "reserved",
				     key);
	return NULL;
}

static status *add(Haul__V1__Metadata *metadata, const char *key, const char *value,
		   bool may_be_reserved)
{
	status *st = check_entry(key, value, may_be_reserved);

	if (st != NULL)
		return st;
	if (metadata->n_entries >= LIMIT_METADATA)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED,
				     "there are at most %d entries of metadata", LIMIT_METADATA);
	metadata->entries =
	    must_realloc(metadata->entries, (metadata->n_entries + 1) * sizeof(*metadata->entries));
	Haul__V1__Metadata__Entry *entry = must_realloc(NULL, sizeof(*entry));
	haul__v1__metadata__entry__init(entry);
	entry->key = text_copy(key);
	entry->value = text_copy(value);
	metadata->entries[metadata->n_entries++] = entry;
	return NULL;
}

status *metadata_add(Haul__V1__Metadata *metadata, const char *key, const char *value)
{
	return add(metadata, key, value, false);
}

status *metadata_add_reserved(Haul__V1__Metadata *metadata, const char *key, const char *value)
{
	return add(metadata, key, value, true);
}

status *metadata_check(const Haul__V1__Metadata *metadata, bool may_be_reserved)
{
	status *st = NULL;

	if (metadata != NULL && metadata->n_entries > LIMIT_METADATA)
		return status_errorf(STATUS_INVALID_ARGUMENT,
				     "there are %zu entries of metadata, at most %d are possible",
				     metadata->n_entries, LIMIT_METADATA);
	for (size_t i = 0; metadata != NULL && i < metadata->n_entries && st == NULL; i++)
		st = check_entry(metadata->entries[i]->key, metadata->entries[i]->value,
				 may_be_reserved);
	return st;
}

const char *metadata_find(const Haul__V1__Metadata *metadata, const char *key)
{
	for (size_t i = 0; metadata != NULL && i < metadata->n_entries; i++)
		if (strcmp(metadata->entries[i]->key, key) == 0)
			return metadata->entries[i]->value;
	return NULL;
}

Haul__V1__Metadata *metadata_new(void)
{
	Haul__V1__Metadata *metadata = must_realloc(NULL, sizeof(*metadata));

	haul__v1__metadata__init(metadata);
	return metadata;
}

Haul__V1__Metadata *metadata_copy(const Haul__V1__Metadata *metadata)
{
	if (metadata == NULL)
		return NULL;
	Haul__V1__Metadata *copy = metadata_new();
	for (size_t i = 0; i < metadata->n_entries; i++)
		status_free(
		    add(copy, metadata->entries[i]->key, metadata->entries[i]->value, true));
	return copy;
}

void metadata_free(Haul__V1__Metadata *metadata)
{
	if (metadata != NULL)
		haul__v1__metadata__free_unpacked(metadata, NULL);
}
