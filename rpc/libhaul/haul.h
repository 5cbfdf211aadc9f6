/* SPDX-License-Identifier: Apache-2.0 */
/* libhaul: asks an engine (hauld) to move process trees, and tells how it goes. docs/libhaul.md has
 * an example and what holds for all of it.
 *
 * Ownership: what a function gives out by a ret_ parameter is the caller's, and has a free
 * function; it is not touched on failure. What it is given is borrowed for the call. Texts are
 * UTF-8, never NULL unless it is said, and belong to what they are part of. Free functions accept
 * NULL.
 *
 * Errors: a function that can fail returns NULL, or an error that the caller frees. There is no
 * "last error", which threads would have to share.
 *
 * Threads: a client may be used by any number of threads at the same time, haul_set_timeout and
 * haul_disconnect excepted. All else (a watch, a migration, an error …) is one thread's at a time,
 * with haul_watch_stop excepted. Results do not depend on the client that they came from.
 *
 * Units: the name says it: _ms milliseconds, _unix_ms those since 1970 (UTC; 0 = not yet), _bytes
 * bytes. 0 in an option means the usual. */
#ifndef HAUL_HAUL_H
#define HAUL_HAUL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HAUL_MUST_CHECK __attribute__((warn_unused_result))

/* The library's version, "0.1.0": at run time, which need not be that of this header. */
const char *haul_version(void);

/* ---- Errors ---- */

/* gRPC's status codes; haul_error_code gives no others. */
enum haul_code {
	HAUL_OK = 0,
	HAUL_CANCELLED = 1,
	HAUL_UNKNOWN = 2,
	HAUL_INVALID_ARGUMENT = 3,
	HAUL_DEADLINE_EXCEEDED = 4,
	HAUL_NOT_FOUND = 5,
	HAUL_ALREADY_EXISTS = 6,
	HAUL_PERMISSION_DENIED = 7,
	HAUL_RESOURCE_EXHAUSTED = 8,
	HAUL_FAILED_PRECONDITION = 9,
	HAUL_ABORTED = 10,
	HAUL_OUT_OF_RANGE = 11,
	HAUL_UNIMPLEMENTED = 12,
	HAUL_INTERNAL = 13,
	HAUL_UNAVAILABLE = 14,
	HAUL_DATA_LOSS = 15,
	HAUL_UNAUTHENTICATED = 16,
};

struct haul_error;

/* All accept NULL, which is OK: HAUL_OK, "", no details. */
enum haul_code haul_error_code(const struct haul_error *error);
const char *haul_code_name(enum haul_code code); /* "NOT_FOUND" */

/* A sentence for people; it may change. */
const char *haul_error_message(const struct haul_error *error);

/* The stable word that tells causes of one code apart ("MIGRATION_UNKNOWN", docs/errors.md); NULL
 * where there is none. */
const char *haul_error_reason(const struct haul_error *error);

/* Details are labelled texts: "state" (where the workload is now), "next" (what can be done),
 * "criu" (CRIU's own line), "retry_after_ms" and more (docs/errors.md). False past the last one. */
bool haul_error_detail_at(const struct haul_error *error, size_t index, const char **ret_label,
			  const char **ret_text);
/* The first with this label; NULL when there is none. */
const char *haul_error_detail(const struct haul_error *error, const char *label);

/* After a failed call: did the request leave, so that it may have been carried out? */
bool haul_error_may_have_run(const struct haul_error *error);

void haul_error_free(struct haul_error *error);

/* ---- Clients ---- */

struct haul_client;

/* PEM files. Read by haul_connect only. */
struct haul_tls {
	size_t size;	  /* HAUL_TLS_INIT */
	const char *ca;	  /* of the authorities to trust */
	const char *cert; /* to show, with its intermediates if it has any */
	const char *key;  /* of cert */
	const char *crl;  /* what these authorities have revoked; NULL: nothing is asked */
};
#define HAUL_TLS_INIT {sizeof(struct haul_tls), NULL, NULL, NULL, NULL}

/* `url`: NULL for this machine's hauld, "ipc:///path" for its socket elsewhere (both: root only),
 * or "tls+tcp://host:port", which needs `tls` (NULL otherwise) and a server certificate of that
 * host. Checks the arguments and reads the files; the connection comes about with the first call,
 * and again when it is lost. Free it with haul_disconnect. */
HAUL_MUST_CHECK struct haul_error *haul_connect(const char *url, const struct haul_tls *tls,
						struct haul_client **ret_client);

/* For each call of this client from now on, connecting and repeating included: more than 0, at
 * first 10000. Not while another thread uses the client. */
void haul_set_timeout(struct haul_client *client, int64_t timeout_ms);

/* Calls that run, and all that follow, end with HAUL_CANCELLED, until haul_resume. Any thread, not
 * a signal handler. What an interrupted call asked for may have been carried out. */
void haul_interrupt(struct haul_client *client);
void haul_resume(struct haul_client *client);

/* When no call runs, and its watches are closed. */
void haul_disconnect(struct haul_client *client);

/* ---- Migrations ---- */

enum haul_state {
	HAUL_STATE_UNKNOWN = 0,
	HAUL_STATE_RUNNING = 1,
	HAUL_STATE_COMPLETED = 2,
	HAUL_STATE_ABORTED = 3,	  /* the workload runs where it was */
	HAUL_STATE_CANCELLED = 4, /* the same, because a user asked */
	HAUL_STATE_IN_DOUBT = 5,  /* frozen at the source until the destination answers */
	HAUL_STATE_LOST = 6,	  /* no copy is left */
};

const char *haul_state_name(enum haul_state state); /* "IN_DOUBT" */
bool haul_state_is_over(enum haul_state state);	    /* one of the four that stay */

struct haul_round {
	uint64_t pages_sent, pages_clean, pages_same, pages_zero; /* of 4096 bytes; zero: of sent */
	uint64_t bytes;						  /* on the wire */
	double duration_ms, frozen_ms;
};

/* One migration as its engine knew it at that moment: progress while it runs, report when it is
 * over. Made by this library only; members are added at its end. */
struct haul_migration {
	const char *id;
	int state;	   /* enum haul_state, or a number that is newer than this library */
	const char *stage; /* "pre-copy", "restore" … */
	const char *role;  /* of the engine that was asked: "source" or "destination" */
	const char *workload, *peer;
	uint64_t sequence; /* grows with every change */
	int64_t started_unix_ms, ended_unix_ms;
	size_t round_count;
	const struct haul_round *const *rounds;
	uint64_t bytes_on_wire, rate_bytes_per_s;
	double downtime_ms, total_ms, predicted_downtime_ms;
	double criu_freeze_ms, criu_restore_ms;
	int32_t pid, restored_pid;
	const struct haul_error *error; /* why it did not complete; NULL = nothing to say */
	const char *tracking;		/* "soft-dirty", "hash", "none" */
	size_t note_count;
	const char *const *notes;
	int64_t in_doubt_since_unix_ms;
	const char *doubt; /* why it is in doubt; "" = it is not */
	/* The whole of it as haul.v1.Migration (proto/), with what this library does not know. */
	const uint8_t *wire;
	size_t wire_bytes;
	/* Of the predicted downtime; and how much longer than predicted it was. */
	double predicted_dump_ms, predicted_restore_ms, prediction_error_ms;
	uint32_t cpu_share_percent; /* that the workload is left with now; 0 = all */
	/* "pre-copy", "post-copy", "hybrid", "stop-copy"; and pages that were not sent before the
	 * workload ran at the destination: all, those still missing there, those that it had to
	 * wait for. */
	const char *mode;
	uint64_t late_pages, late_missing, late_faults;
};

void haul_migration_free(struct haul_migration *migration);

enum haul_tcp {
	HAUL_TCP_REFUSE =
	    0,		    /* an open TCP connection makes the migration fail, before the freeze */
	HAUL_TCP_CLOSE = 1, /* connections are closed by the move */
};

enum haul_on_timeout {
	HAUL_ON_TIMEOUT_ABORT = 0,     /* the workload stays where it is */
	HAUL_ON_TIMEOUT_STOP_COPY = 1, /* what is left is copied while it is frozen */
	HAUL_ON_TIMEOUT_POST_COPY = 2, /* what is left is fetched after it runs there */
};

struct haul_options {
	size_t size;		  /* HAUL_OPTIONS_INIT: all else 0 */
	uint32_t max_downtime_ms; /* no freeze that is predicted to be longer; 0: about 300 */
	uint32_t max_rounds;
	bool no_precopy;
	bool shell_job;
	uint32_t tcp;		 /* enum haul_tcp */
	const char *dest_root;	 /* absolute path at the destination; NULL: its root */
	uint32_t timeout_ms;	 /* for everything before the commit; 0: none */
	const char *tracking;	 /* "auto", "soft-dirty", "hash", "none"; NULL: auto */
	const char *compression; /* "auto", "none", "lz4", "zstd", "zstd:LEVEL"; NULL: auto */
	uint64_t bandwidth_bytes_per_s; /* of memory that is copied ahead; 0: no limit */
	uint32_t on_timeout;		/* enum haul_on_timeout */
	bool auto_converge;		/* slow the workload down while it writes too fast */
	const char *restore;		/* "auto", "lazy", "eager"; NULL: auto */
	/* Over the local socket only: stream sockets of this process that are connected to those
	 * which haul_accept has given to the destination's engine. All three, or 0. This process
	 * keeps its own descriptors, and does not use them any more. */
	int fd_rpc, fd_memory, fd_images;
	/* "pre-copy", "post-copy", "hybrid", "stop-copy"; NULL: pre-copy. With post-copy and hybrid
	 * the workload is lost if the source's machine is lost before all memory was fetched. */
	const char *mode;
	uint32_t streams; /* memory pipes side by side, at most 8; 0: 1 */
};
#define HAUL_OPTIONS_INIT                                                                          \
	{sizeof(struct haul_options),                                                              \
	 0,                                                                                        \
	 0,                                                                                        \
	 false,                                                                                    \
	 false,                                                                                    \
	 0,                                                                                        \
	 NULL,                                                                                     \
	 0,                                                                                        \
	 NULL,                                                                                     \
	 NULL,                                                                                     \
	 0,                                                                                        \
	 0,                                                                                        \
	 false,                                                                                    \
	 NULL,                                                                                     \
	 0,                                                                                        \
	 0,                                                                                        \
	 0,                                                                                        \
	 NULL,                                                                                     \
	 0}

/* Begins to move `workload` ("pid:4711") to `to` ("tls+tcp://host:port"); returns at once, the
 * migration's id is in what it gives out. options: NULL for the usual. A request that got lost on
 * the way is repeated and carried out once; on an error haul_error_may_have_run tells whether to
 * look with haul_list. */
HAUL_MUST_CHECK struct haul_error *haul_start(struct haul_client *client, const char *workload,
					      const char *to, const struct haul_options *options,
					      struct haul_migration **ret_migration);

/* HAUL_NOT_FOUND when the engine does not know it. */
HAUL_MUST_CHECK struct haul_error *haul_get(struct haul_client *client, const char *id,
					    struct haul_migration **ret_migration);

/* What is set must fit. */
struct haul_filter {
	size_t size; /* HAUL_FILTER_INIT: everything */
	bool active_only;
	uint32_t states;      /* bits 1 << enum haul_state; 0 = any */
	const char *workload; /* NULL: any */
	const char *peer;     /* the whole of it, or its host; NULL: any */
	int64_t since_unix_ms;
	uint32_t limit; /* 0 = all */
};
#define HAUL_FILTER_INIT {sizeof(struct haul_filter), false, 0, NULL, NULL, 0, 0}

/* Newest first. Made by this library only. */
struct haul_list {
	size_t count;
	struct haul_migration *const *migrations;
};

/* filter: NULL for everything. Asks for one page after the other, each within the client's timeout;
 * what changes meanwhile may be there or not. */
HAUL_MUST_CHECK struct haul_error *haul_list(struct haul_client *client,
					     const struct haul_filter *filter,
					     struct haul_list **ret_list);
void haul_list_free(struct haul_list *list);

/* Returns when the migration is over. HAUL_DEADLINE_EXCEEDED after timeout_ms (0: never), and then
 * the migration goes on; other errors as of a call. Waits at the engine, without polling. */
HAUL_MUST_CHECK struct haul_error *haul_wait(struct haul_client *client, const char *id,
					     int64_t timeout_ms,
					     struct haul_migration **ret_migration);

/* Rolls it back: the workload goes on where it was. Returns before that is done.
 * HAUL_FAILED_PRECONDITION once the commit may have left. ret_migration may be NULL. */
HAUL_MUST_CHECK struct haul_error *haul_cancel(struct haul_client *client, const char *id,
					       struct haul_migration **ret_migration);

/* One whose destination is not reached, after the commit: it is asked at once, instead of at the
 * next attempt. HAUL_FAILED_PRECONDITION when nothing is to be recovered. ret_migration may be
 * NULL.
 */
HAUL_MUST_CHECK struct haul_error *haul_recover(struct haul_client *client, const char *id,
						struct haul_migration **ret_migration);

struct haul_limits {
	size_t size; /* HAUL_LIMITS_INIT: what is 0 or false stays as it is */
	uint64_t bandwidth_bytes_per_s;
	bool no_bandwidth_limit;
	uint32_t max_downtime_ms;
};
#define HAUL_LIMITS_INIT {sizeof(struct haul_limits), 0, false, 0}

/* Changes limits of one that runs. HAUL_FAILED_PRECONDITION when it is over. ret_migration may be
 * NULL. */
HAUL_MUST_CHECK struct haul_error *haul_adjust(struct haul_client *client, const char *id,
					       const struct haul_limits *limits,
					       struct haul_migration **ret_migration);

/* At the destination, over the local socket: one migration will come over these stream sockets,
 * which this process has connected to those of its source (haul_options.fd_rpc …). `identity` is
 * who is there, by this program's word: the engine's policy is asked about that name. This process
 * keeps its own descriptors, and does not use them any more. */
HAUL_MUST_CHECK struct haul_error *haul_accept(struct haul_client *client, const char *identity,
					       int fd_rpc, int fd_memory, int fd_images);

/* Forgets the report of one that is over; HAUL_FAILED_PRECONDITION otherwise. */
HAUL_MUST_CHECK struct haul_error *haul_delete(struct haul_client *client, const char *id);

/* ---- Watching ---- */

/* Calls `changed` on this thread with the migration (borrowed) as it is now and after each change,
 * until it is over, or `changed` returns false. Changes close together may become one. A watch that
 * breaks is taken up again behind what was seen, for as long as the client's timeout; then
 * HAUL_UNAVAILABLE, and the migration goes on. */
HAUL_MUST_CHECK struct haul_error *
haul_watch(struct haul_client *client, const char *id,
	   bool (*changed)(void *self, const struct haul_migration *migration), void *self);

/* The same for programs that have a loop of their own. */
struct haul_watch;

/* Begins behind after_sequence (a migration's `sequence`; 0 = with what is now). Connects with the
 * first haul_watch_next. The client must outlive it. Free it with haul_watch_close. */
HAUL_MUST_CHECK struct haul_error *haul_watch_open(struct haul_client *client, const char *id,
						   uint64_t after_sequence,
						   struct haul_watch **ret_watch);

/* Waits at most timeout_ms for the next change: HAUL_DEADLINE_EXCEEDED, and it may be called again.
 * NULL and *ret_migration NULL: the engine has ended the watch, because the migration is over. A
 * watch that broke is taken up again as haul_watch does, which may take the client's timeout
 * longer. After any other error: haul_watch_close. */
HAUL_MUST_CHECK struct haul_error *haul_watch_next(struct haul_watch *watch, int64_t timeout_ms,
						   struct haul_migration **ret_migration);

/* haul_watch_next, also the one that waits, ends with HAUL_CANCELLED. Any thread, not a signal
 * handler. */
void haul_watch_stop(struct haul_watch *watch);
void haul_watch_close(struct haul_watch *watch);

/* ---- Nodes ---- */

/* What an engine says of itself and its machine. Made by this library only; members are added at
 * its end. */
struct haul_node {
	const char *node, *version;
	uint32_t protocol;
	const char *criu, *criu_trouble; /* "4.1.1"; why it cannot be used, or "" */
	const char *kernel, *machine;
	bool dirty_tracking; /* the kernel has soft-dirty bits */
	bool draining;	     /* it stops, and takes no new work */
	uint32_t migrations_active, migrations_in_doubt;
	int64_t started_unix_ms;
	const char *identity; /* of its certificate; "" without one */
	int64_t certificate_expires_unix_ms, crl_expires_unix_ms;
	/* The whole of it as haul.v1.NodeInfo (proto/). */
	const uint8_t *wire;
	size_t wire_bytes;
};

HAUL_MUST_CHECK struct haul_error *haul_node_info(struct haul_client *client,
						  struct haul_node **ret_node);
void haul_node_free(struct haul_node *node);

/* ---- Everything else ---- */

/* Any method of proto/ by its name ("haul.v1.Node/Check"): request and response are packed
 * messages. Free *ret_response with haul_bytes_free. It is repeated as all calls are. */
HAUL_MUST_CHECK struct haul_error *haul_call(struct haul_client *client, const char *method,
					     const uint8_t *request, size_t request_bytes,
					     uint8_t **ret_response, size_t *ret_response_bytes);
void haul_bytes_free(uint8_t *bytes);

/* What goes along with a call, as gRPC's metadata: a name of a-z 0-9 - _ . that does not begin with
 * haul- or grpc-, and a value of printable ASCII; 1 to 255 characters and at most 255. */
struct haul_metadata {
	const char *name, *value;
};

struct haul_request {
	size_t size;	    /* HAUL_REQUEST_INIT */
	const char *method; /* as in haul_call */
	const uint8_t *message;
	size_t message_bytes;
	const struct haul_metadata *metadata;
	size_t metadata_count;	  /* at most 16 */
	struct haul_token *token; /* by which it can be cancelled; NULL: it cannot */
};
#define HAUL_REQUEST_INIT {sizeof(struct haul_request), NULL, NULL, 0, NULL, 0, NULL}

/* What cancels calls without touching a client's others. A token may be in any number of calls of
 * one client. NULL: no memory. Free it when they have returned. */
struct haul_token *haul_token_new(void);
/* Its calls, now and later, return HAUL_CANCELLED, and the engine is told: what waits there ends,
 * what has begun to change something goes on. Any thread, not a signal handler. */
void haul_token_cancel(struct haul_client *client, struct haul_token *token);
void haul_token_free(struct haul_token *token);

struct haul_reply;

/* As haul_call, with all that goes along. *ret_reply is there also when the call failed, as soon as
 * the engine has answered: without a message, but with what came along. NULL it before the call. */
HAUL_MUST_CHECK struct haul_error *haul_exchange(struct haul_client *client,
						 const struct haul_request *request,
						 struct haul_reply **ret_reply);
const uint8_t *haul_reply_message(const struct haul_reply *reply, size_t *ret_bytes);
/* Trailing metadata. False past the last one. */
bool haul_reply_trailing_at(const struct haul_reply *reply, size_t index,
			    struct haul_metadata *ret_entry);
void haul_reply_free(struct haul_reply *reply);

#ifdef __cplusplus
}
#endif

#endif
