/* SPDX-License-Identifier: Apache-2.0 */
/* abuse_peer: a source that dies in mid-transfer, again and again.
 *
 * usage: abuse_peer URL CA CERT KEY CPUINFO PREFIX DEATHS
 *
 * Each life prepares a migration at URL, goes on for a while and dies by SIGKILL: with a call under
 * way, before the pipes are connected, between the two pipes, with pages under way, or with an end
 * of round awaited. The deaths take turns. CPUINFO is this machine's cpuinfo.img. Exits with 0 when
 * all DEATHS were died. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <xxhash.h>

#include "engine/criu/page_stream.h"
#include "engine/host/files.h"
#include "haul/v1/peer.pb-c.h"
#include "rpc/client.h"
#include "rpc/pipe.h"

enum {
	CALL_MS = 20000,
	LEASE_MS = 1000,
	BATCH_PAGES = 60,
	ARGUMENTS = 8,
	CPUINFO_BYTES = 64 * 1024,
	AGAIN_US = 100 * 1000,
	REFUSED = 3
};

enum death { IN_CALL, BEFORE_PIPES, BETWEEN_PIPES, IN_PAGES, IN_END, DEATHS };

struct life {
	struct rpc_client *client;
	const char *id;
	unsigned number;
	struct buffer cpuinfo;
	Haul__V1__PrepareResponse *there;
	struct pipe *memory;
	struct pipe *images;
};

static _Noreturn void die(void)
{
	(void)raise(SIGKILL);
	abort();
}

static void must(status *st, const char *what)
{
	if (st == NULL)
		return;
	(void)fprintf(stderr, "abuse_peer: %s: %s\n", what, status_message(st));
	exit(status_code_of(st) == STATUS_RESOURCE_EXHAUSTED ? REFUSED : 1);
}

static status *call(struct life *life, const char *method, const ProtobufCMessage *request,
		    ProtobufCMessage **ret_response)
{
	return rpc_client_call(life->client, &haul__v1__peer__descriptor, method, request, CALL_MS,
			       ret_response);
}

static void prepare(struct life *life)
{
	Haul__V1__PrepareRequest request = HAUL__V1__PREPARE_REQUEST__INIT;
	ProtobufCMessage *response = NULL;
	int32_t pid = 30000;

	request.id = (char *)life->id;
	request.source_node = (char *)"abuse";
	request.pids = &pid;
	request.n_pids = 1;
	request.cpuinfo.data = life->cpuinfo.data;
	request.cpuinfo.len = life->cpuinfo.size;
	request.memory_bytes = PAGE_BYTES;
	request.root = (char *)"";
	request.lease_ms = LEASE_MS;
	must(call(life, "Prepare", &request.base, &response), "Prepare");
	life->there = (Haul__V1__PrepareResponse *)response;
}

static void begin_round(struct life *life)
{
	Haul__V1__BeginRoundRequest request = HAUL__V1__BEGIN_ROUND_REQUEST__INIT;
	ProtobufCMessage *response = NULL;

	request.id = (char *)life->id;
	request.round = 1;
	request.last = true;
	must(call(life, "BeginRound", &request.base, &response), "BeginRound");
}

/* One batch that the destination takes for good: an image is opened first, addresses ascend. */
static void send_batch(struct life *life, unsigned batch)
{
	struct pipe_out out = {0};
	struct page_header header = {.command = batch == 0 ? PAGE_OPEN : PAGE_ADD,
				     .flags = batch == 0 ? 0 : PAGE_PRESENT,
				     .pages = batch == 0 ? 0 : BATCH_PAGES,
				     .address = (uint64_t)batch * BATCH_PAGES * PAGE_BYTES,
				     .image = 30000 << 8 | PAGE_TASK};
	size_t data = batch == 0 ? 0 : (size_t)BATCH_PAGES * PAGE_BYTES;
	size_t size = PAGE_HEADER_BYTES + data;

	must(pipe_out_new(HAUL__V1__FRAME_KIND__FRAME_BATCH, size + sizeof(uint64_t), &out),
	     "frame");
	page_header_encode(&header, out.body);
	memset(out.body + PAGE_HEADER_BYTES, (int)batch, data);
	uint64_t digest = XXH3_64bits(out.body, size);
	memcpy(out.body + size, &digest, sizeof(digest));
	must(pipe_send_frame(life->memory, &out, size + sizeof(digest), CALL_MS), "pages");
}

static void *die_soon(void *self)
{
	const struct life *life = self;

	(void)usleep(life->number * 37 % 20 * 1000);
	die();
}

/* Dies from a second thread, so that whatever is under way then is cut. */
static void start_dying(struct life *life)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, die_soon, life) != 0)
		die();
}

static void send_pages_for_ever(struct life *life)
{
	start_dying(life);
	for (unsigned batch = 0;; batch++)
		send_batch(life, batch);
}

static void wait_for_end(struct life *life)
{
	Haul__V1__EndRoundRequest request = HAUL__V1__END_ROUND_REQUEST__INIT;
	ProtobufCMessage *response = NULL;

	request.id = (char *)life->id;
	request.round = 1;
	send_batch(life, 0);
	start_dying(life);
	status_free(call(life, "EndRound", &request.base, &response));
	for (;;)
		(void)pause();
}

static void live(struct life *life)
{
	enum death death = life->number % DEATHS;

	if (death == IN_CALL)
		start_dying(life);
	prepare(life);
	if (death <= BEFORE_PIPES)
		die();
	must(pipe_dial(life->there->memory, CALL_MS, &life->memory), "memory pipe");
	if (death == BETWEEN_PIPES)
		die();
	must(pipe_dial(life->there->images, CALL_MS, &life->images), "image pipe");
	begin_round(life);
	if (death == IN_PAGES)
		send_pages_for_ever(life);
	wait_for_end(life);
}

static _Noreturn void one_life(char *const *argv)
{
	struct life life = {.id = argv[6], .number = (unsigned)strtoul(argv[7] + 1, NULL, 10)};
	struct credentials *credentials = NULL;

	must(rpc_start(), "start");
	const struct credentials_files files = {.ca = argv[2], .cert = argv[3], .key = argv[4]};
	must(credentials_load(&files, &credentials), "credentials");
	must(rpc_client_new(argv[1], credentials, &life.client), "client");
	must(files_read(argv[5], CPUINFO_BYTES, &life.cpuinfo), "cpuinfo");
	live(&life);
	exit(1);
}

/* Runs a life; true when it died as it should, false when it is to be tried again. */
static bool died(char **argv, unsigned number, unsigned try)
{
	char id[64], word[16];
	char *const child[] = {argv[0], argv[1], argv[2], argv[3], argv[4],
			       argv[5], id,	 word,	  NULL};
	pid_t pid;
	int ended;

	(void)snprintf(id, sizeof(id), "%s-%u-%u", argv[6], number, try);
	(void)snprintf(word, sizeof(word), "#%u", number);
	if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, child, environ) != 0 ||
	    waitpid(pid, &ended, 0) != pid) {
		(void)fprintf(stderr, "abuse_peer: cannot start a life: %s\n", strerror(errno));
		exit(1);
	}
	if (WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL)
		return true;
	if (!WIFEXITED(ended) || WEXITSTATUS(ended) != REFUSED) {
		(void)fprintf(stderr, "abuse_peer: life %u ended with %#x\n", number,
			      (unsigned)ended);
		exit(1);
	}
	(void)usleep(AGAIN_US);
	return false;
}

int main(int argc, char **argv)
{
	if (argc != ARGUMENTS)
		return 2;
	if (argv[7][0] == '#')
		one_life(argv);
	unsigned deaths = (unsigned)strtoul(argv[7], NULL, 10);
	for (unsigned number = 0; number < deaths; number++)
		for (unsigned try = 0; !died(argv, number, try);)
			try++;
	(void)printf("died %u times\n", deaths);
	return 0;
}
