/* SPDX-License-Identifier: Apache-2.0 */
/* A CRIU session: one `criu swrk` process, driven request by request over its socket. It is killed
 * (with its children, by its cgroup) when the session is closed. Every wait has a deadline.
 *
 * The engine's ends of two sockets belong to a session: the RPC (SEQPACKET), inside; and the memory
 * channel (a unix stream; CRIU's page stream), given to the page server of this side. */
#ifndef HAUL_ENGINE_CRIU_SWRK_H
#define HAUL_ENGINE_CRIU_SWRK_H

#include "criu/rpc.pb-c.h"
#include "proto/status.h"

#include <sys/types.h>

struct swrk;

struct swrk_options {
	const char *criu;     /* path or name in PATH */
	const char *cgroup;   /* directory of the group it is born in */
	const char *work_dir; /* for logs; existing; its stderr goes to work_dir/swrk.err */
	bool with_memory;     /* make the memory channel */
	/* Does not notice that its engine has died, and waits for an answer until it is killed. A
	 * CRIU that restores needs it: at pre-resume it takes the end of its socket for consent,
	 * and lets the tree run. */
	bool outlives_engine;
	/* hauld's own program, to be started through with transparent huge pages off: a lazy
	 * restore must not find a page in place that came along with a huge one. CRIU gives each
	 * task its own setting back. NULL: not needed. */
	const char *without_huge_pages;
	/* What else its table is to have, from SWRK_MORE_FD on. */
	const int *more_fds;
	size_t more_count; /* at most SWRK_MORE_FDS */
};

/* What hauld is started as to do that, before the program and its arguments. */
#define SWRK_PLAIN_PAGES_VERB "without-huge-pages"
/* Does it; does not return but with a failure's exit status. argv: the program, its arguments. */
int swrk_plain_pages_main(char **argv);

/* Number of the memory channel in swrk's table, for opts.ps.fd; and of the engine's own end of the
 * RPC socket for one that outlives the engine: the socket does not end while CRIU lives. */
enum {
	SWRK_MEMORY_FD = 4,
	SWRK_RPC_FD = 3,
	SWRK_ENGINE_FD = 5,
	SWRK_MORE_FD = 6,
	SWRK_MORE_FDS = 16
};

must_check status *swrk_open(const struct swrk_options *options, struct swrk **ret_session);
pid_t swrk_pid(const struct swrk *session);
const char *swrk_work_dir(const struct swrk *session);
/* The engine's end of the memory channel; belongs to the session. -1 without. */
int swrk_memory_fd(const struct swrk *session);

/* Sends a request. Requests must carry all their options each time. */
must_check status *swrk_send(struct swrk *session, const CriuReq *request);

/* What CRIU said next. A response ends the request; a notification must be answered by swrk_ack. */
struct swrk_event {
	bool is_response;
	char script[64];    /* notification: "post-dump" … */
	int32_t pid;	    /* of the notification, or 0 */
	CriuResp *response; /* response: owned by the receiver, criu_resp__free_unpacked */
};
/* timeout_ms is the silence allowed: it starts anew whenever CRIU reads, writes or sends pages.
 * Errors: DEADLINE_EXCEEDED (silent or stopped: says how long), UNAVAILABLE (it died: with its exit
 * status and stderr's tail), CANCELLED (interrupted), DATA_LOSS (malformed). */
must_check status *swrk_next(struct swrk *session, int64_t timeout_ms,
			     struct swrk_event *ret_event);
must_check status *swrk_ack(struct swrk *session, bool go_on);

/* From CLOCK_MONOTONIC's deadline_ms on, swrk_next is DEADLINE_EXCEEDED however busy CRIU is; 0 =
 * no such time. By the thread that uses the session. */
void swrk_set_deadline(struct swrk *session, int64_t deadline_ms);

/* Sends and waits for the response, acknowledging every notification on the way. A response with
 * success = false is returned as an error made by criu_error (log_file = name of the log in
 * work_dir, for the cause). */
must_check status *swrk_call(struct swrk *session, const CriuReq *request, const char *log_file,
			     int64_t timeout_ms, CriuResp **ret_response);

/* Waiting and future operations return CANCELLED. Any thread. swrk_resume ends that. */
void swrk_interrupt(struct swrk *session);
void swrk_resume(struct swrk *session);

/* Shuts the memory channel, so that a CRIU that waits for it goes on (and fails). */
void swrk_shut_memory(struct swrk *session);

/* After a dump that failed or was interrupted: shuts the memory channel and gives CRIU a moment
 * (whatever swrk_interrupt says) to let the tree go by itself, which leaves it cleaner than killing
 * CRIU does. The session is of no more use. */
void swrk_give_up(struct swrk *session);

/* Shuts the memory channel, kills swrk and what it left in `cgroup` of its options IF that is a
 * criu- group (never the tree), reaps it, and what has already ended in the group. NULL is fine. */
void swrk_free(struct swrk *session);

DEFINE_SCOPE(swrk, struct swrk *, swrk_free);
static inline void scope_swrk_event(struct swrk_event *event)
{
	if (event->response != NULL)
		criu_resp__free_unpacked(event->response, NULL);
}

#endif
