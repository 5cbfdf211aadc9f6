/* SPDX-License-Identifier: Apache-2.0 */
/* tree: 20 processes in a tree, joined to a ring by pipes and socketpairs, each with a second
 * thread and an interval timer.
 *
 * usage: tree STATUS
 *
 * The root (process 0) keeps TOKENS tokens running round the ring; each process adds its own mark,
 * the root checks the sum. So a lost, doubled or reordered message is found, as are a process whose
 * thread or timer has stopped: each counts in memory shared by all. */
#include "tests/lab/workloads/heartbeat.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { PROCESSES = 20, TOKENS = 4, TICK_MS = 10, COUNT_MS = 50, STALLED_MS = 5000 };

struct token {
	uint64_t number;
	uint64_t sum;
};

struct counters {
	_Atomic uint64_t thread;
	_Atomic uint64_t timer;
};

static struct counters *counters;
static int links[PROCESSES][2]; /* links[i]: from process i to the next; [0] is its reading end */
static int self;

static void on_timer(int signal_number)
{
	(void)signal_number;
	atomic_fetch_add(&counters[self].timer, 1);
}

static void *count_in_thread(void *arg)
{
	for (;;) {
		atomic_fetch_add(&counters[self].thread, 1);
		heartbeat_sleep(COUNT_MS);
	}
	return arg;
}

static void start_counting(void)
{
	struct sigaction action = {.sa_handler = on_timer, .sa_flags = SA_RESTART};
	struct itimerval every = {.it_interval.tv_usec = 50000, .it_value.tv_usec = 50000};
	pthread_t thread;
	if (sigaction(SIGALRM, &action, NULL) != 0 || setitimer(ITIMER_REAL, &every, NULL) != 0 ||
	    pthread_create(&thread, NULL, count_in_thread, NULL) != 0)
		heartbeat_die("counters");
}

static void read_token(int fd, struct token *ret_token)
{
	ssize_t n;
	do
		n = read(fd, ret_token, sizeof(*ret_token));
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(*ret_token)) {
		if (self != 0)
			_exit(n == 0 ? 0 : 1);
		heartbeat_corrupt("the ring broke: read gave %zd", n);
	}
}

static void write_token(int fd, const struct token *token)
{
	ssize_t n;
	do
		n = write(fd, token, sizeof(*token));
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(*token)) {
		if (self != 0)
			_exit(1);
		heartbeat_corrupt("the ring broke: write gave %zd", n);
	}
}

static uint64_t mark(uint64_t sum, int process, uint64_t number)
{
	return sum * 31 + (uint64_t)process + number;
}

static _Noreturn void pass_tokens(void)
{
	struct token token;
	for (;;) {
		read_token(links[self - 1][0], &token);
		token.sum = mark(token.sum, self, token.number);
		write_token(links[self][1], &token);
	}
}

/* Each process must have counted since the last look STALLED_MS ago. */
static void check_counters(void)
{
	static uint64_t seen[PROCESSES][2];
	static int64_t looked;
	int64_t now = heartbeat_now();
	if (looked == 0 || now - looked < STALLED_MS) {
		looked = looked == 0 ? now : looked;
		return;
	}
	for (int i = 0; i < PROCESSES; i++) {
		uint64_t thread = atomic_load(&counters[i].thread);
		uint64_t timer = atomic_load(&counters[i].timer);
		if (thread == seen[i][0] || timer == seen[i][1])
			heartbeat_corrupt("process %d: the %s stopped", i,
					  thread == seen[i][0] ? "thread" : "timer");
		seen[i][0] = thread;
		seen[i][1] = timer;
	}
	/* A stop between two looks must not count as a stall. */
	looked = heartbeat_now();
}

static _Noreturn void drive_tokens(void)
{
	struct token token;
	uint64_t next = 0;
	for (; next < TOKENS; next++)
		write_token(links[0][1], &(struct token){.number = next});
	for (uint64_t back = 0;; back++, next++) {
		uint64_t sum = 0;
		read_token(links[PROCESSES - 1][0], &token);
		for (int i = 1; i < PROCESSES; i++)
			sum = mark(sum, i, back);
		if (token.number != back || token.sum != sum)
			heartbeat_corrupt("token %llu came back as %llu, sum %s",
					  (unsigned long long)back,
					  (unsigned long long)token.number,
					  token.sum == sum ? "right" : "wrong");
		write_token(links[0][1], &(struct token){.number = next});
		check_counters();
		heartbeat_beat("ok", "");
		heartbeat_sleep(TICK_MS);
	}
}

static void become(int process)
{
	self = process;
	for (int child = 2 * process + 1; child <= 2 * process + 2 && child < PROCESSES; child++) {
		pid_t pid = fork();
		if (pid < 0)
			heartbeat_die("fork");
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			become(child);
			return;
		}
	}
	for (int i = 0; i < PROCESSES; i++) {
		if (i != process)
			close(links[i][1]);
		if (i != (process + PROCESSES - 1) % PROCESSES)
			close(links[i][0]);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: tree STATUS\n");
		return 2;
	}
	heartbeat_open(argv[1]);
	counters = mmap(NULL, PROCESSES * sizeof(*counters), PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counters == MAP_FAILED)
		heartbeat_die("mmap");
	for (int i = 0; i < PROCESSES; i++) {
		int pair[2];
		if ((i % 2 == 0 ? pipe(pair) : socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) != 0)
			heartbeat_die("link");
		links[i][0] = pair[0];
		links[i][1] = pair[1];
	}
	become(0);
	start_counting();
	if (self == 0)
		drive_tokens();
	pass_tokens();
}
