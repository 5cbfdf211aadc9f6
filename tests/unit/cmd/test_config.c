/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/hauld/config.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cmd/hauld/notify.h"
#include "tests/unit/test.h"

enum { ARGUMENTS = 6 };

/* Reads the arguments up to the first NULL. */
static status *read_arguments(const char *const given[ARGUMENTS], struct config *config)
{
	static char text[ARGUMENTS][256];
	char *argv[ARGUMENTS];
	int argc = 0;

	for (; argc < ARGUMENTS && given[argc] != NULL; argc++) {
		(void)snprintf(text[argc], sizeof(text[argc]), "%s", given[argc]);
		argv[argc] = text[argc];
	}
	return config_read(argc, argv, config);
}

static void refuse(const char *why, const char *const given[ARGUMENTS])
{
	scoped(config) struct config config = {0};
	scoped(status) status *st = read_arguments(given, &config);

	assert_int_equal(status_code_of(st), STATUS_INVALID_ARGUMENT);
	if (strstr(status_message(st), why) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", status_message(st), why);
}

static status *read_file_text(const char *text, size_t size, struct config *config)
{
	char path[] = "/tmp/haul-config-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC);
	const char *const given[ARGUMENTS] = {"--config", path};

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, size), size);
	(void)close(fd);
	status *st = read_arguments(given, config);
	(void)unlink(path);
	return st;
}

static void refuse_file(const char *text, const char *why)
{
	scoped(config) struct config config = {0};
	scoped(status) status *st = read_file_text(text, strlen(text), &config);

	assert_int_equal(status_code_of(st), STATUS_INVALID_ARGUMENT);
	if (strstr(status_message(st), why) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", status_message(st), why);
	assert_non_null(strstr(status_message(st), "/tmp/haul-config-"));
}

static void without_arguments_the_defaults_serve_the_local_socket_only(void **state)
{
	static const char *const none[ARGUMENTS] = {NULL};
	scoped(config) struct config config = {0};
	char hostname[LIMIT_NAME + 1] = "";
	(void)state;

	assert_ok(read_arguments(none, &config));
	assert_int_equal(gethostname(hostname, sizeof(hostname) - 1), 0);
	assert_string_equal(config.node, hostname);
	assert_null(config.listen);
	assert_string_equal(config.local, "ipc:///run/haul/hauld.sock");
	assert_string_equal(config.local_dir, "/run/haul");
	assert_string_equal(config.state_dir, "/var/lib/haul");
	assert_int_equal(config.port_low, 7800);
	assert_int_equal(config.port_high, 7899);
	assert_string_equal(config.criu, "criu");
	assert_int_equal(config.least_level, LOG_LEVEL_INFO);
	assert_int_equal(config.criu_timeout_ms, 30000);
	assert_int_equal(config.lease_ms, 15000);
	assert_int_equal(config.hold_restored_ms, 600000);
	assert_int_equal(config.hold_images_ms, 10000);
	assert_false(config.insecure);
}

static void certificates_open_the_remote_listener(void **state)
{
	static const char *const given[ARGUMENTS] = {"--ca=a", "--cert=b", "--key=c"};
	scoped(config) struct config config = {0};
	(void)state;

	assert_ok(read_arguments(given, &config));
	assert_string_equal(config.listen, "tls+tcp://0.0.0.0:7777");
}

static void bad_flags_are_refused_with_a_reason(void **state)
{
	(void)state;
	refuse("belong together", (const char *const[ARGUMENTS]){"--ca=a", "--cert=b"});
	refuse("needs --ca", (const char *const[ARGUMENTS]){"--listen", "tls+tcp://0.0.0.0:1"});
	refuse("let anyone in", (const char *const[ARGUMENTS]){"--listen", "tcp://0.0.0.0:1"});
	refuse("that is --local", (const char *const[ARGUMENTS]){"--listen", "ipc:///tmp/x"});
	refuse("--listen", (const char *const[ARGUMENTS]){"--listen", "http://x"});
	refuse("not an ipc://", (const char *const[ARGUMENTS]){"--local", "tcp://127.0.0.1:1"});
	refuse("directory of its own", (const char *const[ARGUMENTS]){"--local", "ipc:///x"});
	refuse("range of ports", (const char *const[ARGUMENTS]){"--data-ports", "7899-7800"});
	refuse("range of ports", (const char *const[ARGUMENTS]){"--data-ports", "0-10"});
	refuse("range of ports", (const char *const[ARGUMENTS]){"--data-ports", "1-65536"});
	refuse("range of ports", (const char *const[ARGUMENTS]){"--data-ports", "1-2-3"});
	refuse("no spaces", (const char *const[ARGUMENTS]){"--node", "a b"});
	refuse("absolute path", (const char *const[ARGUMENTS]){"--state-dir", "var"});
	refuse("one of text|json", (const char *const[ARGUMENTS]){"--log-format", "xml"});
	refuse("longer than 0", (const char *const[ARGUMENTS]){"--lease", "0"});
	refuse("flags only", (const char *const[ARGUMENTS]){"start"});
}

static void tcp_is_allowed_with_insecure_only(void **state)
{
	static const char *const given[ARGUMENTS] = {"--listen", "tcp://127.0.0.1:7777",
						     "--insecure"};
	scoped(config) struct config config = {0};
	(void)state;

	assert_ok(read_arguments(given, &config));
	assert_true(config.insecure);
}

static void the_file_sets_and_flags_win(void **state)
{
	static const char text[] =
	    "{\"node\": \"from-file\", \"lease\": \"3s\", \"insecure\": true,\n"
	    " \"data-ports\": \"9000-9001\", \"log-level\": \"debug\"}";
	char path[] = "/tmp/haul-config-XXXXXX";
	scoped(config) struct config config = {0};
	int fd = mkostemp(path, O_CLOEXEC);
	const char *const given[ARGUMENTS] = {"--node", "from-flag", "--config", path};
	(void)state;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	(void)close(fd);
	assert_ok(read_arguments(given, &config));
	(void)unlink(path);
	assert_string_equal(config.node, "from-flag");
	assert_int_equal(config.lease_ms, 3000);
	assert_true(config.insecure);
	assert_int_equal(config.port_low, 9000);
	assert_int_equal(config.least_level, LOG_LEVEL_DEBUG);
}

static void bad_files_are_refused_with_their_name_and_a_reason(void **state)
{
	scoped(config) struct config config = {0};
	static const char nul[] = "{\"node\": \"a\"}\0{}";
	static const char *const missing[ARGUMENTS] = {"--config", "/nowhere/hauld.json"};
	(void)state;

	refuse_file("", "not JSON");
	refuse_file("{\n\n\"node\" \"a\"}", "line 3");
	refuse_file("{} {}", "not JSON");
	refuse_file("[]", "one JSON object");
	refuse_file("{\"nodee\": \"a\"}", "no setting \"nodee\"");
	refuse_file("{\"node\": 1}", "must be a string");
	refuse_file("{\"node\": null}", "must be a string");
	refuse_file("{\"insecure\": \"true\"}", "true or false");
	refuse_file("{\"lease\": \"soon\"}", "not a duration");
	refuse_file("{\"node\": \"a\", \"node\": \"b\"}", "twice");
	refuse_file("{\"config\": \"/etc/other\"}", "command line");
	refuse_file("{\"node\": \"\"}", "empty");
	assert_code(read_file_text(nul, sizeof(nul) - 1, &config), STATUS_INVALID_ARGUMENT);
	assert_code(read_arguments(missing, &config), STATUS_NOT_FOUND);
}

static void a_file_that_is_too_long_is_refused(void **state)
{
	scoped(config) struct config config = {0};
	char *text = malloc(LIMIT_CONFIG + 1);
	(void)state;

	assert_non_null(text);
	memset(text, ' ', LIMIT_CONFIG + 1);
	assert_code(read_file_text(text, LIMIT_CONFIG + 1, &config), STATUS_RESOURCE_EXHAUSTED);
	free(text);
}

static void help_and_version_are_answered_whatever_else_is_wrong(void **state)
{
	static const char *const given[ARGUMENTS] = {"--config", "/nowhere", "--help", "--ca=x"};
	scoped(config) struct config config = {0};
	(void)state;

	assert_ok(read_arguments(given, &config));
	assert_true(config.help);
}

static void the_service_manager_is_told_by_path_and_by_abstract_name(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char name[64], text[32] = "";
	(void)state;

	assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
	assert_ok(notify_manager("READY=1"));
	for (int is_abstract = 0; is_abstract < 2; is_abstract++) {
		scoped(fd) int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		(void)snprintf(name, sizeof(name), "%s/tmp/haul-notify-%d", is_abstract ? "@" : "",
			       (int)getpid());
		memcpy(address.sun_path, name, strlen(name) + 1);
		if (is_abstract)
			address.sun_path[0] = '\0';
		socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
		assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
		assert_int_equal(setenv("NOTIFY_SOCKET", name, 1), 0);
		assert_ok(notify_manager("READY=1"));
		assert_int_equal(recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT), 7);
		assert_string_equal(text, "READY=1");
		if (!is_abstract)
			assert_int_equal(unlink(name), 0);
	}
	assert_int_equal(setenv("NOTIFY_SOCKET", "relative", 1), 0);
	assert_code(notify_manager("READY=1"), STATUS_INVALID_ARGUMENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(without_arguments_the_defaults_serve_the_local_socket_only),
	    cmocka_unit_test(certificates_open_the_remote_listener),
	    cmocka_unit_test(bad_flags_are_refused_with_a_reason),
	    cmocka_unit_test(tcp_is_allowed_with_insecure_only),
	    cmocka_unit_test(the_file_sets_and_flags_win),
	    cmocka_unit_test(bad_files_are_refused_with_their_name_and_a_reason),
	    cmocka_unit_test(a_file_that_is_too_long_is_refused),
	    cmocka_unit_test(help_and_version_are_answered_whatever_else_is_wrong),
	    cmocka_unit_test(the_service_manager_is_told_by_path_and_by_abstract_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
