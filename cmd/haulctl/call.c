/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl call: any method of any service, with JSON. */
#include <errno.h>
#include <string.h>

#include "cmd/haulctl/described.h"
#include "cmd/haulctl/render_json.h"
#include "haul/v1/pipe.pb-c.h"
#include "proto/clock.h"
#include "proto/envelope.h"
#include "proto/json.h"
#include "proto/wire.h"
#include "rpc/stream.h"

enum { LOOK_MS = 60000 };

static status *read_input(struct buffer *ret_text)
{
	scoped(bytes) uint8_t *text = malloc(LIMIT_UNARY_BYTES + 1);
	size_t used = 0;

	if (text == NULL)
		return status_errnof(ENOMEM, "cannot read the standard input");
	while (used <= LIMIT_UNARY_BYTES) {
		ssize_t got = read(STDIN_FILENO, text + used, LIMIT_UNARY_BYTES + 1 - used);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return status_errnof(errno, "cannot read the standard input");
		if (got == 0)
			break;
		used += (size_t)got;
	}
	*ret_text = (struct buffer){TAKE(text), used};
	return NULL;
}

/* The request that -d says: {} without it. */
static status *make_request(const struct ctl *ctl, const struct schema_message *type,
			    struct buffer *ret_request)
{
	scoped(buffer) struct buffer input = {0};
	scoped(json) cJSON *json = NULL;
	const char *text = ctl->data != NULL ? ctl->data : "{}";
	size_t size = strlen(text);
	status *st = NULL;

	if (strcmp(text, "@") == 0) {
		st = read_input(&input);
		text = (const char *)input.data;
		size = input.size;
	}
	if (st == NULL)
		st = json_parse(text, size, &json);
	if (st == NULL)
		st = json_to_wire(type, json, ret_request);
	return st != NULL ? status_wrapf(st, "-d") : NULL;
}

static status *print_message(const struct ctl *ctl, const struct schema_message *type,
			     const struct wire *wire, bool is_one_line)
{
	cJSON *json = NULL;
	status *st = json_of_wire(type, wire->at, wire->size, ctl->emit_defaults, &json);

	if (st == NULL)
		json_print(stdout, json, is_one_line);
	return st;
}

/* What is left of --max-time, at most `most`. DEADLINE_EXCEEDED when nothing is. */
static status *time_left(int64_t deadline_ms, int64_t most_ms, int64_t *ret_left_ms)
{
	int64_t left_ms = deadline_ms != 0 ? deadline_ms - clock_monotonic_ms() : most_ms;

	if (left_ms <= 0)
		return status_errorf(STATUS_DEADLINE_EXCEEDED, "--max-time is over");
	*ret_left_ms = left_ms < most_ms ? left_ms : most_ms;
	return NULL;
}

/* By field `pipe` of the response. */
static status *open_stream(const struct ctl *ctl, const struct schema_message *type,
			   const struct buffer *response, struct stream **ret_stream)
{
	struct pipe *pipe = NULL;
	scoped(message) ProtobufCMessage *address = NULL;
	struct wire wire = {response->data, response->size};
	struct wire_field next = {0};
	uint32_t number = 0;

	for (size_t i = 0; i < type->field_count; i++)
		if (strcmp(type->fields[i].name, "pipe") == 0)
			number = type->fields[i].number;
	status *st = wire_next(&wire, &next);
	while (st == NULL && next.number != 0 && (next.number != number || next.type != WIRE_BYTES))
		st = wire_next(&wire, &next);
	if (st == NULL && next.number == 0)
		st = status_errorf(STATUS_INTERNAL, "the engine's answer names no pipe");
	if (st == NULL)
		st = unpack_message(&haul__v1__pipe_address__descriptor, next.bytes.at,
				    next.bytes.size, LIMIT_UNARY_BYTES, &address);
	if (st != NULL)
		return st;
	st = pipe_dial((const Haul__V1__PipeAddress *)address, ctl->timeout_ms, &pipe);
	return st == NULL ? stream_new(pipe, false, NULL, ret_stream) : st;
}

/* One object a line, until the end. */
static status *print_events(const struct ctl *ctl, const struct schema_message *event,
			    struct stream *stream, int64_t deadline_ms)
{
	for (;;) {
		scoped(buffer) struct buffer bytes = {0};
		int64_t left_ms = 0;
		bool has_message = false;
		status *st = time_left(deadline_ms, LOOK_MS, &left_ms);
		if (st == NULL)
			st = stream_receive_bytes(stream, left_ms, &bytes, &has_message);
		if (status_code_of(st) == STATUS_DEADLINE_EXCEEDED && left_ms == LOOK_MS) {
			status_free(st); /* nothing new; keepalives tell that the engine is there */
			continue;
		}
		if (st != NULL || !has_message)
			return st;
		const struct wire wire = {bytes.data, bytes.size};
		st = print_message(ctl, event, &wire, true);
		if (st != NULL)
			return st;
	}
}

static status *print_answer(const struct ctl *ctl, const struct schema_method *method,
			    const struct buffer *response, int64_t deadline_ms)
{
	const struct schema_message *event = method_event(method);
	scoped(stream) struct stream *stream = NULL;
	const struct wire wire = {response->data, response->size};

	if (event == NULL)
		return print_message(ctl, method->output, &wire, false);
	status *st = open_stream(ctl, method->output, response, &stream);
	return st != NULL ? st : print_events(ctl, event, stream, deadline_ms);
}

static const struct schema_method *find_method(const struct schema *schema,
					       const struct method_name *name)
{
	const struct schema_service *service = schema_service(schema, name->service);

	return service != NULL ? service_method(service, name->method) : NULL;
}

static status *no_method(const struct method_name *name)
{
	return status_detailf(status_errorf(STATUS_NOT_FOUND, "there is no method %s/%s",
					    name->service, name->method),
			      "next", "haulctl describe %s", name->service);
}

/* Of a method that is there. */
static status *call_method(struct ctl *ctl, const struct method_name *name,
			   const struct schema_method *method, int64_t deadline_ms)
{
	scoped(buffer) struct buffer request = {0};
	scoped(buffer) struct buffer response = {0};

	if (method->is_client_stream || method->is_server_stream)
		return status_errorf(STATUS_UNIMPLEMENTED,
				     "%s/%s is a stream of gRPC's kind; haul has none",
				     name->service, name->method);
	status *st = make_request(ctl, method->input, &request);
	if (st == NULL)
		st = time_left(deadline_ms, ctl->timeout_ms, &ctl->timeout_ms);
	if (st == NULL)
		st = described_call(ctl, name, &request, &response);
	return st != NULL ? st : print_answer(ctl, method, &response, deadline_ms);
}

static status *run(struct ctl *ctl, int *ret_exit)
{
	scoped(schema) struct schema *schema = NULL;
	int64_t deadline_ms = ctl->max_time_ms > 0 ? clock_monotonic_ms() + ctl->max_time_ms : 0;
	struct method_name name;

	(void)ret_exit;
	status *st = method_name_parse(ctl->words.words[0], &name);
	if (st == NULL)
		st = time_left(deadline_ms, ctl->timeout_ms, &ctl->timeout_ms);
	if (st == NULL)
		st = described_load(ctl, name.service, &schema);
	if (st != NULL)
		return st;
	const struct schema_method *method = find_method(schema, &name);
	return method != NULL ? call_method(ctl, &name, method, deadline_ms) : no_method(&name);
}

static const struct flag flags[] = {
    {"-d", "JSON", FLAG_TEXT, CTL_FLAG(data),
     "the request; @ reads it from the standard input (default: {})"},
    {"-H", "'NAME: VALUE'", FLAG_LIST, CTL_FLAG(headers),
     "metadata that goes along with the request; may be given again"},
    {"-v", NULL, FLAG_SWITCH, CTL_FLAG(verbose),
     "print the metadata that came along with the answer, to standard error"},
    {"--emit-defaults", NULL, FLAG_SWITCH, CTL_FLAG(emit_defaults),
     "print also fields that have their default: 0, \"\", false, [], {}"},
    {"--max-time", "D", FLAG_DURATION, CTL_FLAG(max_time_ms),
     "end all of it, a stream too, after this time (default: streams may last)"},
};

const struct command command_call = {
    .name = "call",
    .arguments = "SERVICE/METHOD",
    .summary = "call any method, with JSON",
    .text =
	"Sends a request to any method that the engine serves, and prints the answer, both in "
	"protobuf's\n"
	"JSON: lowerCamelCase names, 64-bit integers in quotes, bytes in base64, enums by name. "
	"What it\n"
	"knows of the method it asks the engine (haul.v1.Reflection), so that it need not be as "
	"new as the\n"
	"engine. A method that streams prints one object a line until it ends.\n\n"
	"example:\n"
	"  haulctl call haul.v1.Migrations/Get -d '{\"id\": \"7f3a2c\"}'\n"
	"  haulctl call grpc.health.v1.Health/Watch --max-time 10s\n",
    .flags = flags,
    .flag_count = array_len(flags),
    .word_count = 1,
    .run = run,
};
