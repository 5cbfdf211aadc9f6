/* SPDX-License-Identifier: Apache-2.0 */
/* hauld: starts the engine and its listeners, waits for a signal, lets go in order. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "cmd/hauld/audit.h"
#include "cmd/hauld/config.h"
#include "cmd/hauld/notify.h"
#include "cmd/hauld/security.h"
#include "engine/criu/swrk.h"
#include "engine/engine.h"
#include "engine/host/files.h"
#include "engine/lazy/lazy_guard.h"
#include "proto/clock.h"
#include "rpc/pipe.h"
#include "rpc/server.h"

enum {
	ARENAS = 4, /* of malloc */
	EXIT_BASE = 64,
	DRAIN_MS = 60 * 1000, /* what a migration past its commit may take to end */
	STOP_MS = 5 * 1000,
};

static status *authorize(void *self, const struct identity *caller, const char *method)
{
	return policy_check(self, caller, method);
}

static unsigned calls_most(void *self, const struct identity *caller)
{
	return policy_limits_of(self, caller).calls;
}

static unsigned streams_most(void *self, const struct identity *caller)
{
	return policy_limits_of(self, caller).streams;
}

/* "auto" is none of them: the first, which is then not looked at. */
static Haul__V1__Seal seal_of(const char *name)
{
	if (strcmp(name, "aes-128-gcm") == 0)
		return HAUL__V1__SEAL__SEAL_AES_128_GCM;
	if (strcmp(name, "chacha20-poly1305") == 0)
		return HAUL__V1__SEAL__SEAL_CHACHA20_POLY1305;
	return HAUL__V1__SEAL__SEAL_AES_256_GCM;
}

static status *open_engine(const struct config *config, const struct security *security,
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
	engine.is_seal_auto = strcmp(config->seal, "auto") == 0;
	engine.seal = seal_of(config->seal);
	engine.insecure = config->insecure;
	engine.credentials = security->credentials;
	engine.policy = security->policy;
	engine.program = "/proc/self/exe";
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
		(void)pipe_sweep(config->local_dir);
	if (st == NULL)
		st = rpc_server_listen(server, config->local, NULL, LIMIT_LOCAL_CALLS);
	if (st == NULL)
		st = rpc_server_take_handovers(server, LIMIT_HANDOVER_CALLS);
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

/* A manager that cannot be told must not keep us from serving. */
static void tell_manager(const char *state)
{
	scoped(status) status *st = notify_manager(state);

	if (st != NULL)
		log_status(LOG_LEVEL_WARN, NULL, "notification failed", st);
}

static void reload(struct security *security)
{
	char state[64];

	(void)snprintf(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
		       clock_monotonic_ms() * 1000);
	tell_manager(state);
	scoped(status) status *st = security_reload(security);
	if (st != NULL)
		log_status(LOG_LEVEL_ERROR, NULL,
			   "SIGHUP: nothing is reloaded, what was in force stays", st);
	else
		log_line(LOG_LEVEL_INFO, NULL,
			 "SIGHUP: certificates, revocation lists and policy are reloaded");
	security_warn(security);
	tell_manager("READY=1");
}

/* Certificates are looked at every day meanwhile. */
static void wait_for_signal(const sigset_t *signals, struct security *security)
{
	static const struct timespec day = {.tv_sec = 24L * 60 * 60};

	for (;;) {
		int got = sigtimedwait(signals, NULL, &day);
		if (got < 0 && errno == EAGAIN) {
			security_warn(security);
		} else if (got == SIGHUP) {
			reload(security);
		} else if (got > 0) {
			log_line(LOG_LEVEL_INFO, NULL, "%s: no new work is taken, finishing",
				 got == SIGTERM ? "SIGTERM" : "SIGINT");
			return;
		}
	}
}

static int64_t pause_ms(void *self, const char *method)
{
	return engine_pause_ms(self, method);
}

static status *serve(const struct config *config, const sigset_t *signals)
{
	scoped(security) struct security security = {0};
	scoped(engine) struct engine *engine = NULL;
	scoped(rpc_server) struct rpc_server *server = NULL;
	status *st = rpc_start();

	if (st == NULL)
		st = security_load(config, &security);
	if (st == NULL)
		st = open_engine(config, &security, &engine);
	if (st != NULL)
		return st;
	const struct rpc_server_config serving = {
	    .services = engine_services(engine),
	    .service_count = ENGINE_SERVICES,
	    .authorize = authorize,
	    .calls_most = calls_most,
	    .authorize_self = security.policy,
	    .pause_ms = pause_ms,
	    .pause_self = engine,
	    .observer = audit_observer,
	    .streams_most = streams_most,
	    .stream_place = {.port_low = config->port_low,
			     .port_high = config->port_high,
			     .directory = config->local_dir},
	};
	st = rpc_server_new(&serving, &server);
	if (st == NULL)
		st = open_listeners(config, security.credentials, server);
	if (st != NULL)
		return st;
	log_line(LOG_LEVEL_INFO, NULL, "ready: node %s, hauld %s, serves %s%s%s", config->node,
		 HAUL_VERSION, config->local, config->listen != NULL ? " and " : "",
		 config->listen != NULL ? config->listen : "");
	security_warn(&security);
	tell_manager("READY=1");
	wait_for_signal(signals, &security);
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

/* A thousand streams are more than the 1024 descriptors that a program has by default. */
static void raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
		return;
	scoped(status) status *st = status_errnof(errno, "cannot raise the limit of open files");
	log_status(LOG_LEVEL_WARN, NULL, "few streams", st);
}

int main(int argc, char **argv)
{
	/* Its own helpers. */
	if (argc == 2 && strcmp(argv[1], LAZY_GUARD_VERB) == 0)
		return lazy_guard_main(LAZY_GUARD_FD);
	if (argc > 2 && strcmp(argv[1], SWRK_PLAIN_PAGES_VERB) == 0)
		return swrk_plain_pages_main(argv + 2);
	/* Many threads, little work each: an arena a thread would only keep memory. */
	(void)mallopt(M_ARENA_MAX, ARENAS);
	pipe_keep_memory();
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
	raise_descriptors();
	warn_insecure(&config);
	st = serve(&config, &signals);
	return st != NULL ? fail(st) : 0;
}
