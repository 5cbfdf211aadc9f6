/* SPDX-License-Identifier: Apache-2.0 */
/* A message as JSON, of a type with every kind of field. */
#include "proto/json.h"
#include "proto/limits.h"
#include "tests/fuzz/fuzz.h"

extern const uint8_t every_descriptor_set[];
extern const size_t every_descriptor_set_size;

static const struct schema_message *every(void)
{
	static struct schema *schema;

	if (schema == NULL) {
		scoped(status) status *st =
		    schema_load(every_descriptor_set, every_descriptor_set_size, &schema);
		must(st == NULL);
	}
	return schema_message(schema, "haul.test.Every");
}

static char *print_wire(const struct buffer *wire)
{
	scoped(json) cJSON *json = NULL;
	scoped(status) status *st = json_of_wire(every(), wire->data, wire->size, false, &json);

	must(st == NULL);
	char *text = cJSON_PrintUnformatted(json);
	must(text != NULL);
	return text;
}

static bool parse(const char *text, size_t size, struct buffer *ret_wire)
{
	scoped(json) cJSON *json = NULL;
	scoped(status) status *st = json_parse(text, size, &json);

	must((st == NULL) == (json != NULL));
	if (st != NULL)
		return false;
	scoped(status) status *refused = json_to_wire(every(), json, ret_wire);
	return refused == NULL;
}

/* What was taken is printed, and that is taken and printed the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	scoped(buffer) struct buffer wire = {0}, again = {0};
	/* No NUL behind it: a read beyond the end is seen. */
	scoped(bytes) uint8_t *text = malloc(size > 0 ? size : 1);

	must(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	if (!parse((const char *)text, size, &wire))
		return 0;
	must(wire.size <= LIMIT_UNARY_BYTES);
	char *first = print_wire(&wire);
	must(parse(first, strlen(first), &again));
	must(again.size == wire.size);
	char *second = print_wire(&again);
	must(strcmp(first, second) == 0);
	cJSON_free(first);
	cJSON_free(second);
	return 0;
}
