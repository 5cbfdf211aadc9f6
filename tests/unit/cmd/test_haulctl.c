/* SPDX-License-Identifier: Apache-2.0 */
/* haulctl as it is started by users, against an engine that only pretends. */
#include <cjson/cJSON.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "haul/v1/migrations.pb-c.h"
#include "proto/envelope.h"
#include "rpc/pipe.h"
#include "rpc/server.h"
#include "tests/unit/test.h"

enum { OUTPUT = 16384, WAIT_MS = 60000, ARGUMENTS = 12 };

/* How the pretended migration goes. */
enum ending { END_COMPLETED, END_ABORTED, END_DIES, END_WHEN_CANCELLED, END_NEVER };

struct engine {
	char directory[64], url[96];
	enum ending ending;
	atomic_bool is_cancelled, is_watched, is_over;
	struct rpc_server *server;
	pthread_t watch;
	bool has_watch;
	struct pipe *pipe;
};

static struct engine engine;

static Haul__V1__Migration *migration_new(Haul__V1__MigrationState state, const char *stage)
{
	Haul__V1__Migration *migration = calloc(1, sizeof(*migration));

	assert_non_null(migration);
	haul__v1__migration__init(migration);
	migration->id = text_copy("7f3a");
	migration->state = state;
	migration->stage = text_copy(stage);
	migration->workload = text_copy("pid:42");
	migration->peer = text_copy("tls+tcp://b:7777");
	migration->role = text_copy("source");
	migration->tracking = text_copy("none");
	migration->doubt = text_copy("");
	return migration;
}

static void send_change(Haul__V1__MigrationState state, const char *stage, enum status_code code)
{
	Haul__V1__Migration *migration = migration_new(state, stage);

	migration->restored_pid = state == HAUL__V1__MIGRATION_STATE__COMPLETED ? 42 : 0;
	if (code != STATUS_OK) {
		status *st = status_detailf(status_errorf(code, "pid 42 is used"), "state",
					    "it runs at the source");
		migration->error = status_to_wire(st);
		status_free(st);
	}
	status_free(pipe_send_message(engine.pipe, HAUL__V1__FRAME_KIND__FRAME_EVENT,
				      &migration->base, WAIT_MS));
	haul__v1__migration__free_unpacked(migration, NULL);
}

static void await(const atomic_bool *flag)
{
	const struct timespec pause = {.tv_nsec = 2000000};

	while (!atomic_load(flag) && !atomic_load(&engine.is_over))
		(void)nanosleep(&pause, NULL);
}

static void play(void)
{
	send_change(HAUL__V1__MIGRATION_STATE__RUNNING, "pre-copy", STATUS_OK);
	atomic_store(&engine.is_watched, true);
	switch (engine.ending) {
	case END_COMPLETED:
		send_change(HAUL__V1__MIGRATION_STATE__COMPLETED, "over", STATUS_OK);
		break;
	case END_ABORTED:
		send_change(HAUL__V1__MIGRATION_STATE__ABORTED, "over", STATUS_ALREADY_EXISTS);
		break;
	case END_WHEN_CANCELLED:
		await(&engine.is_cancelled);
		send_change(HAUL__V1__MIGRATION_STATE__CANCELLED, "over", STATUS_CANCELLED);
		break;
	case END_NEVER:
		await(&engine.is_over);
		return;
	default:
		return; /* dies */
	}
	status_free(pipe_send_end(engine.pipe, NULL, WAIT_MS));
	struct pipe_in in = {0};
	status *st = pipe_receive(engine.pipe, WAIT_MS, &in); /* the goodbye */
	if (st == NULL)
		pipe_in_drop(&in);
	status_free(st);
}

static void *watch_thread(void *self)
{
	(void)self;
	status *st = pipe_accept(engine.pipe, WAIT_MS);
	if (st == NULL)
		play();
	status_free(st);
	pipe_free(engine.pipe);
	engine.pipe = NULL;
	return NULL;
}

static status *serve_start(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			   ProtobufCMessage **ret_response)
{
	(void)self;
	(void)call;
	if (strcmp(((const Haul__V1__StartRequest *)request)->workload, "pid:42") != 0)
		return status_detailf(status_errorf(STATUS_NOT_FOUND, "there is no process"),
				      "next", "look again");
	*ret_response = &migration_new(HAUL__V1__MIGRATION_STATE__RUNNING, "preflight")->base;
	return NULL;
}

static status *serve_get(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			 ProtobufCMessage **ret_response)
{
	(void)self;
	(void)call;
	(void)request;
	*ret_response = &migration_new(HAUL__V1__MIGRATION_STATE__RUNNING, "pre-copy")->base;
	return NULL;
}

static status *serve_list(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			  ProtobufCMessage **ret_response)
{
	Haul__V1__ListResponse *list = calloc(1, sizeof(*list));

	(void)self;
	(void)call;
	(void)request;
	haul__v1__list_response__init(list);
	list->migrations = calloc(1, sizeof(*list->migrations));
	list->migrations[0] = migration_new(HAUL__V1__MIGRATION_STATE__RUNNING, "pre-copy");
	list->n_migrations = 1;
	*ret_response = &list->base;
	return NULL;
}

static status *serve_cancel(void *self, const struct rpc_call *call,
			    const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	atomic_store(&engine.is_cancelled, true);
	return serve_get(self, call, request, ret_response);
}

static status *serve_watch(void *self, const struct rpc_call *call, const ProtobufCMessage *request,
			   ProtobufCMessage **ret_response)
{
	const struct pipe_place place = {.directory = engine.directory};
	Haul__V1__WatchResponse *response = calloc(1, sizeof(*response));

	(void)self;
	(void)call;
	(void)request;
	haul__v1__watch_response__init(response);
	status *st = pipe_listen(&place, &engine.pipe, &response->pipe);
	if (st != NULL) {
		free(response);
		return st;
	}
	engine.has_watch = pthread_create(&engine.watch, NULL, watch_thread, NULL) == 0;
	*ret_response = &response->base;
	return NULL;
}

static status *serve_resolve(void *self, const struct rpc_call *call,
			     const ProtobufCMessage *request, ProtobufCMessage **ret_response)
{
	return serve_get(self, call, request, ret_response);
}

static status *allow(void *self, const struct identity *caller, const char *method)
{
	(void)self;
	(void)caller;
	(void)method;
	return NULL;
}

static void ignore_call(void *self, const struct rpc_call *call, const status *st, int64_t took_us)
{
	(void)self;
	(void)call;
	(void)st;
	(void)took_us;
}

static void ignore_refusal(void *self, const char *listener, const char *peer, const char *why)
{
	(void)self;
	(void)listener;
	(void)peer;
	(void)why;
}

static void engine_start(enum ending ending)
{
	static const rpc_handler handlers[] = {serve_start,  serve_get,	  serve_list,
					       serve_cancel, serve_watch, serve_resolve};
	static struct rpc_service service;
	const struct rpc_server_config config = {.services = &service,
						 .service_count = 1,
						 .authorize = allow,
						 .observer = {.called = ignore_call,
							      .refused = ignore_refusal}};

	service = (struct rpc_service){&haul__v1__migrations__descriptor, handlers, NULL};
	memset(&engine, 0, sizeof(engine));
	engine.ending = ending;
	(void)snprintf(engine.directory, sizeof(engine.directory), "/tmp/haulctl-XXXXXX");
	assert_non_null(mkdtemp(engine.directory));
	(void)snprintf(engine.url, sizeof(engine.url), "ipc://%s/hauld.sock", engine.directory);
	assert_ok(rpc_start());
	assert_ok(rpc_server_new(&config, &engine.server));
	assert_ok(rpc_server_listen(engine.server, engine.url, NULL, 4));
}

static void engine_stop(void)
{
	char command[128];

	atomic_store(&engine.is_over, true);
	/* The server's threads wrote what is read below. */
	rpc_server_stop(engine.server, WAIT_MS);
	rpc_server_free(engine.server);
	if (engine.has_watch)
		(void)pthread_join(engine.watch, NULL);
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", engine.directory);
	assert_int_equal(system(command), 0);
}

/* A haulctl that was started. */
struct started {
	pid_t pid;
	int out, err;
};

struct outcome {
	int exit;
	char out[OUTPUT], err[OUTPUT];
};

static struct started haulctl_start(const char *const arguments[ARGUMENTS])
{
	static char text[ARGUMENTS + 3][128];
	char *argv[ARGUMENTS + 4];
	int count = 0, out[2], err[2];
	posix_spawn_file_actions_t actions;
	struct started started;

	(void)snprintf(text[count++], sizeof(text[0]), "haulctl");
	if (engine.url[0] != '\0')
		(void)snprintf(text[count++], sizeof(text[0]), "--local=%s", engine.url);
	for (int i = 0; i < ARGUMENTS && arguments[i] != NULL; i++)
		(void)snprintf(text[count++], sizeof(text[0]), "%s", arguments[i]);
	for (int i = 0; i < count; i++)
		argv[i] = text[i];
	argv[count] = NULL;
	assert_int_equal(pipe2(out, O_CLOEXEC) | pipe2(err, O_CLOEXEC), 0);
	assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
	(void)posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	(void)posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	(void)posix_spawn_file_actions_adddup2(&actions, err[1], 2);
	assert_int_equal(posix_spawn(&started.pid, HAULCTL_PATH, &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(out[1]);
	(void)close(err[1]);
	started.out = out[0];
	started.err = err[0];
	return started;
}

static void read_both(const struct started *started, struct outcome *outcome)
{
	struct pollfd fds[2] = {{.fd = started->out, .events = POLLIN},
				{.fd = started->err, .events = POLLIN}};
	char *texts[2] = {outcome->out, outcome->err};
	size_t used[2] = {0, 0};

	while (fds[0].fd >= 0 || fds[1].fd >= 0) {
		assert_true(poll(fds, 2, WAIT_MS) > 0);
		for (size_t i = 0; i < 2; i++) {
			if (fds[i].revents == 0)
				continue;
			ssize_t got = read(fds[i].fd, texts[i] + used[i], OUTPUT - 1 - used[i]);
			if (got <= 0)
				fds[i].fd = -1;
			used[i] += got > 0 ? (size_t)got : 0;
		}
	}
	outcome->out[used[0]] = outcome->err[used[1]] = '\0';
}

static struct outcome haulctl_end(struct started *started)
{
	static struct outcome outcome;
	int wait_status = 0;

	read_both(started, &outcome);
	(void)close(started->out);
	(void)close(started->err);
	assert_int_equal(waitpid(started->pid, &wait_status, 0), started->pid);
	assert_true(WIFEXITED(wait_status));
	outcome.exit = WEXITSTATUS(wait_status);
	return outcome;
}

static struct outcome haulctl(const char *const arguments[ARGUMENTS])
{
	struct started started = haulctl_start(arguments);

	return haulctl_end(&started);
}

static void says(const char *text, const char *part)
{
	if (strstr(text, part) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static void arguments_that_are_wrong_are_named_with_a_hint(void **state)
{
	static const struct {
		const char *arguments[ARGUMENTS];
		const char *says;
	} cases[] = {
	    {{"migrat", "pid:1"}, "did you mean haulctl migrate?"},
	    {{"migrate", "pid:1", "--too", "x"}, "did you mean --to?"},
	    {{"migrate", "--to", "x"}, "an argument is missing"},
	    {{"migrate", "pid:1"}, "--to is missing"},
	    {{"migrate", "pid:1", "pid:2", "--to", "x"}, "one argument too many"},
	    {{"migrate", "pid:1", "--to", "x", "--max-downtime", "9"}, "not a duration"},
	    {{"migrate", "pid:1", "--to", "x", "--max-rounds", "101"}, "at most 100"},
	    {{"migrate", "pid:1", "--to", "x", "--dest-root", "a"}, "not an absolute path"},
	    {{"migrate", "pid:1", "--to", "x", "--tcp", "keep"}, "one of refuse|close"},
	    {{"list", "--all", "--active"}, "exclude each other"},
	    {{"resolve", "7f3a"}, "either --resume"},
	    {{"resolve", "7f3a", "--resume", "--kill"}, "either --resume"},
	    {{"pki", "isue", "a", "b"}, "did you mean haulctl pki issue?"},
	    {{"--server", "tls+tcp://a:1", "node"}, "exclude each other"},
	    {{"--timeout", "0", "node"}, "longer than 0"},
	};
	(void)state;

	engine = (struct engine){.url = "ipc:///nowhere/hauld.sock"};
	for (size_t i = 0; i < array_len(cases); i++) {
		struct outcome outcome = haulctl(cases[i].arguments);
		assert_int_equal(outcome.exit, 64 + STATUS_INVALID_ARGUMENT);
		says(outcome.err, "haulctl: INVALID_ARGUMENT: ");
		says(outcome.err, cases[i].says);
		assert_string_equal(outcome.out, "");
	}
}

static void an_engine_that_is_not_there_is_unavailable_in_text_and_json(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"list", "--json", "--timeout=200ms"};
	(void)state;

	engine = (struct engine){.url = "ipc:///nowhere/hauld.sock"};
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_UNAVAILABLE);
	says(outcome.err, "is hauld running");
	cJSON *json = cJSON_Parse(outcome.out);
	const cJSON *code = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "error"), "code");
	assert_string_equal(cJSON_GetStringValue(code), "UNAVAILABLE");
	cJSON_Delete(json);
}

static void a_migration_is_followed_to_its_report(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to",
							 "tls+tcp://b:7777"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 0);
	says(outcome.err, "pre-copy: round 0");
	says(outcome.out, "migration 7f3a: COMPLETED");
	says(outcome.out, "42 at the destination");
	engine_stop();
}

static void with_json_there_is_exactly_one_object(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to",
							 "tls+tcp://b:7777", "--json"};
	const char *end = NULL;
	(void)state;

	engine_start(END_ABORTED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_ALREADY_EXISTS);
	cJSON *json = cJSON_ParseWithOpts(outcome.out, &end, 0);
	assert_non_null(json);
	assert_string_equal(end, "\n");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "state")), "ABORTED");
	const cJSON *error = cJSON_GetObjectItem(json, "error");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(error, "code")),
			    "ALREADY_EXISTS");
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(error, "details")), 1);
	cJSON_Delete(json);
	engine_stop();
}

static void a_refused_start_is_an_error_with_its_details(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:43", "--to", "x"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_NOT_FOUND);
	assert_string_equal(outcome.err,
			    "haulctl: NOT_FOUND: there is no process\n  next: look again\n");
	engine_stop();
}

static void an_engine_that_dies_meanwhile_leaves_a_way_on(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to", "x"};
	(void)state;

	engine_start(END_DIES);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 64 + STATUS_UNAVAILABLE);
	says(outcome.err, "haulctl show 7f3a");
	engine_stop();
}

static void ctrl_c_cancels_and_waits_for_the_end(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to", "x"};
	(void)state;

	engine_start(END_WHEN_CANCELLED);
	struct started started = haulctl_start(arguments);
	await(&engine.is_watched);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	struct outcome outcome = haulctl_end(&started);
	assert_int_equal(outcome.exit, 64 + STATUS_CANCELLED);
	says(outcome.out, "CANCELLED");
	says(outcome.err, "cancelling");
	assert_true(atomic_load(&engine.is_cancelled));
	engine_stop();
}

static void a_second_ctrl_c_leaves_it_to_itself(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to", "x"};
	(void)state;

	engine_start(END_NEVER);
	struct started started = haulctl_start(arguments);
	await(&engine.is_watched);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	await(&engine.is_cancelled);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	struct outcome outcome = haulctl_end(&started);
	assert_int_equal(outcome.exit, 0);
	says(outcome.out, "haulctl watch 7f3a");
	engine_stop();
}

static void ctrl_c_ends_a_watch_but_not_the_migration(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"watch", "7f3a", "--json"};
	(void)state;

	engine_start(END_NEVER);
	struct started started = haulctl_start(arguments);
	await(&engine.is_watched);
	assert_int_equal(kill(started.pid, SIGINT), 0);
	struct outcome outcome = haulctl_end(&started);
	assert_int_equal(outcome.exit, 0);
	assert_false(atomic_load(&engine.is_cancelled));
	engine_stop();
}

static void detached_only_the_id_is_printed(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"migrate", "pid:42", "--to", "x",
							 "--detach"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 0);
	assert_string_equal(outcome.out, "7f3a\n");
	assert_string_equal(outcome.err, "");
	engine_stop();
}

static void lists_are_json_for_programs(void **state)
{
	static const char *const arguments[ARGUMENTS] = {"list", "--json"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(arguments);
	assert_int_equal(outcome.exit, 0);
	cJSON *json = cJSON_Parse(outcome.out);
	const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "migrations"), 0);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(first, "id")), "7f3a");
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(first, "role")), "source");
	cJSON_Delete(json);
	engine_stop();
}

static void without_accepted_risk_nothing_is_resolved(void **state)
{
	static const char *const refused[ARGUMENTS] = {"resolve", "7f3a", "--kill"};
	static const char *const accepted[ARGUMENTS] = {"resolve",	 "7f3a",     "--kill",
							"--accept-risk", "--reason", "test"};
	(void)state;

	engine_start(END_COMPLETED);
	struct outcome outcome = haulctl(refused);
	assert_int_equal(outcome.exit, 64 + STATUS_FAILED_PRECONDITION);
	says(outcome.err, "memory is lost");
	says(outcome.err, "--accept-risk");
	outcome = haulctl(accepted);
	assert_int_equal(outcome.exit, 0);
	engine_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(arguments_that_are_wrong_are_named_with_a_hint),
	    cmocka_unit_test(an_engine_that_is_not_there_is_unavailable_in_text_and_json),
	    cmocka_unit_test(a_migration_is_followed_to_its_report),
	    cmocka_unit_test(with_json_there_is_exactly_one_object),
	    cmocka_unit_test(a_refused_start_is_an_error_with_its_details),
	    cmocka_unit_test(an_engine_that_dies_meanwhile_leaves_a_way_on),
	    cmocka_unit_test(ctrl_c_cancels_and_waits_for_the_end),
	    cmocka_unit_test(a_second_ctrl_c_leaves_it_to_itself),
	    cmocka_unit_test(ctrl_c_ends_a_watch_but_not_the_migration),
	    cmocka_unit_test(detached_only_the_id_is_printed),
	    cmocka_unit_test(lists_are_json_for_programs),
	    cmocka_unit_test(without_accepted_risk_nothing_is_resolved),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
