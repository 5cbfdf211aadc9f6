/* SPDX-License-Identifier: Apache-2.0 */
/* What every subcommand has: its flags and words, and a connection when it asks for one. */
#ifndef HAUL_CMD_HAULCTL_CTL_H
#define HAUL_CMD_HAULCTL_CTL_H

#include <stdbool.h>
#include <stdint.h>

#include "cmd/shared/flags.h"
#include "haul/v1/migrations.pb-c.h"
#include "proto/pack.h"
#include "rpc/client.h"
#include "rpc/libhaul/haul.h"

enum { EXIT_BASE = 64, CTL_TIMEOUT_MS = 10000 };

struct ctl {
	/* Global flags. */
	const char *local, *server, *ca, *cert, *key, *crl;
	bool is_json, help;
	int64_t timeout_ms;

	/* The subcommand's flags: each reads those of its table only. */
	const char *to, *tcp, *dest_root, *reason, *compression, *tracking, *restore, *bandwidth,
	    *workload, *peer, *service, *on_timeout, *as, *mode;
	uint32_t max_rounds, streams, days, limit, fd_rpc, fd_memory, fd_images;
	int64_t max_downtime_ms, migration_timeout_ms, wait_ms, since_ms;
	bool no_precopy, auto_converge, shell_job, detach, all, active, resume, kill, accept_risk;
	struct flag_list sans, states;
	const char *data;
	int64_t max_time_ms;
	bool emit_defaults, wants_template, verbose;
	struct flag_list headers;

	struct flag_words words; /* after the subcommand's name */
	struct haul_client *client;
};

struct command {
	const char *name;      /* "migrate", "pki init" */
	const char *arguments; /* for the usage line */
	const char *summary;   /* half a line */
	const char *text;      /* what --help teaches, with an example */
	const struct flag *flags;
	size_t flag_count;
	size_t word_count;  /* so many words must follow */
	bool takes_signals; /* SIGINT and SIGTERM stay blocked for it */
	/* Errors are returned, for main to print. What was printed as a result, good or bad, sets
	 * *ret_exit. */
	status *(*run)(struct ctl *ctl, int *ret_exit);
};

extern const struct command command_accept, command_adjust, command_call, command_cancel,
    command_check, command_criu_lease, command_delete, command_describe, command_list,
    command_list_services, command_migrate, command_health, command_node, command_pki_crl,
    command_pki_init, command_pki_issue, command_pki_list, command_pki_revoke, command_recover,
    command_resolve, command_show, command_version, command_wait, command_watch;

/* One call; connects first when there is no connection yet. `service` and `method` as in
 * rpc_client_call. */
must_check status *ctl_call(struct ctl *ctl, const ProtobufCServiceDescriptor *service,
			    const char *method, const ProtobufCMessage *request,
			    ProtobufCMessage **ret_response);

/* The same with bytes; `method` is SERVICE/METHOD. */
must_check status *ctl_call_bytes(struct ctl *ctl, const char *method, const struct buffer *request,
				  struct buffer *ret_response);

/* libhaul's errors as ours; takes it. ctl_failed also says of one that did not reach its engine
 * what to look at. */
must_check status *ctl_status(struct haul_error *error);
must_check status *ctl_failed(const struct ctl *ctl, struct haul_error *error);

/* libhaul's view as the message that it comes from, for rendering. Takes it, also on failure; NULL
 * is no message. */
must_check status *ctl_migration(struct haul_migration *view, Haul__V1__Migration **ret_migration);

/* Connects, when there is no connection yet: for what needs ctl->client itself. */
must_check status *ctl_connect(struct ctl *ctl);

/* Closes the connection. */
void ctl_close(struct ctl *ctl);

/* The first word as a migration's id (free it): INVALID_ARGUMENT when it cannot be one. */
must_check status *ctl_id(const struct ctl *ctl, char **ret_id);
/* That, and connects. */
must_check status *ctl_id_and_connect(struct ctl *ctl, char **ret_id);

/* --fd-rpc, --fd-mem and --fd-fs are three sockets that are connected: INVALID_ARGUMENT. */
must_check status *ctl_check_sockets(const struct ctl *ctl);

/* Where a flag's value is kept. */
#define CTL_FLAG(member) offsetof(struct ctl, member)

static inline void scope_ctl(struct ctl *value)
{
	ctl_close(value);
}

#endif
