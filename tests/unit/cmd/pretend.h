/* SPDX-License-Identifier: Apache-2.0 */
/* An engine that only pretends, and haulctl started against it as by users. */
#ifndef HAUL_TESTS_UNIT_CMD_PRETEND_H
#define HAUL_TESTS_UNIT_CMD_PRETEND_H

#include "tests/unit/test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "haul/v1/migrations.pb-c.h"
#include "rpc/server.h"
#include "rpc/stream.h"
#include "tests/unit/cmd/program.h"

enum { WAIT_MS = 60000 };

/* How the pretended migration goes. */
enum ending { END_COMPLETED, END_ABORTED, END_DIES, END_BREAKS, END_WHEN_CANCELLED, END_NEVER };

struct engine {
	char directory[64], url[96];
	_Atomic enum ending ending;
	atomic_bool is_cancelled, is_watched, is_over;
	atomic_int waits;
	atomic_bool is_attending; /* a Get of "attend" */
	atomic_uint_fast64_t bandwidth;
	atomic_uint max_downtime_ms;
	struct rpc_server *server;
	atomic_int watches;
	uint64_t sequence;	   /* of what was sent last */
	atomic_uint_fast64_t seen; /* by the last one who watched */
	atomic_bool may_break;
	struct stream *stream;
};

extern struct engine engine;

void engine_start(enum ending ending);
void engine_stop(void);

/* Waits until the flag is set, or the engine is over. */
void await(const atomic_bool *flag);

struct started haulctl_start(const char *const arguments[ARGUMENTS]);
/* That and program_end. */
struct outcome haulctl(const char *const arguments[ARGUMENTS]);

#endif
