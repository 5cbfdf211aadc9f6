/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of a server that we were not compiled with, and a message that it sends. */
#include "proto/json.h"
#include "proto/limits.h"
#include "tests/fuzz/fuzz.h"

enum { METHODS_TRIED = 4 };

/* Printed, it is JSON; and when that is not too deep or ambiguous, it is the same again. */
static void try_message(const struct schema_message *type, const uint8_t *data, size_t size)
{
	scoped(json) cJSON *json = NULL;
	scoped(json) cJSON *parsed = NULL;
	scoped(buffer) struct buffer wire = {0};
	scoped(status) status *st = json_of_wire(type, data, size, size % 2 == 1, &json);

	must((st == NULL) == (json != NULL));
	if (st != NULL)
		return;
	char *text = cJSON_PrintUnformatted(json);
	must(text != NULL);
	scoped(status) status *deep = json_parse(text, strlen(text), &parsed);
	if (deep == NULL)
		status_free(json_to_wire(type, parsed, &wire));
	cJSON_free(text);
}

static void try_template(const struct schema_message *type)
{
	scoped(json) cJSON *json = NULL;
	scoped(status) status *st = json_template(type, &json);

	must((st == NULL) == (json != NULL));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	scoped(schema) struct schema *schema = NULL;
	const struct schema_service *service;
	const uint8_t *set;
	size_t length, tried = 0;

	if (!fuzz_piece(&data, &size, 2, &set, &length))
		return 0;
	scoped(status) status *st = schema_load(set, length, &schema);
	must((st == NULL) == (schema != NULL));
	for (size_t i = 0; schema != NULL && (service = schema_service_at(schema, i)) != NULL; i++)
		for (size_t j = 0; j < service->method_count && tried < METHODS_TRIED; j++) {
			(void)method_event(&service->methods[j]);
			try_message(service->methods[j].output, data, size);
			try_template(service->methods[j].input);
			tried++;
		}
	return 0;
}
