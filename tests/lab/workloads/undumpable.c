/* SPDX-License-Identifier: Apache-2.0 */
/* undumpable: holds one object that CRIU cannot dump.
 *
 * usage: undumpable STATUS [bpf|perf|uring|alg]        default: the first that this kernel has */
#include "tests/lab/workloads/heartbeat.h"

#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_bpf(void)
{
	union bpf_attr attr = {.map_type = BPF_MAP_TYPE_RINGBUF,
			       .max_entries = (unsigned int)sysconf(_SC_PAGESIZE)};
	return (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

static int open_perf(void)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
				       .size = sizeof(attr),
				       .config = PERF_COUNT_SW_TASK_CLOCK};
	return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0UL);
}

static int open_uring(void)
{
	struct io_uring_params params = {0};
	return (int)syscall(SYS_io_uring_setup, 8, &params);
}

static int open_alg(void)
{
	return socket(AF_ALG, SOCK_SEQPACKET, 0);
}

static const struct {
	const char *name;
	int (*open)(void);
} KINDS[] = {{"perf", open_perf}, {"uring", open_uring}, {"alg", open_alg}, {"bpf", open_bpf}};

int main(int argc, char **argv)
{
	const char *found = NULL;
	if (argc < 2) {
		fprintf(stderr, "usage: undumpable STATUS [bpf|perf|uring|alg]\n");
		return 2;
	}
	heartbeat_open(argv[1]);
	for (size_t i = 0; found == NULL && i < sizeof(KINDS) / sizeof(KINDS[0]); i++)
		if ((argc == 2 || strcmp(argv[2], KINDS[i].name) == 0) && KINDS[i].open() >= 0)
			found = KINDS[i].name;
	if (found == NULL)
		heartbeat_die("undumpable");
	for (;;) {
		heartbeat_beat("ok", found);
		heartbeat_sleep(10);
	}
}
