/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/reflection.h"

#include <string.h>

#include "haul/v1/migrations.pb-c.h"
#include "haul/v1/reflection.pb-c.h"
#include "proto/pack.h"
#include "proto/schema.h"
#include "proto/wire.h"
#include "tests/unit/test.h"

static struct rpc_service services[2];
static struct reflection *reflection;

static int start(void **state)
{
	(void)state;
	assert_ok(reflection_new(services, array_len(services), own_descriptor_set,
				 own_descriptor_set_size, &reflection));
	services[0] = (struct rpc_service){.descriptor = &haul__v1__migrations__descriptor,
					   .handlers = NULL,
					   .self = NULL};
	services[1] = reflection_service(reflection);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	reflection_free(reflection);
	return 0;
}

static status *ask(const char *symbol, ProtobufCMessage **ret_response)
{
	Haul__V1__FileContainingSymbolRequest request =
	    HAUL__V1__FILE_CONTAINING_SYMBOL_REQUEST__INIT;
	const struct rpc_call call = {0};

	request.symbol = (char *)symbol;
	return services[1].handlers[1](services[1].self, &call, &request.base, ret_response);
}

/* What a client makes of the answer. */
static struct schema *schema_of(const ProtobufCMessage *response)
{
	const Haul__V1__FileDescriptorResponse *files =
	    (const Haul__V1__FileDescriptorResponse *)response;
	scoped(wire_out) struct wire_out set = {0};
	struct schema *schema = NULL;

	for (size_t i = 0; i < files->n_file_descriptor_proto; i++)
		assert_ok(wire_put_bytes(&set, 1, files->file_descriptor_proto[i].data,
					 files->file_descriptor_proto[i].len));
	assert_ok(schema_load(set.buffer.data, set.buffer.size, &schema));
	return schema;
}

static void the_services_are_listed_with_itself(void **state)
{
	Haul__V1__ListServicesRequest request = HAUL__V1__LIST_SERVICES_REQUEST__INIT;
	scoped(message) ProtobufCMessage *response = NULL;
	const struct rpc_call call = {0};
	(void)state;

	assert_ok(services[1].handlers[0](services[1].self, &call, &request.base, &response));
	const Haul__V1__ListServiceResponse *list = (const Haul__V1__ListServiceResponse *)response;
	assert_int_equal(list->n_service, 2);
	assert_string_equal(list->service[0]->name, "haul.v1.Migrations");
	assert_string_equal(list->service[1]->name, "haul.v1.Reflection");
}

static void a_symbol_comes_with_all_that_its_file_imports(void **state)
{
	scoped(message) ProtobufCMessage *response = NULL;
	(void)state;

	assert_ok(ask("haul.v1.Migrations", &response));
	/* migrations.proto, pipe.proto, envelope.proto, and nothing else. */
	assert_int_equal(
	    ((const Haul__V1__FileDescriptorResponse *)response)->n_file_descriptor_proto, 3);
	scoped(schema) struct schema *schema = schema_of(response);
	const struct schema_service *service = schema_service(schema, "haul.v1.Migrations");
	assert_non_null(service);
	assert_null(schema_service(schema, "haul.v1.Peer"));
	const struct schema_message *event = method_event(service_method(service, "Watch"));
	assert_non_null(event);
	assert_string_equal(event->name, "haul.v1.Migration");
}

static void every_kind_of_symbol_is_found(void **state)
{
	static const char *const symbols[] = {"haul.v1.Peer",
					      "haul.v1.Peer.Commit",
					      "haul.v1.Outcome",
					      "haul.v1.OpenFile",
					      "haul.v1.Status.Detail",
					      "haul.v1.ResolveRequest.Act",
					      "grpc.health.v1.Health.Check"};
	(void)state;

	for (size_t i = 0; i < array_len(symbols); i++) {
		scoped(message) ProtobufCMessage *response = NULL;
		assert_ok(ask(symbols[i], &response));
		schema_free(schema_of(response));
	}
}

static void what_is_not_there_is_not_found(void **state)
{
	static const char *const symbols[] = {"",
					      ".",
					      "haul",
					      "haul.v1",
					      "haul.v1.",
					      "haul.v1.Peers",
					      "haul.v1.Peer.Nothing",
					      "haul.v1.Status.Nothing",
					      "haul.v1.OpenFile.path",
					      "Peer",
					      "haul.descriptor.File"};
	(void)state;

	for (size_t i = 0; i < array_len(symbols); i++) {
		ProtobufCMessage *response = NULL;
		assert_code(ask(symbols[i], &response), STATUS_NOT_FOUND);
		assert_null(response);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(the_services_are_listed_with_itself),
	    cmocka_unit_test(a_symbol_comes_with_all_that_its_file_imports),
	    cmocka_unit_test(every_kind_of_symbol_is_found),
	    cmocka_unit_test(what_is_not_there_is_not_found),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
