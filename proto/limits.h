/* SPDX-License-Identifier: Apache-2.0 */
/* Every bound on what a peer, a file or a user may make us do, each with its reason. */
#ifndef HAUL_PROTO_LIMITS_H
#define HAUL_PROTO_LIMITS_H

enum {
	/* A unary message: the largest are a Prepare's file list and a report with all its rounds.
	 */
	LIMIT_UNARY_BYTES = 1024 * 1024,
	/* One sealed message of a bulk pipe: memory is this times the few messages in flight.
	 * Header, tag and page table come on top. */
	LIMIT_BULK_BYTES = 512 * 1024,
	/* Pages in one batch of memory: half a MiB moves with less work a byte than a quarter. */
	LIMIT_BATCH_PAGES = 128,
	/* Memory pipes of one migration. Each has up to six batches on either side. */
	LIMIT_STRIPES = 8,
	/* Status: details and their length; CRIU's log lines are long. */
	LIMIT_STATUS_DETAILS = 24,
	LIMIT_STATUS_TEXT = 4096,
	/* Names: image files, nodes, migration ids. */
	LIMIT_NAME = 255,
	LIMIT_ID = 64,
	LIMIT_URL = 512,
	/* An address and port as text. */
	LIMIT_PEER_TEXT = 64,
	/* Images of the final dump besides memory; CRIU writes about twelve plus four a task. */
	LIMIT_IMAGES = 65536,
	/* Rounds of pre-copy a user may ask for. */
	LIMIT_ROUNDS = 100,
	/* Migrations in flight on one engine, and kept in the history. */
	LIMIT_SESSIONS = 64,
	LIMIT_HISTORY = 1000,
	/* Calls that wait for a migration's end at the same time, each with a thread of the server:
	 * half of what serves the local socket. And for how long one may. */
	LIMIT_WAITS = 8,
	LIMIT_WAIT_MS = 30000,
	/* Connections one listener keeps; silent TLS clients are dropped after LIMIT_SILENT_MS. */
	LIMIT_CONNECTIONS = 512,
	/* Of these from one host (or one /64 of IPv6): half, so that none can keep the others out.
	 * A source needs two a migration. */
	LIMIT_HOST_CONNECTIONS = 256,
	LIMIT_SILENT_MS = 10000,
	/* TLS handshakes of one host that may fail at once, and then one in so many milliseconds,
	 * before its connections are refused without one; hosts that are remembered for it. */
	LIMIT_HOST_FAILURES = 32,
	LIMIT_HOST_FAILURE_MS = 62,
	LIMIT_FAILING_HOSTS = 64,
	/* Calls served at the same time: by the remote listeners, and by the local socket. */
	LIMIT_REMOTE_CALLS = 24,
	LIMIT_LOCAL_CALLS = 16,
	/* Requests whose answers are remembered: at 40 s each (10 s of a caller's time and a
	 * margin) this is 800 changing calls a second, and 4 MiB. */
	LIMIT_REQUESTS_KEPT = 32768,
	/* A client sends a request again for at most this long, and for longer than that the server
	 * remembers the answer. */
	LIMIT_RETRY_MS = 5 * 60 * 1000,
	LIMIT_ANSWER_MS = 10 * 60 * 1000,
	/* Streams open at a server at a time: each has three threads, and a port if it is a remote
	 * one. A quarter of them for one caller, unless the policy gives it more or less. */
	LIMIT_STREAMS = 1280,
	/* Connections that were handed over and are open at a time, one a migration; and the calls
	 * that are served of all of them: two of each. */
	LIMIT_HANDOVERS = 16,
	LIMIT_HANDOVER_CALLS = 32,
	/* Entries of a call's or stream's metadata. */
	LIMIT_METADATA = 16,
	/* A message of CRIU's RPC; its own replies are far smaller. */
	LIMIT_CRIU_MESSAGE = 256 * 1024,
	/* CRIU lent to other programs at a time: each is a process that may hold a tree. */
	LIMIT_LEASES = 16,
	/* One journal record. */
	LIMIT_JOURNAL_RECORD = 16 * 1024,
	/* Revocation lists in one file: one an authority, and authorities are few. */
	LIMIT_CRLS = 64,
	/* A configuration file. */
	LIMIT_CONFIG = 64 * 1024,
	/* A message as JSON: nesting (objects and arrays of the text, messages in messages), values
	 * in one message as it is printed, entries of one map; and the fields of a message that
	 * another program's descriptors tell of. They bound recursion, memory and searches. */
	LIMIT_JSON_DEPTH = 64,
	LIMIT_JSON_NODES = 1024 * 1024,
	LIMIT_JSON_MAP = 4096,
	LIMIT_SCHEMA_FIELDS = 512,
};

#endif
