/* SPDX-License-Identifier: Apache-2.0 */
/* hauld: starts the engine and its listeners, waits for a signal, lets go in order. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/hauld/config.h"
#include "cmd/hauld/notify.h"
#include "engine/engine.h"
#include "engine/host/files.h"
#include "rpc/policy.h"
#include "rpc/server.h"

enum {
	ARENAS = 4, /* of malloc */
	EXIT_BASE = 64,
	DRAIN_MS = 60 * 1000, /* what a migration past its commit may take to end */
	STOP_MS = 5 * 1000,
	POLICY_BYTES = 64 * 1024,
};

/* What changes something: these calls are the audit trail. */
static bool is_mutating(const char *method)
{
	static const char *const asks[] = {
	    "/haul.v1.Migrations/Get",
	    "/haul.v1.Migrations/List",
	    "/haul.v1.Migrations/Watch",
	    "/haul.v1.Peer/Hello",
	    "/haul.v1.Peer/Query",
	    "/haul.v1.Peer/BeginRound",
	    "/haul.v1.Peer/EndRound",
	    "/haul.v1.Node/Info",
	    "/haul.v1.Node/Check",
	    "/grpc.health.v1.Health/Check",
	    "/grpc.health.v1.Health/Watch",
	    "/haul.v1.Reflection/ListServices",
	    "/haul.v1.Reflection/FileContainingSymbol",
	};

	for (size_t i = 0; i < array_len(asks); i++)
		if (strcmp(asks[i], method) == 0)
			return false;
	return true;
}

static void log_call(void *self, const struct rpc_call *call, const status *st, int64_t took_us)
{
	enum status_code code = status_code_of(st);
	bool is_refused = code == STATUS_PERMISSION_DENIED || code == STATUS_UNAUTHENTICATED;
	enum log_level level = is_refused ? LOG_LEVEL_WARN : LOG_LEVEL_INFO;

	(void)self;
	if (!is_refused && !is_mutating(call->method))
		level = LOG_LEVEL_DEBUG;
	log_line(level, NULL, "audit caller=%s method=%s code=%s took_us=%" PRId64 "%s%s",
		 call->caller->name[0] != '\0' ? call->caller->name : "unauthenticated",
		 call->method, status_code_name(code), took_us, st != NULL ? ": " : "",
		 st != NULL ? status_message(st) : "");
}

static void log_refused(void *self, const char *listener, const char *peer, const char *why)
{
	(void)self;
	log_line(LOG_LEVEL_WARN, NULL, "audit connection refused: listener=%s peer=%s: %s",
		 listener, peer, why);
}

static status *authorize(void *self, const struct identity *caller, const char *method)
{
	return policy_check(self, caller, method);
}

static status *load_policy(const struct config *config, struct policy **ret_policy)
{
	scoped(buffer) struct buffer content = {0};

	if (config->policy == NULL)
		return policy_parse(config->insecure ? "{\"insecure\": true}" : NULL, ret_policy);
	status *st = files_read(config->policy, POLICY_BYTES, &content);
	if (st != NULL)
		return status_wrapf(st, "--policy");
	char *text = strndup(content.data != NULL ? (const char *)content.data : "", content.size);
	if (text == NULL)
		return status_errorf(STATUS_RESOURCE_EXHAUSTED, "no memory for %s", config->policy);
	st = policy_parse(text, ret_policy);
	free(text);
	return st != NULL ? status_wrapf(st, "--policy %s", config->policy) : NULL;
}

static status *open_engine(const struct config *config, const struct credentials *credentials,
			   struct engine **ret_engine)
{
	struct engine_config engine;

	engine_config_defaults(&engine);
	engine.node = config->node;
	engine.state_dir = config->state_dir;
	engine.criu = config->criu;
	engine.local_dir = config->local_dir;
	engine.port_low = config->port_low;
	engine.port_high = config->port_high;
	engine.insecure = config->insecure;
	engine.credentials = credentials;
	engine.criu_timeout_ms = config->criu_timeout_ms;
	engine.lease_ms = config->lease_ms;
	engine.hold_restored_ms = config->hold_restored_ms;
	engine.hold_images_ms = config->hold_images_ms;
	return engine_open(&engine, ret_engine);
}

/* The directory is the lock on the door: who can write there can put another socket in our place.
 */
static status *check_directory(const char *path)
{
	struct stat info;

	if (stat(path, &info) != 0)
		return status_errnof(errno, "cannot look at %s", path);
	if ((info.st_mode & (S_IWGRP | S_IWOTH)) == 0 || (info.st_mode & S_ISVTX) != 0)
		return NULL;
	return status_detailf(
	    status_errorf(STATUS_FAILED_PRECONDITION,
			  "others than root may write to %s and replace the socket", path),
	    "next", "chmod go-w %s", path);
}

static status *open_listeners(const struct config *config, const struct credentials *credentials,
			      struct rpc_server *server)
{
	status *st = files_make_directory(config->local_dir);

	if (st == NULL)
		st = check_directory(config->local_dir);
	if (st == NULL)
		st = rpc_server_listen(server, config->local, NULL, LIMIT_LOCAL_CALLS);
	if (st != NULL)
		return status_wrapf(st, "--local");
	if (config->listen == NULL)
		return NULL;
	st = rpc_server_listen(server, config->listen, credentials, LIMIT_REMOTE_CALLS);
	return st != NULL ? status_wrapf(st, "--listen") : NULL;
}

static void warn_insecure(const struct config *config)
{
	if (config->insecure)
		log_line(LOG_LEVEL_WARN, NULL,
			 "INSECURE: --insecure is set: without certificates anyone who can connect "
			 "to this node "
			 "can read, replace and kill its workloads");
}

static void wait_for_signal(const sigset_t *signals)
{
	for (;;) {
		int got = 0;
		if (sigwait(signals, &got) == 0 && got != SIGHUP) {
			log_line(LOG_LEVEL_INFO, NULL, "%s: no new work is taken, finishing",
				 got == SIGTERM ? "SIGTERM" : "SIGINT");
			return;
		}
	}
}

/* A manager that cannot be told must not keep us from serving. */
static void tell_manager(const char *state)
{
	scoped(status) status *st = notify_manager(state);

	if (st != NULL)
		log_status(LOG_LEVEL_WARN, NULL, "notification failed", st);
}

static status *serve(const struct config *config, const sigset_t *signals)
{
	scoped(credentials) struct credentials *credentials = NULL;
	scoped(policy) struct policy *policy = NULL;
	scoped(engine) struct engine *engine = NULL;
	scoped(rpc_server) struct rpc_server *server = NULL;
	status *st = rpc_start();

	if (st == NULL && config->ca != NULL)
		st = credentials_load(config->ca, config->cert, config->key, &credentials);
	if (st == NULL)
		st = load_policy(config, &policy);
	if (st == NULL)
		st = open_engine(config, credentials, &engine);
	if (st != NULL)
		return st;
	const struct rpc_server_config serving = {
	    .services = engine_services(engine),
	    .service_count = ENGINE_SERVICES,
	    .authorize = authorize,
	    .authorize_self = policy,
	    .observer = {.called = log_call, .refused = log_refused},
	};
	st = rpc_server_new(&serving, &server);
	if (st == NULL)
		st = open_listeners(config, credentials, server);
	if (st != NULL)
		return st;
	log_line(LOG_LEVEL_INFO, NULL, "ready: node %s, hauld %s, serves %s%s%s", config->node,
		 HAUL_VERSION, config->local, config->listen != NULL ? " and " : "",
		 config->listen != NULL ? config->listen : "");
	tell_manager("READY=1");
	wait_for_signal(signals);
	tell_manager("STOPPING=1");
	engine_drain(engine, DRAIN_MS);
	rpc_server_stop(server, STOP_MS);
	log_line(LOG_LEVEL_INFO, NULL, "stopped");
	return NULL;
}

static int fail(const status *st)
{
	(void)fprintf(stderr, "hauld: %s: %s\n", status_code_name(status_code_of(st)),
		      status_message(st));
	for (size_t i = 0; i < status_detail_count(st); i++)
		(void)fprintf(stderr, "  %s: %s\n", status_detail_at(st, i).label,
			      status_detail_at(st, i).text);
	return EXIT_BASE + (int)status_code_of(st);
}

/* Blocked before the first thread starts, so that only wait_for_signal gets them. */
static void block_signals(sigset_t *signals)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)sigemptyset(signals);
	(void)sigaddset(signals, SIGTERM);
	(void)sigaddset(signals, SIGINT);
	(void)sigaddset(signals, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, signals, NULL);
}

int main(int argc, char **argv)
{
	/* Many threads, little work each: an arena a thread would only keep memory. */
	(void)mallopt(M_ARENA_MAX, ARENAS);
	scoped(config) struct config config = {0};
	sigset_t signals;
	scoped(status) status *st = config_read(argc - 1, argv + 1, &config);

	if (st != NULL)
		return fail(st);
	if (config.help) {
		config_help(stdout);
		return 0;
	}
	if (config.version) {
		(void)printf("hauld %s\n", HAUL_VERSION);
		return 0;
	}
	block_signals(&signals);
	log_configure(strcmp(config.log_format, "json") == 0, config.least_level);
	warn_insecure(&config);
	st = serve(&config, &signals);
	return st != NULL ? fail(st) : 0;
}
