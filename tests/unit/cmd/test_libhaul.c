/* SPDX-License-Identifier: Apache-2.0 */
/* libhaul as programs use it, against an engine that only pretends. */
#include "tests/unit/cmd/pretend.h"

#include <protobuf-c/protobuf-c.h>

#include "rpc/libhaul/internal.h"

static struct haul_client *client;

static void connect_to(enum ending ending)
{
	engine_start(ending);
	assert_null(haul_connect(engine.url, NULL, &client));
}

static int leave(void **state)
{
	(void)state;
	haul_disconnect(client);
	client = NULL;
	engine_stop();
	return 0;
}

/* Frees it. */
static void expect(struct haul_error *error, enum haul_code code, const char *message)
{
	assert_string_equal(haul_code_name(haul_error_code(error)), haul_code_name(code));
	says(haul_error_message(error), message);
	haul_error_free(error);
}

static void no_error_is_ok(void **state)
{
	const char *label = NULL, *text = NULL;
	(void)state;

	assert_int_equal(haul_error_code(NULL), HAUL_OK);
	assert_string_equal(haul_error_message(NULL), "");
	assert_null(haul_error_reason(NULL));
	assert_null(haul_error_detail(NULL, "next"));
	assert_false(haul_error_detail_at(NULL, 0, &label, &text));
	assert_false(haul_error_may_have_run(NULL));
	assert_string_equal(haul_code_name((enum haul_code)99), "UNKNOWN");
	haul_error_free(NULL);
	haul_migration_free(NULL);
	haul_list_free(NULL);
	haul_node_free(NULL);
	haul_watch_close(NULL);
	haul_disconnect(NULL);
	assert_string_equal(haul_version(), HAUL_VERSION);
}

static void what_a_client_needs_is_checked_at_once(void **state)
{
	struct haul_tls tls = HAUL_TLS_INIT;
	struct haul_client *none = NULL;
	(void)state;

	expect(haul_connect("http://a", NULL, &none), HAUL_INVALID_ARGUMENT, "http://a");
	expect(haul_connect("tls+tcp://a:1", NULL, &none), HAUL_FAILED_PRECONDITION, "certificate");
	expect(haul_connect("tls+tcp://a:1", &tls, &none), HAUL_INVALID_ARGUMENT, "all three");
	tls.ca = tls.cert = tls.key = "/nowhere/file.pem";
	expect(haul_connect("tls+tcp://a:1", &tls, &none), HAUL_INVALID_ARGUMENT,
	       "/nowhere/file.pem");
	tls.size = 0;
	expect(haul_connect("tls+tcp://a:1", &tls, &none), HAUL_INVALID_ARGUMENT, "initialised");
	assert_null(none);
}

static void an_engine_that_is_not_there_has_a_reason_and_did_nothing(void **state)
{
	struct haul_client *nobody = NULL;
	struct haul_migration *migration = NULL;
	(void)state;

	assert_null(haul_connect("ipc:///nowhere/hauld.sock", NULL, &nobody));
	haul_set_timeout(nobody, 200);
	struct haul_error *error = haul_get(nobody, "7f3a", &migration);
	assert_string_equal(haul_error_reason(error), "NOT_CONNECTED");
	assert_false(haul_error_may_have_run(error));
	expect(error, HAUL_UNAVAILABLE, "not connected");
	assert_null(migration);
	haul_disconnect(nobody);
}

static void a_struct_of_another_header_is_read_as_far_as_it_goes(void **state)
{
	struct {
		struct haul_filter known;
		uint64_t newer;
	} filter = {.known = HAUL_FILTER_INIT};
	struct haul_list *list = NULL;
	(void)state;

	connect_to(END_NEVER);
	filter.known.size = sizeof(filter);
	assert_null(haul_list(client, &filter.known, &list));
	haul_list_free(list);
	filter.newer = 1;
	expect(haul_list(client, &filter.known, &list), HAUL_INVALID_ARGUMENT, "does not know");
	/* Of an older one: `limit` is not in it. */
	filter.known.size = offsetof(struct haul_filter, limit);
	filter.known.limit = 1;
	assert_null(haul_list(client, &filter.known, &list));
	assert_int_equal(list->count, 3);
	haul_list_free(list);
}

static void a_list_has_all_pages_or_as_many_as_asked_for(void **state)
{
	struct haul_filter filter = HAUL_FILTER_INIT;
	struct haul_list *list = NULL;
	(void)state;

	connect_to(END_NEVER);
	assert_null(haul_list(client, NULL, &list));
	assert_int_equal(list->count, 3);
	assert_string_equal(list->migrations[2]->workload, "pid:42");
	haul_list_free(list);
	filter.limit = 2;
	filter.states = 1U << HAUL_STATE_RUNNING;
	assert_null(haul_list(client, &filter, &list));
	assert_int_equal(list->count, 2);
	haul_list_free(list);
}

static void a_list_without_an_end_is_given_up(void **state)
{
	struct haul_filter filter = HAUL_FILTER_INIT;
	struct haul_list *list = NULL;
	(void)state;

	connect_to(END_NEVER);
	filter.workload = "endless";
	expect(haul_list(client, &filter, &list), HAUL_RESOURCE_EXHAUSTED, "does not end");
	assert_null(list);
}

static void a_migration_is_started_and_a_refusal_has_its_details(void **state)
{
	struct haul_options options = HAUL_OPTIONS_INIT;
	struct haul_migration *migration = NULL;
	const char *label = NULL, *text = NULL;
	(void)state;

	connect_to(END_NEVER);
	assert_null(haul_start(client, "pid:42", "tls+tcp://b:7777", &options, &migration));
	assert_string_equal(migration->id, "7f3a");
	assert_int_equal(migration->state, HAUL_STATE_RUNNING);
	haul_migration_free(TAKE(migration));
	struct haul_error *error = haul_start(client, "pid:1", "x", NULL, &migration);
	assert_string_equal(haul_error_detail(error, "next"), "look again");
	assert_true(haul_error_detail_at(error, 0, &label, &text));
	assert_string_equal(label, "next");
	assert_true(haul_error_may_have_run(error));
	expect(error, HAUL_NOT_FOUND, "there is no process");
	options.tcp = 7;
	expect(haul_start(client, "pid:42", "x", &options, &migration), HAUL_INVALID_ARGUMENT,
	       "there is no 7");
	assert_null(migration);
}

static void ids_that_cannot_be_are_refused_here(void **state)
{
	struct haul_watch *watch = NULL;
	char id[LIMIT_ID + 2];
	(void)state;

	connect_to(END_NEVER);
	memset(id, 'a', sizeof(id) - 1);
	id[sizeof(id) - 1] = '\0';
	expect(haul_cancel(client, "", NULL), HAUL_INVALID_ARGUMENT, "not a migration's id");
	expect(haul_delete(client, id), HAUL_INVALID_ARGUMENT, "not a migration's id");
	expect(haul_watch_open(client, NULL, 0, &watch), HAUL_INVALID_ARGUMENT, "not a migration");
	assert_null(watch);
	assert_null(haul_delete(client, "7f3a"));
	expect(haul_delete(client, "other"), HAUL_FAILED_PRECONDITION, "not over");
}

static void waiting_ends_with_the_migration_or_its_time(void **state)
{
	struct haul_migration *migration = NULL;
	(void)state;

	connect_to(END_COMPLETED);
	assert_null(haul_wait(client, "7f3a", 0, &migration));
	assert_int_equal(migration->state, HAUL_STATE_COMPLETED);
	haul_migration_free(TAKE(migration));
	engine.ending = END_NEVER;
	struct haul_error *error = haul_wait(client, "7f3a", 300, &migration);
	assert_string_equal(haul_error_detail(error, "state"), "it goes on by itself");
	expect(error, HAUL_DEADLINE_EXCEEDED, "RUNNING still, in stage pre-copy");
	assert_null(migration);
}

struct seen {
	unsigned count, most;
	int state;
	uint64_t sequence;
};

static bool see(void *self, const struct haul_migration *migration)
{
	struct seen *seen = self;

	seen->state = migration->state;
	seen->sequence = migration->sequence;
	if (engine.ending == END_BREAKS)
		atomic_store(&engine.may_break, true);
	return ++seen->count != seen->most;
}

static void a_watch_shows_each_change_until_the_end(void **state)
{
	struct seen seen = {0};
	(void)state;

	connect_to(END_COMPLETED);
	assert_null(haul_watch(client, "7f3a", see, &seen));
	assert_int_equal(seen.count, 2);
	assert_int_equal(seen.state, HAUL_STATE_COMPLETED);
}

static void a_watch_ends_when_the_program_wants_no_more(void **state)
{
	struct seen seen = {.most = 1};
	(void)state;

	connect_to(END_NEVER);
	assert_null(haul_watch(client, "7f3a", see, &seen));
	assert_int_equal(seen.count, 1);
}

static void a_watch_that_breaks_goes_on_behind_what_was_seen(void **state)
{
	struct seen seen = {0};
	(void)state;

	connect_to(END_BREAKS);
	assert_null(haul_watch(client, "7f3a", see, &seen));
	assert_int_equal(atomic_load(&engine.watches), 2);
	assert_int_equal(engine.seen, 1);
	assert_int_equal(seen.state, HAUL_STATE_COMPLETED);
}

static void an_engine_that_stays_lost_is_unavailable(void **state)
{
	struct seen seen = {0};
	(void)state;

	connect_to(END_DIES);
	haul_set_timeout(client, 1000);
	expect(haul_watch(client, "7f3a", see, &seen), HAUL_UNAVAILABLE, "still dead");
	assert_true(atomic_load(&engine.watches) > 2);
}

static void *stop_watch(void *watch)
{
	await(&engine.is_watched);
	haul_watch_stop(watch);
	return NULL;
}

static void a_watch_is_stopped_by_another_thread(void **state)
{
	struct haul_migration *migration = NULL;
	struct haul_watch *watch = NULL;
	pthread_t stopper;
	(void)state;

	connect_to(END_NEVER);
	assert_null(haul_watch_open(client, "7f3a", 0, &watch));
	assert_null(haul_watch_next(watch, WAIT_MS, &migration));
	haul_migration_free(TAKE(migration));
	expect(haul_watch_next(watch, 10, &migration), HAUL_DEADLINE_EXCEEDED, "");
	assert_int_equal(pthread_create(&stopper, NULL, stop_watch, watch), 0);
	expect(haul_watch_next(watch, WAIT_MS, &migration), HAUL_CANCELLED, "stopped");
	assert_int_equal(pthread_join(stopper, NULL), 0);
	expect(haul_watch_next(watch, WAIT_MS, &migration), HAUL_CANCELLED, "stopped");
	assert_null(migration);
	haul_watch_close(watch);
}

static void an_interrupted_client_takes_no_calls_until_it_is_resumed(void **state)
{
	struct haul_migration *migration = NULL;
	(void)state;

	connect_to(END_NEVER);
	haul_interrupt(client);
	expect(haul_get(client, "7f3a", &migration), HAUL_CANCELLED, "");
	expect(haul_wait(client, "7f3a", 0, &migration), HAUL_CANCELLED, "");
	haul_resume(client);
	assert_null(haul_get(client, "7f3a", &migration));
	haul_migration_free(migration);
}

static void limits_are_changed_and_what_is_0_stays(void **state)
{
	struct haul_limits limits = HAUL_LIMITS_INIT;
	struct haul_migration *migration = NULL;
	(void)state;
	connect_to(END_NEVER);
	limits.bandwidth_bytes_per_s = 1000;
	assert_null(haul_adjust(client, "7f3a", &limits, &migration));
	assert_string_equal(migration->stage, "pre-copy");
	haul_migration_free(migration);
	assert_true(atomic_load(&engine.bandwidth) == 1000);
	assert_int_equal(atomic_load(&engine.max_downtime_ms), 0);
	limits.bandwidth_bytes_per_s = 0;
	limits.no_bandwidth_limit = true;
	limits.max_downtime_ms = 50;
	assert_null(haul_adjust(client, "7f3a", &limits, NULL));
	assert_true(atomic_load(&engine.bandwidth) == UINT64_MAX);
	assert_int_equal(atomic_load(&engine.max_downtime_ms), 50);
	expect(haul_adjust(client, "", &limits, NULL), HAUL_INVALID_ARGUMENT, "id");
}

static void sockets_are_named_to_the_engine(void **state)
{
	(void)state;
	connect_to(END_NEVER);
	expect(haul_accept(client, "a", 3, 4, 5), HAUL_INVALID_ARGUMENT, "a by 3, 4 and 5");
}

/* A call that has a token, on a thread of its own. */
static void *ask_and_wait(void *token)
{
	static const uint8_t attend[] = "\x0a\x06"
					"attend";
	struct haul_request request = HAUL_REQUEST_INIT;
	struct haul_reply *reply = NULL;
	request.method = "haul.v1.Migrations/Get";
	request.message = attend;
	request.message_bytes = sizeof(attend) - 1;
	request.token = token;
	return haul_exchange(client, &request, &reply);
}

static void one_call_is_cancelled_by_its_token(void **state)
{
	struct haul_migration *migration = NULL;
	struct haul_token *token = haul_token_new();
	pthread_t thread;
	void *error = NULL;
	(void)state;
	assert_non_null(token);
	connect_to(END_NEVER);
	assert_int_equal(pthread_create(&thread, NULL, ask_and_wait, token), 0);
	await(&engine.is_attending);
	haul_token_cancel(client, token);
	assert_int_equal(pthread_join(thread, &error), 0);
	expect(error, HAUL_CANCELLED, "cancelled");
	/* The engine has stopped, too, and the client's other calls go on. */
	while (atomic_load(&engine.is_attending))
		(void)nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	assert_null(haul_get(client, "7f3a", &migration));
	haul_migration_free(migration);
	expect(ask_and_wait(token), HAUL_CANCELLED, "cancelled");
	haul_token_free(token);
}

static void any_method_is_called_with_packed_messages(void **state)
{
	static const uint8_t request[] = {0x0a, 4, '7', 'f', '3', 'a'};
	uint8_t *response = NULL;
	size_t size = 0;
	(void)state;

	connect_to(END_NEVER);
	assert_null(haul_call(client, "haul.v1.Migrations/Get", request, sizeof(request), &response,
			      &size));
	assert_true(size > sizeof(request));
	assert_memory_equal(response, request, sizeof(request));
	haul_bytes_free(TAKE(response));
	assert_null(haul_call(client, "/haul.v1.Migrations/Get", NULL, 0, &response, &size));
	haul_bytes_free(TAKE(response));
	expect(haul_call(client, "haul.v1.Migrations/Fly", NULL, 0, &response, &size),
	       HAUL_UNIMPLEMENTED, "");
	expect(haul_call(client, "Get", NULL, 0, &response, &size), HAUL_INVALID_ARGUMENT,
	       "not SERVICE/METHOD");
	expect(haul_call(client, "haul.v1.Migrations/Get", request, 3, &response, &size),
	       HAUL_INVALID_ARGUMENT, "");
	assert_null(response);
}

/* What a newer engine says stays in `wire`. */
static void a_view_has_the_whole_message_with_it(void **state)
{
	static const uint8_t bytes[] = {
	    0x0a, 1,	'a',			  /* id */
	    0x10, 9,				  /* state, a newer one */
	    0x52, 2,	0x08, 7,		  /* a round: 7 pages */
	    0x92, 0x01, 4,    0x08, 5,	 0x12, 0, /* error: NOT_FOUND */
	    0xaa, 0x01, 1,    'n',		  /* a note */
	    0xa2, 0x06, 3,    'n',  'e', 'w',	  /* field 100 */
	};
	ProtobufCMessage *message = NULL;
	struct haul_migration *view = NULL;
	(void)state;

	assert_ok(unpack_message(&haul__v1__migration__descriptor, bytes, sizeof(bytes),
				 sizeof(bytes), &message));
	assert_ok(migration_view((Haul__V1__Migration *)message, &view));
	assert_string_equal(view->id, "a");
	assert_string_equal(view->doubt, "");
	assert_int_equal(view->state, 9);
	assert_string_equal(haul_state_name((enum haul_state)view->state), "STATE_UNKNOWN");
	assert_false(haul_state_is_over((enum haul_state)view->state));
	assert_int_equal(view->round_count, 1);
	assert_int_equal(view->rounds[0]->pages_sent, 7);
	assert_int_equal(haul_error_code(view->error), HAUL_NOT_FOUND);
	assert_string_equal(view->notes[0], "n");
	assert_non_null(memmem(view->wire, view->wire_bytes, "new", 3));
	haul_migration_free(view);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(no_error_is_ok),
	    cmocka_unit_test(what_a_client_needs_is_checked_at_once),
	    cmocka_unit_test(an_engine_that_is_not_there_has_a_reason_and_did_nothing),
	    cmocka_unit_test_teardown(a_struct_of_another_header_is_read_as_far_as_it_goes, leave),
	    cmocka_unit_test_teardown(a_list_has_all_pages_or_as_many_as_asked_for, leave),
	    cmocka_unit_test_teardown(a_list_without_an_end_is_given_up, leave),
	    cmocka_unit_test_teardown(a_migration_is_started_and_a_refusal_has_its_details, leave),
	    cmocka_unit_test_teardown(ids_that_cannot_be_are_refused_here, leave),
	    cmocka_unit_test_teardown(waiting_ends_with_the_migration_or_its_time, leave),
	    cmocka_unit_test_teardown(a_watch_shows_each_change_until_the_end, leave),
	    cmocka_unit_test_teardown(a_watch_ends_when_the_program_wants_no_more, leave),
	    cmocka_unit_test_teardown(a_watch_that_breaks_goes_on_behind_what_was_seen, leave),
	    cmocka_unit_test_teardown(an_engine_that_stays_lost_is_unavailable, leave),
	    cmocka_unit_test_teardown(a_watch_is_stopped_by_another_thread, leave),
	    cmocka_unit_test_teardown(an_interrupted_client_takes_no_calls_until_it_is_resumed,
				      leave),
	    cmocka_unit_test_teardown(limits_are_changed_and_what_is_0_stays, leave),
	    cmocka_unit_test_teardown(sockets_are_named_to_the_engine, leave),
	    cmocka_unit_test_teardown(one_call_is_cancelled_by_its_token, leave),
	    cmocka_unit_test_teardown(any_method_is_called_with_packed_messages, leave),
	    cmocka_unit_test(a_view_has_the_whole_message_with_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
