/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lab/workloads/heartbeat.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STATUS_SIZE = 256, WRITE_EVERY_MS = 50 };

static int status_fd = -1;
static uint64_t beats;
static int64_t largest_gap;
static int64_t last_beat;
static int64_t last_write;
static volatile sig_atomic_t reset_asked;

static void ask_reset(int signal_number)
{
	(void)signal_number;
	reset_asked = 1;
}

static void write_status(const char *word, const char *text)
{
	char line[STATUS_SIZE + 1];
	int n = snprintf(line, sizeof(line), "%s %llu gap_ms=%lld at_ms=%lld pid=%d %s", word,
			 (unsigned long long)beats, (long long)largest_gap, (long long)last_beat,
			 (int)getpid(), text);
	size_t used = n < STATUS_SIZE ? (size_t)n : STATUS_SIZE - 1;
	memset(line + used, ' ', STATUS_SIZE - used);
	line[STATUS_SIZE - 1] = '\n';
	if (pwrite(status_fd, line, STATUS_SIZE, 0) != STATUS_SIZE)
		_exit(3);
	last_write = last_beat;
}

int64_t heartbeat_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void heartbeat_open(const char *path)
{
	struct sigaction action = {.sa_handler = ask_reset, .sa_flags = SA_RESTART};
	sigaction(SIGUSR1, &action, NULL);
	status_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (status_fd < 0 || ftruncate(status_fd, STATUS_SIZE) != 0)
		heartbeat_die(path);
	last_beat = heartbeat_now();
	write_status("starting", "");
}

void heartbeat_beat(const char *word, const char *text)
{
	int64_t now = heartbeat_now();
	if (reset_asked) {
		reset_asked = 0;
		largest_gap = 0;
	} else if (now - last_beat > largest_gap) {
		largest_gap = now - last_beat;
	}
	last_beat = now;
	beats++;
	if (now - last_write >= WRITE_EVERY_MS || now < last_write)
		write_status(word, text);
}

void heartbeat_corrupt(const char *fmt, ...)
{
	char text[160];
	va_list args;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	write_status("CORRUPT", text);
	fprintf(stderr, "CORRUPT %s\n", text);
	_exit(1);
}

void heartbeat_die(const char *what)
{
	perror(what);
	exit(2);
}

void heartbeat_sleep(int ms)
{
	struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}
